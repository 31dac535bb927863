"""From chunks to tokens: the ragged arithmetic."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.metrics import tokens
from inferometer.timeline import ABSENT


def test_tokens_of_a_chunk_share_its_stamp(timeline_of):
    """k tokens in a chunk are k equal stamps: one gap and k - 1 zero gaps."""
    timeline = timeline_of({"chunks": [(10, 0), (20, 1), (50, 3)]})
    assert tokens.token_ns(timeline).values.tolist() == [20, 50, 50, 50]
    assert tokens.gaps_ns(timeline).values.tolist() == [30, 0, 0]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_gaps_are_those_of_a_loop_over_requests(some_requests, token_stamps, timeline_of, data):
    """Gaps and their owners equal the plain loop's, whatever requests are empty and wherever they stand."""
    requests = data.draw(some_requests)
    expected = [b - a for r in requests for a, b in pairwise(token_stamps(r))]
    owners = [i for i, r in enumerate(requests) for _ in pairwise(token_stamps(r))]
    got = tokens.gaps_ns(timeline_of(*requests))
    assert got.values.tolist() == expected
    assert got.owner.tolist() == owners


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_gaps_of_some_requests_leave_the_others_an_empty_place(
    some_requests, token_stamps, timeline_of, data
):
    """With a mask the values are those of the chosen requests, and the offsets still count all requests."""
    requests = data.draw(some_requests)
    rows = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(requests), max_size=len(requests))),
        dtype=bool,
    )
    got = tokens.gaps_ns(timeline_of(*requests), rows)
    for i, request in enumerate(requests):
        mine = got.values[got.offset[i] : got.offset[i + 1]].tolist()
        whole = [b - a for a, b in pairwise(token_stamps(request))]
        assert mine == (whole if rows[i] else [])


def test_difference_then_mask_would_invent_a_gap(timeline_of):
    """The law behind `gaps_ns`: masking at offset[1:-1] - 1 goes wrong once a request has no tokens."""
    timeline = timeline_of(
        {"chunks": []}, {"chunks": [(5, 1), (9, 1)]}, {"chunks": [(100, 1), (107, 1)]}
    )
    found = tokens.token_ns(timeline)
    naive = np.delete(np.diff(found.values), found.offset[1:-1] - 1)
    assert tokens.gaps_ns(timeline).values.tolist() == [4, 7]
    assert naive.tolist() != [4, 7]


def test_first_and_last_token_skip_chunks_without_any(timeline_of):
    """A role-only chunk and a trailing usage chunk bear no token, so they are neither first nor last."""
    timeline = timeline_of({"chunks": [(1, 0), (4, 2), (9, 1), (12, 0)]}, {"chunks": [(3, 0)]})
    assert tokens.first_token_ns(timeline).tolist() == [4, ABSENT]
    assert tokens.last_token_ns(timeline).tolist() == [9, ABSENT]
    assert tokens.token_chunks(timeline).chunk_offset.tolist() == [0, 2, 2]


def test_measured_rows_are_of_one_phase_in_order_of_intention(timeline_of):
    """Warm-up and drain are left out, and arrival order is that of the intended times."""
    timeline = timeline_of(
        {"intended": 30, "phase": "measure"},
        {"intended": 10, "phase": "warmup"},
        {"intended": 20, "phase": "measure"},
        {"intended": 40, "phase": "drain"},
    )
    assert tokens.measured_rows(timeline).tolist() == [2, 0]


def test_take_copies_nothing_where_all_rows_stand_as_they_are(timeline_of):
    """The usual run has no warm-up: its 20 M tokens are not copied."""
    timeline = timeline_of({"chunks": [(1, 1)]}, {"chunks": [(2, 1)]})
    assert tokens.take(timeline, np.array([0, 1])) is timeline
    assert tokens.take(timeline, np.array([1])).chunk_ns.tolist() == [2]
