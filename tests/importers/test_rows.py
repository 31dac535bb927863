"""Rows: tokens over chunks, times as ns, statuses from words, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.importers import rows
from inferometer.importers.rows import Row, Rows, Stream, Unreadable
from inferometer.timeline import ABSENT

NS = 1_000_000_000


@pytest.mark.parametrize(
    ("after", "tokens", "expected"),
    [
        ((5, 6, 7), 3, Stream((5, 6, 7), (1, 1, 1), "tokens")),
        ((5, 6, 7), 8, Stream((5, 6, 7), (1, 1, 6), "chunks")),
        ((5,), 4, Stream((5,), (4,), "tokens")),
        ((5, 6, 7), 2, Stream((5, 7), (1, 1), "tokens")),
        ((5, 6, 7, 8), 3, Stream((5, 8), (1, 2), "ends")),
        ((5, 6), 1, Stream((5,), (1,), "tokens")),
        ((5, 6), 0, Stream((5, 6), (0, 0), "tokens")),
        ((), 3, Stream((0,), (3,), "nothing")),
        ((), 0, Stream()),
    ],
)
def test_tokens_are_put_on_chunks_only_where_the_numbers_allow_it(after, tokens, expected):
    """One each where they agree; otherwise no more is claimed than is known."""
    assert rows.chunks(after, tokens) == expected


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=20), st.integers(0, 40))
@settings(deadline=None, max_examples=80)
def test_a_stream_always_adds_up_and_never_runs_backwards(gaps, tokens):
    """Whatever is known of it: all its tokens are there, in order of time."""
    after = rows.running(gaps[0], gaps[1:])
    for stream in (
        rows.chunks(after, tokens),
        rows.ends(after[0], after[-1], tokens),
        rows.first(after[0], after[-1], tokens),
        rows.whole(after[-1], tokens),
    ):
        assert sum(stream.tokens) == tokens
        assert list(stream.after_ns) == sorted(stream.after_ns)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, None])
def test_what_is_no_time_is_not_read(value):
    """NaN and infinities, which Python writes into JSON, and times that no clock has."""
    with pytest.raises(Unreadable):
        rows.ns(value)
    with pytest.raises(Unreadable):
        rows.running(0.1, [0.2, math.nan if value is None else value])


def test_wall_clock_times_lose_nothing_in_a_difference():
    """Seconds since 1970 have a quarter of a microsecond; the difference of two is taken before they are ns."""
    start = 1_795_248_106.525362
    assert rows.since(start + 0.25, start) == NS // 4


@pytest.mark.parametrize(
    ("words", "code", "began", "status"),
    [
        ("nope", 503, False, "http_error"),
        ("TimeoutError: ", None, True, "timeout"),
        ("the request was cancelled", None, False, "cancelled"),
        ("ClientPayloadError: Response payload is not completed", None, False, "truncated"),
        ("Server disconnected", None, False, "connect_error"),
        ("something", None, True, "truncated"),
        ("something", None, False, "protocol_error"),
    ],
)
def test_a_tools_words_become_a_status(words, code, began, status):
    """A code before words, words before what had come."""
    assert rows.status_of(words, code=code, began=began) == status


def test_of_a_traceback_the_last_line_is_kept_without_secrets():
    """One line, short."""
    assert rows.last_line("Traceback\n  File x\nValueError: no\n\n") == "ValueError: no"
    assert "sk-" not in rows.last_line("Bearer sk-abcdefghijklmnop")
    assert len(rows.last_line("x" * 9999)) <= rows.ERROR_LENGTH


def made(*found: Row) -> Rows:
    out = Rows("file")
    for place, row in enumerate(found):
        out.read(str(place), {}, dict, lambda _, row=row: row)
    return out


def test_the_first_due_time_is_zero_and_nobody_is_sent_before_he_is_due():
    """Two clocks of a tool may disagree by a little: then a request was due when it was sent, and that is counted."""
    stream = Stream((7,), (1,))
    gathered = made(Row(stream, 110, 100), Row(stream, 130, 135, request_id="early"))
    t = gathered.timeline()
    assert t.intended_ns.tolist() == [0, 30]
    assert t.sent_ns.tolist() == [10, 30]
    assert t.chunk_ns.tolist() == [17, 37]
    assert gathered.early == 1
    assert gathered.recorded == {"intended", "starts"}


def test_without_starts_each_request_is_on_a_clock_of_its_own():
    """One row without a send time, and no row has one: a rate of some of them would be a lie."""
    gathered = made(Row(Stream((7,), (1,)), 110), Row(Stream((9,), (1,)), prompt_tokens=4))
    t = gathered.timeline()
    assert t.sent_ns.tolist() == [0, 0]
    assert t.chunk_ns.tolist() == [7, 9]
    assert gathered.recorded == set()


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (Row(Stream((5, 4), (1, 1))), "run backwards"),
        (Row(Stream((-1,), (1,))), "before the send"),
        (Row(Stream((5,), (1,)), ended_ns=-1), "ended before it was sent"),
        (Row(Stream((5,), (2**31,))), "count of tokens"),
        (Row(Stream((5,), (1,)), sent_ns=2**62), "time is out of range"),
    ],
)
def test_a_record_that_contradicts_itself_is_a_problem_with_its_place(row, what):
    """It is counted, named, and no row."""
    gathered = made(row)
    assert not gathered.rows
    assert gathered.problems.rows == 1
    assert gathered.problems.first[0].startswith("file:0: ")
    assert what in gathered.problems.first[0]


def test_a_name_that_comes_twice_is_a_problem():
    """Request ids join a timeline to other logs: the second of a name is refused."""
    row = Row(Stream((5,), (1,)), request_id="a")
    assert made(row, row).problems.rows == 1


def test_a_request_that_was_never_sent_has_no_send_time():
    """A dropped request is a row, with its due time."""
    t = made(Row(Stream(), 100, 90, status="dropped"), Row(Stream((5,), (1,)), 100, 100)).timeline()
    assert t.sent_ns[0] == ABSENT
    assert np.array_equal(t.intended_ns, [0, 10])
