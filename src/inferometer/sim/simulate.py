"""`simulate`: a plan, and what is to serve it, become a Run; the simulated twin of `load.fleet.measure`.

Everything that can be wrong with the question (a model that does not fit, degrees of parallelism that divide nothing) is
a UserError before the first event. A request that can never be served is a row: status "dropped", with the reason.
Times are exact: every token has its own chunk, stamped when its iteration ended, rounded to ns only here.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inferometer.agenda import NEVER, RAN_OUT
from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.plan import Plan
from inferometer.run import (
    Manifest,
    Run,
    columns_file,
    create,
    write_manifest,
    write_parts,
    write_plan,
)
from inferometer.sim import memory
from inferometer.sim.cluster import Cluster, Door, Outcome
from inferometer.sim.cost import HOST_S, Cost, Scaled
from inferometer.sim.devices import Device, device
from inferometer.sim.engine import Replica
from inferometer.sim.iterations import IterationLog
from inferometer.sim.kernel import PS_PER_NS, to_ps
from inferometer.sim.lanes import Lanes, independent
from inferometer.sim.models import Model, model, served
from inferometer.sim.prefix import PrefixPool, texts
from inferometer.sim.profiled import Profiled, read_profile
from inferometer.sim.roofline import Roofline
from inferometer.sim.routers import BLIND, Router, router
from inferometer.sim.step import Policy
from inferometer.sim.systems import VIDUR_MAX_LEN, Limits, Situation, policy
from inferometer.sim.vidur import VidurTables
from inferometer.spec import Spec
from inferometer.timeline import ABSENT, Array, Ints, Timeline, absent, build, offsets

PART_ROWS = 10_000
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Deployment(Spec, frozen=True):
    """What serves: a system on `replicas` x `tp` x `pp` devices. `cost` is roofline, profile:FILE or vidur:FILE.npz.

    `context`: tokens that the model is served for, where not for as many as it was made for (scaled rotary embeddings).
    `precision` and `kv_precision` are those of weights and cache (None: as the model is published); `ep` replicas share
    their experts. `front_s` is what a request spends outside the engine, where it keeps nobody else from running (HTTP,
    tokenising; a profile of an engine brings its own). `slowdown` multiplies every service time: for asking how much a prediction hangs on them.
    """

    system: str
    model: str
    device: str = "a100"
    tp: int = 1
    pp: int = 1
    ep: int = 1
    replicas: int = 1
    router: str = "round-robin"
    cost: str = "roofline"
    compat: str | None = None
    host_s: float = HOST_S
    front_s: float = 0.0
    context: int | None = None
    precision: str | None = None
    kv_precision: str | None = None
    slowdown: float = 1.0
    limits: Limits = Limits()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tp", "pp", "ep", "replicas"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.slowdown <= 0:
            raise ValueError("slowdown must be above 0")
        if self.compat not in (None, "vidur"):
            raise ValueError("compat is vidur, or nothing")


class Built(NamedTuple):
    """A deployment, resolved."""

    model: Model
    device: Device
    cost: Cost
    front_s: float
    policy: Policy
    situation: Situation
    blocks: int
    host: memory.Host


class Window(NamedTuple):
    """When load is sent: nothing starts at or after `duration_s`; what is intended before `warmup_s` is not scored."""

    duration_s: float | None = None
    warmup_s: float = 0.0


WHOLE = Window()


def simulate(
    plan: Plan, deployment: Deployment, *, window: Window = WHOLE, stretch: bool = True
) -> Run:
    """Serve `plan`; the Run. `stretch=False` steps through every iteration, for the same result."""
    built = resolve(deployment, longest=_longest(plan))
    cluster, replicas = assemble(plan, deployment, built, window=window, stretch=stretch)
    outcome = cluster.play()
    timeline = _timeline(plan, outcome, range(len(plan)), window)
    manifest = _manifest(plan, deployment, built, replicas)
    manifest.notes += _remarks(cluster, window)
    return Run(timeline, manifest, plan)


def simulate_into(
    plan: Plan,
    deployment: Deployment,
    folder: str | Path,
    *,
    window: Window = WHOLE,
    rows: int = PART_ROWS,
    iterations: bool = False,
    spec: Mapping[str, Any] = NOTHING,
    told: Callable[[int], None] | None = None,
) -> Path:
    """The same, written to a run directory while it runs, `rows` at a time: token times never are in memory as a whole.

    `iterations`: also `iterations.parquet`. `spec`: what was asked besides, for the manifest. `told`: is called with how
    many rows of the plan are over, now and then.
    """
    built = resolve(deployment, longest=_longest(plan))
    with ExitStack() as files:
        path, log = Path(folder), None
        if iterations:
            log = IterationLog(files.enter_context(columns_file(path / "iterations.parquet")))
        cluster, replicas = assemble(plan, deployment, built, window=window, log=log)
        create(folder)
        manifest = _manifest(plan, deployment, built, replicas)
        manifest.spec |= spec
        write_manifest(manifest, path, complete=False)
        write_plan(plan, path)
        parts = _parts(plan, cluster, rows, window, told)
        write_parts(parts, path / "timeline.parquet", shared=True)
        if log is not None:
            log.flush()
    manifest = _manifest(plan, deployment, built, replicas)
    manifest.spec |= spec
    manifest.notes += _remarks(cluster, window)
    write_manifest(manifest, path, complete=True)
    return path


def assemble(
    plan: Plan,
    deployment: Deployment,
    built: Built,
    *,
    window: Window = WHOLE,
    stretch: bool = True,
    log: IterationLog | None = None,
) -> tuple[Cluster | Lanes, list[Replica]]:
    """What plays `plan`, ready to, and the replicas in it."""
    served = serving(deployment, built, stretch=stretch, log=log)
    _somebody(plan, served.door)
    until_ps = NEVER if window.duration_s is None else to_ps(window.duration_s)
    shared = texts(plan) if shares(deployment, built) else None
    blind = deployment.replicas == 1 or deployment.router in BLIND
    kind = Lanes if blind and independent(plan) else Cluster
    front_ps = to_ps(built.front_s)
    cluster = kind(*served, plan, until_ps=until_ps, texts=shared, front_ps=front_ps)
    return cluster, served.replicas


def shares(deployment: Deployment, built: Built) -> bool:
    """Whether it matters to anybody that prompts begin alike."""
    return built.policy.caching or deployment.router == "prefix-affinity"


class Served(NamedTuple):
    """What a deployment puts behind its door; whoever plays it asks the door first."""

    replicas: list[Replica]
    route: Router
    door: Door


def serving(
    deployment: Deployment, built: Built, *, stretch: bool, log: IterationLog | None = None
) -> Served:
    """The replicas of a deployment, their router and their door."""
    kind = PrefixPool if built.policy.caching else memory.BlockPool
    replicas = [
        Replica(
            built.policy,
            built.cost,
            kind(built.blocks, deployment.limits.block_size),
            stages=deployment.pp,
            stretch=stretch,
            host=built.host,
            log=log,
            index=index,
        )
        for index in range(deployment.replicas)
    ]
    name = deployment.router
    if deployment.compat == "vidur" and name == "least-outstanding":
        name = "least-queued"
    route = router(name, deployment.seed)
    return Served(replicas, route, _door(built, deployment.limits.block_size))


def _somebody(plan: Plan, door: Door) -> None:
    """A UserError where a plan's requests are turned away, all of them."""
    pairs = zip(plan.prompt_tokens.tolist(), plan.output_tokens.tolist(), strict=True)
    reasons = (door(prompt, output) for prompt, output in pairs)
    first = next(reasons, None)
    if first is not None and all(reasons):
        raise UserError(f"none of the {len(plan):,} requests can be served: the first: {first}")


