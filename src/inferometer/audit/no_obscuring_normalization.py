"""Item 8, no obscuring normalisation: do raw times stand beside every latency that is divided by tokens?

Anti-pattern 8 of the seed paper (section 3.3): ten seconds of waiting, divided by a thousand tokens, are nothing. What is asked:
    raw       beside a normalised latency: the wait (TTFT or scheduling delay) and the gaps (TBT, stalls); beside TPOT: the gaps
    hidden    how many requests waited longer than a user would, and look well served by normalised latency. A wait is the
              scheduling delay where it is known, else TTFT beyond what the run shows for prompts of that length when nobody
              waits (P10 of those nearest in length), else TTFT beyond its practical bound
    ranking   whether raw times rank two arms the other way round than normalised ones do
HIDDEN: from one request in a hundred on, the percentile that most people read is touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from inferometer.audit.contrast import Effect, Pair, effect, pairs
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
from inferometer.audit.metric_selection import KNOWN
from inferometer.audit.point import Point
from inferometer.audit.practical import INTERACTIVE, practical
from inferometer.audit.practical_latency import RATES
from inferometer.metrics.tokens import Bools, Floats

ITEM = "no_obscuring_normalization"
QUESTION = (
    "What do scheduling delays and stalls look like in seconds, beside the normalised metrics?"
)
HIDDEN = 0.01
NEIGHBOURS = 20  # groups of requests by prompt length, for what a prompt of that length takes when nobody waits
LEAST = 10  # requests in such a group
WAITS = ("ttft", "ttfat", "scheduling_delay")
GAPS = ("tbt", "max_gap", "stalls", "stall_time", "fluidity_index", "on_time_fraction")
NORMALISED = ("normalized_latency", "tpot")
BY_TOKENS = ("normalized_latency.mean", "normalized_latency.p50", "normalized_latency.p90", "tpot.p50", "tpot.p90")  # fmt: skip
RAW = ("ttft.p50", "ttft.p90", "ttft.p99", "scheduling_delay.p90", "tbt.p99", "max_gap.p90", "stall_time.mean")  # fmt: skip
MOST = 6


def judge(evaluation: Evaluation) -> list[Finding]:
    """The parts of the item."""
    if not evaluation.facts.numbers and not evaluation.points:
        return [
            unjudged(ITEM, "no number is reported", remedy="name the numbers that are reported")
        ]
    parts = [raw(evaluation)]
    if evaluation.points:
        parts.append(hidden(evaluation))
        if len(evaluation.facts.arms) > 1:
            parts.append(ranking(evaluation))
    return parts


def raw(evaluation: Evaluation) -> Finding:
    """Raw times beside normalised ones."""
    item = f"{ITEM}.raw"
    felt = [n for n in evaluation.facts.numbers if n.metric not in RATES]
    if not felt:
        return unjudged(item, "no latency is reported", remedy="name the numbers that are reported")
    normal = [n for n in felt if _normalised(n)]
    names = {n.metric for n in felt if n.per is None}
    missing = {n.metric: lacking for n in normal if (lacking := _lacking(n, names))}
    if missing:
        told = "; ".join(
            f"{metric} without {' and '.join(lacking)}" for metric, lacking in missing.items()
        )
        return failed(
            item,
            f"normalised latencies stand alone ({told})",
            *_at(evaluation, normal),
            remedy="report TTFT or scheduling delay, and TBT or stalls, in seconds",
        )
    opaque = [n for n in felt if n.metric not in KNOWN and n.per is None]
    if opaque:
        return unjudged(
            item,
            f"whether {', '.join(n.metric for n in opaque)} is divided by tokens is not told",
            *_at(evaluation, opaque),
            remedy="define it",
        )
    if normal:
        return passed(item, "raw times stand beside every normalised one", *_at(evaluation, felt))
    return passed(item, "no latency is normalised", *_at(evaluation, felt))


def _normalised(number: Number) -> bool:
    return (
        number.metric in NORMALISED or number.per is not None or number.aggregate == "ratio-of-sums"
    )


def _lacking(number: Number, names: set[str]) -> list[str]:
    """Which raw times are missing beside a normalised latency."""
    gaps = [] if names & {*GAPS} else ["TBT or stalls"]
    if number.metric == "tpot":
        return gaps
    return ([] if names & {*WAITS} else ["TTFT or scheduling delay"]) + gaps


# --- what was measured ------------------------------------------------------------------------------------------------


class Hidden(NamedTuple):
    """Requests that waited too long and look well served: how many, of how many, and the worst wait of them [s].

    maybe: how many more there may be, since nobody says when their prefill began.
    """

    hidden: int
    maybe: int
    of: int
    worst_s: float

    @property
    def share(self) -> float:
        """Of all that completed."""
        return self.hidden / self.of if self.of else 0.0


def hidden(evaluation: Evaluation) -> Finding:
    """Requests whose wait a normalised latency hides."""
    item = f"{ITEM}.hidden"
    known = [p for p in evaluation.sustained if len(p.sample("ttft").values)]
    if len(known) < len(evaluation.sustained):
        return unjudged(
            item,
            "when first tokens came is not recorded in every run",
            remedy="record when each chunk arrived",
        )
    found = {p.place.path: hidden_waits(p) for p in known}
    many = {path: h for path, h in found.items() if h.share >= HIDDEN}
    seen = [
        pointer(f"{path}/timeline.parquet: waits that normalised latency hides", h._asdict())
        for path, h in (many or found).items()
    ]
    if not many and any(h.hidden + h.maybe >= HIDDEN * h.of and h.maybe for h in found.values()):
        return unjudged(
            item,
            "first tokens come late, and whether the requests had to wait for their turn is not recorded",
            *seen[:MOST],
            remedy="record when prefill began, or measure a prefill curve",
        )
    if not many:
        return passed(item, "hardly a request's wait is hidden by its length", *seen[:MOST])
    path, worst = max(many.items(), key=lambda pair: pair[1].share)
    told = f"{worst.hidden} of {worst.of} requests of {Path(path).name} waited too long (up to {worst.worst_s:.3g} s), and look well served per token"
    if any(map(_normalised, evaluation.facts.numbers)) or not evaluation.declared:
        return failed(
            item,
            told,
            *seen[:MOST],
            remedy="show the distribution of waits in seconds, and lower the load until users need not wait",
        )
    return warned(item, told, *seen[:MOST])


def hidden_waits(point: Point) -> Hidden:
    """The requests of a run whose wait is impractical while their latency per token is fine."""
    c = point.columns
    done = ~np.isnan(c["ttft"])
    waited, wait = _waited(point, done)
    fine = c["normalized_latency"] <= INTERACTIVE.token
    rows = done & waited & fine
    worst = float(wait[rows].max()) if rows.any() else 0.0
    blind = np.isnan(c["scheduling_delay"]) & (c["ttft"] > INTERACTIVE.wait)
    maybe = done & blind & fine & ~rows & ~_patient(point)
    return Hidden(int(rows.sum()), int(maybe.sum()), int(done.sum()), worst)


def _waited(point: Point, done: Bools) -> tuple[Bools, Floats]:
    """Who waited longer than is practical [R], and the wait [s, R]."""
    ttft, delay = point.columns["ttft"], point.columns["scheduling_delay"]
    bound = _bounds(point)
    excess = np.where(np.isnan(delay), ttft - _unloaded(ttft, point.prompt_tokens, done), delay)
    late = (ttft > bound) | (excess > INTERACTIVE.wait)
    return late & ~_patient(point), np.where(ttft > bound, ttft, excess)


def _bounds(point: Point) -> Floats:
    """The practical bound of each request's wait [s, R]; infinite where nobody waits."""
    median = float(np.median(point.prompt_tokens)) if len(point.prompt_tokens) else None
    bound = np.full(point.requests, np.inf)
    for app in point.app:
        bounds = practical(app, median)
        bound[point.rows_of(app)] = np.inf if bounds is None else bounds.wait
    return bound


