"""The highest load that meets an SLO, as an estimate with an interval, from as few requests as will do.

A *world* is anything that answers an `Ask` (this load, this seed, so many requests) with a Run: a measured server, a
simulated system. This module knows nothing else of it. `decide` is pure: from the probes so far to the next Ask, or to a
verdict; so a search that was interrupted goes on from its journal as if nothing had happened.

1. Bracket: steps of a factor 2, few requests each, all with the same seed (common random numbers: the plans differ in
   their rate alone). A probe far above capacity may stop itself once far more requests are in flight than at a load
   that met the SLO (Little's law: users would have to wait several times as long).
2. Refine: by turns a little below and a little above the estimate, where a probe tells most of where the curve crosses the
   level; each with at most twice the requests of any before, and together as many as the slope says it takes. Each has
   arrivals of its own (the k-th the same ones in every search, so that two systems face the same traffic): the
   likelihood takes their errors for independent, and a common seed would make them err together.
3. Every probe counts, early ones too, by how near it is: `stats.sharpened` fits a line to them where the shares allow it,
   within what isotonic regression allows (`stats.boundary`), for each criterion of the SLO (see `evidence`); the capacity
   is the least of the boundaries, and so are the ends of its interval.
4. Hysteresis: the load below the interval once more, right after an overload and without a rest. A server that keeps its
   promise going up and breaks it coming down has two capacities.

No two probes send the same prompts: a server that keeps prefixes would answer the second from its cache.
An invalid probe says nothing about the server: it is repeated after ever longer rests, and a load at which `TRIES` were
invalid in a row is taken for the instrument's limit if none above it was valid, and else ends the search.

Verdicts: resolved    the interval is within ±`precision` of the estimate
          cliff       the same, but at twice the precision above the estimate the share has fallen to half of its level
          unresolved  the budget was spent, or the instrument could not go higher, or was disturbed again and again
          unbounded   met at the highest load that may be tried
          infeasible  not met even at the lowest
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from inferometer import stats
from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.metrics import rates
from inferometer.metrics.summary import plain
from inferometer.run import Run, write_whole
from inferometer.search.evidence import STABLE, Criterion, check_searchable, criteria, latencies
from inferometer.slo import Slo
from inferometer.slo import parse as parse_slo
from inferometer.spec import Spec
from inferometer.stats.intervals import Floats, normal_quantile
from inferometer.stats.monotone import REACH

Verdict = Literal["resolved", "cliff", "unresolved", "unbounded", "infeasible"]
Role = Literal["bracket", "refine", "overload", "after overload"]

CROWDED = 4.0  # times the in-flight that Little's law expects at a load which met the SLO
CROWD_N = 4.0  # what such a stop is worth: more than enough to be believed
ROOM = 20  # requests in flight that are never a crowd
WIDE = (
    1.35  # between the loads probed next to the estimate: further apart, their middle comes first
)
APPROACHING = 2  # times the requests of a bracketing probe, there
REFINING = (
    5  # the same beside the estimate, at least: a queue near saturation is slow to show what it is
)
PARTS = 4  # refining probes at least, so that their scatter is seen
WORTH = 25.0  # independent requests in each: one that began empty, and ends soon, is too good
ALIKE = 3  # refining probes in a row on one side of the level: the estimate is not there
REPEATED = 500_000  # from here on, the seeds of bracketing probes that are repeated
NEARBY = 0.15  # of the logarithm of the load
SHORT = 3.0  # independent requests that a bracketing probe is worth beside refining ones
TRIES = 5  # of one load, before the instrument is given up
LONGER = 4.0  # times the rest, after each invalid probe
LONGEST_REST_S = 60.0
CLIFF = 0.5  # of the level
OVERLOAD = 1.5  # times the interval's end
FEWEST = 40  # requests that a probe must have
SHOWN_Z = 2.33
BEYOND_DOUBT = 4.4  # standard errors, of the worst of some hundred pairs
JOURNAL = "probes.jsonl"


class Search(Spec, frozen=True):
    """How to search. Loads are requests/s, or requests in flight where `whole`; times in seconds of the system's clock.

    requests: of a bracketing probe; most_requests: of any probe. shortest_s and longest_s bound a probe's length (open
    loop), and the latter the lowest load that can be judged. rest_s: before each probe. budget_s: of probes and rests.
    """

    start: float = 1.0
    lowest: float | None = None
    highest: float = math.inf
    whole: bool = False
    precision: float = 0.05
    confidence: float = 0.9
    requests: int = 200
    most_requests: int = 8_000
    shortest_s: float = 10.0
    longest_s: float = 1800.0
    warmup_share: float = 0.2
    rest_s: float = 2.0
    budget_s: float = math.inf
    probes: int = 80
    seed: int = 0
    hysteresis: bool = True

    @property
    def floor(self) -> float:
        """The lowest load that is tried."""
        if self.lowest is not None:
            return self.lowest
        return 1.0 if self.whole else min(self.start, FEWEST / self.longest_s)


class Ask(Spec, frozen=True):
    """What a world is asked for.

    `requests` are measured, after a warm-up of `warmup` more. `seed` is of arrivals and lengths, `texts` of what is in the
    prompts. `most_in_flight`: beyond that the world may stop; it returns what there is, the rest as cancelled.
    `rest_s`: let the system come to rest for so long before.
    """

    load: float
    seed: int
    requests: int
    warmup: int
    role: Role = "bracket"
    most_in_flight: float | None = None
    rest_s: float = 0.0
    texts: int | None = None


World = Callable[[Ask], Run]


class Probe(Spec, frozen=True):
    """One finished probe: what was asked, what each criterion saw, what it took."""

    ask: Ask
    criteria: tuple[Criterion, ...]
    attainment: float | None  # the least share of what the SLO asks for
    requests: int
    failed: int
    spent_s: float
    request_seconds: float  # time in flight, summed
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    tbt_p50_s: float | None = None
    tbt_p99_s: float | None = None
    invalid: tuple[str, ...] = ()
    stopped: bool = False
    run: str | None = None

    @property
    def met(self) -> bool:
        """Whether every criterion was met, as seen."""
        return not self.invalid and all(c.met for c in self.criteria)


class Standing(NamedTuple):
    """Where the search stands: estimate and interval (0 and inf where there is no end yet), and what binds."""

    load: float
    interval: stats.Interval
    binding: int  # index of the criterion
    slope: float = math.nan  # of its logit per unit of log load, where known


class Hysteresis(NamedTuple):
    """The share at `load` before an overload and right after one, and whether the fall is shown (one-sided 1 %)."""

    load: float
    before: float
    after: float
    shown: bool


class Uneven(NamedTuple):
    """Two loads of which the lower one was worse, in a criterion: the server has more states than one, or no capacity."""

    load: float
    share: float
    higher_load: float
    higher_share: float
    criterion: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """The answer. `load` is NaN where none can be given (infeasible, unbounded)."""

    verdict: Verdict
    load: float
    interval: stats.Interval
    reason: str
    binding: str
    probes: tuple[Probe, ...]
    search: Search
    slo: Slo
    hysteresis: Hysteresis | None = None

    @property
    def uneven(self) -> Uneven | None:
        """Where shares rise with the load beyond doubt, which the search took for impossible; the worst such pair."""
        return uneven(counted(self.probes))

    @property
    def missing(self) -> float | None:
        """About how many more requests an unresolved search needs; None where it needs none, or nobody can tell."""
        now = standing(self.probes, self.search)
        if self.verdict != "unresolved" or now is None or math.isnan(now.slope):
            return None
        return missing(counted(self.probes), now, self.search)

    @property
    def request_seconds(self) -> float:
        """What the search cost: time in flight, summed over all requests."""
        return math.fsum(probe.request_seconds for probe in self.probes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data of the shape in DESIGN 4.10; a concurrency stands under `concurrency`, its rate nowhere."""
        found = plain(self.load)
        return {
            "verdict": self.verdict,
            "concurrency" if self.search.whole else "rate_per_s": found,
            "interval": [plain(self.interval.lo), plain(self.interval.hi)],
            "confidence": self.search.confidence,
            "precision": self.search.precision,
            "reason": self.reason,
            "binding": self.binding,
            "slo": self.slo.text,
            "hysteresis": None if self.hysteresis is None else self.hysteresis._asdict(),
            "uneven": None if self.uneven is None else self.uneven._asdict(),
            "requests": sum(probe.requests for probe in self.probes),
            "requests_missing": None if self.missing is None else round(self.missing),
            "request_seconds": self.request_seconds,
            "spent_s": math.fsum(probe.spent_s for probe in self.probes),
            "probes": [probe_dict(probe, whole=self.search.whole) for probe in self.probes],
        }


