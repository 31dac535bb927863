"""Item 6, metric selection: does every number have one meaning, and does it mean something to users?

Anti-pattern 6 of the seed paper (section 3.3). What is asked:
    named        every number is a metric with a known definition, or says its own; "latency" alone says nothing
    aggregation  requests become one number in a way that stands for somebody: no sum of latencies over a sum of tokens (dLoRA,
                 the seed's example), no arithmetic mean of ratios between systems (Fleming & Wallace 1986, CACM 29: the
                 geometric mean, if any), no average of percentiles
    novelty      a metric of one's own is explained by what users feel
    phases       the wait and the flow of tokens are both covered, or the whole
    deployment   time to second token where prefill and decode are on different devices; gaps, stalls or fluidity where tokens
                 come in bursts (the seed's case study, section 4)
"""

from __future__ import annotations

import re

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
from inferometer.metrics.table import DISTRIBUTIONS, FIGURES

ITEM = "metric_selection"
QUESTION = "What does each reported number mean to a user, and by which formula?"
FIRST = ("ttft", "ttfat", "scheduling_delay")
FLOW = ("tbt", "tpot", "max_gap", "stalls", "stall_time", "ttst", "fluidity_index", "fluid_token_rate", "on_time_fraction")  # fmt: skip
WHOLE = ("ttlt", "normalized_latency")
BURSTS = ("max_gap", "stalls", "stall_time", "fluidity_index", "fluid_token_rate", "on_time_fraction")  # fmt: skip
KNOWN = {*DISTRIBUTIONS, *FIGURES, "throughput", "capacity", "cost"}
BAD = {
    "ratio-of-sums": "a sum of latencies over a sum of tokens is nobody's latency",
    "mean-of-ratios": "an arithmetic mean of ratios depends on which system is the reference",
    "mean-of-percentiles": "an average of percentiles is no percentile",
}
_SUMS = re.compile(
    r"\b(sum|total)\b.*(/|divided by|over)\s*.*\b(sum|total|number)\b", re.IGNORECASE
)
_RATIOS = re.compile(r"\b(mean|average)\b.*\b(ratios|speed-?ups|improvements)\b", re.IGNORECASE)
_PERCENTILES = re.compile(r"\b(mean|average)\b.*\b(percentiles|p9\d)\b", re.IGNORECASE)


def judge(evaluation: Evaluation) -> list[Finding]:
    """The parts of the item."""
    if not evaluation.facts.numbers:
        return [
            unjudged(ITEM, "no number is reported", remedy="name the numbers that are reported")
        ]
    return [check(evaluation) for check in (named, aggregation, novelty, phases, deployment)]


def named(evaluation: Evaluation) -> Finding:
    """Known, or defined."""
    item, numbers = f"{ITEM}.named", evaluation.facts.numbers
    opaque = [n for n in numbers if n.metric not in KNOWN and not n.definition]
    if opaque:
        names = ", ".join(repr(n.metric) for n in opaque)
        return failed(
            item,
            f"{names} without a definition",
            *_all(evaluation, opaque),
            remedy="say by which formula, from when to when, over which requests",
        )
    return passed(item, "every number has a definition", *_all(evaluation, numbers))


def aggregation(evaluation: Evaluation) -> Finding:
    """Requests become one number in a sound way."""
    item = f"{ITEM}.aggregation"
    numbers = [
        n
        for n in evaluation.facts.numbers
        if n.metric not in FIGURES and n.metric not in ("throughput", "capacity", "cost")
    ]
    bad = [(n, how) for n in evaluation.facts.numbers if (how := _badly(n))]
    if bad:
        told = "; ".join(f"{n.metric}: {BAD[how]}" for n, how in bad)
        return failed(
            item,
            told,
            *_all(evaluation, [n for n, _ in bad], "aggregate"),
            remedy="report percentiles over requests, and ratios of systems by their geometric mean",
        )
    unknown = [n.metric for n in numbers if n.aggregate is None]
    if unknown or not numbers:
        return unjudged(
            item,
            f"how requests become one number is not told of {', '.join(unknown) or 'any latency'}",
            remedy="say: over requests, or pooled over tokens",
        )
    return passed(
        item, "over requests, or pooled over all gaps", *_all(evaluation, numbers, "aggregate")
    )


def _badly(number: Number) -> str | None:
    if number.aggregate in BAD:
        return number.aggregate
    told = number.definition or ""
    if number.aggregate in ("per-request", "pooled"):
        return None
    for pattern, how in (
        (_PERCENTILES, "mean-of-percentiles"),
        (_RATIOS, "mean-of-ratios"),
        (_SUMS, "ratio-of-sums"),
    ):
        if number.metric not in FIGURES and pattern.search(told):
            return how
    return None


