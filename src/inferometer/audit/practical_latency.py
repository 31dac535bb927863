"""Item 5, practical latency: were the gains made where a person would still be waiting?

Anti-pattern 5 of the seed paper (section 3.2): improvements at loads, or under objectives, that no user would accept, behind
ratios or normalised numbers. The bounds are those of `practical.py`, by application. What is asked:
    objectives   declared objectives are absolute, and within practical bounds
    values       the reported values are within them; a latency per token of input is turned back into the seconds a user
                 waits (the seed's example: LoongServe's tenths of a second per input token are hours before the first token)
    absolute     numbers are not only ratios, and not only per token
    points       what was measured lies inside the objective, or else the practical bounds, with its interval: for each arm
                 and workload at one load at least
    saturation   no arm was measured past saturation alone
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from inferometer import slo as slos
from inferometer.audit.evaluation import Evaluation
from inferometer.audit.facts import Bound, Number, Workload
from inferometer.audit.finding import (
    Evidence,
    Finding,
    failed,
    passed,
    pointer,
    unjudged,
    warned,
)
from inferometer.audit.point import Point
from inferometer.audit.practical import INTERACTIVE, Practical, practical

ITEM = "practical_latency"
QUESTION = "What does a user of this application accept, in seconds, and do the reported points keep to it?"
WAITS = ("ttft", "ttfat", "scheduling_delay")
PER_TOKEN = ("tpot", "normalized_latency")
GAPS = ("tbt", "ttst", "max_gap")
WHOLE = ("ttlt",)
TYPICAL = (None, "mean", "p50")
MOST = 8


def judge(evaluation: Evaluation) -> list[Finding]:
    """The parts of the item."""
    parts = [objectives(evaluation), absolute(evaluation)]
    if evaluation.points:
        return [*parts, points(evaluation), saturation(evaluation)]
    return [*parts, values(evaluation)]


def limit(metric: str, statistic: str | None, bounds: Practical) -> float | None:
    """The practical bound of a metric in seconds; None where there is none."""
    if metric in WAITS:
        return bounds.wait
    if metric in PER_TOKEN or (metric == "tbt" and statistic in TYPICAL):
        return bounds.token
    return bounds.stall if metric in GAPS else None


# --- what was declared and reported -----------------------------------------------------------------------------------


def objectives(evaluation: Evaluation) -> Finding:
    """Absolute, and within practical bounds."""
    item, bounds = f"{ITEM}.objectives", evaluation.facts.bounds
    if not bounds:
        return unjudged(
            item,
            "no latency objective is stated",
            remedy="state one for each application, in seconds",
        )
    judged = [(i, each, _loose(evaluation, each)) for i, each in enumerate(bounds)]
    loose = [(i, each) for i, each, how in judged if how]
    if loose:
        told = "; ".join(
            f"{_name(each)} {each.seconds:g} s, practical is {_limit_of(evaluation, each):.3g} s"
            for _, each in loose
            if each.seconds
        )
        return failed(
            item,
            f"objectives beyond practical bounds ({told})",
            *(_at_bound(evaluation, i, each) for i, each in loose),
            remedy="take bounds that users of the application accept",
        )
    blind = [p for p in evaluation.points if not p.manifest.spec and p.world != "imported"]
    if blind:
        return unjudged(
            item,
            f"what was asked of {Path(blind[0].place.path).name} is not recorded, and so its objective",
            remedy="keep the manifest's spec",
        )
    unknown = [each for _, each, how in judged if how is None]
    seen = [_at_bound(evaluation, i, each) for i, each, how in judged if how is False]
    if unknown:
        relative = [each for each in unknown if each.times_unloaded is not None]
        why = (
            "relative to an idle system, not in seconds"
            if relative
            else "not stated in seconds of a latency that users feel"
        )
        return unjudged(item, f"objectives are {why}", *seen, remedy="state them in seconds")
    return passed(item, "objectives are absolute, and practical", *seen)


def _loose(evaluation: Evaluation, bound: Bound) -> bool | None:
    """Whether it is beyond the practical bound; None where that cannot be said."""
    allowed = _limit_of(evaluation, bound)
    return None if bound.seconds is None or allowed is None else bound.seconds > allowed


def _limit_of(evaluation: Evaluation, bound: Bound) -> float | None:
    prompts = [
        w.prompt.p50 for w in evaluation.facts.workloads if w.app == bound.app and w.prompt.p50
    ]
    bounds = practical(bound.app, min(prompts, default=None))
    return math.inf if bounds is None else limit(bound.metric, bound.statistic, bounds)


def _name(bound: Bound) -> str:
    return bound.metric if bound.statistic is None else f"{bound.metric}.{bound.statistic}"


def values(evaluation: Evaluation) -> Finding:
    """The reported values, in the seconds that a user waits, are within practical bounds."""
    item = f"{ITEM}.values"
    judged = [
        (i, each, _seconds(evaluation, each))
        for i, each in enumerate(evaluation.facts.numbers)
        if each.metric not in RATES
    ]
    beyond = [(i, each, seen) for i, each, seen in judged if seen is not None and seen[0] > seen[1]]
    if beyond:
        told = "; ".join(
            f"{each.metric}: {_human(seen[0])}, practical is {_human(seen[1])}"
            for _, each, seen in beyond
        )
        return failed(
            item,
            f"reported where no user would wait ({told})",
            *(
                pointer(
                    evaluation.at(f"numbers[{i}].values") + _cited(each.evidence),
                    {"reported": each.values, "seconds": seen[0], "practical": seen[1]},
                )
                for i, each, seen in beyond
            ),
            remedy="report points within practical bounds",
        )
    known = [
        (i, each) for i, each, seen in judged if seen is not None and each.per != "input token"
    ]
    pointers = tuple(
        pointer(evaluation.at(f"numbers[{i}].values") + _cited(each.evidence), each.values)
        for i, each in known
    )
    if not known or len(known) < len(judged):
        return unjudged(
            item,
            "values in seconds are not told of every number",
            *pointers,
            remedy="state the values at the points that the conclusion rests on",
        )
    return passed(item, "reported values are practical", *pointers)


def _seconds(evaluation: Evaluation, number: Number) -> tuple[float, float] | None:
    """(the worst value in seconds that a user feels, the practical bound); None where that cannot be said."""
    if not number.values:
        return None
    workload = next((w for w in evaluation.facts.workloads if w.name == number.workload), None)
    bounds = _bounds_of(workload)
    if bounds is None:
        return None
    statistic, worst = max(number.values.items(), key=lambda pair: pair[1])
    if number.per == "input token":
        prompt = workload.prompt if workload is not None else None
        longest = (
            max((x for x in (prompt.max, prompt.p99, prompt.mean) if x is not None), default=None)
            if prompt
            else None
        )
        return None if longest is None else (worst * longest, bounds.wait)
    if number.metric in WHOLE:
        tokens = workload.output.mean if workload is not None else None
        return None if tokens is None else (worst, bounds.wait + tokens * bounds.token)
    if number.metric in PER_TOKEN and number.per is None:
        return None
    allowed = limit(number.metric, statistic, bounds)
    return None if allowed is None else (worst, allowed)


def _bounds_of(workload: Workload | None) -> Practical | None:
    return INTERACTIVE if workload is None else practical(workload.app, workload.prompt.p50)


def absolute(evaluation: Evaluation) -> Finding:
    """Not only ratios, and not only per token."""
    item = f"{ITEM}.absolute"
    felt = [(i, n) for i, n in enumerate(evaluation.facts.numbers) if n.metric not in RATES]
    seen = [
        pointer(evaluation.at(f"numbers[{i}].metric") + _cited(n.evidence), n.metric)
        for i, n in felt
    ]
    if not felt:
        return unjudged(
            item, "no latency is reported", *seen, remedy="name the numbers that are reported"
        )
    ratios = [n.metric for _, n in felt if n.relative]
    if ratios and len(ratios) == len(felt):
        return failed(
            item,
            f"latencies are given only as ratios ({', '.join(ratios)})",
            *seen,
            remedy="give them in seconds, too",
        )
    if ratios or any(n.relative is None for _, n in felt):
        return unjudged(
            item, "whether latencies are given in seconds is not told of every number", *seen
        )
    if not any(n.metric in (*WAITS, *WHOLE) and n.per is None for _, n in felt):
        return warned(
            item,
            "no number says how long a user waits for the first token, or for all",
            *seen,
            remedy="report TTFT, or the time to the last token, in seconds",
        )
    return passed(item, "waits are given in seconds", *seen)


RATES = (
    "request_rate",
    "token_rate",
    "total_token_rate",
    "goodput",
    "capacity",
    "throughput",
    "cost",
)


# --- what was measured ------------------------------------------------------------------------------------------------


def points(evaluation: Evaluation) -> Finding:
    """For each arm and workload, one load at least lies inside the objective and the practical bounds."""
    item = f"{ITEM}.points"
    groups = _groups(evaluation)
    best = {key: max(map(_standing, group)) for key, group in groups.items()}
    outside = [key for key, standing in best.items() if standing == OUTSIDE]
    if outside:
        seen = [e for key in outside for p in groups[key] for e in _violations(p)]
        told = ", ".join(" on ".join((key[0], key[2])) for key in outside[:3])
        return failed(
            item,
            f"no load of {told} is inside the objective: {_first(seen)}",
            *seen[:MOST],
            remedy="report loads at which the objective is met",
        )
    seen = [e for group in groups.values() for e in _kept(max(group, key=_standing))]
    unknown = [key for key, standing in best.items() if standing == UNKNOWN]
    if unknown:
        return unjudged(
            item,
            f"whether {unknown[0][0]} on {unknown[0][2]} keeps its objective cannot be said: {_why(groups[unknown[0]])}",
            *seen[:MOST],
            remedy="send more requests",
        )
    if UNSURE in best.values():
        return warned(
            item,
            "a point keeps its objective, but its interval does not",
            *seen[:MOST],
            remedy="run longer",
        )
    return passed(
        item, f"{len(groups)} arms and workloads have a load inside the objective", *seen[:MOST]
    )


OUTSIDE, UNKNOWN, UNSURE, INSIDE = range(4)


def _groups(evaluation: Evaluation) -> dict[tuple[str, str, str], list[Point]]:
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for p in evaluation.points:
        groups.setdefault((p.place.arm, p.place.model, p.place.workload), []).append(p)
    return groups


def _standing(point: Point) -> int:
    verdicts = (*point.verdicts, *point.practical)
    if any(v.met is False for v in verdicts):
        return OUTSIDE
    if point.bounds is None and not verdicts:  # nobody waits
        return INSIDE if point.ok.any() else UNKNOWN
    if not verdicts or any(v.met is None for v in verdicts):
        return UNKNOWN
    return INSIDE if all(v.resolved is not False for v in verdicts) else UNSURE


def _violations(point: Point) -> list[Evidence]:
    return [_verdict_at(point, v) for v in (*point.verdicts, *point.practical) if v.met is False]


def _kept(point: Point) -> list[Evidence]:
    met = [v for v in (*point.verdicts, *point.practical) if v.met]
    if not met and point.bounds is None:
        return [pointer(f"{point.timeline_at}: app", f"{', '.join(point.app)}: nobody waits")]
    return [_verdict_at(point, v) for v in met]


def _verdict_at(point: Point, verdict: slos.Verdict) -> Evidence:
    seen = verdict.seen
    return pointer(
        f"{point.timeline_at}: {verdict.condition.text}",
        {"value": seen.value, "interval": [seen.lo, seen.hi]},
    )


def _first(seen: list[Evidence]) -> str:
    if not seen:
        return "nothing was measured"
    value = seen[0].value["value"]
    condition = seen[0].where.partition(": ")[2]
    return f"{condition}, and it is {'infinite' if value is None else f'{value:.3g}'}"


def _why(group: Iterable[Point]) -> str:
    notes = [v.seen.note for p in group for v in (*p.verdicts, *p.practical) if v.met is None]
    return notes[0] if notes and notes[0] else "it was not measured"


def saturation(evaluation: Evaluation) -> Finding:
    """No arm and workload was measured past saturation alone."""
    item = f"{ITEM}.saturation"
    groups = _groups(evaluation)
    past = {key: [p for p in group if p.past_saturation] for key, group in groups.items()}
    seen = [
        pointer(f"{p.timeline_at}: in flight, token rate and TTFT over time", p.steady.reason)
        for found in past.values()
        for p in found
    ]
    lost = [key for key, found in past.items() if len(found) == len(groups[key])]
    if lost:
        return failed(
            item,
            f"{lost[0][0]} on {lost[0][2]} was measured only past saturation, where latency is a matter of patience",
            *seen[:MOST],
            remedy="report a load that it sustains",
        )
    if any(p.steady.verdict == "too short to tell" for p in evaluation.points):
        return unjudged(
            item,
            "some runs are too short to tell whether the load was sustained",
            *seen[:MOST],
            remedy="run longer",
        )
    told = seen or [
        pointer(f"{p.timeline_at}: in flight over time", p.steady.verdict)
        for p in evaluation.points
    ]
    return passed(item, "every arm has loads that it sustains", *told[:MOST])


def _at_bound(evaluation: Evaluation, index: int, bound: Bound) -> Evidence:
    return pointer(
        evaluation.at(f"bounds[{index}]") + _cited(bound.evidence), {_name(bound): bound.seconds}
    )


def _cited(evidence: str) -> str:
    return f" ({evidence})" if evidence else ""


def _human(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:,.3g} hours"
    return f"{seconds:,.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
