"""What a study consists of, before any of it has happened: its cells, in the order in which they are played. Pure.

A cell is one system under one load of one workload, once. Blocks hold what is compared: one repeat of one workload on one
model. Within a block the arms take turns in random order, so that a drift of the host or the hour touches all alike, and
each plays all loads, in one random order that the arms of a block share, on one start of its server.
Everything random follows from the study's seed. The seed of a cell's plan is the same for all arms, so that they face the
same requests, and another one for each load and repeat, so that no prompt is sent twice to one server.
Tuning comes first: its cells are those of every configuration that is tried, on other requests than the headline's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.plan import Plan
from inferometer.search.study.asked import CAPACITY, Config, Load, StudySpec
from inferometer.search.study.checked import Asked
from inferometer.spec import Spec
from inferometer.timeline import ABSENT
from inferometer.workload import Replay, WorkloadSpec, make_plan
from inferometer.workload.arrivals import Arrivals, Closed, Natural, Poisson, arrivals

Split = Literal["tuning", "headline"]
SPLITS: tuple[Split, ...] = ("tuning", "headline")
JOINT = "+"  # between the parts of an id; in no name


class Planned(Spec, frozen=True):
    """A cell that is to be played. `config` is None where tuning decides it; `plan` where a search makes its own plans.

    `turn` counts the starts of servers: cells of one turn follow each other on one of them.
    """

    id: str
    split: Split
    system: str
    model: str
    workload: str
    app: str
    load: Load
    repeat: int
    block: int
    turn: int
    order: int
    config: Config | None
    trial: int | None
    seed: int
    plan: str | None
    requests: int | None
    span_s: float | None  # until its last request is due; None where nobody can know
    slo: str | None


class Part(NamedTuple):
    """Where a plan comes from: a workload's split at a load, and which repeat of it."""

    split: Split
    workload: str
    load: Load
    repeat: int


class Turn(NamedTuple):
    """One start of one system: what it plays, in order."""

    split: Split
    system: str
    model: str
    workload: str
    trial: int | None
    config: Config | None
    parts: tuple[Part, ...]


def plan_study(asked: Asked) -> tuple[Planned, ...]:
    """All cells of a study file; a complaint about a plan carries its line."""
    try:
        return cells(asked.spec)
    except UserError as error:
        raise asked.document.located(error) from None


def cells(spec: StudySpec) -> tuple[Planned, ...]:
    """All cells of a study, in order."""
    planned: list[Planned] = []
    facts: dict[Part, _Facts] = {}
    for split in SPLITS:
        number = planned[-1].block + 1 if planned else 0
        for block, turns in enumerate(_blocks(spec, split), start=number):
            for turn in turns:
                planned += _cells(spec, turn, block, planned, facts)
    return tuple(planned)


def seed_of(spec: StudySpec, part: Part) -> int:
    """The seed of a plan: the same for all arms and models, another one for everything else."""
    words = (spec.seed, part.split, part.workload, part.load.label, part.repeat)
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:4], "big") >> 1


def plan_of(spec: StudySpec, part: Part) -> Plan:
    """The plan of a part that is no search."""
    return make_plan(workload_of(spec, part), seed_of(spec, part))


def workload_of(spec: StudySpec, part: Part) -> WorkloadSpec:
    """The workload of a part: cut to its split, at its load."""
    whole = plain(spec, part.workload)
    cut = split_of(whole, part.split, spec.tuning.share) if spec.tuned else whole
    if part.split == "tuning" and spec.tuning.requests is not None:
        cut = msgspec.structs.replace(cut, requests=spec.tuning.requests, duration_s=None)
    return at(cut, part.load)


def plain(spec: StudySpec, name: str) -> WorkloadSpec:
    """The workload of a study without what only a study has."""
    own = spec.workloads[name]
    return WorkloadSpec(**{f: getattr(own, f) for f in WorkloadSpec.__struct_fields__})


# --- the order --------------------------------------------------------------------------------------------------------


def _blocks(spec: StudySpec, split: Split) -> Iterator[list[Turn]]:
    """Blocks of turns, in the order of the study: repeats outermost, workloads and models shuffled within."""
    rng = np.random.default_rng([spec.seed, SPLITS.index(split)])
    pairs = [(workload, model) for workload in spec.workloads for model in spec.model_names]
    for repeat in range(1 if split == "tuning" else spec.repeats):
        for k in rng.permutation(len(pairs)):
            workload, model = pairs[int(k)]
            if split == "tuning":
                turns = _tuning_turns(spec, workload, model)
            else:
                turns = _headline_turns(spec, workload, model, repeat, rng)
            yield [turns[int(i)] for i in rng.permutation(len(turns))]


