"""Item 7, performance distribution: is more told than one number, and can the samples carry it?

Anti-pattern 7 of the seed paper (section 3.3): medians that hide tails, tails that hide the middle. What is asked:
    statistics  for the wait, the flow of tokens and the whole, as far as they are reported: a CDF, or P50, P90 and P99; a centre
                and a tail, or the share of requests within the objective at two levels of attainment, count with less
    samples     every percentile that is reported, and P50, P90 and P99 in any case, has the requests that it takes to bound it
                (6, 36, 368: `stats.needed_n`), and an interval although requests share a queue
    crossings   where two arms' distributions cross, the better one depends on the percentile: that must be said
    modes       gaps of two kinds (bursts of tokens, then a pause) have no typical value: their median describes the burst
"""

from __future__ import annotations

import re

import numpy as np

from inferometer import stats
from inferometer.audit.contrast import needed, pairs, pooled
from inferometer.audit.evaluation import Evaluation
from inferometer.audit.facts import Number
from inferometer.audit.finding import (
    Evidence,
    Finding,
    failed,
    passed,
    pointer,
    unjudged,
    warned,
)
from inferometer.audit.metric_selection import FIRST, FLOW
from inferometer.audit.point import Point
from inferometer.audit.practical_latency import RATES
from inferometer.stats.compare import CURVE

ITEM = "performance_distribution"
QUESTION = "What do users at P50, P90 and P99 experience?"
FULL = frozenset({"p50", "p90", "p99"})
CROSSED = ("ttft", "tbt", "ttlt")
NEAR_ZERO = 0.1  # of the mean gap
TWO_KINDS = (0.2, 0.98)  # share of gaps that are near zero, from which on they are of two kinds
MOST = 8


def judge(evaluation: Evaluation) -> list[Finding]:
    """The parts of the item."""
    if not evaluation.facts.numbers and not evaluation.points:
        return [
            unjudged(ITEM, "no number is reported", remedy="name the numbers and their statistics")
        ]
    parts = [statistics(evaluation)]
    if not evaluation.points:
        return parts
    parts += [samples(evaluation), modes(evaluation)]
    return [*parts, crossings(evaluation)] if len(evaluation.facts.arms) > 1 else parts


# --- what is reported -------------------------------------------------------------------------------------------------


def statistics(evaluation: Evaluation) -> Finding:
    """A distribution for each phase that is reported."""
    item = f"{ITEM}.statistics"
    phases: dict[str, list[Number]] = {}
    for number in evaluation.facts.numbers:
        if number.metric not in RATES:
            phases.setdefault(_phase(number.metric), []).append(number)
    if not phases:
        return unjudged(
            item, "no latency is reported", remedy="name the numbers and their statistics"
        )
    found = {phase: max(map(_told, numbers)) for phase, numbers in phases.items()}
    single = [phase for phase, told in found.items() if told == SINGLE]
    if single:
        thin = [n for phase in single for n in phases[phase]]
        told = "; ".join(
            f"{n.metric}: only {', '.join(n.statistics or ())}"
            if n.statistics
            else f"{n.metric}: none"
            for n in thin
        )
        return failed(
            item,
            f"a single statistic stands for all requests ({told})",
            *_at(evaluation, thin),
            remedy="report P50, P90 and P99, or the whole CDF",
        )
    seen = _at(evaluation, [n for numbers in phases.values() for n in numbers if n.statistics])
    if UNKNOWN in found.values():
        return unjudged(item, "which statistics are reported is not told of every number", *seen)
    if SOME in found.values():
        return warned(
            item,
            "a centre and a tail are reported, but not P50, P90 and P99, or the CDF",
            *seen,
            remedy="report P50, P90 and P99, or the whole CDF",
        )
    return passed(item, "distributions are reported", *seen)


SINGLE, UNKNOWN, SOME, ALL = range(4)


def _phase(metric: str) -> str:
    return (
        "the wait" if metric in FIRST else "the flow of tokens" if metric in FLOW else "the whole"
    )


def _told(number: Number) -> int:
    """How much of the distribution the statistics of a number tell."""
    if number.statistics is None:
        return UNKNOWN
    names = set(number.statistics)
    if "cdf" in names or names >= FULL:
        return ALL
    if len([s for s in names if s.startswith("attainment@")]) > 1:
        return ALL
    tails = [s for s in names if re.fullmatch(r"p9\d(\.\d+)?", s)]
    return SOME if tails and names & {"p50", "mean"} else SINGLE


# --- what was measured ------------------------------------------------------------------------------------------------


def samples(evaluation: Evaluation) -> Finding:
    """Enough requests for every percentile."""
    item, most = f"{ITEM}.samples", max(_percentiles(evaluation), key=needed)
    groups = _groups(evaluation)
    counts = {key: sum(int(p.ok.sum()) for p in group) for key, group in groups.items()}
    takes = f"completed requests ({most} takes {needed(most)})"
    short = {key: n for key, n in counts.items() if n < needed(most)}
    seen = [
        pointer(f"{groups[key][0].timeline_at}: {takes}", n) for key, n in (short or counts).items()
    ]
    if short:
        more = f", and too few in {len(short) - 1} other places" if len(short) > 1 else ""
        return failed(
            item,
            f"{most} takes {needed(most)} requests, and there are {min(short.values())}{more}",
            *seen[:MOST],
            remedy=f"send {needed(most)} requests or more, several times that where they queue (`inferometer plan-run`)",
        )
    blind = [key for key, group in groups.items() if not _bounded(group)]
    if blind:
        return warned(
            item,
            f"the requests of {blind[0][0]} on {blind[0][2]} queue behind each other too much to bound P99 of TTFT",
            *seen[:MOST],
            remedy="run longer: `inferometer plan-run` says how long",
        )
    return passed(item, f"{most} is carried by every sample", *seen[:MOST])


