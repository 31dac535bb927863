"""Where a noisy monotone curve crosses a level: the arithmetic under a capacity search, without the search.

Knows probes (rate, share of requests that met the SLO, effective number of requests) and that the true share does not rise
with the rate. Never runs anything: `next_rate` only says where a further probe would tell most.
All probes count, also repeated and early ones: they are pooled by isotonic regression (Ayer et al. 1955; Barlow et al.
1972), which gives the estimate. The interval holds every rate that a likelihood ratio test does not refuse as the
boundary (Banerjee & Wellner 2001, Ann. Stat. 29, who prove it for this design). It needs no slope, no bandwidth and no
bootstrap, which is inconsistent for isotonic estimates (Kosorok 2008) and covers far too little here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.stats.intervals import Floats, Interval, normal_quantile, t_quantile

REACH = 2.0  # factor beyond the probed rates at which nothing is known
NEAR = 0.15  # of the logarithm of the rate: a probe 15 % away counts 0.6, one 30 % away 0.14
CENTRINGS = 2
GRID, SLOPES, NEWTON = 81, 10, 8
FLATTEST, STEEPEST = 0.4, 400.0
USUAL, USUAL_SD = 8.0, 1.5  # a weak prior on the slope, so that probes that do not scatter have one
RISE, RISE_SD = 3.0, 10.0
WIDEST = 40.0  # in deviance: what any interval could hold


class Probe(NamedTuple):
    """One measurement of the curve: the share met at `rate`, worth `effective_n` independent requests."""

    rate: float
    share: float
    effective_n: float


class Boundary(NamedTuple):
    """The highest rate at which the curve is still at the level, and its interval.

    0 where even the lowest probe is below the level, +inf where even the highest is above: the probes do not bracket it.
    """

    rate: float
    interval: Interval
    slope: float = math.nan  # of the logit, per unit of log rate, where one was fitted


def isotonic(values: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Floats:
    """The non-decreasing sequence closest to `values` in weighted squares: pool adjacent violators (Ayer et al. 1955)."""
    y = np.asarray(values, float)
    w = np.ones(y.size) if weights is None else np.asarray(weights, float)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(y, w, strict=True):
        block = (float(value), float(weight), 1)
        while blocks and blocks[-1][0] >= block[0]:
            mean, heavy, count = blocks.pop()
            total = heavy + block[1]
            pooled = (mean * heavy + block[0] * block[1]) / total if total else block[0]
            block = (pooled, total, count + block[2])
        blocks.append(block)
    return np.repeat([b[0] for b in blocks], [b[2] for b in blocks])


def smoothed(x: npt.ArrayLike, y: npt.ArrayLike, weights: npt.ArrayLike, near: float) -> Floats:
    """Positive noisy values y of a rising curve, smoothed: at each x a local exponential, by weight and nearness.

    Gaussian kernel of width `near`; gamma quasi-likelihood with a log link, which keeps means as they are (McCullagh &
    Nelder 1989, 8); a slope below 0 is 0, and a weak prior (`RISE`) stands in where there are too few points for one.
    """
    at, values, w = (np.asarray(v, float) for v in (x, y, weights))
    apart = at - at[:, None]
    kernel = np.exp(-((apart / near) ** 2) / 2) * w
    kernel /= kernel.max(axis=1, keepdims=True)
    mean = (kernel * values).sum(axis=1) / kernel.sum(axis=1)
    level, slope = np.log(mean), np.zeros(at.size)
    for _ in range(NEWTON):
        ratio = kernel * values * np.exp(-np.clip(level[:, None] + slope[:, None] * apart, -50, 50))
        down = (kernel - ratio).sum(axis=1), ((kernel - ratio) * apart).sum(axis=1) + (slope - RISE) / RISE_SD**2  # fmt: skip
        a, b, c = ratio.sum(axis=1), (ratio * apart).sum(axis=1), (ratio * apart**2).sum(axis=1) + 1 / RISE_SD**2  # fmt: skip
        det = a * c - b * b
        level -= np.clip((c * down[0] - b * down[1]) / det, -1, 1)
        slope -= np.clip((a * down[1] - b * down[0]) / det, -5, 5)
    return np.asarray(np.where(slope >= 0, np.exp(level), mean))


def boundary(probes: Sequence[Probe], level: float, confidence: float = 0.9) -> Boundary:
    """Where the share falls below `level`, with a `confidence` interval; probes in any order, rates may repeat.

    The interval's ends are probed rates, or 0 and inf where no probe is surely above (below) the level. The test uses
    chi-square with one degree of freedom, an upper bound of its distribution.
    """
    return _steps(probes, level, normal_quantile((1 + confidence) / 2) ** 2)


def _steps(probes: Sequence[Probe], level: float, bar: float) -> Boundary:
    """`boundary`, with all within `bar` of the highest deviance."""
    rates, shares, counts = _pooled(probes)
    if not rates.size:
        return Boundary(math.nan, Interval(math.nan, math.nan))
    falling = -isotonic(-shares, counts)
    free = _log_likelihood(shares, falling, counts)
    # Boundary between rate k - 1 and rate k: what lies below is at least at the level, what lies above at most.
    held = [
        np.concatenate([np.maximum(falling[:k], level), np.minimum(falling[k:], level)])
        for k in range(rates.size + 1)
    ]
    kept = [
        k for k, fit in enumerate(held) if 2 * (free - _log_likelihood(shares, fit, counts)) <= bar
    ]
    ends = np.concatenate([[0.0], rates, [math.inf]])
    return Boundary(
        _crossing(rates, -falling, -level),
        Interval(float(ends[kept[0]]), float(ends[kept[-1] + 1])),
    )


def sharpened(probes: Sequence[Probe], level: float, confidence: float = 0.9) -> Boundary:
    """The same from a curve: near the boundary the share's logit falls in a straight line with the logarithm of the rate.

    A line needs a fraction of the probes that steps need, and is right only where it is straight: probes count by a
    Gaussian weight of their distance (`NEAR`) from the boundary. The interval is a profile likelihood's, widened where the
    probes scatter more than they say (residual deviance: what differs between runs). It is `boundary`'s wherever the two
    disagree: where that is open, where the line's estimate lies outside of it, or the level is 0 or 1.
    """
    safe = boundary(probes, level, confidence)
    if not (0 < safe.rate < math.inf and 0 < level < 1):
        return safe
    near = safe.rate
    for _ in range(CENTRINGS):
        line = _line(probes, level, near, safe)
        near = line.rate
    bar = t_quantile((1 + confidence) / 2, line.near) ** 2 * line.scatter
    safe = _steps(probes, level, bar)
    kept = line.rates[2 * (line.profile.max() - line.profile) <= bar]
    gap = _fall(probes, level, line.rate)
    lo = max(min(kept[0], gap.lo), safe.interval.lo)
    hi = min(max(kept[-1], gap.hi), safe.interval.hi)
    if not lo <= line.rate <= hi:
        return safe
    at_edge = kept[0] == line.rates[0], kept[-1] == line.rates[-1]
    ends = (safe.interval.lo if at_edge[0] else lo, safe.interval.hi if at_edge[1] else hi)
    return Boundary(line.rate, Interval(*map(float, ends)), line.slope)


def _fall(probes: Sequence[Probe], level: float, rate: float) -> Interval:
    """The probed rates next to `rate`, if the share falls from the level to half of it between them; else `rate` alone.

    There is no line over such an edge: it may be anywhere between the two.
    """
    rates, shares, counts = _pooled(probes)
    falling = -isotonic(-shares, counts)
    k = int(np.searchsorted(rates, rate, side="right"))
    if 0 < k < rates.size and falling[k - 1] >= level and falling[k] <= level / 2:
        return Interval(float(rates[k - 1]), float(rates[k]))
    return Interval(rate, rate)


class _Line(NamedTuple):
    """The likelihood of boundaries `rates`, each with its best slope; where it is highest, with what slope."""

    rates: Floats
    profile: Floats
    rate: float
    slope: float
    scatter: float  # of the probes about the line, over what they say, at least 1
    near: float  # how many probes count, by their weights; at least 1


def _line(probes: Sequence[Probe], level: float, near: float, safe: Boundary) -> _Line:
    """Fit of the line to probes weighted by their distance from `near`; boundaries on a grid, then on a finer one."""
    x = np.log([p.rate / near for p in probes])
    weights = np.exp(-((x / NEAR) ** 2) / 2)
    used = weights > 1e-4
    x, weights = x[used], weights[used]
    shares, counts = (np.array([p[k] for p in probes])[used] for k in (1, 2))
    lo = math.log((safe.interval.lo or min(p.rate for p in probes) / REACH) / near)
    hi = math.log(min(safe.interval.hi, REACH * max(p.rate for p in probes)) / near)
    grid = np.linspace(lo, hi, GRID)
    # Half a hit and half a miss at the estimate: without them the logit of few misses is too high (Anscombe 1956).
    few = min(1.0, float(weights @ counts) / 20)
    seen = np.append(x, 0.0), np.append(shares, 0.5), np.append(weights * counts, few)
    for _ in range(2):
        profile, slopes = _profile(grid, *seen, level)
        best = int(np.argmax(profile))
        theta, slope = float(grid[best]), float(slopes[best])
        kept = np.flatnonzero(2 * (profile[best] - profile) <= WIDEST)
        fine = grid[max(kept[0] - 1, 0)], grid[min(kept[-1] + 1, grid.size - 1)]
        final, grid = grid, np.linspace(*fine, GRID)
    p = np.clip(_share(slope, x - theta, level), 1e-12, 1 - 1e-12)
    own = np.clip(shares, 1e-12, 1 - 1e-12)
    apart = _log_likelihood(shares, own, weights * counts) - _log_likelihood(shares, p, weights * counts)  # fmt: skip
    count = float(weights.sum())
    scatter = max(1.0, 2 * apart / max(count - 2, 1.0))
    return _Line(near * np.exp(final), profile, near * math.exp(theta), slope, scatter, max(count, 1.0))  # fmt: skip


def _profile(
    grid: Floats, x: Floats, shares: Floats, counts: Floats, level: float
) -> tuple[Floats, Floats]:
    """For each boundary on the grid the log likelihood at its best slope (with a weak prior on it), and that slope.

    A coarse search over slopes, then Newton's steps in the logarithm of the slope with the expected curvature.
    """
    away = x - grid[:, None]
    start = np.exp(np.linspace(math.log(FLATTEST), math.log(STEEPEST), SLOPES))

    def fit(slopes: Floats) -> Floats:
        eta = _logit(level) - slopes[..., None] * away
        prior = -((np.log(slopes / USUAL) / USUAL_SD) ** 2) / 2
        return np.asarray((counts * (shares * eta - np.logaddexp(0, eta))).sum(axis=-1) + prior)

    slopes = start[np.argmax([fit(np.full(grid.size, slope)) for slope in start], axis=0)]
    for _ in range(NEWTON):
        p = _share(slopes[:, None], away, level)
        gain = slopes * (counts * (p - shares) * away).sum(axis=1)
        bend = slopes**2 * (counts * p * (1 - p) * away**2).sum(axis=1)
        step = (gain - np.log(slopes / USUAL) / USUAL_SD**2) / (bend + 1 / USUAL_SD**2)
        slopes = np.clip(slopes * np.exp(np.clip(step, -0.5, 0.5)), FLATTEST, STEEPEST)
    return fit(slopes), slopes


def _share(slopes: Any, away: Floats, level: float) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, slopes * away - _logit(level))))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _pooled(probes: Sequence[Probe]) -> tuple[Floats, Floats, Floats]:
    """Rates in order, and share and effective n of all probes at each."""
    rates = np.array(sorted({p.rate for p in probes}), float)
    counts, hits = np.zeros(rates.size), np.zeros(rates.size)
    for probe in probes:
        k = int(np.searchsorted(rates, probe.rate))
        counts[k] += probe.effective_n
        hits[k] += probe.effective_n * probe.share
    return rates, hits / np.maximum(counts, 1e-300), counts


def _log_likelihood(shares: Floats, p: Floats, counts: Floats) -> float:
    """Of binomial shares, each worth `counts` trials, if the true ones were `p`; 0 log 0 is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        met = np.where(shares > 0, shares * np.log(p), 0.0)
        missed = np.where(shares < 1, (1 - shares) * np.log1p(-p), 0.0)
    return float((counts * (met + missed)).sum())


def _crossing(rates: Floats, rising: Floats, level: float) -> float:
    """Where a non-decreasing curve first exceeds `level`, linear between probes; 0 or inf outside of them."""
    over = rising > level
    if over[0]:
        return 0.0
    if not over[-1]:
        return math.inf
    k = int(np.argmax(over))
    part = (level - rising[k - 1]) / (rising[k] - rising[k - 1])
    return float(rates[k - 1] + part * (rates[k] - rates[k - 1]))
