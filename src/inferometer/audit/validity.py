"""Validity: may the measurements be believed at all? Comes before every item, and outweighs them.

One function per question, each over all points; a part that fails names the runs. Thresholds:
    LATE, FLOOR_S     the instrument's error may be a tenth of what it measures (load/instrument.py defends it)
    FAILED            5 % of requests lost: percentiles above P95 of the survivors say nothing. UNEVEN: 1 point between arms
    WARM              5 points of the prompt tokens found in a cache that their own plan cannot have put there
    REPEATED          a tenth of the prompts sent before by others: of Mooncake's conversations it is a hundredth
    CUT               one stream in a thousand cut short: a network does that, a server should not
    SHORT             replies 2 % shorter than planned did other work than was asked
Only latencies of a run that stands alone need a steady state: the loads of a sweep beyond what the system sustains are
what a sweep is for, as long as it has a load below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from inferometer.audit import arms
from inferometer.audit.evaluation import Evaluation
from inferometer.audit.finding import (
    Evidence,
    Finding,
    combined,
    failed,
    passed,
    pointer,
    unjudged,
    warned,
)
from inferometer.audit.point import Point
from inferometer.load.instrument import FLOOR_NS, SMALL

LATE = SMALL
FLOOR_S = FLOOR_NS / 1e9
FAILED = 0.05
NOTABLE = 0.01
UNEVEN = 0.01
WARM = 0.05
REPEATED = 0.10
SHORT = 0.02
CUT = 0.001
MOST = 6  # runs that are named in a finding

Points = tuple[Point, ...]


def validity(evaluation: Evaluation) -> Finding:
    """The finding; of a record, by which nothing was measured, there is nothing to find."""
    points = evaluation.points
    if not points:
        return unjudged("validity", "nothing was measured here: a record of what was reported")
    return combined("validity", [ended(evaluation), *(check(points) for check in CHECKS)])


def ended(evaluation: Evaluation) -> Finding:
    """Everything that was planned for the headline is there."""
    item, missing = "validity.ended", evaluation.missing
    if missing:
        return warned(
            item,
            f"{len(missing)} planned cells have no run ({missing[0]}, ...)",
            pointer(f"{evaluation.where}: planned cells without a run", list(missing[:MOST])),
            remedy="run the study again: it goes on where it stopped",
        )
    seen = pointer(f"{evaluation.where}: runs", len(evaluation.points))
    return passed(item, "all that was planned is there", seen)


def complete(points: Points) -> Finding:
    """Every run ended as planned."""
    item = "validity.complete"
    broken = [p for p in points if not p.manifest.complete]
    seen = [pointer(f"{p.manifest_at}: $.complete", p.manifest.complete) for p in broken[:MOST]]
    if broken:
        why = broken[0].manifest.stopped or "no reason given"
        return failed(
            item, f"{_runs(broken)} did not end as planned ({why})", *seen, remedy="run again"
        )
    return passed(
        item, f"{_runs(points)} complete", *_each(points, "complete", lambda p: p.manifest.complete)
    )


def instrument(points: Points) -> Finding:
    """The instrument vouches for every run that was measured."""
    item = "validity.instrument"
    if bad := [p for p in points if _reasons(p)]:
        return failed(
            item,
            f"{_runs(bad)} invalid by the instrument's own word: {_reasons(bad[0])[0]}",
            *_each(bad, "instrument.invalid_reasons", _reasons),
            remedy="see `inferometer doctor`, then measure again",
        )
    silent = [p for p in points if "valid" not in p.manifest.instrument]
    if measured := [p for p in silent if p.world == "measured"]:
        return failed(
            item,
            f"{_runs(measured)} measured without a record of the instrument: nobody vouches for it",
            *_each(measured, "instrument", lambda p: p.manifest.instrument or "no record"),
            remedy="measure again with `inferometer measure`",
        )
    if foreign := [p for p in silent if p.world == "imported"]:
        return unjudged(
            item,
            f"the tool that made {_runs(foreign)} kept no record of its own lateness",
            remedy="measure with an instrument that reports its own error",
        )
    return passed(
        item,
        "the instrument's own error is small beside what it measured",
        *_each(points, "instrument.valid", _vouched),
    )


def _reasons(point: Point) -> list[str]:
    """Why a run is invalid by the instrument's own word; empty where it is not."""
    record = point.manifest.instrument
    return record.get("invalid_reasons") or ([] if record.get("valid", True) else ["not told why"])


