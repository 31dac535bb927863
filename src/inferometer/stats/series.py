"""Intervals for values in the order of their requests, where neighbours share a queue.

Knows one idea: n correlated values are worth `effective_n` independent ones.
A mean gets its standard error from the values themselves where they pass for independent, else from the means of twenty
batches, corrected for the correlation and the skewness that batches still have (Tafazzoli & Wilson 2011, N-Skart, IIE
Transactions 43).
A quantile is the same once more, on the series of indicators 1{x <= x_q}: its effective n says which fractional order
statistics bound the quantile (Woodruff 1952, JASA 47: invert the interval of the CDF; Heidelberger & Lewis 1984, Oper.
Res. 32: within one run of a queue; Korn & Graubard 1998, Survey Methodology 24: exact binomial at an effective n).
Gaps between tokens need one turn more: a request is a cluster, the CDF is a ratio (tokens below / tokens), and the
linearised contribution of each request to it is the series (Cochran 1977, Sampling Techniques, 6 and 9A).

Why no bootstrap: a bootstrap over requests of 20 M gaps costs minutes or a histogram, still needs a block length, and
cannot leave the sample where the tail is thin. This needs one sort, draws nothing at random, and its coverage on
queues is measured by benchmarks/coverage.py.

Rules: tokens are never counted or resampled as if independent; values and clusters come in the order they were sent;
`UNKNOWN` below twenty values, and where the effective n has no order statistics on both sides of a quantile. No other bar:
the effective n is itself an estimate, a run that happened to meet no congestion looks both better and surer than it is, and
a bar on it would let only such runs pass (it took the mean's coverage from 91 to 83 % at M/M/1 0.8 with 1,000 requests). A
wide interval is the honest one. A quantile takes the smallest effective n found between the median and itself.
What no method here can see: a disturbance slower or rarer than the run. Only repeats show that.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.stats.intervals import (
    UNKNOWN,
    Floats,
    Interval,
    interval_at_ranks,
    normal_quantile,
    proportion_ci,
    sorted_values,
    t_quantile,
)

BATCHES = 20  # within the 10 to 30 of Schmeiser 1982, Oper. Res. 30: more buys little, and leaves more correlation
FEWEST = 20  # values or clusters below which dependence cannot be judged at all
SUSPICION = 2.0  # lag-1 z score, and (as the same 2.3 % tail) batch variance, from which values count as dependent

Ints = npt.NDArray[np.int64]


class MeanError(NamedTuple):
    """How well a series knows its mean: squared standard error, its degrees of freedom, and how it was found."""

    variance: float
    dof: float
    skewness: float
    dependent: bool


def batch_means(values: npt.ArrayLike, batches: int = BATCHES) -> Floats:
    """Means of `batches` adjacent groups of equal size (to one value), using all values."""
    x = np.asarray(values, float)
    if not 0 < batches <= x.size:
        raise ValueError(f"{batches} batches of {x.size} values")
    edges = np.linspace(0, x.size, batches + 1).astype(np.int64)
    return np.asarray(np.add.reduceat(x, edges[:-1]) / np.diff(edges))


def lag_one(values: npt.ArrayLike) -> float:
    """Lag-1 autocorrelation, 0 for a constant series; von Neumann's ratio is 2(1 - it), to 1/n."""
    x = np.asarray(values, float)
    away = x - x.mean()
    # Not `@`: BLAS starts threads for sums this small, and they wait for each other on a busy machine.
    squares = float(np.einsum("i,i", away, away))
    return float(np.einsum("i,i", away[1:], away[:-1])) / squares if squares > 0 else 0.0


def von_neumann_z(values: npt.ArrayLike) -> float:
    """Standard score of the lag-1 autocorrelation: about N(0, 1) for independent values (von Neumann 1941)."""
    x = np.asarray(values, float)
    return lag_one(x) * math.sqrt(x.size)


