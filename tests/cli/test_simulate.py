"""The verb `simulate`: options in, a run directory and JSON out."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from inferometer.cli import measure, simulate
from inferometer.errors import UserError
from inferometer.run import load_run

TRACE = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,100,5\n0.2,50,7\n0.2,30,1\n"


def invoke(*words, verb=simulate.command):
    result = CliRunner().invoke(verb, list(map(str, words)), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_a_trace_becomes_a_run_with_exact_times(tmp_path):
    """The rows of Vidur's CSV, served; `scheduled_ns` is there, and every token has its own time."""
    (tmp_path / "trace.csv").write_text(TRACE)
    said = invoke(
        "--trace", tmp_path / "trace.csv", "--system", "sarathi-serve", "--model", "llama-3-8b",
        "--chunk", 64, "-o", tmp_path / "run", "--json",
    )  # fmt: skip
    card = json.loads(said.stdout)
    assert card["requests"]["ok"] == 3
    run = load_run(tmp_path / "run")
    assert run.timeline.output_tokens.tolist() == [5, 7, 1]
    assert (run.timeline.scheduled_ns >= run.timeline.intended_ns).all()
    assert run.manifest.target["policy"]["chunk"] == 64
    assert run.manifest.spec["deployment"]["device"] == "a100"


def test_the_same_seed_is_the_same_run(tmp_path):
    """Generated load, twice: equal to the token."""
    for name in ("a", "b"):
        invoke(
            "--rate", 20, "--requests", 30, "--model", "llama-3.1-8b", "--device", "h100",
            "--replicas", 2, "--router", "power-of-two", "--seed", 3, "-o", tmp_path / name, "--quiet",
        )  # fmt: skip
    first, second = (load_run(tmp_path / name).timeline for name in ("a", "b"))
    assert first.chunk_ns.tolist() == second.chunk_ns.tolist()