class End(NamedTuple):
    """The search is over: why."""

    verdict: Verdict
    reason: str


Watch = Callable[[Sequence[Probe], Standing | None], None]


def capacity(
    world: World,
    slo: Slo | str,
    search: Search | None = None,
    *,
    known: Iterable[Probe] = (),
    keep: Callable[[Probe], None] | None = None,
    watch: Watch | None = None,
) -> Capacity:
    """Search a world for its capacity under `slo`.

    `known` probes count and are not repeated; `keep` is called with each new one (a journal); `watch` after each.
    """
    slo = parse_slo(slo) if isinstance(slo, str) else slo
    check_searchable(slo)
    search = search or Search()
    probes = list(known)
    while isinstance(step := decide(probes, search), Ask):
        probe = judge(world(step), step, slo)
        probes.append(probe)
        if keep is not None:
            keep(probe)
        if watch is not None:
            watch(probes, standing(probes, search))
    return _answer(step, probes, search, slo)


def judge(run: Run, ask: Ask, slo: Slo) -> Probe:
    """The probe that a run is. An invalid run has no criteria: the instrument's limit is no fact about the server."""
    t = run.timeline
    record = run.manifest.instrument
    invalid = () if record.get("valid", True) else tuple(record.get("invalid_reasons", ("?",)))
    if len(t) and not t.ok.any():
        invalid = ()  # nobody was served: that is the server's doing
    stopped = bool((t.status == "cancelled").any())
    if stopped and not (t.phase == "measure").any():  # it was crowded before its warm-up was over
        run = replace(run, timeline=t.with_columns(phase=np.full(len(t), "measure", dtype=object)))
    seen = () if invalid else criteria(run, slo)
    seen = tuple(_crowded(c) if stopped and c.text == STABLE else c for c in seen)
    asked = [c.share for c in seen if c.text != STABLE]
    sent = rates.in_flight(t)
    return Probe(
        ask=ask,
        criteria=seen,
        attainment=min(asked, default=None),
        requests=len(t),
        failed=int((~t.ok).sum()),
        spent_s=float(t.ended_ns.max()) / SECOND if len(t) else 0.0,
        request_seconds=float((np.diff(sent.t_ns) * sent.level[:-1]).sum()) / SECOND,
        **latencies(run),
        invalid=invalid,
        stopped=stopped,
        run=None if run.path is None else str(run.path),
    )


