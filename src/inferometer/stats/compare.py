"""How two samples differ: by how much, where, and whether that is shown.

Knows two samples of one metric (a, then b; differences are b - a, so for a latency more than 0 means that b is slower) and
that each is a correlated series or clustered by request; never what the metric is.
Effects come first, with intervals; p-values (`resampling.py`) and decisions (`decisions.py`) after.
A difference of quantiles takes its interval from those of the two quantiles (MOVER: Zou & Donner 2008, Stat. Med. 27;
Newcombe 1998), so that it inherits their coverage under autocorrelation, draws nothing at random, and is `UNKNOWN` where
either is. Paired samples share arrivals and requests, hence noise: pair them by id, and only the differences are noisy.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.stats.intervals import UNKNOWN, Floats, Interval, at_rank, sorted_values
from inferometer.stats.resampling import block_bootstrap_ci
from inferometer.stats.series import clustered_quantile_ci, series_mean_ci, series_quantile_ci

DECILES = tuple(k / 10 for k in range(1, 10))
CURVE = (*(k / 20 for k in range(1, 20)), 0.975, 0.99)  # where a crossing is looked for


class Sample(NamedTuple):
    """Values in the order of their requests; with `offsets`, pooled from clusters (see `clustered_quantile_ci`)."""

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64] | None = None

    def quantiles_ci(self, qs: npt.ArrayLike, level: float) -> list[Interval]:
        """Intervals of the quantiles `qs`."""
        cuts = np.arange(self.values.size + 1) if self.offsets is None else self.offsets
        return clustered_quantile_ci(self.values, cuts, qs, level)


class Shift(NamedTuple):
    """Quantile `q` in a and in b, their difference b - a, and its interval."""

    q: float
    a: float
    b: float
    difference: float
    interval: Interval


class Crossing(NamedTuple):
    """Where the CDFs cross: below `q` one sample is lower, above it the other; both are shown outside `interval`."""

    q: float
    value: float
    interval: Interval
    lower_below: str  # "a" or "b"


class Pairs(NamedTuple):
    """Values of the common requests, in a's order, and how many of either side found no partner."""

    a: npt.NDArray[Any]
    b: npt.NDArray[Any]
    only_a: int
    only_b: int


def difference_ci(a: float, a_ci: Interval, b: float, b_ci: Interval) -> Interval:
    """Interval of b - a for independent estimates with intervals of their own, symmetric or not (MOVER)."""
    d = b - a
    return Interval(
        d - math.hypot(b - b_ci.lo, a_ci.hi - a), d + math.hypot(b_ci.hi - b, a - a_ci.lo)
    )


def ratio_ci(a: float, a_ci: Interval, b: float, b_ci: Interval) -> Interval:
    """Interval of b / a for independent positive estimates: `difference_ci` of the logarithms; else `UNKNOWN`."""
    if not min(a, b, a_ci.lo, b_ci.lo) > 0:
        return UNKNOWN
    logs = [Interval(math.log(ci.lo), math.log(ci.hi)) for ci in (a_ci, b_ci)]
    found = difference_ci(math.log(a), logs[0], math.log(b), logs[1])
    return Interval(math.exp(found.lo), math.exp(found.hi))


def shift_function(
    a: Sample,
    b: Sample,
    qs: npt.ArrayLike = DECILES,
    level: float = 0.95,
    *,
    together: bool = False,
) -> list[Shift]:
    """The quantile differences b - a at `qs` (Doksum 1974; Wilcox & Rousselet 2018), a and b independent runs.

    together: all intervals hold at once with `level` (Bonferroni); else each by itself.
    """
    at = np.atleast_1d(np.asarray(qs, float))
    each = 1 - (1 - level) / at.size if together else level
    points = [_at(s, at) for s in (a, b)]
    bounds = [s.quantiles_ci(at, each) for s in (a, b)]
    return [
        Shift(float(q), qa, qb, qb - qa, difference_ci(qa, ca, qb, cb))
        for q, qa, qb, ca, cb in zip(at, *points, *bounds, strict=True)
    ]


def crossings(a: Sample, b: Sample, level: float = 0.95) -> list[Crossing]:
    """Every point where the order of the two samples turns, shown on both sides of it with joint `level`."""
    shifts = shift_function(a, b, CURVE, level, together=True)
    shown = [s for s in shifts if s.interval.lo > 0 or s.interval.hi < 0]
    return [
        _turn([s for s in shifts if left.q <= s.q <= right.q])
        for left, right in pairwise(shown)
        if left.difference * right.difference < 0
    ]


