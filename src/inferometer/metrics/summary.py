"""From the values of a metric to what may be said about them: percentiles, intervals, and what is refused.

A percentile is shown only where its sample could also bound it: below `stats.needed_n` (6 for the median, 36 for p90,
368 for p99) it is refused, and the n that it needs is given. Gaps of one request are no independent values: they count
as what they are worth (`stats.clustered_n`). Percentiles interpolate linearly (numpy's default).
Intervals: requests share a queue, so theirs come from batches in order of arrival; gaps between tokens share a request,
so theirs are clustered by it. An interval that the sample cannot carry is NaN, never a guess.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer import stats
from inferometer.clock import SECOND
from inferometer.metrics import tokens
from inferometer.metrics.table import (
    DISTRIBUTIONS,
    POPULATIONS,
    Distribution,
    Figure,
    column_of,
    rows_of,
    value_of,
)
from inferometer.metrics.view import View
from inferometer.stats import UNKNOWN, Interval
from inferometer.timeline import Array, Ints

LEVEL = 0.95
ENOUGH = 2_000  # requests whose gaps are looked at first, before those of all
UPPER = (50.0, 90.0, 95.0, 99.0)  # percentiles shown for what should be small
LOWER = (
    1.0,
    10.0,
    50.0,
    90.0,
    99.0,
)  # ... and for what should be large: its bad tail is the lower one


class Row(NamedTuple):
    """A distribution's line of the scorecard. Values in `unit`, NaN where undefined or refused.

    `undefined` members of the population had no value; `failed` requests stand beside every percentile.
    `quantiles` and `ci` go by name ("p99", "mean"). `too_few`: the n that each refused percentile needs.
    """

    id: str
    unit: str
    definition: str
    population: str
    n: int
    undefined: int
    failed: int
    mean: float
    min: float
    max: float
    quantiles: dict[str, float]
    ci: dict[str, Interval]
    too_few: dict[str, int]


class Value(NamedTuple):
    """A figure's line of the scorecard; `too_few` is the n that it needs where it was refused, else None."""

    id: str
    unit: str
    definition: str
    population: str
    n: int
    value: float
    ci: Interval
    too_few: int | None


class Sample(NamedTuple):
    """The defined values of a metric [N], in order of intended time; times `scale` they are in its unit.

    `offset` [R+1] says which values are of one request, where they are several.
    """

    values: Array
    undefined: int
    scale: float = 1.0
    offset: Ints | None = None


def sample(view: View, metric: Distribution) -> Sample:
    """The values of a metric in its population."""
    if metric.population == "gaps":
        gaps = view.gaps
        without = int(np.sum(view.ok)) - int(np.sum(tokens.nonempty(gaps.offset)))
        return Sample(gaps.values, without, 1 / SECOND, gaps.offset)
    values = column_of(view, metric.id)[rows_of(view, metric.population)]
    missing = np.isnan(values)
    return Sample(values[~missing], int(missing.sum()))


def row(view: View, metric: Distribution, *, intervals: bool) -> Row:
    """The summary of one distribution."""
    found = sample(view, metric)
    percents = _percents(metric)
    short = {_name(p): needs(found, _name(p)) for p in percents}
    shown = [p for p in percents if short[_name(p)] is None]
    values = dict(zip(map(_name, shown), quantiles(found, shown), strict=True))
    return Row(
        metric.id,
        metric.unit,
        metric.definition.format(**view.settings.told()),
        POPULATIONS[metric.population],
        len(found.values),
        found.undefined,
        int(np.sum(~view.ok)),
        mean(found),
        statistic(found, "min"),
        statistic(found, "max"),
        {name: values.get(name, math.nan) for name in short},
        _intervals(found, shown) if intervals else {},
        {name: n for name, n in short.items() if n is not None},
    )


def percentiles(metric: str) -> tuple[str, ...]:
    """The percentiles ("p50", ...) that a distribution's row has."""
    return tuple(map(_name, _percents(DISTRIBUTIONS[metric])))


def _percents(metric: Distribution) -> tuple[float, ...]:
    return LOWER if metric.higher_is_better else UPPER


def value(view: View, metric: Figure, *, intervals: bool) -> Value:
    """One figure, with an interval where it is a proportion of requests."""
    found, n, too_few = value_of(view, metric.id), int(rows_of(view, metric.population).sum()), None
    if metric.id == "fluid_token_rate" and n < (least := needed("p99")):
        found, too_few = math.nan, least  # a statement about 1 % of the requests, like p99
    ci = UNKNOWN
    if intervals and metric.indicator is not None and not math.isnan(found):
        ci = stats.series_proportion_ci(metric.indicator(view), LEVEL, at_most=_worth(view))
    return Value(
        metric.id,
        metric.unit,
        metric.definition,
        POPULATIONS[metric.population],
        n,
        found,
        ci,
        too_few,
    )


