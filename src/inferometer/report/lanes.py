"""Requests as lanes: what the swim-lane view draws, packed small enough to travel inside a page.

A lane is a request: when it was due, sent, scheduled, ended, and every token. Times travel as whole microseconds; the
gaps between tokens as one byte each, on a logarithmic scale of 255 steps between 1 us and 100 s (3.6 % at most), with
the rounding error carried on to the next gap, so that no token is ever further off than one step of its own gap. The
bytes are deflated. A lane's tokens are then about one byte each, and a page of 2 M tokens stays under 3 MB.
A run with more than `MOST_LANES` requests or `MOST_TOKENS` tokens is sampled: the slowest, the failed, and an even
choice of the rest; how many are shown of how many is part of what the page says.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.metrics import latency, tokens
from inferometer.timeline import ABSENT, Ints, Timeline

MOST_LANES = 5_000
MOST_TOKENS = 2_000_000
SLOWEST = 250
STEPS = 255
LEAST_US, MOST_US = 1.0, 1e8
RATIO = float(np.log(MOST_US / LEAST_US)) / (STEPS - 1)


class Lanes(NamedTuple):
    """The lanes of a page: how many of how many, and their columns as JSON data (`packed` are base64 of deflate)."""

    shown: int
    total: int
    data: dict[str, Any]


def lanes_of(
    timeline: Timeline, *, most: int = MOST_LANES, most_tokens: int = MOST_TOKENS
) -> Lanes | None:
    """The lanes of a run, in order of intended time, where every chunk's time is known; None where there are none."""
    known = timeline.knows("chunks")
    timeline = timeline if known.all() else timeline.take(known)
    if not len(timeline):
        return None
    rows = chosen(timeline, most, most_tokens)
    part = tokens.token_chunks(timeline.take(rows))
    origin = int(timeline.intended_ns.min())
    times = {
        "intended": part.intended_ns,
        "sent": part.sent_ns,
        "scheduled": part.scheduled_ns,
        "first": tokens.first_token_ns(part),
        "ended": part.ended_ns,
    }
    kinds = {"status": _codes(part.status), "app": _codes(part.app)}
    data = {
        "n": len(rows),
        "ratio": RATIO,
        "times": {name: _packed(_microseconds(t, origin)) for name, t in times.items()},
        "gaps": _packed(gap_steps(part)),
        "tokens": _packed(np.diff(part.chunk_offset).astype("<i4")),
        "prompt": _packed(part.prompt_tokens.astype("<i4")),
        "ids": [str(name)[:80] for name in part.request_id.tolist()],
        **{
            name: {"names": names, "codes": _packed(codes)}
            for name, (names, codes) in kinds.items()
        },
    }
    return Lanes(len(rows), len(timeline), data)


def chosen(timeline: Timeline, most: int, most_tokens: int) -> Ints:
    """Which rows get a lane: all where they fit; else the slowest and the failed first, then evenly."""
    order = np.argsort(timeline.intended_ns, kind="stable")
    sizes = np.diff(timeline.chunk_offset)
    if len(order) <= most and sizes.sum() <= most_tokens:
        return order
    waited = latency.ttlt(timeline)
    waited[~timeline.ok] = np.inf
    first = np.argsort(-np.nan_to_num(waited, nan=-1.0), kind="stable")[: min(SLOWEST, most)]
    rest = np.setdiff1d(order, first)
    mean = max(float(sizes.mean()), 1.0)
    room = min(most, int(most_tokens / mean), len(order)) - len(first)
    if room > 0 and len(rest):
        picks = order[np.isin(order, rest)]
        even = picks[np.linspace(0, len(picks) - 1, min(room, len(picks))).astype(np.int64)]
        first = np.concatenate([first, even])
    keep = first[np.cumsum(sizes[first]) <= most_tokens]
    return keep[np.argsort(timeline.intended_ns[keep], kind="stable")]


def gap_steps(timeline: Timeline) -> npt.NDArray[np.uint8]:
    """The gap before each chunk as steps of the logarithmic scale, 0 for none and for a request's first [uint8, C].

    Vectorised over requests, one pass per place in the stream: each gap is rounded with what the ones before it owe, so
    that the sum of the read-back gaps never drifts from the true time.
    """
    gaps_us = tokens.chunk_gaps_ns(timeline) / 1_000
    begin, sizes = timeline.chunk_offset[:-1], np.diff(timeline.chunk_offset)
    longest_first = np.argsort(-sizes, kind="stable")
    falling = -sizes[longest_first]
    steps = np.zeros(len(gaps_us), dtype=np.uint8)
    owed_us = np.zeros(len(sizes))
    for place in range(1, int(sizes.max(initial=0))):
        rows = longest_first[: np.searchsorted(falling, -place, side="left")]
        at = begin[rows] + place
        wanted = gaps_us[at] + owed_us[rows]
        steps[at] = _step(wanted)
        owed_us[rows] = wanted - read_back(steps[at])
    return steps


def read_back(steps: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The gap that a step stands for [us]."""
    out = LEAST_US * np.exp((steps.astype(float) - 1) * RATIO)
    return np.where(steps == 0, 0.0, out)


def _step(gap_us: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    some = gap_us >= LEAST_US / 2
    log = np.log(np.where(some, gap_us, LEAST_US) / LEAST_US) / RATIO
    return np.where(some, np.clip(np.rint(log) + 1, 1, STEPS), 0).astype(np.uint8)


def _microseconds(at_ns: Ints, origin: int) -> npt.NDArray[np.float64]:
    """Microseconds since the origin; -1 for what did not happen."""
    return np.where(at_ns == ABSENT, -1.0, np.rint((at_ns - origin) / 1_000)).astype("<f8")


def _codes(column: Any) -> tuple[list[str], npt.NDArray[np.uint8]]:
    names, codes = np.unique(column.astype(str), return_inverse=True)
    if len(names) > 255:
        names, codes = np.append(names[:254], "other"), np.minimum(codes, 254)
    return [str(name)[:80] for name in names], codes.astype(np.uint8)


def _packed(column: npt.NDArray[Any]) -> str:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.b64encode(deflate.compress(column.tobytes()) + deflate.flush()).decode()
