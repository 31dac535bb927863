"""Predicted beside measured: relative errors at mean, p50, p90 and p99, printed as a table with their sensitivities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inferometer.sim.sensitivity import Slopes

STATISTICS = ("mean", "p50", "p90", "p99")


class Line(NamedTuple):
    """One metric: predicted and measured values [R], seconds."""

    metric: str
    predicted: np.ndarray
    measured: np.ndarray

    def errors(self, statistics: tuple[str, ...] = STATISTICS) -> list[float]:
        return [at(self.predicted, s) / at(self.measured, s) - 1 for s in statistics]


def at(values: np.ndarray, statistic: str) -> float:
    if statistic == "mean":
        return float(values.mean())
    return float(np.percentile(values, float(statistic[1:])))


def show(
    title: str,
    lines: list[Line],
    slopes: Slopes | None = None,
    statistics: tuple[str, ...] = STATISTICS,
) -> float:
    """Print a table; the largest absolute error in it."""
    print(title)
    print(f"  {'':20}" + "".join(f"{s:>22}" for s in statistics))
    worst = 0.0
    for line in lines:
        cells = []
        for s, error in zip(statistics, line.errors(statistics), strict=True):
            slope = (slopes or {}).get(line.metric, {}).get(s)
            said = "" if slope is None else f"  (x{slope:.1f})"
            cells.append(f"{at(line.predicted, s):8.3f} {error:+7.1%}{said:>6}")
            worst = max(worst, abs(error))
        print(f"  {line.metric:20}" + "".join(f"{cell:>22}" for cell in cells))
    return worst
