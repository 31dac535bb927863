"""Reading CSV traces: every stamp format, every malformed row, bounded blocks."""

import gzip

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.run import write_timeline
from inferometer.timeline import build
from inferometer.workload.sharing import shared
from inferometer.workload.traces import read_trace, tables

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def _file(folder, text, name="trace.csv"):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "stamps",
    [
        ("2023-11-16 18:17:03.9799600", "2023-11-16 18:17:04.0319600"),
        ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:00.061930+00:00"),
        ("2024-10-15T12:00:00.269Z", "2024-10-15T12:00:00.321Z"),
        ("2024-05-10 00:00:00+00:00", "2024-05-10 00:00:00.052"),
        ("2024-05-10 01:59:59.948+02:00", "2024-05-10 00:00:00"),
    ],
    ids=["7 digits", "6 digits and zone", "ISO", "mixed", "other zone"],
)
def test_every_spelling_of_a_stamp_gives_the_same_gap(tmp_path, stamps):
    """Azure 2023, 2024 and LMM 2025 stamps, and stamps without a fraction or a zone, read as 52 ms apart."""
    trace = read_trace(_file(tmp_path, f"{AZURE}{stamps[0]},10,1\n{stamps[1]},20,2\n"))
    assert trace.arrival_ns.tolist() == [0, 52_000_000]
    assert trace.problems.rows == 0


def test_malformed_rows_are_counted_with_their_lines(tmp_path):
    """Cells missing, added, empty, negative, fractional, huge or foreign are each named; good rows are kept."""
    good = "2024-05-10 00:00:0{}.5,10,1\n"
    rows = [
        good.format(0),  # line 2
        "2024-05-10 00:00:01,10\n",
        "yesterday,10,1\n",
        good.format(2),
        "2024-05-10 00:00:03,,1\n",
        "\n",  # a blank line is no row
        "2024-05-10 00:00:03,-5,1\n",
        "2024-05-10 00:00:03,10,1,9\n",
        "2024-05-10 00:00:03,1.5,1\n",
        "2024-05-10 00:00:03,ten,1\n",  # line 11
        "2024-13-10 00:00:03,10,1\n",
        "2024-05-10 00:00:03,99999999999,1\n",
        good.format(9),
    ]
    path = _file(tmp_path, AZURE + "".join(rows))
    trace = read_trace(path)
    assert len(trace) == 3
    assert trace.arrival_ns.tolist() == [0, 2 * SECOND, 9 * SECOND]
    assert trace.problems.rows == 9
    lines = [int(told.split(":")[1]) for told in trace.problems.first]
    assert lines == [3, 4, 6, 8, 9, 10, 11, 12, 13]
    assert "ContextTokens is 'ten', not a whole number" in trace.problems.first[6]
    with pytest.raises(UserError, match=r"trace\.csv:3: 2 cells, not 3.*9 such"):
        read_trace(path, strict=True)


def test_many_small_blocks_read_like_one(tmp_path, monkeypatch):
    """Line numbers and rows do not depend on where a block ends."""
    text = AZURE + "".join(
        f"2024-05-10 00:{i // 60:02}:{i % 60:02},{'x' if i % 100 == 7 else i + 1},1\n"
        for i in range(500)
    )
    whole = read_trace(_file(tmp_path, text))
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 700)
    small = read_trace(_file(tmp_path, text))
    assert small.arrival_ns.tolist() == whole.arrival_ns.tolist()
    assert small.prompt_tokens.tolist() == whole.prompt_tokens.tolist()
    assert small.problems == whole.problems
    assert [told.split(":")[1] for told in small.problems.first] == [
        "9",
        "109",
        "209",
        "309",
        "409",
    ]


def test_rows_out_of_order_are_sorted_and_that_is_said(tmp_path):
    """Times never fall, lengths stay with their row, and a note says so."""
    trace = read_trace(
        _file(tmp_path, "arrived_at,num_prefill_tokens,num_decode_tokens\n3.5,30,3\n1.5,10,1\n")
    )
    assert trace.format == "vidur"
    assert trace.arrival_ns.tolist() == [0, 2 * SECOND]
    assert trace.prompt_tokens.tolist() == [10, 30]
    assert any("order" in note for note in trace.notes)


def test_a_gzipped_table_is_read_as_it_is(tmp_path):
    """Compression is seen from the content."""
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress((AZURE + "2024-05-10 00:00:00,10,1\n").encode()))
    assert len(read_trace(path)) == 1