def _patient(point: Point) -> Bools:
    return np.isinf(_bounds(point))


def _unloaded(ttft: Floats, prompt: Floats, done: Bools) -> Floats:
    """What the first token takes for prompts of about that length when nobody waits [s, R]: P10 of the nearest in length."""
    out = np.zeros(len(ttft))
    rows = np.flatnonzero(done)
    rows = rows[np.argsort(prompt[rows], kind="stable")]
    for group in np.array_split(rows, max(1, min(NEIGHBOURS, len(rows) // LEAST))):
        if len(group):
            out[group] = np.quantile(ttft[group], 0.1)
    return out


def ranking(evaluation: Evaluation) -> Finding:
    """Whether raw times rank two arms the other way round."""
    item = f"{ITEM}.ranking"
    looked, told, seen = 0, [], []
    for pair in pairs(evaluation):
        normal, plain = (
            [effect(name, pair.of_a, pair.of_b, intervals=False) for name in names]
            for names in (BY_TOKENS, RAW)
        )
        looked += any(e.ahead for e in normal) and any(e.ahead for e in plain)
        flip = _flip(pair, normal, plain)
        if flip is None:
            continue
        names = {"a": pair.a, "b": pair.b}
        told.append(
            f"on {pair.where} {names[flip[0].shown]} is ahead by {flip[0].name}, {names[flip[1].shown]} by {flip[1].name}"
        )
        seen += [
            pointer(
                f"{pair.of_a[0].timeline_at} and {pair.of_b[0].timeline_at}: {e.name} [s]",
                {pair.a: e.a, pair.b: e.b, "ratio": e.ratio, "interval": list(e.interval)},
            )
            for e in flip
        ]
    if told:
        return _flipped(evaluation, told, seen)
    if not looked:
        return unjudged(
            item,
            "no two arms were measured under one condition",
            remedy="run both arms on one plan",
        )
    return passed(
        item,
        "raw and normalised times rank the arms alike",
        pointer(f"{evaluation.where}: pairs of arms ranked", looked),
    )


def _flipped(evaluation: Evaluation, told: list[str], seen: list[Evidence]) -> Finding:
    item = f"{ITEM}.ranking"
    words = "; ".join(told[:2]) + ("" if len(told) < 3 else f"; and {len(told) - 2} more")
    remedy = "say which users each system serves better, in seconds"
    names = {n.metric for n in evaluation.facts.numbers}
    if evaluation.declared and not names & {*WAITS, *GAPS}:
        return failed(item, words, *seen[:MOST], remedy=remedy)
    return warned(item, words, *seen[:MOST], remedy=remedy)


def _flip(pair: Pair, normal: list[Effect], plain: list[Effect]) -> tuple[Effect, Effect] | None:
    """A normalised and a raw statistic that are shown to rank the two the other way round."""
    opposite = [(n, r) for n in normal for r in plain if {n.ahead, r.ahead} == {"a", "b"}]
    names = dict.fromkeys(e.name for both in opposite for e in both)
    sure = {name: effect(name, pair.of_a, pair.of_b) for name in names}
    shown = ((sure[n.name], sure[r.name]) for n, r in opposite)
    return next(((n, r) for n, r in shown if {n.shown, r.shown} == {"a", "b"}), None)


def _at(evaluation: Evaluation, numbers: list[Number]) -> list[Evidence]:
    return [
        pointer(
            evaluation.at(f"numbers[{i}].metric") + (f" ({n.evidence})" if n.evidence else ""),
            n.metric,
        )
        for i, n in enumerate(evaluation.facts.numbers)
        if n in numbers
    ]