def pair(
    a_ids: npt.ArrayLike, a_values: npt.ArrayLike, b_ids: npt.ArrayLike, b_values: npt.ArrayLike
) -> Pairs:
    """The values of requests that both runs have; ids are unique within a run."""
    ids: list[npt.NDArray[Any]] = [np.asarray(a_ids), np.asarray(b_ids)]
    if any(np.unique(i).size != i.size for i in ids):
        raise ValueError("a request id occurs twice in one run")
    common, at_a, at_b = np.intersect1d(ids[0], ids[1], return_indices=True)
    order = np.argsort(at_a)
    return Pairs(
        np.asarray(a_values)[at_a[order]],
        np.asarray(b_values)[at_b[order]],
        ids[0].size - common.size,
        ids[1].size - common.size,
    )


def paired_mean_ci(pairs: Pairs, level: float = 0.95) -> Interval:
    """Interval of the mean of b - a over the same requests, which stand in the order sent."""
    return series_mean_ci(pairs.b - pairs.a, level)


def paired_shift(
    pairs: Pairs,
    qs: npt.ArrayLike = DECILES,
    level: float = 0.95,
    *,
    draws: int = 499,
    seed: int = 0,
) -> list[Shift]:
    """The quantile differences of paired runs; their common noise leaves the interval, by a block bootstrap of pairs."""
    at = np.atleast_1d(np.asarray(qs, float))
    rows = np.column_stack([pairs.a, pairs.b]).astype(float)

    def apart(drawn: npt.NDArray[Any]) -> Floats:
        found = np.quantile(drawn, at, axis=0)
        return np.asarray(found[:, 1] - found[:, 0])

    drawn = block_bootstrap_ci(rows, apart, level, draws=draws, seed=seed)
    # A bootstrap does not notice that a tail is too thin; the intervals of the two quantiles do.
    singles = [series_quantile_ci(side, at, level) for side in (pairs.a, pairs.b)]
    thin = [any(math.isnan(ci.lo) for ci in both) for both in zip(*singles, strict=True)]
    bounds = [UNKNOWN if t else ci for t, ci in zip(thin, drawn, strict=True)]
    points = [_at(Sample(side), at) for side in (pairs.a, pairs.b)]
    return [
        Shift(float(q), qa, qb, qb - qa, ci)
        for q, qa, qb, ci in zip(at, *points, bounds, strict=True)
    ]


def hodges_lehmann(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """The median of all differences b_j - a_i: the shift of location that outliers do not move (1963).

    Found by bisection on counts, so n·m pairs cost (n + m) log: exact to the last bits of a float. NaN if either is empty.
    """
    x, y = sorted_values(a).astype(float), sorted_values(b).astype(float)
    pairs = x.size * y.size
    if not pairs:
        return math.nan
    low = _pair_difference(x, y, (pairs - 1) // 2)
    return low if pairs % 2 else (low + _pair_difference(x, y, pairs // 2)) / 2


def _pair_difference(x: Floats, y: Floats, rank: int) -> float:
    """The (0-based) `rank`-th smallest y_j - x_i of sorted x and y."""
    lo, hi = float(y[0] - x[-1]), float(y[-1] - x[0])
    while lo < hi:
        middle = lo + (hi - lo) / 2
        if int(np.searchsorted(y, x + middle, "right").sum()) > rank:
            hi = middle
        elif middle > lo:
            lo = middle
        else:
            break
        if hi - lo <= 4 * math.ulp(max(abs(lo), abs(hi))):
            break
    return hi


def _at(sample: Sample, qs: Floats) -> list[float]:
    ordered = sorted_values(sample.values)
    return [float(v) for v in at_rank(ordered, qs * (ordered.size - 1))]


def _turn(between: list[Shift]) -> Crossing:
    """The crossing within a stretch whose two ends are shown to differ in opposite ways."""
    left, right = between[0], between[-1]
    turned = next(
        k for k, s in enumerate(between) if s.difference * right.difference > 0 or s.difference == 0
    )
    before, after = between[turned - 1], between[turned]
    part = before.difference / (before.difference - after.difference)
    return Crossing(
        before.q + part * (after.q - before.q),
        before.a + part * (after.a - before.a),
        Interval(left.q, right.q),
        "a" if left.difference > 0 else "b",
    )
