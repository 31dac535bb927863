"""Hand-made timelines, as fixtures that give the function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from inferometer.timeline import CHANNELS, Timeline, build, offsets


def _last_moment(request: dict[str, Any]) -> int:
    started = request.get("sent") or request.get("intended", 0)
    return max([started, *(chunk[0] for chunk in request.get("chunks", []))])


def _timeline_of(*requests: dict[str, Any]) -> Timeline:
    """A timeline from dicts: `chunks` is a list of (ns, tokens[, channel]); the rest are columns, or neutral."""
    chunks = [request.get("chunks", []) for request in requests]
    flat = [(*chunk, "content")[:3] for each in chunks for chunk in each]
    columns: dict[str, Any] = {
        "request_id": [f"r{i}" for i in range(len(requests))],
        "intended_ns": [r.get("intended", 0) for r in requests],
        "ended_ns": [r.get("ended", _last_moment(r)) for r in requests],
        "output_tokens": [sum(chunk[1] for chunk in each) for each in chunks],
        "chunk_offset": offsets(np.array([len(each) for each in chunks], dtype=int)),
        "chunk_ns": [chunk[0] for chunk in flat],
        "chunk_tokens": [chunk[1] for chunk in flat],
        "chunk_channel": [CHANNELS.index(chunk[2]) for chunk in flat],
    }
    absent = np.iinfo(np.int64).min
    columns["sent_ns"] = [r.get("sent", r.get("intended", 0)) for r in requests]
    columns["sent_ns"] = [absent if ns is None else ns for ns in columns["sent_ns"]]
    for name, neutral in (
        ("status", "ok"),
        ("phase", "measure"),
        ("app", "chat"),
        ("prompt_tokens", 1),
        ("scheduled_ns", absent),
        ("connect_ns", absent),
    ):
        columns[name] = [r.get(name, neutral) for r in requests]
    return build(len(requests), **columns)


def _stamped(requests: list[list[tuple[int, int]]]) -> list[dict[str, Any]]:
    """Lists of (gap to the chunk before, tokens in the chunk) as requests with absolute stamps."""
    return [
        {"chunks": [(sum(gap for gap, _ in chunks[: i + 1]), k) for i, (_, k) in enumerate(chunks)]}
        for chunks in requests
    ]


def _token_stamps(request: dict[str, Any]) -> list[int]:
    return [chunk[0] for chunk in request["chunks"] for _ in range(chunk[1])]


@pytest.fixture(scope="session")
def timeline_of():
    """`timeline_of(*requests)`: a timeline from dicts of columns and chunks."""
    return _timeline_of


@pytest.fixture(scope="session")
def token_stamps():
    """`token_stamps(request)`: when each token of such a dict arrived, the slow way."""
    return _token_stamps


@pytest.fixture(scope="session")
def some_requests():
    """A strategy for such dicts: empty requests, empty chunks, bursts and equal stamps included."""
    chunk = st.tuples(st.integers(0, 50), st.integers(0, 3))
    return st.lists(st.lists(chunk, max_size=6), max_size=6).map(_stamped)