def _vouched(point: Point) -> object:
    return point.manifest.instrument.get("valid", f"{point.world}: exact by construction")


def late_client(points: Points) -> Finding:
    """Requests were sent when they were to be sent, by the stamps themselves."""
    item = "validity.late_client"
    asked = [p for p in points if p.world != "imported"]
    late = [p for p in asked if p.lag_p99_s > _allowed(p)]
    if late:
        worst = max(late, key=lambda p: p.lag_p99_s)
        seen = [
            pointer(f"{p.timeline_at}: p99 of sent_ns - intended_ns - connect_ns [s]", p.lag_p99_s)
            for p in late[:MOST]
        ]
        return failed(
            item,
            f"{_runs(late)} sent late: p99 {worst.lag_p99_s:.3g} s, where {_allowed(worst):.3g} s is a tenth of the median TTFT",
            *seen,
            remedy="use more --workers or another machine",
        )
    seen = [
        pointer(f"{p.timeline_at}: p99 of send lag [s]", p.lag_p99_s)
        for p in asked[:MOST]
        if p.lag_p99_s >= 0
    ]
    if len(asked) < len(points) or not seen:
        return unjudged(
            item,
            "when the requests were to be sent is not recorded",
            *seen,
            remedy="record the intended send times",
        )
    return passed(item, "requests went out on time", *seen)


def _allowed(point: Point) -> float:
    ttft = point.sample("ttft").values
    return max(FLOOR_S, LATE * float(np.median(ttft))) if len(ttft) else math.inf


def steady_state(points: Points) -> Finding:
    """What stands alone was measured in a steady state."""
    item = "validity.steady_state"
    moving = [p for p in points if p.steady.verdict == "no steady state"]
    past = [p for p in points if p.past_saturation]
    alone = [p for p in past if not _sweep_below(p, points)]
    seen = [
        pointer(f"{p.timeline_at}: in flight, token rate and TTFT over time", _queue(p))
        for p in (alone or past or moving)[:MOST]
    ]
    if alone:
        return failed(
            item,
            f"{_runs(alone)} past saturation, without a steady state: {_queue(alone[0])}",
            *seen,
            remedy="measure at a lower load, or longer after a warm-up",
        )
    if past:
        return warned(
            item,
            f"{_runs(past)} of a sweep past saturation: their percentiles tell how long they lasted",
            *seen,
            remedy="draw no percentile from these loads",
        )
    if moving:
        return warned(
            item,
            f"{_runs(moving)} without a steady state: {moving[0].steady.reason}",
            *seen,
            remedy="run longer after a warm-up; of a load that moves, say so",
        )
    short = [p for p in points if p.steady.verdict != "steady"]
    if short:
        return unjudged(
            item,
            f"{_runs(short)} too short to tell: {short[0].steady.reason}",
            remedy="run longer",
        )
    told = (
        pointer(f"{p.timeline_at}: in flight, token rate and TTFT over time", "steady")
        for p in points[:MOST]
    )
    return passed(item, f"{_runs(points)} steady", *told)


def _queue(point: Point) -> str:
    if point.steady.in_place_of_numbers or not point.past_saturation:
        return point.steady.reason
    return f"first tokens came for {point.overrun:.1f} times as long as requests did"


def _sweep_below(point: Point, points: Points) -> bool:
    """Whether the same arm served the same workload steadily at another, lower load."""
    same = [
        p
        for p in points
        if p.place.arm == point.place.arm
        and p.place.workload == point.place.workload
        and p.place.model == point.place.model
    ]
    return any(
        not p.past_saturation and p.figures["offered_rate"] < point.figures["offered_rate"]
        for p in same
    )


