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
from inferometer.workload.traces import read_batches, read_trace, tables

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


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + AZURE + "2024-05-10 00:00:00,10,1\r\n2024-05-10 00:00:01,20,2\r\n",
        "TIMESTAMP, ContextTokens, GeneratedTokens\n2024-05-10 00:00:00, 10, 1\n2024-05-10 00:00:01, 20, 2",
        "GeneratedTokens;note;TIMESTAMP;ContextTokens\n1;;2024-05-10 00:00:00;10\n2;x;2024-05-10 00:00:01;20\n",
        "ContextTokens\tGeneratedTokens\tTIMESTAMP\n10\t1\t2024-05-10T00:00:00Z\n20\t2\t2024-05-10 00:00:01\n",
        '"","TIMESTAMP","ContextTokens","GeneratedTokens"\n0,"2024-05-10 00:00:00","10","1"\n1,"2024-05-10 00:00:01","20","2"\n',
    ],
    ids=["BOM and CRLF", "blanks", "semicolons", "tabs", "quotes and an index"],
)
def test_the_same_rows_in_other_dress_are_the_same_trace(tmp_path, text):
    """Byte order marks, line ends, blanks, delimiters, quotes, other columns and their order change nothing."""
    path = tmp_path / "trace.csv"
    path.write_bytes(text.encode())
    trace = read_trace(path, strict=True)
    assert (trace.format, trace.arrival_ns.tolist()) == ("azure", [0, SECOND])
    assert trace.prompt_tokens.tolist() == [10, 20]
    assert trace.output_tokens.tolist() == [1, 2]


def test_bytes_that_are_no_text_cost_their_row_alone(tmp_path):
    """Latin-1 in one cell is one problem, not the end of the file."""
    path = tmp_path / "trace.csv"
    path.write_bytes(
        (AZURE + "2024-05-10 00:00:00,10,1\n").encode()
        + b"\xe9\xff,1,1\n"
        + b"2024-05-10 00:00:01,20,2\n"
    )
    trace = read_trace(path)
    assert trace.prompt_tokens.tolist() == [10, 20]
    assert trace.problems.rows == 1
    assert trace.problems.first[0].startswith("trace.csv:3: TIMESTAMP is")


@pytest.mark.parametrize(("name", "packed"), [("packed.csv", True), ("plain.csv.gz", False)])
def test_a_name_does_not_decide_about_packing(tmp_path, name, packed):
    """Gzip under a plain name, and plain text under a packed one, are read by what they hold."""
    plain = (AZURE + "2024-05-10 00:00:00,10,1\n").encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(plain) if packed else plain)
    assert len(read_trace(path)) == 1


def test_a_file_that_was_cut_while_packed_is_refused(tmp_path):
    """Half a gzip is one clear line, for tables and for records."""
    table = tmp_path / "trace.csv.gz"
    table.write_bytes(gzip.compress((AZURE + "2024-05-10 00:00:00,10,1\n" * 9999).encode())[:-20])
    records = tmp_path / "trace.jsonl.gz"
    line = '{"timestamp": 0, "input_length": 5, "output_length": 5}\n'
    records.write_bytes(gzip.compress((line * 9999).encode())[:-20])
    for path in (table, records):
        with pytest.raises(UserError, match="cannot read"):
            read_trace(path)


def test_batches_are_the_trace_in_parts(tmp_path, monkeypatch):
    """One after the other they hold the file's rows, times from the first, and problems where they are."""
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 900)
    rows = [
        f"2024-05-10 00:00:{i // 10:02}.{i % 10},{'x' if i == 77 else i + 1},1\n"
        for i in range(300)
    ]
    path = _file(tmp_path, AZURE + "".join(rows) + "1,2\n")
    whole = read_trace(path)
    batches = list(read_batches(path))
    assert len(batches) > 5
    for name in ("arrival_ns", "prompt_tokens", "output_tokens"):
        parts = np.concatenate([getattr(batch, name) for batch in batches])
        assert parts.tolist() == getattr(whole, name).tolist()
    told = [line for batch in batches for line in batch.problems.first]
    assert told == list(whole.problems.first)
    assert [line.split(":")[1] for line in told] == ["79", "302"]
    with pytest.raises(UserError, match=r"trace\.csv:79"):
        list(read_batches(path, strict=True))


def test_parquet_comes_in_batches_too(tmp_path, monkeypatch):
    """Plain tables in parts, with rows numbered through the file; tables with sessions whole."""
    monkeypatch.setattr(tables, "_BATCH_ROWS", 3)
    table = pa.table(
        {
            "prompt_tokens": [1, 2, 3, 4, None, 6, 7],
            "output_tokens": [1] * 7,
            "arrival_s": [5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0],
        }
    )
    path = tmp_path / "trace.parquet"
    pq.write_table(table, path)
    batches = list(read_batches(path))
    assert [len(batch) for batch in batches] == [3, 2, 1]
    assert batches[2].arrival_ns.tolist() == [3 * SECOND]
    assert batches[1].problems.first == (
        "trace.parquet: row 5: a value is missing or out of range",
    )
    pq.write_table(table.append_column("session_id", pa.array(list("aabbccd"))), path)
    assert [len(batch) for batch in read_batches(path)] == [6]


def test_holes_in_block_ids_are_a_bad_row(tmp_path):
    """A list of ids with a null in it says nothing that could be replayed."""
    path = tmp_path / "trace.parquet"
    columns = {
        "prompt_tokens": [600, 600],
        "output_tokens": [1, 1],
        "hash_ids": [[1, None], [1, 2]],
    }
    pq.write_table(pa.table(columns), path)
    trace = read_trace(path)
    assert len(trace) == 1
    assert trace.problems.rows == 1


def test_a_run_directory_is_a_trace(tmp_path):
    """Its timeline is meant."""
    facts = {"intended_ns": [0], "ended_ns": [9], "status": "ok", "prompt_tokens": [3]}
    timeline = build(1, request_id=["a"], **facts)
    write_timeline(timeline, tmp_path / "timeline.parquet")
    assert read_trace(tmp_path).prompt_tokens.tolist() == [3]