def _crowded(stable: Criterion) -> Criterion:
    """A probe that stopped itself in a crowd was not stable."""
    return msgspec.structs.replace(stable, share=0.0, effective_n=CROWD_N)


# --- where it stands --------------------------------------------------------------------------------------------------


def counted(probes: Sequence[Probe]) -> list[Probe]:
    """The probes that the estimate is made of: valid ones, but for those of the check for hysteresis."""
    return [p for p in probes if p.criteria and p.ask.role in ("bracket", "refine")]


def standing(probes: Sequence[Probe], search: Search) -> Standing | None:
    """Estimate and interval from all probes so far: the least boundary of any criterion; None without a valid probe."""
    valid = counted(probes)
    if not valid:
        return None
    found = [_boundary(valid, k, search.confidence) for k in range(len(valid[0].criteria))]
    binding = min(range(len(found)), key=lambda k: (found[k].rate, found[k].interval.hi))
    interval = stats.Interval(min(b.interval.lo for b in found), min(b.interval.hi for b in found))
    return Standing(found[binding].rate, interval, binding, found[binding].slope)


def _boundary(valid: Sequence[Probe], criterion: int, confidence: float) -> stats.Boundary:
    """One criterion's boundary; what is no share of requests (stability) has no line to be fitted."""
    points, level = points_of(valid, criterion), valid[0].criteria[criterion].level
    shares = all(p.criteria[criterion].n for p in valid)
    return (stats.sharpened if shares else stats.boundary)(points, level, confidence)


