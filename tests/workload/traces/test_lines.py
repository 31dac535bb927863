"""Reading JSON Lines: each format's times, lengths, sessions and blocks, and its malformed lines."""

import gzip
import json

import numpy as np
import pytest

from inferometer.clock import MILLISECOND, SECOND
from inferometer.errors import UserError
from inferometer.workload.sharing import shared
from inferometer.workload.traces import read_trace


def _lines(folder, records, name="trace.jsonl"):
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def _mooncake(stamp, length, ids):
    return {"timestamp": stamp, "input_length": length, "output_length": 3, "hash_ids": ids}


def test_mooncake_has_milliseconds_and_chained_blocks(tmp_path):
    """Times in ms, ids of 512 tokens, the last block cut short by the prompt's end."""
    trace = read_trace(
        _lines(tmp_path, [_mooncake(1000, 600, [0, 1]), _mooncake(4000, 700, [0, 2])])
    )
    assert trace.format == "mooncake"
    assert trace.arrival_ns.tolist() == [0, 3 * SECOND]
    assert shared(trace.blocks, trace.prompt_tokens).tokens.tolist() == [0, 512]


def test_malformed_lines_are_counted_with_their_numbers(tmp_path):
    """No JSON, missing fields, wrong types, negative lengths and bad UTF-8 are each named; blank lines are none."""
    path = _lines(
        tmp_path,
        [
            _mooncake(0, 5, []),
            "{oops",
            "",
            {"timestamp": 3},
            _mooncake(1, -5, []),
            _mooncake("x", 5, []),
        ],
    )
    with path.open("ab") as file:
        file.write(b'{"timestamp": "\xff\xfe"}\n')
        file.write(json.dumps(_mooncake(9, 6, [])).encode() + b"\n")
    trace = read_trace(path)
    assert trace.prompt_tokens.tolist() == [5, 6]
    assert trace.problems.rows == 5
    assert [told.split(":")[1] for told in trace.problems.first] == ["2", "4", "5", "6", "7"]
    with pytest.raises(UserError, match=r"trace\.jsonl:2"):
        read_trace(path, strict=True)


def _bailian(chat, parent, stamp, ids, length=64):
    row = {"chat_id": chat, "parent_chat_id": parent, "timestamp": stamp, "turn": 1, "type": "text"}
    return row | {"input_length": length, "output_length": 8, "hash_ids": ids}


def test_bailian_ids_in_another_context_are_no_hit(tmp_path):
    """Its ids hash a block's content alone: the same block behind another prefix is not shared."""
    rows = [
        _bailian(1, -1, 0.5, [1, 2, 3, 4]),
        _bailian(2, -1, 1.0, [9, 2, 3, 4]),
        _bailian(3, 1, 2.5, [1, 2, 8]),
    ]
    trace = read_trace(_lines(tmp_path, rows))
    assert trace.format == "qwen-bailian"
    assert trace.blocks.tokens == 16
    assert shared(trace.blocks, trace.prompt_tokens).tokens.tolist() == [0, 0, 32]
    assert trace.session.tolist() == [0, 1, 0]
    assert trace.links.row.tolist() == [0]
    assert trace.links.think_ns.tolist() == [0, 0, 2 * SECOND]


def test_bailian_turns_whose_parent_is_not_in_the_file_start_a_session(tmp_path):
    """A parent that is absent, or comes later, is no parent; whole ids may be fewer than the prompt has."""
    rows = [_bailian(5, 4, 1.0, [1], 521), _bailian(4, -1, 2.0, [1, 2])]
    trace = read_trace(_lines(tmp_path, rows))
    assert trace.links is None
    assert trace.session.tolist() == [0, 1]


def test_llmservingsim_shares_by_token_ids(tmp_path):
    """Nanoseconds, and prompts given as token ids: what is shared is exact to the token."""
    record = {"output_toks": 5, "output_tok_ids": [9]}
    rows = [
        record | {"input_toks": 4, "arrival_time_ns": 7, "input_tok_ids": [1, 2, 3, 4]},
        record | {"input_toks": 3, "arrival_time_ns": 9, "input_tok_ids": [1, 2, 4]},
    ]
    trace = read_trace(_lines(tmp_path, rows))
    assert trace.arrival_ns.tolist() == [0, 2]
    assert shared(trace.blocks, trace.prompt_tokens).tokens.tolist() == [0, 2]


def _round(session, index, prompt, prefix, events):
    return {
        "session_id": session,
        "round_index": index,
        "input_tokens_total": prompt,
        "prefix_tokens": prefix,
        "output_tokens": 7,
        "reasoning_output_tokens": None,
        "timing_events": [
            {"event_type": kind, "timestamp": f"2026-06-01T05:40:{second:06.3f}Z"}
            for kind, second in events
        ],
    }


def test_tracelab_rounds_start_with_their_last_input_and_pause_for_tools(tmp_path):
    """The pause is from the last event of a round to the last tool result before the next."""
    rows = [
        _round("a", 1, 1500, 1000, [("tool_result", 9), ("tool_result", 12), ("text", 15)]),
        _round("b", 0, 300, 0, [("user_message", 3), ("text", 4)]),
        _round("a", 0, 1000, 200, [("user_message", 1), ("reasoning", 2), ("tool_call", 5.5)]),
    ]
    trace = read_trace(_lines(tmp_path, rows))
    assert trace.format == "tracelab"
    assert trace.arrival_ns.tolist() == [0, 2 * SECOND, 11 * SECOND]
    assert trace.prompt_tokens.tolist() == [1000, 300, 1500]
    assert trace.session.tolist() == [0, 1, 0]
    assert trace.links.row.tolist() == [0]
    assert trace.links.think_ns.tolist() == [0, 0, 6500 * MILLISECOND]
    assert shared(trace.blocks, trace.prompt_tokens).tokens.tolist() == [0, 0, 1000]
    assert trace.cached_tokens.tolist() == [200, 0, 1000]


