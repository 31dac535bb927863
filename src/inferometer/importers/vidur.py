"""Vidur's request_metrics.csv (microsoft/vidur): a row per simulated request, seconds.

Column names as in `metrics/constants.py`. A request's first token comes when its prefill ends (`prefill_e2e_time`),
its last one at `request_e2e_time`; what lies between is only in sketches over all requests. When it began to run is
arrival + `request_scheduling_delay`. Arrivals are the sums of `request_inter_arrival_delay`, in order of ids. Nothing
fails in a simulation, and nobody is late: what is due is sent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from inferometer.importers import files
from inferometer.importers.rows import Count, Row, Rows, Unreadable, ends, ns
from inferometer.importers.tool import Part, Tool

_ID = "Request Id"
_GAP = "request_inter_arrival_delay"
_NEEDED = {_ID, "request_e2e_time", "prefill_e2e_time", "request_num_decode_tokens"}


class _Record(msgspec.Struct):
    arrived_at: float | None
    request_e2e_time: float
    prefill_e2e_time: float
    request_num_prefill_tokens: Count
    request_num_decode_tokens: Count
    request_scheduling_delay: float | None = None


def read(path: Path) -> list[Part]:
    """The one simulation of the file."""
    rows = Rows(path.name)
    for place, record in _arrived(list(files.cells(path, rows))):
        rows.read(place, record, _Record, _row)
    return [Part(rows, lacks=frozenset(), notes=("simulated by Vidur: its times are computed",))]


def _arrived(found: list[tuple[str, dict[str, str]]]) -> list[tuple[str, dict[str, Any]]]:
    """The rows by id, each with its arrival; unknown from the first gap on that is not there, or is no number."""
    ordered = sorted(found, key=lambda row: _number(row[1].get(_ID)) or 0.0)
    at: float | None = 0.0
    out = []
    for place, (line, cells) in enumerate(ordered):
        gap = _number(cells.get(_GAP)) if place else 0.0
        at = None if at is None or gap is None else at + gap
        out.append((line, {**cells, "arrived_at": at}))
    return out


def _number(cell: str | None) -> float | None:
    try:
        return float(cell or "")
    except ValueError:
        return None


def _row(r: _Record) -> Row:
    arrived = None if r.arrived_at is None else ns(r.arrived_at)
    begin, last = ns(r.prefill_e2e_time), ns(r.request_e2e_time)
    if not r.request_num_decode_tokens:
        raise Unreadable("no decode tokens")
    scheduled = None if r.request_scheduling_delay is None else ns(r.request_scheduling_delay)
    return Row(
        ends(begin, last, r.request_num_decode_tokens),
        arrived,
        arrived,
        scheduled_ns=scheduled,
        prompt_tokens=r.request_num_prefill_tokens,
        counted_by="simulated",
    )


TOOL = Tool(
    "vidur",
    "request_metrics.csv",
    ("request_metrics.csv",),
    lambda head: head.header >= _NEEDED,
    read,
)