def _parts(
    plan: Plan,
    cluster: Cluster | Lanes,
    rows: int,
    window: Window,
    told: Callable[[int], None] | None,
) -> Iterator[Timeline]:
    """The timeline in the plan's order; the stamps of a part are forgotten once it is taken."""
    for part in cluster.parts(rows):
        if told is not None:
            told(part.stop)
        yield _timeline(plan, cluster.outcome, part, window)
        for row in part:
            cluster.outcome.stamps[row] = b""


def resolve(deployment: Deployment, *, longest: int) -> Built:
    """The parts of one replica; `longest`: tokens of the longest request, which bounds a default `max_len`."""
    on, limits = device(deployment.device), deployment.limits
    found = served(model(deployment.model), deployment.precision, deployment.kv_precision)
    if deployment.context is not None:
        found = msgspec.structs.replace(found, context=deployment.context)
    found.check_parallel(deployment.tp, deployment.pp)
    vidur = deployment.compat == "vidur"
    if limits.max_len and limits.max_len > found.context and not vidur:
        raise UserError(
            f"{found.name} was made for {found.context} tokens, not {limits.max_len}",
            where="--max-len",
            remedy="leave it out",
        )
    max_len = limits.max_len or (VIDUR_MAX_LEN if vidur else min(found.context, max(4096, longest)))
    plan = _pool(found, on, deployment, max_len)
    blocks = limits.num_blocks or plan.blocks
    own = (
        limits.num_blocks is not None and not vidur
    )  # Vidur's planner knows nothing of an override
    fit = blocks * limits.block_size // max_len if own else plan.requests
    situation = Situation(max_len, max(fit, 1), vidur)
    runs = policy(deployment.system, limits, situation)
    shape = {"tp": deployment.tp, "pp": deployment.pp, "block": limits.block_size}
    host = memory.host(found, on, **shape)
    times = _times(deployment, found, on)
    front_s = deployment.front_s + (times.front_s if isinstance(times, Profiled) else 0.0)
    cost = times if deployment.slowdown == 1 else Scaled(times, deployment.slowdown)
    return Built(found, on, cost, front_s, runs, situation, blocks, host)


