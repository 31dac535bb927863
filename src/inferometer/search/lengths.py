"""How long must a run be? From a pilot run to the requests and minutes that a stated precision asks for.

The arithmetic is `stats.planning`'s; here a pilot's metrics are put to it, and requests become time at the pilot's rate.
An answer holds for the pilot's load: nearer to saturation every request is worth less, and past it no length helps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from inferometer import stats
from inferometer.errors import NotMeasurable, UserError
from inferometer.metrics import summary as summaries
from inferometer.metrics.scorecard import view_of
from inferometer.metrics.steady import steady_state
from inferometer.metrics.summary import plain
from inferometer.metrics.table import DISTRIBUTIONS, value_of
from inferometer.metrics.view import View
from inferometer.run import Run

ASKED = tuple(f"{m}.{s}" for m in ("ttft", "tbt", "ttlt") for s in ("mean", "p50", "p90", "p99"))


class Needed(NamedTuple):
    """What one statistic needs: requests and time; None where the pilot cannot tell. `seen` and `now`: the pilot's own.

    `now` is the relative half width that the pilot reached; NaN where it could give no interval.
    """

    name: str
    seen: float
    now: float
    requests: int | None
    seconds: float | None
    because: str


def needed(
    run: Run, names: Sequence[str] = ASKED, precision: float = 0.05, level: float = 0.95
) -> tuple[Needed, ...]:
    """The run length for ±`precision` of each statistic ("ttft.p99"), by a pilot run."""
    if not 0 < precision < 1:
        raise UserError("a precision lies between 0 and 1", where="--precision")
    steady = steady_state(run)
    if steady.in_place_of_numbers:
        raise NotMeasurable(
            f"the pilot has no steady state: {steady.reason}; no length helps, a lower load does"
        )
    view = view_of(run)
    rate = value_of(view, "offered_rate")
    if run.plan is not None and run.plan.concurrency is not None:
        rate = value_of(view, "request_rate")
    return tuple(_needed(view, name, precision, level, rate) for name in names)


def _needed(view: View, name: str, precision: float, level: float, rate: float) -> Needed:
    metric, statistic = _named(name)
    found = summaries.sample(view, DISTRIBUTIONS[metric])
    if not len(found.values):
        return Needed(name, math.nan, math.nan, None, None, "not measured")
    offset = None if found.offset is None else np.unique(found.offset)
    if statistic == "mean":
        per_request = found.values if offset is None else _means(found.values, offset)
        length = stats.requests_for_mean(per_request, precision, level)
    else:
        q = float(statistic[1:]) / 100
        length = stats.requests_for_quantile(found.values, q, precision, level, offset)
    refused = statistic != "mean" and summaries.needs(found, statistic) is not None
    seen = math.nan if refused else summaries.statistic(found, statistic)
    ci = summaries.interval(found, statistic)
    now = (ci.hi - ci.lo) / 2 / seen if seen > 0 else math.nan
    if length is None:
        return Needed(name, seen, now, None, None, "the pilot is too short to tell")
    seconds = length.requests / rate if rate > 0 else None
    return Needed(name, seen, now, length.requests, seconds, length.because)


def _named(name: str) -> tuple[str, str]:
    """ "ttft.p99" as its metric and its statistic, a percentile between 0 and 100 or the mean."""
    metric, _, statistic = name.partition(".")
    percentile = re.fullmatch(r"p([0-9]+(?:\.[0-9]+)?)", statistic)
    known = statistic == "mean" or (percentile and 0 < float(percentile[1]) < 100)
    if metric not in DISTRIBUTIONS or not known:
        raise UserError(
            f"no statistic is called {name!r}", where="--metric", remedy="ttft.p99, say"
        )
    return metric, statistic


def _means(values: np.ndarray[Any, Any], offset: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean of each cluster."""
    return np.asarray(np.add.reduceat(values.astype(float), offset[:-1]) / np.diff(offset))


def to_dict(rows: Sequence[Needed], precision: float, level: float) -> dict[str, Any]:
    """Plain data."""
    return {
        "precision": precision,
        "level": level,
        "metrics": {
            row.name: row._asdict() | {"seen": plain(row.seen), "now": plain(row.now)}
            for row in rows
        },
    }