def points_of(probes: Sequence[Probe], criterion: int) -> list[stats.Probe]:
    """One criterion's curve: the share at each load, and what the probe is worth.

    Bracketing probes are short and begin empty: beside refining ones they are believed only as far as they keep the bracket.
    """
    seen, counts = [p.criteria[criterion] for p in probes], _counts(probes, criterion)
    if all(c.n for c in seen) and sum(p.ask.role == "refine" for p in probes) >= 2:
        short = np.array([p.ask.role == "bracket" for p in probes])
        counts = np.where(short, np.minimum(counts, SHORT), counts)
    return [
        stats.Probe(p.ask.load, c.share, float(count))
        for p, c, count in zip(probes, seen, counts, strict=True)
    ]


def _counts(probes: Sequence[Probe], criterion: int) -> Floats:
    """How many independent requests each probe is worth: its requests over how many of them it takes to make one.

    That number comes from all probes at loads nearby: a probe's own is high where it happened to meet congestion and low
    where it did not, so that lucky probes would count for too much.
    """
    seen = [p.criteria[criterion] for p in probes]
    own = np.array([c.effective_n for c in seen])
    if not all(c.n for c in seen):
        return own
    n = np.array([c.n for c in seen], float)
    loads = np.log([p.ask.load for p in probes])
    return n / stats.smoothed(loads, n / np.maximum(own, 1.0), n, NEARBY)


def uneven(valid: Sequence[Probe]) -> Uneven | None:
    """The pair of probes whose shares rise with the load by the most standard errors, if by more than `BEYOND_DOUBT`."""
    found: list[tuple[float, Uneven]] = []
    ordered = sorted(valid, key=lambda p: p.ask.load)
    for k, criterion in enumerate(ordered[0].criteria if ordered else ()):
        counts = np.minimum(_counts(ordered, k), [p.criteria[k].effective_n for p in ordered])
        points = [
            stats.Probe(p.ask.load, p.criteria[k].share, float(count))
            for p, count in zip(ordered, counts, strict=True)
        ]
        found += [
            (z, Uneven(low.rate, low.share, high.rate, high.share, criterion.text))
            for low, high in combinations(points, 2)
            if (z := _rise_z(low, high)) > BEYOND_DOUBT
        ]
    return max(found, default=(0.0, None), key=lambda pair: pair[0])[1]


def _rise_z(low: stats.Probe, high: stats.Probe) -> float:
    """How far the share at a higher load is above that at a lower one, in standard errors (pooled, as in a z test)."""
    n = low.effective_n + high.effective_n
    pooled = (low.share * low.effective_n + high.share * high.effective_n) / n
    error = math.sqrt(pooled * (1 - pooled) * n / (low.effective_n * high.effective_n))
    return (high.share - low.share) / error if error else 0.0


# --- what next --------------------------------------------------------------------------------------------------------


def decide(probes: Sequence[Probe], search: Search) -> Ask | End:
    """The next probe, or the end of the search. Pure: the same probes lead to the same step."""
    step = _step(probes, search)
    if isinstance(step, End):
        return step
    step = msgspec.structs.replace(step, texts=_texts(search, len(probes)))
    if len(probes) >= search.probes:
        return End("unresolved", f"{len(probes)} probes were not enough")
    return _within_budget(step, probes, search)


def _step(probes: Sequence[Probe], search: Search) -> Ask | End:
    failed = _failed(probes)
    if 0 < len(failed) < TRIES:
        rest_s = max(search.rest_s, 1.0) * LONGER ** len(failed)
        return msgspec.structs.replace(failed[-1].ask, rest_s=min(rest_s, LONGEST_REST_S))
    ceiling = _ceiling(probes, search)
    now = standing(probes, search)
    if now is None:
        return _first(probes, search)
    if failed and failed[-1].ask.load < ceiling:
        return End("unresolved", f"{TRIES} times in a row: {failed[-1].invalid[0]}")
    end = _settled(probes, now, search, ceiling)
    return _next(probes, now, search, ceiling) if end is None else _afterwards(probes, now, search, end)  # fmt: skip


