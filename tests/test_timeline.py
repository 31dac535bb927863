"""The timeline: columns, slices, and the invariants that every maker of one is held to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import BrokenRun
from inferometer.timeline import ABSENT, absent, build, concat, in_order, is_absent, offsets


def timeline(sizes, *, start=0, step=10, **more):
    """Requests of `sizes` chunks of one token each, sent 100 apart."""
    rows = len(sizes)
    intended = start + 100 * np.arange(rows)
    offset = offsets(np.array(sizes, dtype=np.int64))
    chunk_ns = np.concatenate(
        [[], *(t + 1 + step * np.arange(n) for t, n in zip(intended, sizes, strict=True))]
    )
    columns = {
        "request_id": [f"r{start}-{row}" for row in range(rows)],
        "intended_ns": intended,
        "sent_ns": intended,
        "ended_ns": intended + 10_000,
        "status": "ok",
        "output_tokens": sizes,
        "chunk_offset": offset,
        "chunk_ns": chunk_ns,
        "chunk_tokens": 1,
        "chunk_channel": 0,
    }
    return build(rows, **(columns | more))


sizes = st.lists(st.integers(0, 5), min_size=0, max_size=12)


@settings(deadline=None, max_examples=60)
@given(sizes=sizes, data=st.data())
def test_taking_rows_takes_exactly_their_chunks(sizes, data):
    """Any rows in any order carry their own chunks, empty requests included."""
    whole = timeline(sizes)
    rows = data.draw(st.lists(st.integers(0, len(sizes) - 1), unique=True)) if sizes else []

    part = whole.take(np.array(rows, dtype=np.int64))

    assert part.request_id.tolist() == [whole.request_id[row] for row in rows]
    for place, row in enumerate(rows):
        expected = whole.chunk_ns[whole.chunk_offset[row] : whole.chunk_offset[row + 1]]
        assert (
            part.chunk_ns[part.chunk_offset[place] : part.chunk_offset[place + 1]].tolist()
            == expected.tolist()
        )
    part.check()


@settings(deadline=None, max_examples=40)
@given(first=sizes, second=sizes)
def test_joined_parts_hold_all_rows(first, second):
    """Concatenation keeps the order and the chunks of both."""
    a, b = timeline(first), timeline(second, start=10_000)

    both = concat([a, b]).check()

    assert both.request_id.tolist() == a.request_id.tolist() + b.request_id.tolist()
    assert both.chunk_ns.tolist() == a.chunk_ns.tolist() + b.chunk_ns.tolist()


def test_in_order_is_by_intended_time():
    """Shards of several workers interleave."""
    a, b = timeline([1, 1], start=0), timeline([1, 1], start=50)

    ordered = in_order(concat([a, b]))

    assert ordered.intended_ns.tolist() == [0, 50, 100, 150]


def test_a_mask_takes_rows_too():
    """A boolean array selects where it is true."""
    assert timeline([1, 2, 3]).take(np.array([True, False, True])).output_tokens.tolist() == [1, 3]


def test_what_did_not_happen_is_absent_not_zero():
    """Columns that were not given are null."""
    t = timeline([1])

    assert t.first_byte_ns.tolist() == [ABSENT]
    assert t.http_status.tolist() == [absent(np.int16)]
    assert is_absent(t.error).tolist() == [True]
    assert is_absent(t.scheduled_ns).tolist() == [True]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sent_ns": [-5]}, "sent before its intended time"),
        ({"ended_ns": [-1]}, "ended before it was sent"),
        ({"ended_ns": [5]}, "after it ended"),
        ({"chunk_ns": [12, 11]}, "run backwards"),
        ({"chunk_ns": [-3, 11]}, "before it was sent"),
        ({"sent_ns": [ABSENT]}, "before it was sent"),
        ({"output_tokens": [3]}, "not the sum"),
        ({"chunk_tokens": [3, -1]}, "negative count"),
        ({"status": "fine"}, "'fine'"),
        ({"chunk_channel": [0, 7]}, "outside of CHANNELS"),
        ({"chunk_offset": [0, 1]}, "int64"),
    ],
)
def test_a_broken_invariant_is_named(change, complaint):
    """Each law that a timeline can break has its own sentence."""
    with pytest.raises(BrokenRun, match=complaint):
        timeline([2], **change)


def test_request_ids_are_unique():
    """Two rows of one id could not be joined to anything."""
    with pytest.raises(BrokenRun, match="unique"):
        timeline([1, 1], request_id=["a", "a"])


def test_unknown_and_missing_columns_are_refused():
    """A typo is not an extra column."""
    with pytest.raises(BrokenRun, match="no column 'colour'"):
        timeline([1], colour=3)
    with pytest.raises(BrokenRun, match="needs the column 'status'"):
        build(0, request_id=(), intended_ns=(), ended_ns=())
