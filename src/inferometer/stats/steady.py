"""Is there a steady state, and where does it begin and end?

Knows series on one regular time grid (requests in flight, token rate, TTFT by second) and nothing of what they mean.
Three questions, in this order:
1. Where do the warm-up and the drain end? MSER-5 proposes a cut (White 1997, Simulation 69; White, Cobb & Spratt 2000),
   and a test disposes: what is cut must differ from what is kept by more than the run's own waves. Without that test MSER-5
   cuts every run that happens to begin busy, and biases a stationary queue's mean by 3 to 5 % (benchmarks/steady_state.py).
   The longest cut of all series counts. A cut of half the run is one that would have gone further: the run still moves,
   or is too short.
2. Does what is left still move? Mann & Kendall's trend test on batch means, its variance corrected for autocorrelation
   (Hamed & Rao 1998, J. Hydrology 204), and Theil & Sen's slope. Only a trend that is both shown and large is held against
   the run: a long run shows drifts too small to matter.
3. Is the window long enough to say so?

Rule: beyond saturation there is no mean to estimate. The verdict then stands in place of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.stats.decisions import holm
from inferometer.stats.intervals import Floats, normal_quantile
from inferometer.stats.series import BATCHES, FEWEST, batch_means, mean_error

MSER_BATCH = 5
CUT_Z = 4.0  # the cut was chosen to look different, so the bar is above the usual 2
CUT_MATTERS = 0.01  # of the mean: what moves it by less is no transient to speak of
ALPHA = 0.02
LARGE = 0.25  # of the mean, over the window
GROWTH = 1.0  # of the mean, over the whole run; from empty at a constant rate it is 2


class Trend(NamedTuple):
    """A monotone trend: slope per value (Theil & Sen), its rise over the series, two-sided p of none."""

    slope: float
    rise: float
    p_value: float


class Movement(NamedTuple):
    """The series that moves, and its rise from start to end as a share of its mean."""

    series: str
    rise: float

    def __str__(self) -> str:
        way = "rises" if self.rise > 0 else "falls"
        return f"{self.series} {way} by {abs(self.rise):.0%} of its mean from start to end"


Verdict = Literal["steady", "no steady state", "too short to tell"]


class SteadyState(NamedTuple):
    """The verdict, the half-open window of the grid it is about, why, and what moves where there is no steady state."""

    verdict: Verdict
    start: int
    stop: int
    reason: str = ""
    movement: Movement | None = None


def mser5(values: npt.ArrayLike) -> int:
    """How many leading values to drop, at most half, for the least standard error of the mean: MSER-5.

    0 below ten batches of five.
    """
    x = np.asarray(values, float)
    m = x.size // MSER_BATCH
    if m < 10:
        return 0
    y = x[: m * MSER_BATCH].reshape(m, MSER_BATCH).mean(axis=1)
    y -= y.mean()
    left = m - np.arange(m)
    sums, squares = np.cumsum(y[::-1])[::-1], np.cumsum(y[::-1] ** 2)[::-1]
    error = (squares - sums**2 / left) / left**2
    return int(np.argmin(error[: m // 2 + 1])) * MSER_BATCH


def warm_up(values: npt.ArrayLike) -> int:
    """How many leading values are a warm-up: MSER-5's cut where it removes something unlike the rest, else 0.

    The run's own waves are judged by its second half, which the cut did not choose, and to be no less than independent
    values of the whole would have: a quiet second half must not make a transient of every spike in the first.
    """
    x = np.asarray(values, float)
    cut = mser5(x)
    later = x[x.size // 2 :]
    error = mean_error(later)
    if not cut or math.isnan(error.variance):
        return 0
    waves = max(error.variance * later.size, float(x.var()))
    spread = math.sqrt(waves * (1 / cut + 1 / (x.size - cut)))
    left = float(x[cut:].mean())
    apart = abs(float(x[:cut].mean()) - left)
    matters = apart * cut / x.size > CUT_MATTERS * abs(left)
    return cut if matters and apart > CUT_Z * spread else 0


def trend(values: npt.ArrayLike) -> Trend:
    """The monotone trend of a series of at least eight values, allowing for autocorrelation."""
    x = np.asarray(values, float)
    if x.size < 8:
        raise ValueError(f"no trend can be told from {x.size} values")
    means = batch_means(x, min(BATCHES, x.size))
    n = means.size
    i, j = np.triu_indices(n, 1)
    steps = means[j] - means[i]
    slope = float(np.median(steps / (j - i)))
    score = float(np.sign(steps).sum())
    spread = math.sqrt(_score_variance(means) * _hamed_rao(means - slope * np.arange(n)))
    z = (score - np.sign(score)) / spread if spread else 0.0
    return Trend(slope * n / x.size, slope * n, math.erfc(abs(z) / math.sqrt(2)))


def steady_state(
    series: Mapping[str, npt.ArrayLike], *, large: float = LARGE, alpha: float = ALPHA
) -> SteadyState:
    """The steady part of a run seen through several series on one grid (equal lengths; NaN where nothing was seen).

    alpha: the chance that a steady run is called moving, over all series together. large: the rise, as a share of the
    mean, from which a shown trend counts.
    """
    columns = {name: _filled(np.asarray(values, float)) for name, values in series.items()}
    size = _common_size(columns)
    if size < FEWEST:
        return SteadyState("too short to tell", 0, size, f"{size} points on the time grid")
    # A queue past saturation grows from its first second to its last: no cut mends that, and cutting would hide it.
    if growing := moving(columns, large=GROWTH, alpha=alpha):
        return SteadyState("no steady state", 0, size, str(growing), growing)
    cuts = {name: _cuts(x) for name, x in columns.items()}
    start, stop = max(c[0] for c in cuts.values()), size - max(c[1] for c in cuts.values())
    short = _short(cuts, start, stop, size)
    kept = columns if short else {name: x[start:stop] for name, x in columns.items()}
    if drifting := moving(kept, large=large, alpha=alpha):
        return SteadyState("no steady state", start, stop, str(drifting), drifting)
    return SteadyState("too short to tell" if short else "steady", start, stop, short)


def moving(
    series: Mapping[str, npt.ArrayLike], *, large: float = LARGE, alpha: float = ALPHA
) -> Movement | None:
    """The first series with a trend that is shown (Holm over the series) and larger than `large` of its mean."""
    windows = {name: np.asarray(values, float) for name, values in series.items()}
    trends = {name: trend(x) for name, x in windows.items()}
    adjusted = holm([t.p_value for t in trends.values()])
    for (name, x), p in zip(windows.items(), adjusted, strict=True):
        mean = float(np.abs(x).mean())
        if p < alpha and abs(trends[name].rise) > large * mean:
            return Movement(name, trends[name].rise / mean)
    return None


def _cuts(x: Floats) -> tuple[int, int]:
    """What is transient at the start and at the end; the end is judged by what the start leaves."""
    start = warm_up(x)
    return start, warm_up(x[start:][::-1])


def _short(cuts: dict[str, tuple[int, int]], start: int, stop: int, size: int) -> str:
    """Why what the cuts leave is too little to judge; "" where it is enough."""
    if 2 * (stop - start) <= size + 2 * MSER_BATCH:
        slowest = max(cuts, key=lambda name: sum(cuts[name]))
        return f"{slowest} looks transient for half of the run or more"
    return f"{stop - start} points of the grid are left" if stop - start < FEWEST else ""


def _common_size(columns: dict[str, Floats]) -> int:
    sizes = {x.size for x in columns.values()}
    if len(sizes) != 1:
        raise ValueError(f"series of one grid have one length, not {sorted(sizes)}")
    return sizes.pop()


def _filled(x: Floats) -> Floats:
    """Gaps (NaN) hold the last value seen, and the first one before it; all-NaN is refused."""
    seen = np.flatnonzero(~np.isnan(x))
    if not seen.size:
        raise ValueError("a series without a value")
    last = np.searchsorted(seen, np.arange(x.size), "right") - 1
    return np.asarray(x[seen[np.maximum(last, 0)]])


def _score_variance(x: Floats) -> float:
    """Variance of Kendall's score for independent values, with ties (Kendall 1975, Rank Correlation Methods)."""
    n = x.size
    ties = np.unique(x, return_counts=True)[1]
    total = n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())
    return total / 18


def _hamed_rao(residual: Floats) -> float:
    """Factor on that variance for the significant rank autocorrelations of the detrended series; at least 1."""
    n = residual.size
    ranks = _ranks(residual) - (n - 1) / 2
    squares = float(ranks @ ranks)
    if not squares:
        return 1.0
    lags = np.arange(1, n - 2)
    correlation = np.array([ranks[k:] @ ranks[:-k] for k in lags]) / squares
    weights = (n - lags) * (n - lags - 1) * (n - lags - 2)
    shown = np.abs(correlation) > normal_quantile(0.975) / math.sqrt(n)
    return max(1 + 2 / (n * (n - 1) * (n - 2)) * float((weights * correlation)[shown].sum()), 1.0)


def _ranks(x: npt.NDArray[Any]) -> Floats:
    """0-based ranks, ties sharing their mean."""
    ordered = np.sort(x)
    first = np.searchsorted(ordered, x, "left")
    last = np.searchsorted(ordered, x, "right")
    return np.asarray((first + last - 1) / 2)