def _failed(probes: Sequence[Probe]) -> list[Probe]:
    """The last probes, as far as they were invalid, and at one load."""
    out: list[Probe] = []
    for probe in reversed(probes):
        if not probe.invalid or (out and probe.ask.load != out[-1].ask.load):
            break
        out.append(probe)
    return out


def _ceiling(probes: Sequence[Probe], search: Search) -> float:
    """The highest load that may be tried: the least at which the instrument failed, and nowhere above it did not."""
    valid = max((p.ask.load for p in probes if not p.invalid), default=0.0)
    beyond = Counter(p.ask.load for p in probes if p.invalid and p.ask.load > valid)
    return min((load for load, times in beyond.items() if times >= TRIES), default=search.highest)


def _first(probes: Sequence[Probe], search: Search) -> Ask | End:
    """Where there is no valid probe yet: the start, or below it where the instrument could not."""
    lowest = min((p.ask.load for p in probes), default=math.inf)
    if lowest <= search.floor * (1 + 1e-9):
        return End("unresolved", f"the instrument could not: {probes[-1].invalid[0]}")
    load = search.start if not probes else lowest / REACH**2
    return _ask(search, min(max(load, search.floor), search.highest), search.requests)


def _settled(probes: Sequence[Probe], now: Standing, search: Search, ceiling: float) -> End | None:
    lo, hi = now.interval
    if hi <= search.floor * (1 + 1e-9):
        return End("infeasible", f"not met even at {search.floor:g}")
    if ceiling < search.highest and hi > ceiling:
        if ceiling <= max(lo * (1 + 2 * search.precision), lo + 1e-9):
            return End("unresolved", f"met at {lo:g}; at {ceiling:g} the instrument is not valid")
    elif lo >= ceiling * (1 - 1e-9):
        return End("unbounded", f"met at {lo:g}, the highest load to be tried")
    if not (math.isfinite(now.load) and _narrow(now, search)):
        return None
    beyond = now.load * (1 + 2 * search.precision)
    above = _share_at(counted(probes), now, beyond)
    level = counted(probes)[0].criteria[now.binding].level
    if level != 0.5 and above <= CLIFF * level:
        return End("cliff", f"at {beyond:.3g} the share is {above:.0%}")
    return End("resolved", "")


def _narrow(now: Standing, search: Search) -> bool:
    """Whether the interval is as narrow as was asked for; of whole loads it may also be a single one."""
    lo, hi = wholes(now.interval) if search.whole else now.interval
    return hi - lo <= 2 * search.precision * now.load


def wholes(interval: stats.Interval) -> stats.Interval:
    """The whole loads in an interval of boundaries: the highest load that meets the SLO is one of them."""
    lo = math.floor(interval.lo)
    hi = interval.hi if math.isinf(interval.hi) else max(lo, math.ceil(interval.hi) - 1)
    return stats.Interval(float(lo), float(hi))


def _next(probes: Sequence[Probe], now: Standing, search: Search, ceiling: float) -> Ask:
    """Outward while there is no bracket, then into the middle of a wide one, else beside the estimate."""
    valid, rest_s = counted(probes), _rest(probes, search)
    if now.load == 0:
        return _downward(valid, now, search, rest_s)
    if math.isinf(now.load):
        return _upward(valid, search, ceiling, rest_s)
    below, above = _neighbours(valid, now)
    if above > WIDE * below:
        middle = math.sqrt(below * above)
        return _ask(search, middle, APPROACHING * search.requests, rest_s=rest_s)
    tried = sum(p.ask.role == "refine" for p in valid)
    load = min(max(_beside(valid, now, search), search.floor), ceiling)
    requests, seed = _needed(valid, now, search), search.seed + 1 + tried
    return _ask(search, load, requests, role="refine", seed=seed, rest_s=rest_s)


def _upward(valid: Sequence[Probe], search: Search, ceiling: float, rest_s: float) -> Ask:
    """The next load above all that were met; at the ceiling again, and longer, until it is beyond doubt."""
    edge = max(p.ask.load for p in valid)
    load = edge * REACH
    if load >= ceiling < search.highest:
        load = math.sqrt(edge * ceiling)
    load = min(load, ceiling)
    return _again(valid, search, load, rest_s, crowd=_crowd(valid, load))


