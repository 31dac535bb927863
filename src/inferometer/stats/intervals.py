"""Intervals for independent samples: quantiles, means, proportions.

Knows closed forms and the special functions behind them. Must never know where the sample came from.
Rule: an interval that the sample cannot carry is `UNKNOWN` (NaN, NaN), never a guess and never the sample's range.
Latencies of one run are *not* independent: they share a queue. For those, use `series.py` and `clusters.py`;
what is here serves repeats, between-run comparison, and the column that shows what peers print.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A confidence interval in the unit of its data; an end is NaN where it cannot be given."""

    lo: float
    hi: float


UNKNOWN = Interval(math.nan, math.nan)


def quantile(values: npt.ArrayLike, q: Any) -> Any:
    """Quantile(s) `q` in [0, 1] of `values` by linear interpolation at rank q(n - 1) (numpy's default).

    Hyndman & Fan 1996, definition 7. NaN for an empty sample. +inf is a value like any other: a rank that touches
    an infinite neighbour is infinite, where numpy's arithmetic would give NaN.
    """
    ordered = sorted_values(values)
    found = at_rank(ordered, np.asarray(q, float) * (ordered.size - 1))
    return float(found) if np.ndim(q) == 0 else found


def sorted_values(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """A sorted copy; NaN is refused: whoever has undefined values must drop and count them first."""
    ordered = np.sort(np.asarray(values), axis=None)
    if ordered.size and ordered.dtype.kind == "f" and np.isnan(ordered[-1]):
        raise ValueError("NaN among the values: drop and count what is undefined first")
    return ordered


def at_rank(ordered: npt.NDArray[Any], rank: npt.ArrayLike) -> Floats:
    """The sorted sample read at 0-based fractional ranks, clipped to its ends."""
    if not ordered.size:
        return np.full(np.shape(rank), math.nan)
    place = np.clip(np.asarray(rank, float), 0, ordered.size - 1)
    below = np.floor(place).astype(np.int64)
    part = place - below
    lo = ordered[below].astype(float)
    hi = ordered[np.minimum(below + 1, ordered.size - 1)].astype(float)
    with np.errstate(invalid="ignore"):
        step = np.where((part > 0) & (hi > lo), part * (hi - lo), 0.0)
    return np.asarray(lo + step)


def needed_n(q: float, level: float = 0.95) -> int:
    """The smallest sample whose two-sided order-statistic interval of quantile `q` exists.

    The upper end exists once q^n <= (1 - level)/2 and the lower once (1 - q)^n <= (1 - level)/2: 6 for the median,
    29 for p90 at 90 %, 368 for p99 at 95 %. Hahn & Meeker 1991, Statistical Intervals, 5.2 (with equal tails).
    """
    if not 0 < q < 1:
        raise ValueError(f"a quantile strictly between 0 and 1, not {q}")
    return math.ceil(math.log((1 - level) / 2) / math.log(max(q, 1 - q)))


def quantile_ci(values: npt.ArrayLike, q: float, level: float = 0.95) -> Interval:
    """Interval of quantile `q` of an independent sample, from its order statistics; distribution-free.

    `UNKNOWN` below `needed_n(q, level)`. See `rank_interval` for the ranks.
    """
    ordered = sorted_values(values)
    return interval_at_ranks(ordered, q, float(ordered.size), level)


def interval_at_ranks(
    ordered: npt.NDArray[Any], q: float, effective_n: float, level: float
) -> Interval:
    """Interval of quantile `q` of a sorted sample that is worth `effective_n` independent values."""
    lo, hi = rank_interval(q, effective_n, level)
    if math.isnan(lo):
        return UNKNOWN
    # u is a position in [0, 1] of the sample's CDF; the value of expected position u has 1-based rank u(n + 1).
    at = at_rank(ordered, np.array([lo, hi]) * (ordered.size + 1) - 1)
    return Interval(float(at[0]), float(at[1]))


def rank_interval(q: float, n: float, level: float = 0.95) -> Interval:
    """Where in [0, 1] of the sample's CDF the ends of an interval for quantile `q` lie, from `n` independent values.

    The r-th smallest of n has CDF value Beta(r, n + 1 - r); r is taken as real, so that each tail has exactly
    (1 - level)/2, and `n` may be an effective sample size. Ends are r/(n + 1). Fractional order statistics:
    Stigler 1977, JASA 72; Hutson 1999, J. Appl. Stat. 26. `UNKNOWN` where a rank would leave the sample.
    """
    if not math.isfinite(n) or n < needed_n(q, level):
        return UNKNOWN
    from scipy import special

    tail = (1 - level) / 2
    # The real r with P(Beta(r, n + 1 - r) > q) = P(Binomial(n, q) < r) = tail; mirrored for the upper end.
    lower = special.bdtrik(tail, n, q) + 1
    upper = n - special.bdtrik(tail, n, 1 - q)
    return Interval(float(lower) / (n + 1), float(upper) / (n + 1))


def mean_ci(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values (repeats of a run, say); `UNKNOWN` below two."""
    x = np.asarray(values, float).ravel()
    if x.size < 2:
        return UNKNOWN
    return t_interval(float(x.mean()), float(x.std(ddof=1)) / math.sqrt(x.size), x.size - 1, level)


class Components(NamedTuple):
    """Variance of a run's result: what runs differ by in truth, and what each is uncertain by."""

    between: float
    within: float


def variance_components(results: npt.ArrayLike, standard_errors: npt.ArrayLike) -> Components:
    """Between-run and within-run variance of repeats (one-way random effects by moments; Searle et al. 1992, 3.6).

    results: one per run; standard_errors: what each run by itself believes its error to be. Between-run variance is NaN
    for one run, and 0 where runs differ by no more than they believe.
    """
    x = np.asarray(results, float)
    within = float((np.asarray(standard_errors, float) ** 2).mean())
    between = max(float(x.var(ddof=1)) - within, 0.0) if x.size > 1 else math.nan
    return Components(between, within)


def t_interval(center: float, standard_error: float, dof: float, level: float = 0.95) -> Interval:
    """center ± t · standard_error with `dof` degrees of freedom."""
    half = t_quantile((1 + level) / 2, dof) * standard_error
    return Interval(center - half, center + half)


def t_quantile(p: float, dof: float) -> float:
    """Quantile `p` of Student's t."""
    from scipy import special

    return float(special.stdtrit(dof, p))


def normal_quantile(p: float) -> float:
    """Quantile `p` of the standard normal."""
    return NormalDist().inv_cdf(p)


def proportion_ci(
    k: float,
    n: float,
    level: float = 0.95,
    method: Literal["wilson", "clopper-pearson"] = "wilson",
) -> Interval:
    """Interval of a proportion seen as `k` of `n` independent trials; real numbers serve effective counts.

    Wilson 1927, JASA 22 (near nominal on average; Brown, Cai & DasGupta 2001) or Clopper & Pearson 1934,
    Biometrika 26 (never below nominal; for claims). `UNKNOWN` for n = 0.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is not a proportion")
    if n == 0:
        return UNKNOWN
    return _wilson(k, n, level) if method == "wilson" else _clopper_pearson(k, n, level)


def _wilson(k: float, n: float, level: float) -> Interval:
    z2 = normal_quantile((1 + level) / 2) ** 2
    p = k / n
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At k = 0 and k = n an end is exactly 0 or 1; rounding must not move it.
    return Interval(0.0 if k == 0 else center - half, 1.0 if k == n else center + half)


def _clopper_pearson(k: float, n: float, level: float) -> Interval:
    from scipy import special

    tail = (1 - level) / 2
    lo = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    hi = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return Interval(lo, hi)