def _percentiles(evaluation: Evaluation) -> frozenset[str]:
    """P50, P90, P99 and whatever else is reported."""
    felt = [n for n in evaluation.facts.numbers if n.metric not in RATES]
    return FULL | {s for n in felt for s in n.statistics or () if re.fullmatch(r"p[\d.]+", s)}


def _groups(evaluation: Evaluation) -> dict[tuple[str, ...], list[Point]]:
    """The points of an arm on one condition: repeats count together."""
    groups: dict[tuple[str, ...], list[Point]] = {}
    for p in evaluation.sustained:
        groups.setdefault((p.place.arm, *p.place.condition), []).append(p)
    return groups


def _bounded(group: list[Point]) -> bool:
    """Whether P99 of TTFT over all repeats has an interval."""
    values = pooled(group, "ttft").values
    return bool(len(values)) and not np.isnan(stats.series_quantile_ci(values, [0.99])[0].lo)


def crossings(evaluation: Evaluation) -> Finding:
    """Where the distributions of two arms cross."""
    item = f"{ITEM}.crossings"
    looked, seen, told = 0, [], []
    for pair in pairs(evaluation):
        for metric in CROSSED:
            a, b = pooled(pair.of_a, metric), pooled(pair.of_b, metric)
            if not len(a.values) or not len(b.values):
                continue
            looked += 1
            for turn in stats.crossings(a, b) if _may_cross(a, b) else ():
                low, high = (pair.a, pair.b) if turn.lower_below == "a" else (pair.b, pair.a)
                told.append(
                    f"{metric} on {pair.where}: {low} is lower below P{100 * turn.q:.0f}, {high} above"
                )
                seen.append(
                    pointer(
                        f"{pair.of_a[0].timeline_at} and {pair.of_b[0].timeline_at}: CDFs of {metric} cross at",
                        {"quantile": turn.q, "seconds": turn.value, "lower below": low},
                    )
                )
    if told:
        return warned(
            item,
            "; ".join(told[:2]) + ("" if len(told) < 3 else f"; and {len(told) - 2} more"),
            *seen[:MOST],
            remedy="say at which percentiles which system is better",
        )
    if not looked:
        return unjudged(item, "no two arms were measured under one condition")
    return passed(
        item,
        "no distributions of two arms cross",
        pointer(f"{evaluation.where}: pairs of distributions compared", looked),
    )


def _may_cross(a: stats.Sample, b: stats.Sample) -> bool:
    """Whether the quantiles as they are differ in both directions: else no crossing can be shown."""
    differ = np.quantile(a.values, CURVE) - np.quantile(b.values, CURVE)
    return bool(differ.min() < 0 < differ.max())


def modes(evaluation: Evaluation) -> Finding:
    """Gaps of two kinds."""
    item = f"{ITEM}.modes"
    shares = {
        p.place.path: share for p in evaluation.sustained if (share := _near_zero(p)) is not None
    }
    if len(shares) < len(evaluation.sustained):
        return unjudged(
            item,
            "gaps between tokens are not recorded in every run",
            remedy="record when each chunk arrived",
        )
    two = {path: share for path, share in shares.items() if TWO_KINDS[0] <= share <= TWO_KINDS[1]}
    seen = [
        pointer(f"{path}/timeline.parquet: gaps below a tenth of the mean gap", share)
        for path, share in (two or shares).items()
    ]
    told = [n for n in evaluation.facts.numbers if n.metric == "tbt"]
    if two and not any(_told(n) == ALL for n in told):
        return warned(
            item,
            f"{max(two.values()):.0%} of the gaps are next to nothing: a typical gap does not exist",
            *seen[:MOST],
            remedy="show the CDF of TBT, and fluidity or stalls",
        )
    if two:
        return passed(
            item,
            f"gaps are of two kinds ({max(two.values()):.0%} next to nothing), and their distribution is reported",
            *seen[:MOST],
        )
    return passed(item, "gaps are of one kind", *seen[:MOST])


def _near_zero(point: Point) -> float | None:
    gaps = point.gaps.values
    return float(np.mean(gaps < NEAR_ZERO * gaps.mean())) if len(gaps) else None


def _at(evaluation: Evaluation, numbers: list[Number]) -> list[Evidence]:
    return [
        pointer(
            evaluation.at(f"numbers[{i}].statistics") + (f" ({n.evidence})" if n.evidence else ""),
            f"{n.metric}: {', '.join(n.statistics or ('none',))}",
        )
        for i, n in enumerate(evaluation.facts.numbers)
        if n in numbers
    ]
