"""Answers that need draws: block bootstrap for statistics without a formula, and permutation over blocks.

Knows arrays, a statistic as a function, and a seed. Everything is reproducible: same data and seed, same answer.
Rule: what is drawn is a block (of neighbouring requests, or one run of an A/B plan), never a single correlated value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from inferometer.stats.intervals import UNKNOWN, Floats, Interval, quantile
from inferometer.stats.series import FEWEST, effective_n

EXACT = 10_000  # arrangements up to which a permutation test visits them all


def block_length(values_in_order: npt.ArrayLike) -> float:
    """Mean block length for the stationary bootstrap (Politis & White 2004, Econometric Rev. 23; Patton et al. 2009).

    At least 1, at most a tenth of the series, so that a resample has ten blocks to vary.
    """
    x = np.asarray(values_in_order, float)
    n, away = x.size, x - x.mean()
    squares = float(away @ away)
    if n < FEWEST or not squares > 0:
        return 1.0
    reach = min(int(math.sqrt(n)) + max(5, int(math.log10(n))), n // 2)
    r = np.array([away[k:] @ away[: n - k] for k in range(reach + 1)]) / squares
    lags = np.arange(2 * _last_lag(r, n) + 1)
    lags = lags[lags <= reach]
    weight = np.clip(2 * (1 - lags / lags[-1]), 0, 1) if lags[-1] else np.ones(1)
    twice = np.where(lags > 0, 2.0, 1.0) * weight * r[lags]
    slope, level = float((twice * lags).sum()), float(twice.sum())
    best = (2 * slope**2 / (2 * level**2)) ** (1 / 3) * n ** (1 / 3) if level else 1.0
    return float(min(max(best, 1.0), n / 10))


def block_bootstrap_ci(
    rows_in_order: npt.ArrayLike,
    statistic: Callable[[npt.NDArray[Any]], npt.ArrayLike],
    level: float = 0.95,
    *,
    draws: int = 999,
    seed: int = 0,
) -> list[Interval]:
    """Percentile intervals of each value of `statistic(rows)`, by the stationary bootstrap (Politis & Romano 1994).

    rows: [N] or [N, K] in order; rows are drawn whole, so that columns of one row (a paired comparison) stay together.
    The block length comes from the column that needs the longest. `UNKNOWN` below `FEWEST` effective rows.
    """
    rows = np.asarray(rows_in_order)
    columns = rows.reshape(len(rows), -1).T.astype(float)
    shape = np.atleast_1d(np.asarray(statistic(rows))).size
    if not min(effective_n(c) for c in columns) >= FEWEST:
        return [UNKNOWN] * shape
    length = max(block_length(c) for c in columns)
    drawn = np.array(
        [np.atleast_1d(statistic(rows[i])) for i in _stationary(len(rows), length, draws, seed)]
    )
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    return [Interval(*(float(v) for v in quantile(column, ends))) for column in drawn.T]


def permutation_p(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    statistic: Callable[[Floats], float] = np.mean,
    *,
    draws: int = EXACT - 1,
    seed: int = 0,
) -> float:
    """Two-sided p-value of "the blocks of a and b come from one source", the statistic's difference being permuted.

    a, b: one value per block (a run's p99, say). All arrangements where at most `EXACT`, else `draws` random ones;
    the observed arrangement counts as one (Phipson & Smyth 2010), so p is never 0.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    pool = np.concatenate([x, y])

    def difference(chosen: npt.NDArray[Any]) -> float:
        mask = np.zeros(pool.size, bool)
        mask[chosen] = True
        return abs(float(statistic(pool[mask])) - float(statistic(pool[~mask])))

    seen = difference(np.arange(x.size))
    if math.comb(pool.size, x.size) <= EXACT:
        arranged = [difference(np.array(c)) for c in combinations(range(pool.size), x.size)]
        return _share_at_least(arranged, seen)
    rng = np.random.default_rng(seed)
    arranged = [difference(rng.permutation(pool.size)[: x.size]) for _ in range(draws)]
    return _share_at_least([seen, *arranged], seen)


def sign_flip_p(differences: npt.ArrayLike, *, draws: int = EXACT - 1, seed: int = 0) -> float:
    """Two-sided p-value of "no mean difference" from paired blocks: each pair's sign is as likely either way.

    differences: one per pair of interleaved blocks (A/B in random order within the pair; Fisher 1935). Exact or random
    as in `permutation_p`.
    """
    d = np.asarray(differences, float)
    seen = abs(float(d.mean()))
    if 2**d.size <= EXACT:
        signs = np.array(list(product((1, -1), repeat=d.size)))
        return _share_at_least(np.abs((signs * d).mean(axis=1)), seen)
    signs = np.random.default_rng(seed).choice((1, -1), (draws, d.size))
    return _share_at_least([seen, *np.abs((signs * d).mean(axis=1))], seen)


def _stationary(n: int, length: float, draws: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Row indices of each resample: blocks of geometric length from random starts, wrapping at the end."""
    rng = np.random.default_rng(seed)
    rows = np.arange(n)
    for _ in range(draws):
        fresh = rng.random(n) < 1 / length
        fresh[0] = True
        begins = np.flatnonzero(fresh)
        block = np.cumsum(fresh) - 1
        yield (rng.integers(0, n, begins.size)[block] + rows - begins[block]) % n


def _last_lag(r: Floats, n: int) -> int:
    """The lag after which several autocorrelations in a row are no longer shown (Politis & White 2004, 3.1)."""
    quiet = np.abs(r[1:]) < 2 * math.sqrt(math.log10(n) / n)
    run = max(5, int(math.sqrt(math.log10(n))))
    for lag in range(max(quiet.size - run + 1, 0)):
        if quiet[lag : lag + run].all():
            return lag
    loud = np.flatnonzero(~quiet)
    return int(loud[-1]) + 1 if loud.size else 0


def _share_at_least(arranged: npt.ArrayLike, seen: float) -> float:
    # A rounding error must not drop an arrangement that equals the observed one.
    return float(np.mean(np.asarray(arranged) >= seen * (1 - 1e-12)))