@pytest.mark.parametrize("load", [("--rate", 20), ("--concurrency", 4)])
def test_measuring_a_simulated_target_is_simulating(load, tmp_path):
    """The same load, to `simulate` and to `measure sim:...`: the same run, duration and warm-up included."""
    words = [
        *load,
        "--duration",
        "3s",
        "--warmup",
        "1s",
        "--prompt-tokens",
        100,
        "--seed",
        2,
        "--quiet",
        "-o",
    ]
    invoke("--system", "vllm", "--model", "llama-3-8b", *words, tmp_path / "a")
    target = "sim:vllm?model=llama-3-8b&seed=2"
    invoke(target, *words, tmp_path / "b", verb=measure.command)
    first, second = (load_run(tmp_path / name) for name in ("a", "b"))
    assert first.manifest == second.manifest
    assert first.timeline.chunk_ns.tolist() == second.timeline.chunk_ns.tolist()
    assert set(first.timeline.phase) == {"warmup", "measure"}
    assert first.timeline.intended_ns.max() < 4_000_000_000


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "llama-9"], "no such model"),
        (["--model", "llama-3-8b", "--device", "z80"], "no such device"),
        (["--model", "llama-2-70b"], "does not fit"),
        (["--model", "llama-3-8b", "--tp", "3"], "does not divide"),
        (["--model", "llama-3-8b", "--utilization", "2"], "no more than 1"),
        (["--model", "llama-3-8b", "--cost", "vidur:nowhere.npz"], "not a readable"),
        (["--model", "llama-3-8b", "--pp", "5"], "5 does not divide the 32 layers"),
        (["--model", "llama-3-8b", "--device", "t4"], "does not fit into 90% of t4"),
        (["--model", "llama-3-8b", "--max-len", "9000"], "made for 8192 tokens"),
        (["--model", "llama-3-8b", "--prompt-tokens", "9000"], "none of the .* can be served: the"),
        (["--model", "llama-3-8b", "--num-blocks", "3"], "needs 20 KV blocks, and there are 3"),
        (["--model", "llama-3-8b", "--router", "psychic"], "no such router.*prefix-affinity"),
        (["--model", "llama-3-8b", "--preemption", "swap"], "preempts by recompute only.*vllm"),
        (
            ["--model", "llama-3-8b", "--max-batch", "64", "--max-batched-tokens", "32"],
            "32 tokens are fewer than the 64 sequences",
        ),
    ],
)
def test_a_bad_question_is_one_line(words, complaint, tmp_path):
    """Before the run, and nothing is written."""
    with pytest.raises(UserError, match=complaint):
        invoke(*words, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("0.0,100,0", "have output_tokens of 0"),
        ("0.0,0,5", "have prompt_tokens of 0"),
        ("0.0,-3,5", "'-3', not a whole number"),
        ("0.0,30,-5", "'-5', not a whole number"),
        ("nan,30,5", "'nan', not a number of seconds"),
        ("inf,30,5", "'inf', not a number of seconds"),
        ("0.0,10.5,5", "'10.5', not a whole number"),
    ],
)
def test_a_broken_trace_is_one_line(row, complaint, tmp_path):
    """Said before the run, with what is wrong and where; nothing is written."""
    (tmp_path / "bad.csv").write_text(TRACE + row + "\n")
    with pytest.raises(UserError, match=r"bad\.csv: of 4 rows 1 .*" + complaint):
        invoke("--trace", tmp_path / "bad.csv", "--model", "llama-3-8b", "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_can_never_be_served_is_dropped_and_the_rest_is_served(tmp_path):
    """A prompt longer than the model's context, among others that are not."""
    (tmp_path / "long.csv").write_text(TRACE + "0.3,9000,5\n")
    invoke(
        "--trace", tmp_path / "long.csv", "--model", "llama-3-8b", "-o", tmp_path / "run", "--quiet"
    )
    timeline = load_run(tmp_path / "run").timeline
    assert timeline.status.tolist() == ["ok", "ok", "ok", "dropped"]
    assert "more than the longest request, 8192" in timeline.error[3]


def test_iterations_are_written_where_they_are_asked_for(tmp_path):
    """Their tokens are those of the requests, and blocks add up in every row."""
    import pyarrow.parquet as pq

    (tmp_path / "trace.csv").write_text(TRACE)
    words = ("--trace", tmp_path / "trace.csv", "--model", "llama-3-8b", "--quiet")
    invoke(*words, "--iterations", "-o", tmp_path / "with")
    invoke(*words, "-o", tmp_path / "without")
    assert not (tmp_path / "without" / "iterations.parquet").exists()
    table = pq.read_table(tmp_path / "with" / "iterations.parquet").to_pydict()
    assert sum(table["prefill_tokens"]) == 180
    assert sum(table["decode_tokens"]) == 4 + 6 + 0
    blocks = load_run(tmp_path / "with").manifest.target["num_blocks"]
    columns = (table["kv_used"], table["kv_cached"], table["kv_free"])
    assert {sum(row) for row in zip(*columns, strict=True)} == {blocks}
    ends = [
        start + took for start, took in zip(table["start_ns"], table["duration_ns"], strict=True)
    ]
    assert set(ends) == set(load_run(tmp_path / "with").timeline.chunk_ns.tolist())


def test_a_shared_prefix_is_cached_unless_that_is_turned_off(tmp_path):
    """`cached_tokens` of the timeline are what vLLM V1 finds; null where there is no prefix cache."""
    words = (
        "--rate", 5, "--requests", 12, "--model", "llama-3-8b", "--quiet",
        "--trace", tmp_path / "spec.yaml", "--seed", 1,
    )  # fmt: skip
    (tmp_path / "spec.yaml").write_text(
        "shared_prefix: {tokens: 640, groups: 1}\nprompt_tokens: 50\noutput_tokens: 5\n"
    )
    found = {}
    for more in ((), ("--no-prefix-caching",), ("--system", "orca")):
        invoke(*words, *more, "-o", tmp_path / f"run{len(found)}")
        found[more] = load_run(tmp_path / f"run{len(found)}").timeline.cached_tokens.tolist()
    with_cache, *without = found.values()
    assert with_cache[0] == 0
    assert set(with_cache[1:]) == {640}
    assert all(value < 0 for column in without for value in column)