def truncated(points: Points) -> Finding:
    """No stream was cut short, and none that was cut counts as complete."""
    item = "validity.truncated_streams"
    seen = [
        pointer(f"{p.timeline_at}: streams cut short", p.cut._asdict())
        for p in points
        if p.cut is not None and p.cut.any
    ][:MOST]
    hidden = [p for p in points if p.cut is not None and p.cut.hidden]
    if hidden:
        return failed(
            item,
            f"{_runs(hidden)} with replies that were cut short and count as complete",
            *seen,
            remedy="count a reply as complete only with its reason to end",
        )
    cut = [p for p in points if p.cut is not None and p.cut.told]
    many = [p for p in cut if p.cut is not None and p.cut.told > CUT * p.requests]
    if many:
        return failed(
            item,
            f"{_runs(many)} with streams that were cut short",
            *seen,
            remedy="find out why the server ends replies early",
        )
    if cut:
        return warned(item, f"{_runs(cut)} with a few streams that were cut short", *seen)
    blind = [p for p in points if p.cut is None]
    if blind:
        return unjudged(
            item,
            f"{_runs(blind)} without reasons to finish: whether replies were whole is not recorded",
            remedy="record finish_reason",
        )
    told = (
        pointer(f"{p.timeline_at}: streams cut short", p.cut._asdict())
        for p in points[:MOST]
        if p.cut is not None
    )
    return passed(item, "every reply that counts as complete came to its end", *told)


def as_planned(points: Points) -> Finding:
    """All that was planned was sent, and replies were as long as the plan says."""
    item = "validity.as_planned"
    plans = [(p, p.planned) for p in points if p.planned is not None]
    lost = [(p, plan.lost) for p, plan in plans if plan.lost > CUT * p.requests]
    if lost:
        return failed(
            item,
            f"{_runs(p for p, _ in lost)} without a trace of requests that were to be sent",
            *(
                pointer(f"{p.timeline_at}: planned requests that are not there", n)
                for p, n in lost[:MOST]
            ),
            remedy="keep every request, sent or not: what was dropped counts",
        )
    known = [(p, plan.shortfall) for p, plan in plans if not math.isnan(plan.shortfall)]
    if len(known) < len(points):
        blind = len(points) - len(known)
        return unjudged(
            item, f"{blind} runs without a plan to compare with", remedy="keep plan.parquet"
        )
    short = [(p, off) for p, off in known if abs(off) > SHORT]
    seen = [
        pointer(f"{p.timeline_at}: planned - given output tokens / planned", off)
        for p, off in (short or known)[:MOST]
    ]
    if short:
        return warned(
            item,
            f"{_runs(p for p, _ in short)} with replies of other lengths than planned",
            *seen,
            remedy="ask for ignore_eos, or compare replies of equal length",
        )
    return passed(item, "what was planned was sent, and replies were as long as planned", *seen)


def token_provenance(points: Points) -> Finding:
    """Tokens were counted from what arrived, and everywhere in the same way."""
    item = "validity.token_provenance"
    seen = [pointer(f"{p.timeline_at}: token_source", p.sources) for p in points[:MOST]]
    guessed = [p for p in points if p.sources.get("planned")]
    if guessed:
        told = [pointer(f"{p.timeline_at}: token_source", p.sources) for p in guessed[:MOST]]
        return failed(
            item,
            f"{_runs(guessed)} with tokens counted from what was asked for, not from what came",
            *told,
            remedy="let the server report usage, or count with the model's tokenizer",
        )
    if not any(p.sources for p in points):
        return unjudged(item, "no request completed")
    kinds = {_source(p) for p in points if p.sources} - {"simulated"}
    if len(kinds) > 1:
        return failed(
            item,
            f"runs count tokens differently: {', '.join(sorted(kinds))}",
            *seen,
            remedy="count all runs alike",
        )
    rough = [p for p in points if p.sources.get("tokenizer") and not _exact(p)]
    if rough:
        return warned(
            item,
            f"{_runs(rough)} with tokens estimated by another model's tokenizer",
            *seen,
            remedy="give the model's own with --tokenizer",
        )
    return passed(item, "tokens were counted from what arrived", *seen)


def _source(point: Point) -> str:
    return max(point.sources, key=lambda each: point.sources[each])


def _exact(point: Point) -> bool:
    return bool((point.manifest.model.get("tokenizer") or {}).get("exact"))