def _downward(valid: Sequence[Probe], now: Standing, search: Search, rest_s: float) -> Ask:
    """The next load below all that were not met; where the lowest of them is in doubt, that one again, and longer.

    Under common random numbers a bad draw is as bad at every low load: going down would repeat it.
    """
    edge = min(p.ask.load for p in valid)
    sure = now.interval.hi <= edge * (1 + 1e-9)
    load = edge if not sure and edge > search.floor else max(edge / REACH, search.floor)
    return _again(valid, search, load, rest_s)


def _again(
    valid: Sequence[Probe], search: Search, load: float, rest_s: float, crowd: float | None = None
) -> Ask:
    """A bracketing probe: the first at a load has the common seed, each further one its own and twice the requests."""
    tries = sum(math.isclose(load, p.ask.load, rel_tol=1e-9) for p in valid)
    seed = search.seed + (REPEATED + len(valid) if tries else 0)
    return _ask(search, load, search.requests * 2**tries, seed=seed, crowd=crowd, rest_s=rest_s)


def _neighbours(valid: Sequence[Probe], now: Standing) -> tuple[float, float]:
    """The probed loads between which the binding criterion's share falls below its level, by isotonic regression."""
    level = valid[0].criteria[now.binding].level
    loads = sorted({p.ask.load for p in valid})
    above = [load for load in loads if _share_at(valid, now, load) < level]
    if not above or above[0] == loads[0]:
        return loads[0], loads[0]
    return loads[loads.index(above[0]) - 1], above[0]


def _beside(valid: Sequence[Probe], now: Standing, search: Search) -> float:
    """A load beside the estimate: by the precision wanted, or less where the interval is narrower than that.

    Once below and once above it; but further and further in one direction while all that is found there is of one kind.
    Where no line could be fitted, only a proof on either side counts: then half-way to the interval's end.
    """
    lo = now.interval.lo or min(p.ask.load for p in valid) / REACH
    hi = min(now.interval.hi, max(p.ask.load for p in valid) * REACH)
    step = min(math.log1p(search.precision), math.log(hi / lo) / 4)
    alike = _alike(valid, now)
    up = alike[0] if len(alike) >= ALIKE else sum(p.ask.role == "refine" for p in valid) % 2 == 1
    if math.isnan(now.slope):
        step = abs(math.log((hi if up else lo) / now.load)) / 2
    elif len(alike) >= ALIKE:
        step = min(step * 2 ** (len(alike) - ALIKE + 1), math.log(REACH))
    load = now.load * math.exp(step if up else -step)
    if search.whole:
        return max(math.floor(now.load) + 1.0, load) if up else min(math.floor(now.load), load)
    return load


def _alike(valid: Sequence[Probe], now: Standing) -> list[bool]:
    """Whether the last refining probes met the binding criterion, as far back as they say the same."""
    said = [p.criteria[now.binding].met for p in valid if p.ask.role == "refine"][::-1]
    return list(takewhile(lambda met: met == said[0], said))


def _needed(valid: Sequence[Probe], now: Standing, search: Search) -> int:
    """Requests of a refining probe: its part of what the slope says is missing, at most twice as many as any before.

    And enough to be worth `WORTH` independent ones.
    """
    refined = [p for p in valid if p.ask.role == "refine"]
    least = max(REFINING * search.requests, WORTH / _worth(valid, now))
    most = 2 * max((p.ask.requests for p in refined), default=0)
    if math.isnan(now.slope):
        return int(max(least, most))
    part = missing(valid, now, search) / max(1, PARTS - len(refined))
    return int(max(least, min(part, most)))


def missing(valid: Sequence[Probe], now: Standing, search: Search) -> float:
    """How many more requests near the estimate make the interval narrow enough; NaN where the slope is not known.

    Of a boundary the information is n p(1 - p) slope^2 per log load squared, with n in independent requests.
    """
    level = valid[0].criteria[now.binding].level
    z = normal_quantile((1 + search.confidence) / 2)
    each = level * (1 - level) * now.slope**2 * _worth(valid, now)
    half = math.log(now.interval.hi / now.interval.lo) / 2 if now.interval.lo else math.inf
    return max(0.0, (z / search.precision) ** 2 - (z / half) ** 2) / each