def novelty(evaluation: Evaluation) -> Finding:
    """A metric of one's own is explained."""
    item, numbers = f"{ITEM}.novelty", evaluation.facts.numbers
    own = [n for n in numbers if n.metric not in KNOWN]
    bare = [n for n in own if n.justified == ""]
    if bare:
        return failed(
            item,
            f"{', '.join(n.metric for n in bare)}: new, and not explained by what users feel",
            *_all(evaluation, bare),
            remedy="say what it means to a user, or report a metric that is understood",
        )
    if any(n.justified is None for n in own):
        return unjudged(
            item,
            f"what {', '.join(n.metric for n in own)} means to a user is not told",
            *_all(evaluation, own),
            remedy="say what it means to a user",
        )
    return passed(item, "every metric is broadly used, or explained", *_all(evaluation, numbers))


def phases(evaluation: Evaluation) -> Finding:
    """The wait and the flow, or the whole."""
    item, names = f"{ITEM}.phases", {n.metric for n in evaluation.facts.numbers}
    seen = _all(evaluation, evaluation.facts.numbers)
    if names & set(WHOLE) or (names & set(FIRST) and names & set(FLOW)):
        return passed(item, "what users feel is covered from the first token to the last", *seen)
    missing = "the wait for the first token" if names & set(FLOW) else "the flow of tokens"
    return warned(item, f"{missing} is not reported", *seen, remedy="report TTFT and TBT")


def deployment(evaluation: Evaluation) -> Finding:
    """What this deployment can do to users is reported."""
    item, arms = f"{ITEM}.deployment", evaluation.facts.arms
    names = {n.metric for n in evaluation.facts.numbers} | _measured(evaluation)
    second, bursts = "ttst" in names, bool(names & set(BURSTS))
    seen = [
        *_all(evaluation, [n for n in evaluation.facts.numbers if n.metric in ("ttst", *BURSTS)])
    ]
    seen += [
        pointer(f"{p.timeline_at}: gaps between tokens", len(p.gaps.values))
        for p in evaluation.points[:3]
        if len(p.gaps.values)
    ]
    if second and bursts:
        return passed(item, "the second token and stalls are reported", *seen)
    apart = [a.name for a in arms if a.disaggregated]
    if apart and not second:
        return warned(
            item,
            f"{', '.join(apart)} moves the cache between devices, and the time to the second token is not reported",
            *_arms(evaluation, "disaggregated", True),
            remedy="report TTST: the gap between the first and the second token",
        )
    burst = [a.name for a in arms if a.bursty]
    if burst and not bursts:
        return warned(
            item,
            f"tokens of {', '.join(burst)} come in bursts, and neither stalls nor fluidity are reported",
            *_arms(evaluation, "bursty", True),
            remedy="report the fluidity-index, or the longest gap",
        )
    if not arms or any(
        (a.disaggregated is None and not second) or (a.bursty is None and not bursts) for a in arms
    ):
        return unjudged(
            item,
            "whether prefill and decode share devices, or tokens come in bursts, is not told of every system",
            *seen,
            remedy="say so of every system",
        )
    told = [*_arms(evaluation, "disaggregated", False), *_arms(evaluation, "bursty", False)]
    return passed(item, "the deployment asks for no other metric", *(told or seen))


def _measured(evaluation: Evaluation) -> set[str]:
    """What the runs themselves hold of gaps."""
    has = [p for p in evaluation.points if len(p.gaps.values)]
    return {"ttst", "max_gap"} if has and len(has) == len(evaluation.points) else set()


def _arms(evaluation: Evaluation, field: str, value: bool) -> list[Evidence]:
    return [
        pointer(
            evaluation.at(f"systems[{i}].{field}") + (f" ({s.evidence})" if s.evidence else ""),
            value,
        )
        for i, s in enumerate(evaluation.facts.systems)
        if getattr(s, field) is value
    ]


def _all(evaluation: Evaluation, numbers: object, field: str = "metric") -> list[Evidence]:
    out = []
    for i, n in enumerate(evaluation.facts.numbers):
        if n in numbers:  # type: ignore[operator]
            cited = f" ({n.evidence})" if n.evidence else ""
            value = (
                n.metric
                if field == "metric"
                else f"{n.metric}: {getattr(n, field) or n.definition}"
            )
            out.append(pointer(evaluation.at(f"numbers[{i}].{field}") + cited, value))
    return out