@pytest.mark.parametrize("text", ["", "a,b,c\n1,2,3\n", AZURE, AZURE + "x,y,z\n", "\x00\x01\x02"])
def test_what_is_no_trace_is_refused_in_one_line(tmp_path, text):
    """Empty, foreign, or without one good row: a UserError that names the file."""
    with pytest.raises(UserError, match=r"trace\.csv") as caught:
        read_trace(_file(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_unknown_format_are_refused(tmp_path):
    """Both name what to do."""
    with pytest.raises(UserError, match="No such file"):
        read_trace(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="formats: azure-lmm"):
        read_trace(_file(tmp_path, AZURE), "excel")


BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,GPT-4,1087,0,1087,API log
"""
SPLITWISE = """request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size
0,2,0,0.25,1,300,7
1,2,0,0.75,1,20,9
"""


@pytest.mark.parametrize(
    ("text", "format_", "lengths", "last_ns"),
    [
        (BURSTGPT, "burstgpt", ([472, 1087], [18, 0]), 40 * SECOND),
        (SPLITWISE, "splitwise", ([300, 20], [7, 9]), SECOND // 2),
        ("arrival_s,prompt_tokens,output_tokens\n1,2,3\n", "inferometer", ([2], [3]), 0),
    ],
)
def test_every_layout_is_found_by_its_columns(tmp_path, text, format_, lengths, last_ns):
    """BurstGPT (failed requests have no output), Splitwise and our own CSV."""
    trace = read_trace(_file(tmp_path, text))
    assert trace.format == format_
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == lengths
    assert trace.arrival_ns[-1] == last_ns


def test_images_are_told_to_be_out_of_scope(tmp_path):
    """Azure's multimodal trace is read as text of as many context tokens, and a note says so."""
    text = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15T12:00:00.269Z,1,770,491\n"
    trace = read_trace(_file(tmp_path, text))
    assert trace.format == "azure-lmm"
    assert "images are out of scope" in trace.notes[0]


def test_parquet_has_our_columns(tmp_path):
    """Lengths are needed; times, sessions and block ids are used where they are; nulls are counted with their row."""
    path = tmp_path / "trace.parquet"
    pq.write_table(
        pa.table(
            {
                "arrival_s": [1.0, 3.0, 2.0, 4.0],
                "prompt_tokens": [600, 30, 1024, None],
                "output_tokens": [1, 2, 3, 4],
                "session_id": ["b", None, "a", "a"],
                "hash_ids": [[5, 6], [9], [5, 7], [1]],
            }
        ),
        path,
    )
    trace = read_trace(path)
    assert trace.arrival_ns.tolist() == [0, SECOND, 2 * SECOND]
    assert trace.prompt_tokens.tolist() == [600, 1024, 30]
    assert trace.session.tolist() == [0, 1, -1]
    assert np.diff(trace.blocks.offset).tolist() == [2, 2, 1]
    assert trace.blocks.id[0] == trace.blocks.id[2] != trace.blocks.id[4]
    assert trace.blocks.tokens == 512
    assert trace.problems.rows == 1
    assert "row 4" in trace.problems.first[0]


def test_parquet_without_lengths_is_refused(tmp_path):
    """A table of something else ends in one line."""
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(UserError, match="prompt_tokens"):
        read_trace(path)


def test_a_run_is_a_trace(tmp_path):
    """The timeline of a run, as it is written, can be replayed: its intended times and its lengths."""
    timeline = build(
        2,
        request_id=["a", "b"],
        intended_ns=[5, 5 + SECOND],
        ended_ns=[9, 9 + SECOND],
        status="ok",
        prompt_tokens=[3, 4],
    )
    write_timeline(timeline, tmp_path / "timeline.parquet")
    trace = read_trace(tmp_path / "timeline.parquet")
    assert trace.arrival_ns.tolist() == [0, SECOND]
    assert trace.prompt_tokens.tolist() == [3, 4]


@pytest.mark.traces
@pytest.mark.parametrize(
    ("name", "rows", "median", "p99"),
    [
        ("AzureLLMInferenceTrace_code.csv", 8819, 1469, 7436),
        ("AzureLLMInferenceTrace_conv.csv", 19366, 1020, 4141.55),
        ("TRANSCRIBED_AzureLLMInferenceTrace_code_1week.10rows.csv", 10, 2269, None),
        ("TRANSCRIBED_AzureLMMInferenceTrace_multimodal.10rows.csv", 10, 956.5, None),
        ("vidur_processed_mooncake_trace.head.csv", 2000, 6461.5, None),
        ("etalon_sharegpt_8k.head.csv", 2000, 1667, None),
        ("inference_perf_trace_replay.csv", 20, 388.5, None),
    ],
)
def test_original_tables_read_whole(traces, name, rows, median, p99):
    """Every row of the public files, with the quantiles that others published."""
    trace = read_trace(traces / "original_format" / name, strict=True)
    assert len(trace) == rows
    assert np.median(trace.prompt_tokens) == median
    if p99 is not None:
        assert np.percentile(trace.prompt_tokens, 99) == pytest.approx(p99, rel=1e-3)


@pytest.mark.traces
def test_agent_sessions_as_one_table_share_what_was_published(agent_sessions):
    """46,218 requests in 692 sessions, of whose prompt tokens 96.2 % could have been cached."""
    trace = agent_sessions
    assert len(trace) == 46_218
    assert len(set(trace.session.tolist())) == 692
    known = shared(trace.blocks, trace.prompt_tokens).tokens.sum()
    assert known / trace.prompt_tokens.sum(dtype=np.int64) == pytest.approx(0.962, abs=0.001)
    assert np.count_nonzero(trace.output_tokens == 0) == 27