def _tuning_turns(spec: StudySpec, workload: str, model: str) -> list[Turn]:
    turns = []
    for name in spec.systems:
        system = spec.system(name)
        if not spec.systems[name].tune:
            continue
        part = Part("tuning", workload, spec.tuning_load(workload, model), 0)
        for trial, config in enumerate(
            tried(system.configurations(), spec, (name, model, workload))
        ):
            whole = system.config | config
            turns.append(Turn("tuning", name, model, workload, trial, whole, (part,)))
    return turns


def tried(every: Sequence[Config], spec: StudySpec, whose: tuple[str, ...]) -> list[Config]:
    """The configurations that the budget allows: all, or a random choice among them; in the order of the space."""
    budget = spec.tuning.budget
    if len(every) <= budget:
        return list(every)
    digest = hashlib.sha256(repr((spec.seed, *whose)).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return [every[k] for k in sorted(rng.choice(len(every), budget, replace=False).tolist())]


def _headline_turns(
    spec: StudySpec, workload: str, model: str, repeat: int, rng: np.random.Generator
) -> list[Turn]:
    loads = spec.loads_of(workload, model)
    parts = [Part("headline", workload, load, repeat) for load in loads]
    shuffled = tuple(parts[int(k)] for k in rng.permutation(len(parts)))
    return [
        Turn("headline", name, model, workload, None, fixed(spec, name), shuffled)
        for name in spec.systems
    ]


def fixed(spec: StudySpec, name: str) -> Config | None:
    """The configuration of a system that nobody tunes; None where tuning decides it."""
    own = spec.systems[name]
    whose = own.ablation_of if own.ablation_of and not own.tune else name
    return None if spec.systems[whose].tune else spec.system(name).config


class _Facts(NamedTuple):
    """What is known of a plan before it is played."""

    seed: int
    fingerprint: str | None
    requests: int | None
    span_s: float | None


def _facts(spec: StudySpec, part: Part) -> _Facts:
    seed = seed_of(spec, part)
    if part.load.kind == CAPACITY:
        return _Facts(seed, None, None, None)
    try:
        plan = plan_of(spec, part)
    except UserError as error:
        where = f"$.workloads.{part.workload}{error.where.removeprefix('$')}"
        raise UserError(error.what, where=where, remedy=error.remedy) from None
    known = plan.intended_ns[plan.intended_ns != ABSENT]
    timed = plan.concurrency is None and len(known) > 0
    span_s = float(known.max()) / SECOND if timed else None
    if span_s is not None and span_s < (warmup_s := spec.warmup_of(part.workload)):
        raise UserError(
            f"all {len(plan)} requests of a {part.split} run at {part.load.label} are due within its "
            f"warm-up of {warmup_s:g} s",
            where=f"$.workloads.{part.workload}",
            remedy="give it more requests",
        )
    return _Facts(seed, plan.fingerprint, len(plan), span_s)


def _cells(
    spec: StudySpec, turn: Turn, block: int, before: list[Planned], facts: dict[Part, _Facts]
) -> list[Planned]:
    number = before[-1].turn + 1 if before else 0
    found = []
    for k, part in enumerate(turn.parts):
        known = facts.get(part)
        if known is None:
            known = facts[part] = _facts(spec, part)
        found.append(
            Planned(
                id=_id(turn, part),
                split=turn.split,
                system=turn.system,
                model=turn.model,
                workload=turn.workload,
                app=spec.app_of(turn.workload),
                load=part.load,
                repeat=part.repeat,
                block=block,
                turn=number,
                order=len(before) + k,
                config=turn.config,
                trial=turn.trial,
                seed=known.seed,
                plan=known.fingerprint,
                requests=known.requests,
                span_s=known.span_s,
                slo=spec.slo_text(turn.workload),
            )
        )
    return found


def _id(turn: Turn, part: Part) -> str:
    """The name of a cell, and of its folder: what it is of, from the general to the particular."""
    which = f"r{part.repeat}" if turn.trial is None else f"t{turn.trial:03d}"
    words = ("tune" if turn.trial is not None else "", turn.workload, turn.model)
    return JOINT.join(filter(None, (*words, part.load.label, which, turn.system)))


# --- workloads, cut and loaded ----------------------------------------------------------------------------------------


def split_of(workload: WorkloadSpec, split: Split, share: float) -> WorkloadSpec:
    """The part of a workload that a split may use.

    What is generated has endless requests, and the seeds differ; a trace has one past, whose beginning is for tuning.
    """
    return msgspec.structs.replace(
        workload,
        trace=_window(workload.trace, split, share),
        clients=tuple(
            msgspec.structs.replace(client, trace=_window(client.trace, split, share))
            for client in workload.clients
        ),
    )


def _window(trace: str | Replay | None, split: Split, share: float) -> Replay | None:
    if trace is None:
        return None
    replay = Replay(file=trace) if isinstance(trace, str) else trace
    end_s = replay.end_s
    if end_s is None:
        times = replay.read().arrival_ns
        known = None if times is None else times[times != ABSENT]
        if known is None or not len(known):
            raise UserError(
                "a trace without times cannot be split into tuning and headline",
                where="$.trace",
                remedy="make a profile of it (describe --save), or leave out `tune`",
            )
        end_s = (float(known.max()) + 1) / SECOND
    border = replay.start_s + share * (end_s - replay.start_s)
    if split == "tuning":
        return msgspec.structs.replace(replay, end_s=border)
    return msgspec.structs.replace(replay, start_s=border, end_s=end_s)


def at(workload: WorkloadSpec, load: Load) -> WorkloadSpec:
    """The workload at a load: its arrivals scaled to a rate, or a closed loop in their place."""
    if load.value is None:
        return workload
    if load.kind == "concurrency":
        return _arriving(workload, Closed(concurrency=round(load.value)))
    if workload.arrivals is None:
        own = workload.profile is not None or workload.trace is not None
        if any(client.arrivals is not None for client in workload.clients):
            raise UserError(
                "its clients have arrivals of their own, which no rate can scale",
                where="$.clients",
                remedy="give one arrivals for all, or the load `natural`",
            )
        return _arriving(workload, Natural(rate=load.value) if own else Poisson(rate=load.value))
    process = arrivals(workload.arrivals)
    if not hasattr(process, "rate"):
        raise UserError(
            f"{msgspec.structs.asdict(process).get('kind', type(process).__name__.lower())} "
            "arrivals have no rate that a load could set",
            where="$.arrivals",
            remedy="give the load `natural`, or other arrivals",
        )
    return _arriving(workload, msgspec.structs.replace(process, rate=load.value))


def _arriving(workload: WorkloadSpec, process: Arrivals) -> WorkloadSpec:
    clients = workload.clients
    if isinstance(process, Closed):
        clients = tuple(msgspec.structs.replace(client, arrivals=None) for client in clients)
    return msgspec.structs.replace(workload, arrivals=process, clients=clients)


# --- how long it takes ------------------------------------------------------------------------------------------------

# Of this simulator on one core of a two-core virtual machine (Linux 6.18, CPython 3.11), scoring and writing included.
SIMULATED_CELL_S, SIMULATED_REQUEST_S = 0.05, 2e-4


class Estimate(NamedTuple):
    """How long a study takes, as far as its plans tell.

    `measured_s`: until the last request of every measured cell is due; what comes after that is the server's choice. Cells
    without such a time: `untimed` closed loops and `searches`. `starts` of servers. `simulated_s`: computing, roughly.
    """

    measured_s: float
    untimed: int
    searches: int
    starts: int
    simulated: int
    simulated_s: float


def estimate(spec: StudySpec, planned: Sequence[Planned]) -> Estimate:
    """How long the cells take."""
    real = [cell for cell in planned if not spec.system(cell.system).simulated]
    made = [cell for cell in planned if spec.system(cell.system).simulated]
    started = {cell.turn for cell in real if spec.system(cell.system).command is not None}
    return Estimate(
        measured_s=sum(cell.span_s or 0.0 for cell in real),
        untimed=sum(cell.span_s is None and cell.load.kind != CAPACITY for cell in real),
        searches=sum(cell.load.kind == CAPACITY for cell in planned),
        starts=len(started),
        simulated=len(made),
        simulated_s=sum(SIMULATED_CELL_S + SIMULATED_REQUEST_S * (c.requests or 0) for c in made),
    )
