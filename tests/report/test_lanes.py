"""Lanes: what travels inside of the page is the run, to a few percent of a gap."""

from __future__ import annotations

import base64
import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.report import lanes
from inferometer.timeline import build, offsets


def timeline_of(gaps):
    counts = np.array([len(each) for each in gaps])
    ns = np.concatenate([np.cumsum(each) for each in gaps] or [[]]).astype(np.int64) * 1_000
    ends = [int(np.sum(each)) * 1_000 for each in gaps]
    return build(
        len(gaps),
        request_id=[f"r{k}" for k in range(len(gaps))],
        intended_ns=np.zeros(len(gaps), dtype=np.int64),
        sent_ns=np.zeros(len(gaps), dtype=np.int64),
        ended_ns=ends,
        status="ok",
        app="chat",
        output_tokens=counts,
        chunk_offset=offsets(counts),
        chunk_ns=ns,
        chunk_tokens=np.ones(len(ns), dtype=np.int32),
        chunk_channel=np.zeros(len(ns), dtype=np.int8),
    )


def unpacked(text, dtype):
    return np.frombuffer(zlib.decompress(base64.b64decode(text), -15), dtype=dtype)


@given(st.lists(st.lists(st.integers(0, 10**7), max_size=30), min_size=1, max_size=8))
@settings(deadline=None, max_examples=80)
def test_no_token_drifts(gaps):
    """Read back, every token lies within one step of its own gap (3.7 %) or a microsecond of its true time."""
    timeline = timeline_of(gaps)
    steps = lanes.gap_steps(timeline)
    for row, each in enumerate(gaps):
        part = slice(timeline.chunk_offset[row], timeline.chunk_offset[row + 1])
        true = np.cumsum(each[1:])
        read = np.cumsum(lanes.read_back(steps[part]))[1:]
        largest = np.maximum.accumulate(np.array([*each[1:], 0])[: len(true)])
        assert np.all(np.abs(read - true) <= largest * 0.04 + 1)


def test_all_fit(run_of):
    """A small run is shown whole, in order of intended time, with its columns."""
    run = run_of()
    found = lanes.lanes_of(run.timeline)
    assert (found.shown, found.total) == (300, 300)
    assert unpacked(found.data["tokens"], "<i4").sum() == run.timeline.chunks
    assert sorted(found.data["status"]["names"]) == ["http_error", "ok"]
    first = unpacked(found.data["times"]["first"], "<f8")
    assert (first < 0).sum() == 6


def test_a_large_run_is_sampled_with_its_worst(run_of):
    """Of 300 requests 100 are shown: the failed are among them, the limit of tokens holds, and no row comes twice."""
    timeline = run_of().timeline
    rows = lanes.chosen(timeline, 100, 3_000)
    assert len(rows) == len(set(rows.tolist())) <= 100
    assert np.diff(timeline.chunk_offset)[rows].sum() <= 3_000
    assert set(np.flatnonzero(~timeline.ok)) <= set(rows.tolist())
    assert np.all(np.diff(timeline.intended_ns[rows]) >= 0)


def test_nothing_has_no_lanes():
    """A run without requests has no view."""
    assert lanes.lanes_of(build(0, request_id=[], intended_ns=[], ended_ns=[], status=[])) is None