def _pool(found: Model, on: Device, deployment: Deployment, max_len: int) -> memory.Plan:
    limits = deployment.limits
    shape = {
        "tp": deployment.tp,
        "pp": deployment.pp,
        "block": limits.block_size,
        "max_tokens": max_len,
    }
    if deployment.compat == "vidur":
        return memory.vidur_blocks(found, on, **shape)
    return memory.blocks(found, on, **shape, utilization=limits.utilization)


def _times(deployment: Deployment, found: Model, on: Device) -> Cost:
    kind, _, rest = deployment.cost.partition(":")
    tp, pp, ep = deployment.tp, deployment.pp, deployment.ep
    if kind == "vidur" and rest:
        return VidurTables(rest, found, tp=tp, pp=pp)
    if kind == "profile" and rest:
        if tp * pp * ep > 1:
            raise UserError(
                "a profile is of the devices it was measured on: --tp, --pp and --ep stay 1",
                where="--cost",
            )
        return Profiled(read_profile(rest), rest)
    if kind == "roofline" and not rest:
        return Roofline(found, on, tp=tp, pp=pp, ep=ep, host_s=deployment.host_s)
    raise UserError(
        f"no such cost model: {deployment.cost!r}",
        where="--cost",
        remedy="take roofline, profile:FILE or vidur:FILE.npz",
    )


def _longest(plan: Plan) -> int:
    return int((plan.prompt_tokens.astype(np.int64) + plan.output_tokens).max()) if len(plan) else 1