def needed(statistic: str) -> int:
    """The smallest sample for which a percentile ("p99") may be shown."""
    return stats.needed_n(float(statistic[1:]) / 100, LEVEL)


def needs(found: Sample, statistic: str) -> int | None:
    """How many values a percentile ("p99") asks for where these are too few; None where they suffice.

    Of gaps: how many would be worth enough, at the worth of those that are here. Some requests may suffice to know.
    """
    least = needed(statistic)
    if found.offset is None or len(found.values) < least:
        return least if len(found.values) < least else None
    edges, worth = np.unique(found.offset), math.nan
    for requests in (ENOUGH, len(edges) - 1):
        part = edges[: requests + 1]
        worth = stats.clustered_n(found.values[: part[-1]], part, float(statistic[1:]) / 100)
        if worth >= least:
            return None
    return math.ceil(least * len(found.values) / worth)


def statistic(found: Sample, name: str) -> float:
    """A statistic by its name: "p99", "mean", "min" or "max"; NaN of nothing."""
    if name == "mean":
        return mean(found)
    if name in ("min", "max"):
        return _extreme(found, np.min if name == "min" else np.max)
    return quantiles(found, [float(name[1:])])[0]


def quantiles(found: Sample, percents: list[float]) -> list[float]:
    """Percentiles by linear interpolation; a rank that touches +inf is +inf. Partitions: never sorts 20 M gaps."""
    if not percents or not len(found.values):
        return [math.nan] * len(percents)
    rank = np.asarray(percents) / 100 * (len(found.values) - 1)
    below = np.floor(rank).astype(np.int64)
    above = np.ceil(rank).astype(np.int64)
    parted = np.partition(found.values, np.union1d(below, above))
    lo, hi = parted[below].astype(float), parted[above].astype(float)
    rise = np.subtract(hi, lo, out=np.zeros_like(hi), where=hi > lo)
    return ((lo + (rank - below) * rise) * found.scale).tolist()  # type: ignore[no-any-return]


def mean(found: Sample) -> float:
    """The mean; NaN of nothing."""
    if not len(found.values):
        return math.nan
    total = found.values.sum()  # exact for integer nanoseconds
    return float(total) / len(found.values) * found.scale


def interval(found: Sample, statistic: str) -> Interval:
    """The interval of a percentile ("p99") or of the mean; UNKNOWN of anything else."""
    if statistic == "mean":
        return _mean_ci(found)
    if not statistic.startswith("p"):
        return UNKNOWN
    return _quantile_ci(found, [float(statistic[1:])])[0]


def _worth(view: View) -> float:
    """How many independent requests these are, by their TTFTs: what also bounds what a share of them can be worth.

    A series of successes alone shows no dependence, though its requests shared a queue.
    """
    ttft = sample(view, DISTRIBUTIONS["ttft"]).values
    if not len(ttft):
        return math.inf
    return stats.effective_n(ttft) / len(ttft) * len(view)


def _intervals(found: Sample, shown: list[float]) -> dict[str, Interval]:
    out = dict(zip(map(_name, shown), _quantile_ci(found, shown), strict=True))
    out["mean"] = _mean_ci(found)
    return out


def _quantile_ci(found: Sample, percents: list[float]) -> list[Interval]:
    if not percents or not len(found.values):
        return [UNKNOWN] * len(percents)
    qs = [p / 100 for p in percents]
    if found.offset is None:
        got = stats.series_quantile_ci(found.values, qs, LEVEL)
    else:
        got = stats.clustered_quantile_ci(found.values, np.unique(found.offset), qs, LEVEL)
    return [Interval(ci.lo * found.scale, ci.hi * found.scale) for ci in got]


def _mean_ci(found: Sample) -> Interval:
    if not len(found.values) or not math.isfinite(mean(found)):
        return UNKNOWN
    if found.offset is None:
        return stats.series_mean_ci(found.values, LEVEL)
    ci = stats.clustered_mean_ci(found.values, np.unique(found.offset), LEVEL)
    return Interval(ci.lo * found.scale, ci.hi * found.scale)


def _extreme(found: Sample, pick: Any) -> float:
    return float(pick(found.values)) * found.scale if len(found.values) else math.nan


def _name(percent: float) -> str:
    return f"p{percent:g}"


def plain(number: npt.ArrayLike) -> Any:
    """A number as JSON has it: None for NaN and for infinities."""
    as_float = float(number)  # type: ignore[arg-type]
    return as_float if math.isfinite(as_float) else None
