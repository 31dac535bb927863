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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.stats.intervals import Floats, Interval, normal_quantile

REACH = 2.0  # factor by which to step where the level has not been bracketed


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


def boundary(probes: Sequence[Probe], level: float, confidence: float = 0.9) -> Boundary:
    """Where the share falls below `level`, with a `confidence` interval; probes in any order, rates may repeat.

    The interval's ends are probed rates, or 0 and inf where no probe is surely above (below) the level. The test uses
    chi-square with one degree of freedom, an upper bound of its distribution.
    """
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
    bar = normal_quantile((1 + confidence) / 2) ** 2
    kept = [
        k for k, fit in enumerate(held) if 2 * (free - _log_likelihood(shares, fit, counts)) <= bar
    ]
    ends = np.concatenate([[0.0], rates, [math.inf]])
    return Boundary(
        _crossing(rates, -falling, -level),
        Interval(float(ends[kept[0]]), float(ends[kept[-1] + 1])),
    )


def next_rate(probes: Sequence[Probe], level: float, confidence: float = 0.9) -> float:
    """The rate whose probe would tell most about the boundary.

    Beyond the probed range (by a factor `REACH`) until the level is bracketed; then between the estimate and the end of
    the interval that is further away: near the estimate itself a probe cannot prove either side.
    """
    found = boundary(probes, level, confidence)
    lowest, highest = min(p.rate for p in probes), max(p.rate for p in probes)
    if found.rate == 0:
        return lowest / REACH
    if math.isinf(found.rate):
        return highest * REACH
    lo = found.interval.lo or lowest / REACH
    hi = min(found.interval.hi, highest * REACH)
    further = lo if found.rate / lo > hi / found.rate else hi
    return math.sqrt(found.rate * further)


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
