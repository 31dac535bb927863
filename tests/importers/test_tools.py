"""Each tool's raw output as a run: what was found, what is known of its tokens, what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inferometer.errors import UserError
from inferometer.importers import LACKS, TOOLS, judged, read_results
from inferometer.metrics import score
from inferometer.metrics.table import NEEDS

# file -> (tool, per benchmark: (label, by status, stamps of replies, missing facts))
FOUND = {
    "vllm/vllm.json": ("vllm", [("01", {"ok": 16}, {"tokens": 16}, {"channels"})]),
    "vllm/vllm-chat.json": ("vllm", [("01", {"ok": 12}, {"tokens": 12}, {"channels"})]),
    "sglang/sglang.jsonl": (
        "sglang",
        [("01", {"ok": 11, "truncated": 3}, {"tokens": 11}, {"channels", "starts", "intended"})],
    ),
    "aiperf/profile_export.jsonl": (
        "aiperf",
        [("01", {"ok": 14, "http_error": 2}, {"tokens": 14}, {"channels"})],
    ),
    "guidellm/benchmarks.json": (
        "guidellm",
        [
            ("01-concurrent@2", {"ok": 7, "truncated": 1}, {"ends": 7}, {"channels"}),
            (
                "02-concurrent@5",
                {"ok": 4, "http_error": 2, "truncated": 2},
                {"ends": 4},
                {"channels"},
            ),
        ],
    ),
    "inference-perf/per_request_lifecycle_metrics.json": (
        "inference-perf",
        [("01", {"ok": 14, "truncated": 2}, {"tokens": 14}, {"channels", "intended"})],
    ),
    "evalscope/benchmark_data.db": (
        "evalscope",
        [("01", {"ok": 11, "protocol_error": 1}, {"tokens": 11}, {"channels", "intended"})],
    ),
    "genai-perf/profile_export.json": (
        "genai-perf",
        [("01-concurrency@2", {"ok": 4}, {"tokens": 4}, {"intended", "failures"})],
    ),
    "llmperf/model_550_40_individual_responses.json": (
        "llmperf",
        [("01", {"ok": 8, "http_error": 1}, {"ends": 8}, {"channels", "starts", "intended"})],
    ),
    "etalon/request_level_metrics.json": (
        "etalon",
        [("01", {"ok": 8, "protocol_error": 1}, {"tokens": 8}, {"channels", "starts", "intended"})],
    ),
    "veeksha/request_level_metrics.jsonl": (
        "veeksha",
        [("01", {"ok": 8}, {"chunks": 1, "tokens": 7}, {"channels", "failures"})],
    ),
    "vidur/request_metrics.csv": ("vidur", [("01", {"ok": 25}, {"ends": 25}, set())]),
    "own/results.csv": (
        "own",
        [("01", {"ok": 3, "timeout": 1}, {"chunks": 1, "tokens": 2}, {"channels"})],
    ),
}


@pytest.mark.parametrize("file", FOUND)
def test_a_tools_output_is_known_by_its_beginning_and_read(file, fixtures):
    """The reader is found without being named; rows, statuses, stamps and gaps in the record are as they were."""
    tool, expected = FOUND[file]
    found = read_results(fixtures / file)
    assert found.tool == tool
    assert found.problems.rows == 0
    seen = []
    for label, run in found.runs.items():
        statuses, counts = np.unique(run.timeline.status.astype(str), return_counts=True)
        by_status = dict(zip(statuses.tolist(), counts.tolist(), strict=True))
        seen.append((label, by_status, judged(run).stamps, set(run.manifest.missing)))
        assert run.manifest.world == "imported"
        assert run.manifest.complete
        assert run.manifest.target["tool"] == tool
        assert "fingerprint" not in run.manifest.workload
    assert seen == expected


@pytest.mark.parametrize("file", FOUND)
def test_what_cannot_be_told_is_said_and_has_no_value(file, fixtures):
    """Every metric is either in the scorecard with a value or among those that cannot be told."""
    for run in read_results(fixtures / file).runs.values():
        untold = set(judged(run).metrics)
        card = score(run)
        for row in card.rows:
            assert (row.n == 0) == (row.id in untold) or row.id == "time_to_first_miss"
        for value in card.values:
            assert np.isnan(value.value) or value.id not in untold


def test_every_tool_has_a_fixture_and_every_fact_a_sentence():
    """The table of tools, the fixtures, and the two tables of facts belong together."""
    assert {tool for tool, _ in FOUND.values()} == set(TOOLS)
    assert set(LACKS) == set(NEEDS)


def test_a_folder_stands_for_the_one_file_of_a_known_name_in_it(fixtures):
    """The folder that a tool wrote to will do; one without such a file, or with two, is a clear line."""
    assert read_results(fixtures / "aiperf").tool == "aiperf"
    with pytest.raises(UserError, match="no file of a known name"):
        read_results(fixtures)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        (
            "aiperf/profile_export_aiperf.json",
            "AIPerf's summary, not its requests; name profile_export",
        ),
        (
            "inference-perf/summary.json",
            "no result of a tool that I know; name it with --from: vllm,",
        ),
        ("nothing.json", "cannot read: No such file"),
    ],
)
def test_a_file_that_holds_no_requests_is_refused_in_one_line(file, what, fixtures):
    """Where, what, and what to do."""
    with pytest.raises(UserError, match=what) as caught:
        read_results(fixtures / file)
    assert "\n" not in str(caught.value)


def test_summaries_without_the_raw_lists_say_which_option_keeps_them(tmp_path, fixtures):
    """vLLM and SGLang write the same file without per-request lists unless asked."""
    for file, option in (
        ("vllm/vllm.json", "--save-detailed"),
        ("sglang/sglang.jsonl", "--output-details"),
    ):
        found = json.loads((fixtures / file).read_text())
        del found["itls"]
        (tmp_path / "short.json").write_text(json.dumps(found))
        with pytest.raises(UserError, match=option):
            read_results(tmp_path / "short.json")


def test_the_role_event_of_a_chat_is_no_token(fixtures):
    """vLLM's chat results have one chunk more than tokens: the first is empty, and no gap is made of it."""
    run = read_results(fixtures / "vllm/vllm-chat.json").runs["01"]
    t = run.timeline
    assert np.array_equal(t.chunk_tokens[t.chunk_offset[:-1]], np.zeros(len(t)))
    assert score(run).row("tbt").n == int(t.output_tokens.sum()) - len(t)