def prefix_cache(points: Points) -> Finding:
    """No prompt was answered from a cache that the workload itself does not fill."""
    item = "validity.prefix_cache"
    fresh = "use fresh prompts (another --seed), or restart the server between runs"
    if warm := [p for p in points if p.cached is not None and p.cached > _cacheable(p) + WARM]:
        what = f"{_runs(warm)} with more cached than their own prompts share"
        return failed(item, what, *map(_cached_at, warm[:MOST]), remedy=fresh)
    if again := [p for p in points if p.planned is not None and p.planned.repeated > REPEATED]:
        what = f"{_runs(again)} that send the same prompts again"
        return failed(item, what, *map(_repeated_at, again[:MOST]), remedy=fresh)
    blind = [
        p for p in points if p.planned is None or (p.cached is None and p.world != "simulated")
    ]
    if twice := _same_server_twice(blind):
        return warned(
            item,
            f"{_runs(twice)} sent the same prompts to one server, which does not say what it had cached",
            *_each(twice, "workload.fingerprint", _fingerprint),
            remedy="give repeats seeds of their own",
        )
    if blind:
        return unjudged(
            item,
            f"what was cached in {_runs(blind)} is not recorded",
            remedy="let the server report cached tokens, and keep the plan",
        )
    told = map(_cached_at, points[:MOST])
    return passed(item, "no more was cached than the workload itself shares", *told)


def _cached_at(point: Point) -> Evidence:
    where = f"{point.timeline_at}: cached prompt share (the plan allows {_cacheable(point):.0%})"
    return pointer(where, 0.0 if point.cached is None else point.cached)


def _repeated_at(point: Point) -> Evidence:
    where = f"{point.place.path}/plan.parquet: prompts that repeat another session's"
    return pointer(where, None if point.planned is None else point.planned.repeated)


def _fingerprint(point: Point) -> object:
    return point.manifest.workload.get("fingerprint")


def _cacheable(point: Point) -> float:
    return math.nan if point.planned is None else point.planned.cacheable


def _same_server_twice(points: Iterable[Point]) -> list[Point]:
    seen: dict[tuple[str, str], list[Point]] = {}
    for p in points:
        plan, urls = p.manifest.workload.get("fingerprint"), p.manifest.target.get("urls")
        if plan and urls:
            seen.setdefault((str(plan), str(urls)), []).append(p)
    return [p for group in seen.values() if len(group) > 1 for p in group]


# What must be the same in all runs that are compared: the way of measuring.
def _asked(point: Point, *path: str) -> object:
    value: object = point.manifest.spec
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


MEASURING: dict[str, Callable[[Point], object]] = {
    "instrument's version": lambda p: p.manifest.versions.get("inferometer"),
    "instrument's host": lambda p: [p.manifest.host.get(k) for k in ("system", "machine", "cpus")],
    "protocol": lambda p: p.manifest.target.get("dialect"),
    "streaming": lambda p: (p.manifest.target.get("accepts") or {}).get("stream"),
    "ignore_eos": lambda p: (p.manifest.target.get("accepts") or {}).get("ignore_eos"),
    "patience": lambda p: _asked(p, "drive", "patience"),
    "retries": lambda p: _asked(p, "drive", "retries"),
    "stamps": lambda p: _asked(p, "drive", "stamps"),
    "tokenizer": lambda p: (p.manifest.model.get("tokenizer") or {}).get("fingerprint"),
}
# What must be the same in all runs of one arm, of one model: the system. max_len and pool follow from the workload.
WITHIN: dict[str, Callable[[Point], object]] = {
    "version": lambda p: arms.version_of(p.manifest),
    "codebase": lambda p: arms.codebase_of(p.manifest),
    "conditions": lambda p: arms.conditions_of(p.manifest),
    "model": lambda p: {
        k: p.manifest.model.get(k) for k in ("name", "heads", "kv_heads", "layers")
    },
}


def config_drift(points: Points) -> Finding:
    """The way of measuring was one for all runs, and each arm was one system throughout."""
    item = "validity.config_drift"
    drift = _differing(MEASURING, [p for p in points if p.world == "measured"], "runs")
    for arm, group in _by_arm_and_model(points).items():
        drift += _differing(WITHIN, group, f"the runs of {arm[0]}")
        if not _per_workload_tuned(group):
            drift += _differing({"settings": _settings}, group, f"the runs of {arm[0]}")
    if drift:
        return failed(
            item,
            "; ".join(dict.fromkeys(e.where for e in drift[:3])),
            *drift[:MOST],
            remedy="measure all runs of an arm, and all arms, under the same conditions",
        )
    worlds = sorted({p.world for p in points})
    if len(worlds) > 1:
        told = f"{' and '.join(worlds)} runs stand side by side"
        return warned(item, told, *_each(points, "world", lambda p: p.world))
    blind = [p for p in points if not _told(p)]
    if blind:
        return unjudged(
            item,
            f"{_runs(blind)} without a record of the system's settings and version",
            remedy="name them: in a study (config, about), or in a record given with --paper",
        )
    told_of = (
        pointer(f"{p.manifest_at}: version, settings", [arms.version_of(p.manifest), _settings(p)])
        for p in points[:MOST]
    )
    return passed(item, "one way of measuring, and one configuration for each arm", *told_of)


