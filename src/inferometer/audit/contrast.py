"""Two arms on equal terms: a statistic of both, the ratio of one to the other, and how sure that is.

The terms are equal where model, workload and load are. From three repeats a side on, the ratio takes its interval from the
scatter of the runs' own results, which holds everything (as `search.compare` does). Fewer have no scatter to speak of (Student's
t with one degree of freedom is 12.7): their requests are pooled, and the interval is that of the two samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from inferometer import stats
from inferometer.audit.evaluation import Evaluation
from inferometer.audit.point import SAMPLED, Point
from inferometer.metrics import summary
from inferometer.search.compare import HIGHER_IS_BETTER, SAME, ratio_of_repeats
from inferometer.stats import UNKNOWN, Interval
from inferometer.stats.intervals import normal_quantile
from inferometer.timeline import offsets

REPEATS = 3


class Pair(NamedTuple):
    """Two arms on one condition, each with its points."""

    condition: tuple[str, str, str]
    a: str
    b: str
    of_a: list[Point]
    of_b: list[Point]

    @property
    def where(self) -> str:
        """The condition in words."""
        return " ".join(part for part in self.condition if part) or "the only condition"


class Effect(NamedTuple):
    """A statistic of two arms: a, b, and a / b with its interval."""

    name: str
    a: float
    b: float
    ratio: float
    interval: Interval

    @property
    def ahead(self) -> str:
        """Who is better, shown or not: "a", "b" or "=" (to 1 %); "" where one has no value."""
        if math.isnan(self.a + self.b):
            return ""
        if abs(self.a - self.b) <= SAME * max(abs(self.a), abs(self.b)):
            return "="
        return "a" if (self.a > self.b) == rises(self.name) else "b"

    @property
    def shown(self) -> str:
        """Who is shown to be better: the interval of the ratio excludes 1; else ""."""
        if self.interval.lo > 1 or self.interval.hi < 1:
            return self.ahead if self.ahead in ("a", "b") else ""
        return ""


def rises(name: str) -> bool:
    """Whether more is better."""
    return name.partition(".")[0] in HIGHER_IS_BETTER


def pairs(evaluation: Evaluation) -> Iterator[Pair]:
    """Every two arms (no ablations) on every condition that both were measured under; runs that name no model on none."""
    arms = [arm.name for arm in evaluation.facts.arms]
    for condition, found in evaluation.conditions().items():
        by_arm = {name: points for name, points in found.items() if all(map(_names_model, points))}
        for i, a in enumerate(arms):
            for b in arms[i + 1 :]:
                if a in by_arm and b in by_arm:
                    yield Pair(condition, a, b, by_arm[a], by_arm[b])


def _names_model(point: Point) -> bool:
    return bool(point.manifest.model.get("name"))


def effect(
    name: str,
    a: Sequence[Point],
    b: Sequence[Point],
    level: float = 0.95,
    *,
    intervals: bool = True,
) -> Effect:
    """A statistic on both sides."""
    of_a, of_b = (np.array([p.value(name) for p in side]) for side in (a, b))
    mean_a, mean_b = float(np.mean(of_a)), float(np.mean(of_b))
    ratio = mean_a / mean_b if mean_b > 0 else math.nan
    if not intervals:
        return Effect(name, mean_a, mean_b, ratio, UNKNOWN)
    if min(len(a), len(b)) >= REPEATS:
        paired = [_plan(p) for p in a] == [_plan(p) for p in b]
        ci = ratio_of_repeats(of_b, of_a, paired=paired, level=level)
        return Effect(name, mean_a, mean_b, ratio, ci)
    return Effect(name, mean_a, mean_b, ratio, _of_samples(name, a, b, level))


def _of_samples(name: str, a: Sequence[Point], b: Sequence[Point], level: float) -> Interval:
    """The interval of the ratio from the samples of both sides; UNKNOWN of a figure."""
    metric, _, statistic = name.partition(".")
    if not statistic or any(math.isnan(p.value(name)) for p in (*a, *b)):
        return UNKNOWN
    sides = [_estimate(pooled(side, metric), statistic, level) for side in (b, a)]
    return stats.ratio_ci(*sides[0], *sides[1])


def _estimate(found: stats.Sample, statistic: str, level: float) -> tuple[float, Interval]:
    """A statistic of a sample with its interval, each half of the 95 % one scaled by the normal quantiles."""
    sample = summary.Sample(found.values, 0, 1.0, found.offsets)
    value, ci = summary.statistic(sample, statistic), summary.interval(sample, statistic)
    wider = normal_quantile((1 + level) / 2) / normal_quantile((1 + summary.LEVEL) / 2)
    return value, Interval(value - wider * (value - ci.lo), value + wider * (ci.hi - value))


def _plan(point: Point) -> str:
    return str(point.manifest.workload.get("fingerprint"))


def pooled(points: Sequence[Point], metric: str) -> stats.Sample:
    """The values of a metric over repeats, in order, in seconds; gaps in clusters by request, of `SAMPLED` requests in all."""
    found = [p.sample(metric) for p in points]
    if found[0].offset is None:
        return stats.Sample(np.concatenate([f.values * f.scale for f in found]))
    parts = [_thinned(f, SAMPLED // len(found)) for f in found]
    values = np.concatenate([part.values for part in parts])
    sizes = np.concatenate([np.diff(part.offsets) for part in parts if part.offsets is not None])
    return stats.Sample(values, offsets(sizes))


def _thinned(found: summary.Sample, most: int) -> stats.Sample:
    """At most so many of the clusters that are not empty, evenly; in the metric's unit."""
    edges = np.unique(np.asarray(found.offset, dtype=np.int64))
    count = len(edges) - 1
    if count < 1:
        return stats.Sample(found.values * found.scale, np.zeros(1, dtype=np.int64))
    chosen = np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
    sizes = np.diff(edges)[chosen]
    cut = offsets(sizes)
    place = np.repeat(edges[chosen] - cut[:-1], sizes) + np.arange(cut[-1])
    return stats.Sample(found.values[place] * found.scale, cut)


def needed(statistic: str) -> int:
    """The least sample that a percentile can be stated from; 0 for anything else."""
    return summary.needed(statistic) if statistic.startswith("p") else 0
