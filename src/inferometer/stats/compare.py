"""How two samples differ: by how much, where, and whether that is shown.

Knows two samples of one metric (a, then b; differences are b - a, so for a latency more than 0 means that b is slower) and
that each is a correlated series or clustered by request; never what the metric is.
Effects come first, with intervals; p-values (`resampling.py`) and decisions (`decisions.py`) after.
A difference of quantiles takes its interval from those of the two quantiles (MOVER: Zou & Donner 2008, Stat. Med. 27;
Newcombe 1998), so that it inherits their coverage under autocorrelation, draws nothing at random, and is `UNKNOWN` where
either is. Two runs of one plan share arrivals and requests, hence noise: `alike` says how much of it, and MOVER takes it
off. What is seen of the common noise errs on the side of too little.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.stats.intervals import UNKNOWN, Floats, Interval, at_rank, sorted_values
from inferometer.stats.series import BATCHES, batch_means, clustered_quantile_ci

Rows = npt.NDArray[np.intp]

SURE = 1 - 1e-12  # the largest correlation, so that it has a z
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


def alike(a_pulls: npt.ArrayLike, b_pulls: npt.ArrayLike) -> float:
    """The correlation of two estimates, from how far each common request pulls either (in the order sent); 0 to 1.

    A pull is a value less the mean, or whether it lies below the quantile, less q. Requests are dependent, so that what
    counts is the correlation of batch means; one standard error is taken off it (Fisher's z), and what is below 0.
    """
    u, v = np.asarray(a_pulls, float), np.asarray(b_pulls, float)
    if u.size < 4 * BATCHES:
        return 0.0
    means = batch_means(u), batch_means(v)
    if not (means[0].std() > 0 and means[1].std() > 0):
        return 0.0
    seen = float(np.clip(np.corrcoef(*means)[0, 1], -SURE, SURE))
    return max(0.0, math.tanh(math.atanh(seen) - 1 / math.sqrt(BATCHES - 3)))


def difference_ci(
    a: float, a_ci: Interval, b: float, b_ci: Interval, correlation: float = 0.0
) -> Interval:
    """Interval of b - a for estimates with intervals of their own, symmetric or not (MOVER)."""
    below, above = (a - a_ci.lo, b - b_ci.lo), (a_ci.hi - a, b_ci.hi - b)  # the arms, of a and of b
    down = _arm((below[1], above[0]), (below[1] - below[0], above[0] - above[1]), correlation)
    up = _arm((above[1], below[0]), (above[1] - above[0], below[0] - below[1]), correlation)
    return Interval(b - a - down, b - a + up)


def _arm(apart: tuple[float, float], together: tuple[float, float], correlation: float) -> float:
    """One arm of a difference: of what either side errs by itself, and of what both err by in the same direction.

    With symmetric arms x and y it is the root of x^2 + y^2 - 2 r x y, as in Zou & Donner (2008).
    """
    common = max(*together, 0.0)
    square = (1 - correlation) * (apart[0] ** 2 + apart[1] ** 2) + correlation * common**2
    return math.nan if any(map(math.isnan, apart)) else math.sqrt(square)


def ratio_ci(
    a: float, a_ci: Interval, b: float, b_ci: Interval, correlation: float = 0.0
) -> Interval:
    """Interval of b / a for positive estimates: `difference_ci` of the logarithms; else `UNKNOWN`."""
    if not min(a, b, a_ci.lo, b_ci.lo) > 0:
        return UNKNOWN
    logs = [Interval(math.log(ci.lo), math.log(ci.hi)) for ci in (a_ci, b_ci)]
    found = difference_ci(math.log(a), logs[0], math.log(b), logs[1], correlation)
    return Interval(math.exp(found.lo), math.exp(found.hi))


def shift_function(
    a: Sample,
    b: Sample,
    qs: npt.ArrayLike = DECILES,
    level: float = 0.95,
    *,
    together: bool = False,
    correlation: npt.ArrayLike = 0.0,
) -> list[Shift]:
    """The quantile differences b - a at `qs` (Doksum 1974; Wilcox & Rousselet 2018).

    together: all intervals hold at once with `level` (Bonferroni); else each by itself. correlation: of the two quantiles
    at each of `qs` (see `alike`); 0 for independent runs.
    """
    at = np.atleast_1d(np.asarray(qs, float))
    each = 1 - (1 - level) / at.size if together else level
    shared = np.broadcast_to(np.asarray(correlation, float), at.shape)
    points = [_at(s, at) for s in (a, b)]
    bounds = [s.quantiles_ci(at, each) for s in (a, b)]
    return [
        Shift(float(q), qa, qb, qb - qa, difference_ci(qa, ca, qb, cb, float(r)))
        for q, qa, qb, ca, cb, r in zip(at, *points, *bounds, shared, strict=True)
    ]


def crossings(
    a: Sample, b: Sample, level: float = 0.95, *, correlation: npt.ArrayLike = 0.0
) -> list[Crossing]:
    """Every point where the order of the two samples turns, shown on both sides of it with joint `level`.

    correlation: of the two quantiles at each of `CURVE`.
    """
    shifts = shift_function(a, b, CURVE, level, together=True, correlation=correlation)
    shown = [s for s in shifts if s.interval.lo > 0 or s.interval.hi < 0]
    return [
        _turn([s for s in shifts if left.q <= s.q <= right.q])
        for left, right in pairwise(shown)
        if left.difference * right.difference < 0
    ]


def common(a_ids: npt.ArrayLike, b_ids: npt.ArrayLike) -> tuple[Rows, Rows]:
    """Where the requests that both runs have stand in a and in b, in a's order; ids are unique within a run."""
    ids: list[npt.NDArray[Any]] = [np.asarray(a_ids), np.asarray(b_ids)]
    if any(np.unique(i).size != i.size for i in ids):
        raise ValueError("a request id occurs twice in one run")
    _, at_a, at_b = np.intersect1d(ids[0], ids[1], return_indices=True)
    order = np.argsort(at_a)
    return at_a[order], at_b[order]


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