def _door(built: Built, block: int) -> Door:
    """Who is turned away: what a server's own validation refuses, and what no amount of waiting could serve."""
    max_len, most = built.situation.max_len, built.blocks
    reserved = -(-max_len // block)
    tokens = built.policy.longest_prompt

    def refused(prompt: int, output: int) -> str | None:
        if prompt + output > max_len:
            return f"{prompt} + {output} tokens are more than the longest request, {max_len} (--max-len)"
        if tokens is not None and prompt > tokens:
            return f"a prompt of {prompt} tokens is more than a batch holds, {tokens} (--max-batched-tokens)"
        needed = -(-(prompt + output - 1) // block) if built.policy.paged else reserved
        if needed > most:
            return f"it needs {needed} KV blocks, and there are {most}"
        return None

    return refused


# --- the run ----------------------------------------------------------------------------------------------------------


def _timeline(plan: Plan, outcome: Outcome, rows: range, window: Window) -> Timeline:
    """Some rows, in the plan's order, without those that never started because the time was up."""
    part = slice(rows.start, rows.stop)
    started = np.array(outcome.ended[part], dtype=np.int64) >= 0
    error = _reasons(outcome, rows)
    dropped = np.array([why is not None for why in error], dtype=bool) | ~started
    stamps = outcome.stamps[part]
    counts = np.array([len(times) // 8 for times in stamps], dtype=np.int64)
    chunk_ns = _ns(np.frombuffer(b"".join(stamps), dtype="<i8"))
    offset = offsets(counts)
    some = counts > 0
    first = np.full(len(rows), ABSENT)
    first[some] = chunk_ns[offset[:-1][some]]
    intended = _ns(outcome.intended[part])
    cached = np.array(outcome.cached[part], dtype=np.int64)
    whole = build(
        len(rows),
        request_id=plan.request_id[part],
        session_id=plan.session_id[part],
        turn=plan.turn[part],
        app=plan.app[part],
        intended_ns=intended,
        sent_ns=np.where(dropped & ~some, ABSENT, intended),
        first_byte_ns=first,
        ended_ns=_ns(outcome.ended[part]),
        status=_either(dropped, "dropped", "ok"),
        error=error,
        prompt_tokens=plan.prompt_tokens[part],
        output_tokens=counts.astype(np.int32),
        token_source="simulated",  # noqa: S106
        finish_reason=_either(dropped, None, "length"),
        cached_tokens=np.where(cached < 0, absent(np.int32), cached),
        scheduled_ns=_ns(outcome.scheduled[part]),
        phase=_either(intended < window.warmup_s * SECOND, "warmup", "measure"),
        chunk_offset=offset,
        chunk_ns=chunk_ns,
        chunk_tokens=np.ones(len(chunk_ns), dtype=np.int32),
        chunk_channel=np.zeros(len(chunk_ns), dtype=np.int8),
    )
    return whole if started.all() else whole.take(started)


def _reasons(outcome: Outcome, rows: range) -> Array:
    """Why each of some rows was dropped; None where it was not."""
    if not outcome.reason:
        return np.full(len(rows), None, dtype=object)
    return np.array([outcome.reason.get(row) for row in rows], dtype=object)


def _remarks(cluster: Cluster | Lanes, window: Window) -> list[str]:
    """What a reader must know of how it went."""
    short = window.duration_s is not None and cluster.exhausted
    return [RAN_OUT] if short else []


def _either(mask: Array, yes: str | None, no: str | None) -> Array:
    """A column of strings: `yes` where the mask holds, else `no`."""
    column = np.full(len(mask), no, dtype=object)
    column[mask] = yes
    return column


def _ns(times_ps: array[int] | Ints) -> Ints:
    """Whole ns; ABSENT for what did not happen."""
    ps = np.asarray(times_ps, dtype=np.int64)
    return np.where(ps < 0, ABSENT, (ps + PS_PER_NS // 2) // PS_PER_NS)


def _manifest(
    plan: Plan, deployment: Deployment, built: Built, replicas: list[Replica]
) -> Manifest:
    notes = list(plan.notes)
    if built.device.borrowed and deployment.cost == "roofline":
        notes.append(
            f"no kernel profiles of {built.device.name}: efficiencies of {built.device.borrowed}"
        )
    runs = {name: getattr(built.policy, name) for name in built.policy.__dataclass_fields__}  # type: ignore[attr-defined]
    return Manifest(
        complete=True,
        world="simulated",
        spec={"deployment": msgspec.to_builtins(deployment)},
        target={
            "system": deployment.system,
            "policy": runs,
            "num_blocks": built.blocks,
            "block_size": deployment.limits.block_size,
            "max_len": built.situation.max_len,
            "iterations": sum(replica.iterations for replica in replicas),
            "preemptions": sum(replica.preemptions for replica in replicas),
            "swaps": sum(replica.swaps for replica in replicas),
            "cost": built.cost.described() | {"front_s": built.front_s},
            "device": {"name": built.device.name, "source": built.device.source},
        },
        model=msgspec.to_builtins(built.model),
        versions={"inferometer": version("inferometer")},
        seeds={"plan": plan.seed, "router": deployment.seed},
        workload={
            "fingerprint": plan.fingerprint,
            "requests": len(plan),
            "generator": plan.generator,
        },
        notes=notes,
    )