def _dynamo(session, received, total, parent=None, hashes=(1, 2)):
    agent = {"session_id": session} | ({"parent_session_id": parent} if parent else {})
    request = {"input_tokens": 30, "output_tokens": 5, "request_received_ms": received}
    request |= {"total_time_ms": total, "cached_tokens": 0}
    request["replay"] = {
        "trace_block_size": 16,
        "input_length": 30,
        "input_sequence_hashes": list(hashes),
    }
    event = {"event_type": "request_end", "agent_context": agent, "request": request}
    return {"timestamp": 1, "event": event}


def test_dynamo_sub_sessions_fork_and_join(tmp_path):
    """Two sub-sessions start after the root's first request and are awaited by its second; other events are none."""
    big = 2**63 + 5
    records = [
        _dynamo("root", 9000, 100, hashes=(1, 2)),
        _dynamo("root", 1000, 500, hashes=(big, 2)),
        _dynamo("sub:0", 2000, 3000, parent="root"),
        _dynamo("sub:1", 2100, 4000, parent="root"),
        {"timestamp": 1, "event": {"event_type": "tool_start", "tool": {"tool_class": "ls"}}},
    ]
    path = tmp_path / "trace.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode()))
    trace = read_trace(path)
    assert trace.format == "dynamo"
    assert trace.arrival_ns.tolist() == [0, SECOND, 1100 * MILLISECOND, 8 * SECOND]
    assert trace.session.tolist() == [0, 0, 0, 0]
    assert trace.links.offset.tolist() == [0, 0, 1, 2, 5]
    assert trace.links.row.tolist() == [0, 0, 0, 1, 2]
    assert trace.links.think_ns.tolist() == [
        0,
        500 * MILLISECOND,
        600 * MILLISECOND,
        2900 * MILLISECOND,
    ]
    assert shared(trace.blocks, trace.prompt_tokens).tokens.tolist() == [0, 0, 30, 30]


@pytest.mark.traces
def test_the_whole_mooncake_conversation_shares_what_was_published(traces):
    """12,031 rows in 3 s ticks, of whose prompt tokens 37.4 % could have been cached."""
    trace = read_trace(
        traces / "original_format" / "mooncake_fast25_conversation_trace.jsonl", strict=True
    )
    assert len(trace) == 12_031
    assert trace.tick_ns == 3 * SECOND
    known = shared(trace.blocks, trace.prompt_tokens).tokens.sum()
    assert known / trace.prompt_tokens.sum(dtype=np.int64) == pytest.approx(0.374, abs=0.001)


@pytest.mark.traces
@pytest.mark.parametrize(
    ("name", "rows", "sessions", "links"),
    [
        ("mooncake_arxiv_trace.first1000.jsonl", 1000, None, None),
        ("TRANSCRIBED_qwen_bailian.1row.jsonl", 1, 1, None),
        ("dynamo_request_trace_v1.jsonl.gz", 17, 2, 18),
        ("tracelab_round_trace.jsonl", 19, 2, 17),
        ("tracelab_multi_session_large.csv", 303, 48, 255),
        ("llmservingsim_example_trace.jsonl", 10, None, None),
    ],
)
def test_original_records_read_whole(traces, name, rows, sessions, links):
    """Every record of the public files, with their sessions and links."""
    trace = read_trace(traces / "original_format" / name, strict=True)
    assert len(trace) == rows
    assert (None if trace.session is None else len(set(trace.session.tolist()))) == sessions
    assert (None if trace.links is None else len(trace.links.row)) == links


def test_a_mark_and_a_bad_line_before_the_first_record_hide_nothing(tmp_path):
    """A byte order mark is no part of a record, and a format is known by its first good line."""
    line = json.dumps(_mooncake(0, 5, []))
    path = tmp_path / "trace.jsonl"
    path.write_bytes(f"\ufeff{line}\r\n\r\n{line}\r\n".encode())
    assert (len(read_trace(path)), read_trace(path).problems.rows) == (2, 0)
    path.write_text(f"# a remark\n{line}\n")
    trace = read_trace(path)
    assert (trace.format, len(trace)) == ("mooncake", 1)
    assert trace.problems.first[0].startswith("trace.jsonl:1:")


def test_an_event_whose_time_is_none_makes_a_bad_line(tmp_path):
    """TraceLab's stamps are text: one that is no time is counted, not raised."""
    good = {
        "session_id": "a",
        "round_index": 0,
        "input_tokens_total": 9,
        "prefix_tokens": 0,
        "output_tokens": 2,
        "timing_events": [{"event_type": "user_message", "timestamp": "2026-01-01T00:00:00Z"}],
    }
    bad = good | {"timing_events": [{"event_type": "user_message", "timestamp": "never"}]}
    trace = read_trace(_lines(tmp_path, [good, bad]))
    assert (len(trace), trace.problems.rows) == (1, 1)
    assert "never" in trace.problems.first[0]