def test_smeared_gaps_of_sglangs_native_backend_become_chunks_again(tmp_path, fixtures):
    """k equal gaps are one chunk of k tokens: the stall that the tool smeared is whole again."""
    found = json.loads((fixtures / "sglang/sglang.jsonl").read_text())
    found |= {
        "backend": "sglang",
        "input_lens": [5],
        "output_lens": [6],
        "ttfts": [0.1],
        "errors": [""],
    }
    found["itls"] = [[0.02, 0.1, 0.1, 0.1, 0.03]]
    (tmp_path / "native.jsonl").write_text(json.dumps(found))
    run = read_results(tmp_path / "native.jsonl").runs["01"]
    assert run.timeline.chunk_tokens.tolist() == [1, 1, 3, 1]
    assert score(run).row("max_gap").max == pytest.approx(0.3)


def test_a_count_below_the_number_of_chunks_leaves_the_ends(tmp_path, fixtures):
    """A client's tokenizer that merges what came apart: which chunk holds what is not known, so no gap is."""
    lines = (fixtures / "aiperf/profile_export.jsonl").read_text().splitlines()
    place = next(k for k, line in enumerate(lines) if '"inter_chunk_latency"' in line)
    record = json.loads(lines[place])
    tokens = record["metrics"]["output_sequence_length"]["value"]
    record["metrics"]["output_sequence_length"]["value"] = tokens - 3
    lines[place] = json.dumps(record)
    (tmp_path / "profile_export.jsonl").write_text("\n".join(lines))
    run = read_results(tmp_path / "profile_export.jsonl").runs["01"]
    assert judged(run).stamps == {"ends": 1, "tokens": 13}
    row = run.timeline.request_id.tolist().index(record["metadata"]["x_request_id"])
    assert run.timeline.token_source[row] == "tokenizer"
    card = score(run)
    assert (card.row("tpot").n, card.row("max_gap").n) == (14, 13)
    assert np.isnan(card.value("fluid_token_rate").value)


def test_the_servers_count_is_taken_where_a_tool_recorded_both(fixtures):
    """inference-perf's own numbers rest on its tokenizer; its record has the server's count, too."""
    run = read_results(fixtures / "inference-perf/two-counts.json").runs["01"]
    raw = json.loads((fixtures / "inference-perf/two-counts.json").read_text())
    counted = [r["info"]["response_metrics"]["server_usage"]["completion_tokens"] for r in raw]
    assert run.timeline.output_tokens.tolist() == counted
    assert set(run.timeline.token_source) == {"server"}


def test_vidurs_delay_before_running_is_the_scheduling_delay(fixtures):
    """What only a simulator knows is kept: when each request began to run."""
    run = read_results(fixtures / "vidur").runs["01"]
    card = score(run)
    assert card.row("scheduling_delay").n == 25
    assert card.row("ttft").mean > card.row("scheduling_delay").mean
    assert set(run.timeline.token_source) == {"simulated"}


def test_several_benchmarks_in_one_file_are_several_runs(tmp_path, fixtures):
    """SGLang appends a line per benchmark: a run for each."""
    line = (fixtures / "sglang/sglang.jsonl").read_text().strip()
    (tmp_path / "two.jsonl").write_text(f"{line}\n{line}\n")
    assert list(read_results(tmp_path / "two.jsonl").runs) == ["01", "02"]


def test_records_that_cannot_be_read_are_counted_with_their_lines(tmp_path, fixtures):
    """A broken line is a problem with its number; the rest is read; --strict refuses it."""
    lines = (fixtures / "veeksha/request_level_metrics.jsonl").read_text().splitlines()
    lines[2] = lines[2][:40]
    lines[4] = lines[4].replace('"ttfc": ', '"ttfc": -')
    file = tmp_path / "request_level_metrics.jsonl"
    file.write_text("\n".join(lines))
    found = read_results(file)
    assert len(found.runs["01"].timeline) == 6
    assert found.problems.rows == 2
    assert [line.split(": ")[0] for line in found.problems.first] == [
        f"{file.name}:3",
        f"{file.name}:5",
    ]
    assert any("2 records could not be read" in note for note in found.runs["01"].manifest.notes)
    with pytest.raises(UserError, match=r"request_level_metrics.jsonl:3: not JSON.*2 such records"):
        read_results(file, strict=True)
