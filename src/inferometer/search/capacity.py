"""The highest load that meets an SLO, as an estimate with an interval, from as few requests as will do.

A *world* is anything that answers an `Ask` (this load, this seed, so many requests) with a Run: a measured server, a
simulated system. This module knows nothing else of it. `decide` is pure: from the probes so far to the next Ask, or to a
verdict; so a search that was interrupted goes on from its journal as if nothing had happened.

1. Bracket: steps of a factor 2, few requests each, all with the same seed (common random numbers: the plans differ in
   their rate alone). A probe far above capacity may stop itself once far more requests are in flight than at a load
   that met the SLO (Little's law: users would have to wait several times as long).
2. Refine: at the point between the estimate and the further end of the interval, never so near to the estimate that no
   probe could tell the sides apart, with as many requests as the slope says it takes. Each refining probe has a seed of
   its own (the k-th the same one in every search, so that two systems face the same traffic): the likelihood takes their
   errors for independent, and a common seed would make them err together.
3. Every probe counts, early ones too: `stats.boundary` pools them by isotonic regression, for each criterion of the SLO
   (see `evidence`); the capacity is the least of the boundaries, and so are the ends of its interval.
4. Hysteresis: the load below the interval once more, right after an overload and without a rest. A server that keeps its
   promise going up and breaks it coming down has two capacities.

Verdicts: resolved    the interval is within ±`precision` of the estimate
          cliff       the same, but from one end of the interval to the other the share falls to half of its level
          unresolved  the budget was spent, or the instrument could not go higher
          unbounded   met at the highest load that may be tried
          infeasible  not met even at the lowest
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from inferometer import stats
from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.metrics import rates
from inferometer.metrics.summary import plain
from inferometer.run import Run
from inferometer.search.evidence import STABLE, Criterion, check_searchable, criteria, latencies
from inferometer.slo import Slo
from inferometer.slo import parse as parse_slo
from inferometer.spec import Spec
from inferometer.stats.intervals import normal_quantile
from inferometer.stats.monotone import REACH

Verdict = Literal["resolved", "cliff", "unresolved", "unbounded", "infeasible"]
Role = Literal["bracket", "refine", "overload", "after overload"]

CROWDED = 4.0  # times the in-flight that Little's law expects at a load which met the SLO
CROWD_N = 4.0  # what such a stop is worth: more than enough to be believed
ROOM = 20  # requests in flight that are never a crowd
NEAREST = 0.7  # of the precision: nearer to the estimate a probe tells nothing
REFINING = 5  # times the requests of a bracketing probe, at least: a queue near saturation is slow to show what it is
POWER_Z = 0.84  # 80 % of the refining probes prove their side
LIMIT = 3  # invalid probes
CLIFF = 0.5  # of the level
OVERLOAD = 1.5  # times the interval's end
FEWEST = 40  # requests that a probe at the lowest load must have
SHOWN_Z = 2.33
JOURNAL = "probes.jsonl"


class Search(Spec, frozen=True):
    """How to search. Loads are requests/s, or requests in flight where `whole`; times in seconds.

    requests: of a bracketing probe; most_requests: of any probe. shortest_s and longest_s bound a probe's length (open
    loop), and the latter the lowest load that can be judged. budget_s counts the time of the probes, without rests.
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
    longest_s: float = 600.0
    warmup_share: float = 0.2
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

    `requests` are measured, after a warm-up of `warmup` more. `most_in_flight`: beyond that the world may stop; it returns
    what there is, the rest as cancelled. `rested`: let the system come to rest before.
    """

    load: float
    seed: int
    requests: int
    warmup: int
    role: Role = "bracket"
    most_in_flight: float | None = None
    rested: bool = True


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


class Hysteresis(NamedTuple):
    """The share at `load` before an overload and right after one, and whether the fall is shown (one-sided 1 %)."""

    load: float
    before: float
    after: float
    shown: bool


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
            "requests": sum(probe.requests for probe in self.probes),
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
    found = [
        stats.boundary(points_of(valid, k), valid[0].criteria[k].level, search.confidence)
        for k in range(len(valid[0].criteria))
    ]
    binding = min(range(len(found)), key=lambda k: (found[k].rate, found[k].interval.hi))
    interval = stats.Interval(min(b.interval.lo for b in found), min(b.interval.hi for b in found))
    return Standing(found[binding].rate, interval, binding)


def points_of(probes: Sequence[Probe], criterion: int) -> list[stats.Probe]:
    """One criterion's curve: each probe's share, worth its requests times what a request is worth at such a load.

    That worth is pooled over all probes (it does not rise with the load). Each probe's own estimate of it is lowest where
    the probe happened to meet congestion, and would weigh lucky probes more: 2 % of bias (benchmarks/capacity.py).
    """
    seen = [p.criteria[criterion] for p in probes]
    if not all(c.n for c in seen):
        return [
            stats.Probe(p.ask.load, c.share, c.effective_n)
            for p, c in zip(probes, seen, strict=True)
        ]
    order = np.argsort([p.ask.load for p in probes], kind="stable")
    each = np.log([max(seen[k].effective_n, 1.0) / seen[k].n for k in order])
    falling = -stats.isotonic(-each, [seen[k].n for k in order])
    return [
        stats.Probe(probes[k].ask.load, seen[k].share, math.exp(worth) * seen[k].n)
        for k, worth in zip(order, falling, strict=True)
    ]


# --- what next --------------------------------------------------------------------------------------------------------


def decide(probes: Sequence[Probe], search: Search) -> Ask | End:
    """The next probe, or the end of the search. Pure: the same probes lead to the same step."""
    ceiling, capped = _ceiling(probes, search)
    now = standing(probes, search)
    if now is None:
        if capped:
            return End("unresolved", f"the instrument could not: {probes[-1].invalid[0]}")
        return _ask(search, search.start, search.requests)
    end = _settled(probes, now, search, ceiling, capped)
    if end is not None:
        return _afterwards(probes, now, search, end)
    if len(probes) >= search.probes:
        return End("unresolved", f"{len(probes)} probes were not enough")
    if math.fsum(p.spent_s for p in probes) >= search.budget_s:
        return End("unresolved", f"the budget of {search.budget_s:g} s is spent")
    return _next(probes, now, search, ceiling, capped)


def _ceiling(probes: Sequence[Probe], search: Search) -> tuple[float, bool]:
    """The highest load that may be tried, and whether it is the instrument that says so.

    An invalid probe below a load at which one was valid is a disturbance; `LIMIT` of them beyond all such are a limit.
    """
    valid = max((p.ask.load for p in probes if not p.invalid), default=0.0)
    beyond = [p.ask.load for p in probes if p.invalid and p.ask.load > valid]
    if len(beyond) < LIMIT or min(beyond) > search.highest:
        return search.highest, False
    return min(beyond), True


def _settled(
    probes: Sequence[Probe], now: Standing, search: Search, ceiling: float, capped: bool
) -> End | None:
    lo, hi = now.interval
    if hi <= search.floor * (1 + 1e-9):
        return End("infeasible", f"not met even at {search.floor:g}")
    if capped and hi > ceiling and ceiling <= max(lo * (1 + 2 * search.precision), lo + 1e-9):
        return End("unresolved", f"met at {lo:g}; at {ceiling:g} the instrument is not valid")
    if lo >= ceiling * (1 - 1e-9):
        return End("unbounded", f"met at {lo:g}, the highest load to be tried")
    near = hi - lo <= 1 if search.whole else hi - lo <= 2 * search.precision * now.load
    if not (near and math.isfinite(now.load)):
        return None
    above = _share_at(counted(probes), now, hi)
    level = counted(probes)[0].criteria[now.binding].level
    if level != 0.5 and above <= CLIFF * level:
        return End("cliff", f"within {lo:g} to {hi:g} the share falls to {above:.0%}")
    return End("resolved", "")


def _next(
    probes: Sequence[Probe], now: Standing, search: Search, ceiling: float, capped: bool
) -> Ask:
    """Outward by a factor while there is no bracket, else where the interval can be cut."""
    valid = counted(probes)
    loads = [p.ask.load for p in valid]
    if now.load == 0 or math.isinf(now.load):
        up = math.isinf(now.load)
        edge = max(loads) if up else min(loads)
        load = edge * REACH if up else edge / REACH
        if up and capped and load >= ceiling:
            load = math.sqrt(edge * ceiling)
        load = min(max(load, search.floor), ceiling)
        tries = sum(math.isclose(load, known, rel_tol=1e-9) for known in loads)
        return _ask(
            search, load, search.requests * 2**tries, crowd=_crowd(valid, load) if up else None
        )
    load = min(max(_cut(valid, now, search), search.floor), ceiling)
    tried = sum(p.ask.role == "refine" for p in probes)
    requests = _needed(valid, now, search, load)
    return _ask(search, load, requests, role="refine", seed=search.seed + 1 + tried)


def _cut(valid: Sequence[Probe], now: Standing, search: Search) -> float:
    """Between the estimate and the end of the interval that is further away, but not too near to the estimate."""
    lo = now.interval.lo or min(p.ask.load for p in valid) / REACH
    hi = min(now.interval.hi, max(p.ask.load for p in valid) * REACH)
    down = now.load / lo > hi / now.load
    if search.whole:
        middle = math.floor(now.load) if down else math.floor(now.load) + 1
        return float(min(max(middle, math.floor(lo) + down), math.ceil(hi) - (not down)))
    step = math.sqrt(now.load * (lo if down else hi)) / now.load
    least = NEAREST * search.precision
    return now.load * (min(step, 1 - least) if down else max(step, 1 + least))


def _needed(valid: Sequence[Probe], now: Standing, search: Search, load: float) -> int:
    """Requests for a probe that tells its side: n = z^2 p(1 - p) / difference^2, over what a request is worth."""
    level = valid[0].criteria[now.binding].level
    apart = abs(_share_at(valid, now, load) - level)
    z = normal_quantile((1 + search.confidence) / 2) + POWER_Z
    spread = max(level * (1 - level), 1e-4)
    near = sorted(valid, key=lambda p: abs(math.log(p.ask.load / now.load)))[:3]
    worth = float(
        np.median([p.criteria[now.binding].effective_n / max(p.requests, 1) for p in near])
    )
    wanted = z * z * spread / max(apart, 1e-3) ** 2 / max(worth, 0.02)
    return int(min(max(wanted, REFINING * search.requests), search.most_requests))


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


def _ask(
    search: Search,
    load: float,
    requests: int,
    *,
    role: Role = "bracket",
    seed: int | None = None,
    crowd: float | None = None,
    rested: bool = True,
) -> Ask:
    load = float(round(load)) if search.whole else load
    if not search.whole:
        requests = min(
            max(requests, math.ceil(search.shortest_s * load)), math.ceil(search.longest_s * load)
        )
        warmup = math.ceil(search.warmup_share * requests)
    else:
        warmup = round(2 * load)
    requests = min(requests, search.most_requests)
    seed = search.seed if seed is None else seed
    return Ask(
        load=load,
        seed=seed,
        requests=requests,
        warmup=warmup,
        role=role,
        most_in_flight=None if search.whole else crowd,
        rested=rested,
    )


# --- afterwards -------------------------------------------------------------------------------------------------------


def _afterwards(probes: Sequence[Probe], now: Standing, search: Search, end: End) -> Ask | End:
    """The check for hysteresis, where there is an end to check: an overload, then at once the load that was fine."""
    done = {p.ask.role for p in probes}
    if not search.hysteresis or end.verdict not in ("resolved", "cliff"):
        return end
    if "overload" not in done:
        load = min(OVERLOAD * now.interval.hi, search.highest)
        return _ask(search, load, search.requests, role="overload")
    if "after overload" not in done:
        size = max(p.ask.requests for p in counted(probes) if p.ask.load <= now.load)
        return _ask(search, now.interval.lo, size, role="after overload", rested=False)
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
        now.interval,
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

    A line that was cut off by a crash is dropped. Raises UserError where the folder belongs to another search.
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
    kept = b"".join(line + b"\n" for line in whole_lines or [msgspec.json.encode(header)])
    path.write_bytes(kept)

    def keep(probe: Probe) -> None:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(probe) + b"\n")

    return probes, keep