def mean_error(values_in_order: npt.ArrayLike) -> MeanError:
    """The squared standard error of a series' mean, right for independent and for correlated values.

    Dependence is suspected from neighbours (von Neumann) or from batch means that vary more than independent values
    would let them (slow waves that neighbours do not show); then batch means answer instead of values.
    """
    x = np.asarray(values_in_order, float)
    if x.size < FEWEST or not np.isfinite(x).all():
        return MeanError(math.nan, math.nan, math.nan, dependent=False)
    plain = float(x.var()) / x.size
    means = batch_means(x, min(BATCHES, x.size // 4))
    b = means.size
    batched = float(means.var(ddof=1)) / b
    if not (von_neumann_z(x) > SUSPICION or batched > plain * _chi2_upper(b - 1) / (b - 1)):
        return MeanError(plain, x.size - 1, _skewness(x), dependent=False)
    left = _unbiased_lag_one(means)
    return MeanError(
        max(batched * (1 + left) / (1 - left), plain), b - 1, _skewness(means), dependent=True
    )


def effective_n(
    values_in_order: npt.ArrayLike, q: float | None = None, offsets: npt.ArrayLike | None = None
) -> float:
    """How many independent values would know the mean (or quantile `q`) as well as these do; at most their number.

    With `offsets` the values are pooled from clusters, as in `clustered_quantile_ci`; that needs `q`.
    NaN where it cannot be told: fewer than `FEWEST` values or clusters, or a mean of infinite values.
    """
    x = np.asarray(values_in_order)
    if q is not None:
        return _Pool.of(x, np.arange(x.size + 1) if offsets is None else offsets).worth(q).n
    if offsets is not None:
        raise ValueError("the effective n of clustered values is known per quantile: give q")
    x = x.astype(float)
    error = mean_error(x)
    return _worth(error.variance, float(x.var()), x.size) if error.variance >= 0 else math.nan


def clustered_n(values: npt.ArrayLike, offsets: npt.ArrayLike, q: float) -> float:
    """How many independent values would know quantile `q` as well as these clusters do, if clusters were independent.

    Their number over the design effect (Kish 1965, 8.2): what a sample is by its size, whatever queue it went through;
    `effective_n` asks about that, too. Of fewer than `FEWEST` clusters (by Kish's count), no more than there are.
    """
    pool = _Pool.of(values, offsets)
    sizes = np.diff(pool.edges).astype(float)
    if _too_few(np.diff(pool.edges)):
        return float(sizes.sum()) ** 2 / float(sizes @ sizes) if sizes.size else 0.0
    pulls = pool.pulls(q)
    return _worth(float(pulls.var()) / pulls.size, q * (1 - q), pool.ordered.size)


def series_mean_ci(values_in_order: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the mean of a correlated series; `UNKNOWN` below `FEWEST` values, or with an infinite one.

    t with the skewness adjustment of N-Skart (Willink 2005, Commun. Stat. 34; after Johnson 1978, JASA 73): a mean
    of latencies errs further upwards than downwards.
    """
    x = np.asarray(values_in_order, float)
    error = mean_error(x)
    if math.isnan(error.variance):
        return UNKNOWN
    groups = error.dof + 1
    root, t = math.sqrt(error.variance), t_quantile((1 + level) / 2, error.dof)
    beta = error.skewness / (6 * math.sqrt(groups))
    mean = float(x.mean())
    return Interval(mean - _unskew(t, beta) * root, mean - _unskew(-t, beta) * root)


def series_proportion_ci(
    hits_in_order: npt.ArrayLike, level: float = 0.95, *, at_most: float = math.inf
) -> Interval:
    """Interval of a proportion (attainment) over correlated requests: Wilson at the effective n.

    hits: bool[N] in the order sent. A series of only hits (or none) shows no dependence of its own; `at_most` lets the
    caller bound its effective n by another series' (that of the latencies the hits were judged by).
    """
    hits = np.asarray(hits_in_order, bool)
    n = min(effective_n(hits), at_most)
    if not (n > 0 and at_most > 0):  # either may be NaN
        return UNKNOWN
    return proportion_ci(float(hits.mean()) * n, n, level)


def series_quantile_ci(
    values_in_order: npt.ArrayLike, qs: npt.ArrayLike, level: float = 0.95
) -> list[Interval]:
    """Intervals of the quantiles `qs` of a correlated series; see `clustered_quantile_ci`."""
    values = np.asarray(values_in_order)
    return clustered_quantile_ci(values, np.arange(values.size + 1), qs, level)


def clustered_quantile_ci(
    values: npt.ArrayLike, offsets: npt.ArrayLike, qs: npt.ArrayLike, level: float = 0.95
) -> list[Interval]:
    """Intervals of the quantiles `qs` of pooled values that come in clusters, neighbouring clusters maybe correlated.

    values: [N], one cluster after the other; offsets: int[C + 1], cluster c is values[offsets[c]:offsets[c + 1]], in
    the order sent. +inf is a value (a failure); NaN is refused. 20 M values in 100 k clusters take about 3 s.
    """
    pool = _Pool.of(values, offsets)
    return [pool.interval(float(q), level) for q in np.atleast_1d(np.asarray(qs, float))]


def clustered_mean_ci(
    values: npt.ArrayLike, offsets: npt.ArrayLike, level: float = 0.95
) -> Interval:
    """Interval of the mean of pooled values that come in clusters (see `clustered_quantile_ci`): a ratio, linearised.

    The mean of all gaps is (sum of gaps) / (number of gaps), both summed over requests (Cochran 1977, 6.3).
    """
    flat, edges = _cut(values, offsets)
    sizes = np.diff(edges)
    if _too_few(sizes):
        return UNKNOWN
    totals = np.add.reduceat(flat, edges[:-1], dtype=float)
    mean = float(totals.sum()) / flat.size
    if not math.isfinite(mean):
        return UNKNOWN
    return series_mean_ci(mean + (totals - mean * sizes) * (sizes.size / flat.size), level)


class _Worth(NamedTuple):
    n: float
    dof: float
    dependent: bool


class _Pool(NamedTuple):
    """Clustered values, sorted once, from which any number of quantiles is read."""

    values: npt.NDArray[Any]
    edges: Ints
    ordered: npt.NDArray[Any]

    @staticmethod
    def of(values: npt.ArrayLike, offsets: npt.ArrayLike) -> _Pool:
        flat, edges = _cut(values, offsets)
        return _Pool(flat, edges, sorted_values(flat))

    def interval(self, q: float, level: float) -> Interval:
        worth = self.worth(q)
        # Student's t wants more than the normal: Korn & Graubard's adjustment, as a smaller n.
        shrink = normal_quantile((1 + level) / 2) / t_quantile((1 + level) / 2, worth.dof)
        n = worth.n * shrink**2 if worth.dependent else worth.n
        return interval_at_ranks(self.ordered, q, n, level)

    def worth(self, q: float) -> _Worth:
        """The least effective n between the median and `q`, at tails in geometric steps."""
        if _too_few(np.diff(self.edges)):
            return _Worth(math.nan, math.nan, dependent=True)
        tail = min(q, 1 - q)
        at = {0.5, math.sqrt(0.5 * tail), tail}
        found = [self._worth_at(t if q < 0.5 else 1 - t) for t in sorted(at)]
        least = min(found, key=lambda worth: worth.n)
        return least._replace(dependent=any(worth.dependent for worth in found))

    def _worth_at(self, p: float) -> _Worth:
        pulls = self.pulls(p)
        error = mean_error(pulls)
        n = _worth(error.variance, p * (1 - p), self.ordered.size)
        clustered = self.ordered.size > pulls.size
        return _Worth(n, error.dof, dependent=error.dependent or clustered)

    def pulls(self, p: float) -> Floats:
        """Each cluster's pull on the CDF at quantile `p`: C (below_c - p n_c) / N, of mean 0.

        Values tied with the quantile count in the proportion that makes the pooled CDF there exactly p.
        """
        total = self.ordered.size
        at = self.ordered[min(int(p * total), total - 1)]
        first = np.searchsorted(self.ordered, at, "left")
        last = np.searchsorted(self.ordered, at, "right")
        share = (p * total - first) / (last - first)
        below = self._counts(self.values < at) + share * self._counts(self.values == at)
        sizes = np.diff(self.edges)
        return np.asarray((below - p * sizes) * (sizes.size / total))

    def _counts(self, flags: npt.NDArray[np.bool_]) -> Floats:
        """How many of `flags` are set in each cluster."""
        return np.add.reduceat(flags, self.edges[:-1], dtype=np.int64).astype(float)


def _cut(values: npt.ArrayLike, offsets: npt.ArrayLike) -> tuple[npt.NDArray[Any], Ints]:
    """The values, and the offsets without empty clusters: those say nothing, and a batch of them would be 0 / 0."""
    flat, edges = np.asarray(values), np.asarray(offsets, np.int64)
    if not edges.size or edges[0] != 0 or edges[-1] != flat.size or np.any(np.diff(edges) < 0):
        raise ValueError(f"offsets do not cut {flat.size} values into clusters")
    return flat, edges[np.r_[True, np.diff(edges) > 0]]


def _too_few(sizes: Ints) -> bool:
    """Whether these clusters are too few, or too few of them matter (Kish 1965, Survey Sampling: (Σn)² / Σn²)."""
    return sizes.size < FEWEST or float(sizes.sum()) ** 2 < FEWEST * float(sizes @ sizes)


def _worth(variance: float, spread: float, n: int) -> float:
    """spread / variance: how many independent values have this variance of their mean; at most n, all for 0 / 0."""
    if variance == 0:
        return float(n)
    return min(spread / variance, float(n))


def _chi2_upper(dof: int) -> float:
    from scipy import special

    return float(special.chdtri(dof, 0.023))


def _unbiased_lag_one(means: Floats) -> float:
    """Lag-1 autocorrelation of batch means in [0, 0.9], less its bias -(1 + 4r)/b (Marriott & Pope 1954, Biometrika)."""
    b = means.size
    return min(max((b * lag_one(means) + 1) / max(b - 4, 1), 0.0), 0.9)


def _skewness(x: Floats) -> float:
    """Sample skewness with the small-sample factor; 0 for a constant."""
    away = x - x.mean()
    squares = away * away
    second = float(squares.mean())
    if not second > 0 or x.size < 3:
        return 0.0
    small_sample = math.sqrt(x.size * (x.size - 1)) / (x.size - 2)
    return float((squares * away).mean()) / math.sqrt(second) ** 3 * small_sample


def _unskew(t: float, beta: float) -> float:
    """Willink's G(t): the t quantile moved for skewness 6 beta √n."""
    if abs(beta) < 1e-6:
        return t
    return float(np.cbrt(1 + 6 * beta * (t - beta)) - 1) / (2 * beta)