def _worth(valid: Sequence[Probe], now: Standing) -> float:
    """What a request at the estimate is worth, in independent ones."""
    ordered = sorted(valid, key=lambda p: p.ask.load)
    points = points_of(ordered, now.binding)
    requests = [max(p.criteria[now.binding].n, 1) for p in ordered]
    each = [point.effective_n / n for point, n in zip(points, requests, strict=True)]
    return float(np.interp(now.load, [point.rate for point in points], each))


def _share_at(valid: Sequence[Probe], now: Standing, load: float) -> float:
    """The isotonic curve of the binding criterion at a load, linear between probes and flat beyond them."""
    points = sorted(points_of(valid, now.binding))
    falling = -stats.isotonic([-p.share for p in points], [p.effective_n for p in points])
    return float(np.interp(load, [p.rate for p in points], falling))


def _crowd(valid: Sequence[Probe], load: float) -> float | None:
    """More requests in flight than this at `load`, and users wait several times as long as where the SLO was met."""
    met = [p for p in valid if p.met]
    if not met:
        return None
    best = max(met, key=lambda p: p.ask.load)
    return CROWDED * load * best.request_seconds / max(best.requests, 1) + ROOM


def _rest(probes: Sequence[Probe], search: Search) -> float:
    """How long the system rests; after a probe that stopped itself, until what it left behind can have been served."""
    last = probes[-1]
    if not last.stopped:
        return search.rest_s
    served = max((p.ask.load for p in probes if p.met), default=last.ask.load)
    return search.rest_s + (last.ask.most_in_flight or 0.0) / served


def _texts(search: Search, number: int) -> int:
    """The seed of a probe's prompts: its own."""
    return search.seed * 1_000 + number


def _ask(
    search: Search,
    load: float,
    requests: int,
    *,
    role: Role = "bracket",
    seed: int | None = None,
    crowd: float | None = None,
    rest_s: float = 0.0,
) -> Ask:
    load = float(round(load)) if search.whole else load
    if not search.whole:
        longest, shortest = search.longest_s * load, search.shortest_s * load
        requests = min(max(requests, math.ceil(shortest)), math.ceil(longest))
    requests = min(requests, search.most_requests)
    return Ask(
        load=load,
        seed=search.seed if seed is None else seed,
        requests=requests,
        warmup=_warmup(search, load, requests),
        role=role,
        most_in_flight=None if search.whole else crowd,
        rest_s=rest_s,
    )


def _warmup(search: Search, load: float, requests: int) -> int:
    return round(2 * load) if search.whole else math.ceil(search.warmup_share * requests)


def _within_budget(ask: Ask, probes: Sequence[Probe], search: Search) -> Ask | End:
    """The ask, shortened where the budget would not hold all of it; the end where it would not hold a useful part."""
    left_s = search.budget_s - math.fsum(p.spent_s + p.ask.rest_s for p in probes) - ask.rest_s
    each_s = 1 / ask.load
    if search.whole:
        each_s *= max((p.request_seconds / max(p.requests, 1) for p in probes), default=0.0)
    fits = left_s / each_s if each_s else math.inf
    if fits >= ask.requests + ask.warmup:
        return ask
    least = FEWEST if search.whole else max(FEWEST, math.ceil(search.shortest_s * ask.load))
    requests = math.floor(fits - ask.warmup if search.whole else fits / (1 + search.warmup_share))
    if requests < min(least, ask.requests):
        return End("unresolved", f"the budget of {search.budget_s:g} s is spent")
    return msgspec.structs.replace(
        ask, requests=requests, warmup=_warmup(search, ask.load, requests)
    )


# --- afterwards -------------------------------------------------------------------------------------------------------