def _by_arm_and_model(points: Points) -> dict[tuple[str, str], list[Point]]:
    groups: dict[tuple[str, str], list[Point]] = {}
    for p in points:
        groups.setdefault((p.place.arm, p.place.model), []).append(p)
    return groups


def _settings(point: Point) -> object:
    return arms.settings_of(point.manifest)


def _told(point: Point) -> bool:
    """Whether a run records what could have drifted."""
    measuring = point.world != "measured" or bool(point.manifest.spec.get("drive"))
    return measuring and None not in (arms.version_of(point.manifest), _settings(point))


def _per_workload_tuned(group: list[Point]) -> bool:
    """Whether settings differ between workloads only, as where a study tunes for each."""
    if any(p.place.study is None for p in group):
        return False
    by_workload: dict[str, set[str]] = {}
    for p in group:
        by_workload.setdefault(p.place.workload, set()).add(repr(_settings(p)))
    return all(len(kinds) == 1 for kinds in by_workload.values())


def _differing(
    table: dict[str, Callable[[Point], object]], points: Iterable[Point], whose: str
) -> list[Evidence]:
    out = []
    for what, read in table.items():
        seen = {repr(read(p)): read(p) for p in points}
        if len(seen) > 1:
            out.append(pointer(f"{whose} differ in {what}", list(seen.values())[:4]))
    return out


def error_rates(points: Points) -> Finding:
    """Few requests failed, and as few in one arm as in another."""
    item = "validity.error_rates"
    rates = {p.place.path: 1 - float(p.ok.mean()) if p.requests else math.nan for p in points}
    bad = [p for p in points if rates[p.place.path] > FAILED]
    seen = [
        pointer(f"{p.timeline_at}: requests that failed / all", rates[p.place.path])
        for p in (bad or points)[:MOST]
    ]
    if bad:
        return failed(
            item,
            f"{_runs(bad)} lost more than {FAILED:.0%} of their requests: percentiles are of the survivors",
            *seen,
            remedy="lower the load, or count failures as infinite latencies",
        )
    if not all(p.requests for p in points):
        return failed(item, "a run without requests", *seen, remedy="measure again")
    uneven = _uneven(points, rates)
    if uneven:
        return failed(
            item,
            "arms lose unequal shares of the same load: percentiles of survivors flatter the one that drops more",
            *uneven,
            remedy="compare at a load that both serve, or count failures as infinite",
        )
    some = [p for p in points if rates[p.place.path] > NOTABLE]
    if some:
        return warned(item, f"{_runs(some)} lost more than {NOTABLE:.0%} of their requests", *seen)
    return passed(item, f"at most {max(rates.values()):.2%} of the requests failed", *seen)


def _uneven(points: Points, rates: dict[str, float]) -> list[Evidence]:
    """Conditions in which two arms lost shares that differ by more than a point, and by more than chance (three sigma)."""
    out = []
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for p in points:
        groups.setdefault(p.place.condition, []).append(p)
    for condition, group in groups.items():
        lo, hi = (pick(group, key=lambda p: rates[p.place.path]) for pick in (min, max))
        a, b = rates[lo.place.path], rates[hi.place.path]
        noise = 3 * math.sqrt(b * (1 - b) / hi.requests + a * (1 - a) / lo.requests)
        if lo.place.arm != hi.place.arm and b - a > max(UNEVEN, noise):
            out.append(
                pointer(
                    f"failed on {condition[1]} at {condition[2]}",
                    {lo.place.arm: a, hi.place.arm: b},
                )
            )
    return out


CHECKS = (
    complete,
    instrument,
    late_client,
    steady_state,
    truncated,
    as_planned,
    token_provenance,
    prefix_cache,
    config_drift,
    error_rates,
)


def _runs(points: Iterable[Point]) -> str:
    names = [Path(p.place.path).name for p in points]
    return names[0] if len(names) == 1 else f"{len(names)} runs ({names[0]}, ...)"


def _each(points: Iterable[Point], path: str, read: Callable[[Point], object]) -> list[Evidence]:
    return [pointer(f"{p.manifest_at}: $.{path}", read(p)) for p in list(points)[:MOST]]