def _afterwards(probes: Sequence[Probe], now: Standing, search: Search, end: End) -> Ask | End:
    """The check for hysteresis, where there is an end to check: an overload, then at once the load that was fine."""
    done = {p.ask.role for p in probes}
    if not search.hysteresis or end.verdict not in ("resolved", "cliff"):
        return end
    if "overload" not in done:
        load = min(OVERLOAD * now.interval.hi, search.highest)
        rest_s = _rest(probes, search)
        return _ask(search, load, search.requests, role="overload", rest_s=rest_s)
    if "after overload" not in done:
        size = max(p.ask.requests for p in counted(probes) if p.ask.load <= now.load)
        return _ask(search, now.interval.lo, size, role="after overload")
    return end


def _hysteresis(probes: Sequence[Probe], now: Standing) -> Hysteresis | None:
    after = [p for p in probes if p.ask.role == "after overload" and p.criteria]
    if not after:
        return None
    valid, load = counted(probes), after[0].ask.load
    seen = after[0].criteria[now.binding]
    at = [p.criteria[now.binding].effective_n for p in valid if math.isclose(p.ask.load, load)]
    before, n = _share_at(valid, now, load), max(math.fsum(at), 1.0)
    pooled = (before * n + seen.share * seen.effective_n) / (n + seen.effective_n)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / max(seen.effective_n, 1.0)))
    return Hysteresis(load, before, seen.share, before - seen.share > SHOWN_Z * error > 0)


def _answer(end: End, probes: Sequence[Probe], search: Search, slo: Slo) -> Capacity:
    now = standing(probes, search)
    if now is None:
        empty = stats.Interval(0.0, math.inf)
        return Capacity(end.verdict, math.nan, empty, end.reason, "", tuple(probes), search, slo)
    known = 0 < now.load < math.inf and end.verdict not in ("infeasible", "unbounded")
    load = float(math.floor(now.load)) if search.whole and known else now.load
    return Capacity(
        end.verdict,
        load if known else math.nan,
        wholes(now.interval) if search.whole else now.interval,
        end.reason,
        counted(probes)[0].criteria[now.binding].text,
        tuple(probes),
        search,
        slo,
        _hysteresis(probes, now),
    )


def probe_dict(probe: Probe, *, whole: bool = False) -> dict[str, Any]:
    """A probe as plain data."""
    return {
        "concurrency" if whole else "rate_per_s": probe.ask.load,
        "attainment": probe.attainment,
        "met": probe.met,
        "role": probe.ask.role,
        "seed": probe.ask.seed,
        "requests": probe.requests,
        "failed": probe.failed,
        "spent_s": probe.spent_s,
        "request_seconds": probe.request_seconds,
        "ttft_p50_s": probe.ttft_p50_s,
        "ttft_p99_s": probe.ttft_p99_s,
        "tbt_p50_s": probe.tbt_p50_s,
        "tbt_p99_s": probe.tbt_p99_s,
        "stopped": probe.stopped,
        "invalid": list(probe.invalid),
        "run": probe.run,
        "criteria": [msgspec.to_builtins(c) | {"met": c.met} for c in probe.criteria],
    }


# --- the journal ------------------------------------------------------------------------------------------------------


class Header(Spec, frozen=True):
    """What a journal is about; a search goes on only where all of it is the same."""

    slo: str
    target: str
    workload: str
    whole: bool


def open_journal(folder: Path, header: Header) -> tuple[list[Probe], Callable[[Probe], None]]:
    """The probes of an earlier search in `folder` (none: it is new), and the function that keeps one more.

    A line that was cut off by a crash is dropped; so are invalid probes at its end, for to resume is to try again.
    Raises UserError where the folder belongs to another search.
    """
    path = folder / JOURNAL
    folder.mkdir(parents=True, exist_ok=True)
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    whole_lines = [line for line in lines[:-1] if line]
    if whole_lines and msgspec.json.decode(whole_lines[0], type=Header) != header:
        raise UserError(
            "the folder holds a search for another SLO, target or workload",
            where=str(folder),
            remedy="name another with -o",
        )
    probes = [msgspec.json.decode(line, type=Probe) for line in whole_lines[1:]]
    while probes and probes[-1].invalid:
        del probes[-1], whole_lines[-1]
    kept = whole_lines or [msgspec.json.encode(header)]
    write_whole(path, b"".join(line + b"\n" for line in kept))

    def keep(probe: Probe) -> None:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(probe) + b"\n")

    return probes, keep
