"""A workload, as it is asked for, becomes a plan.

`WorkloadSpec` says what; `make_plan` decides every row of it before t = 0, in three steps: *parts* (what kinds of
requests there are, and how often each), *units* (requests or sessions, each of a part, each with a start), *rows*. The
same spec and seed give the same fingerprint on every machine (see `draws.py`), and each aspect has its own random
stream, so that changing the output lengths leaves the arrivals where they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.plan import PLANNED, Plan, build_plan
from inferometer.timeline import Array
from inferometer.workload.arrivals import Arrivals, Closed, Drawn, Natural, Poisson, arrivals
from inferometer.workload.contents import DEFAULT_ARRIVALS, Content, Mixed, WorkloadSpec
from inferometer.workload.draws import Stream
from inferometer.workload.profiles import Client, Profile, load_profile
from inferometer.workload.replay import Replay, play, units
from inferometer.workload.rows import Draft, Part, drafted, first_rows, merged, trace_draft
from inferometer.workload.traces import Trace

PLANNED_REPLIES = (
    "later turns repeat planned replies, the same for every server: what a server cached of its "
    "own replies is not asked for again (replies: real repeats these)"
)
GENERATOR = "workload/2"  # raise the number whenever the same spec and seed would give another plan


def make_plan(spec: WorkloadSpec, seed: int | None = None) -> Plan:
    """The plan of a workload; `seed` overrides the spec's own."""
    seed = spec.seed if seed is None else seed
    limit = _Limit(
        spec.requests, None if spec.duration_s is None else round(spec.duration_s * SECOND)
    )
    parts = _parts(spec, seed)
    common = _common_arrivals(spec, parts)
    drafts = _by_common(parts, common, limit) if common is not None else _by_own(parts, limit)
    rows = merged(drafts)
    if limit.requests is not None:
        rows = first_rows(rows, limit.requests)
    notes = (*rows.notes, *_limit_notes(spec, common, len(rows.turn)))
    plan = build_plan(
        len(rows.turn),
        **rows.columns(),
        concurrency=common.concurrency if isinstance(common, Closed) else None,
        seed=seed,
        generator=GENERATOR,
        replies=spec.replies,
        notes=tuple(dict.fromkeys(notes)),
    )
    if plan.replies == PLANNED and len(plan.parent_row) and len(plan.block_id):
        plan = replace(plan, notes=(*plan.notes, PLANNED_REPLIES))
    return plan


# --- parts: what kinds of requests there are --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Limit:
    requests: int | None
    horizon_ns: int | None


def _parts(spec: WorkloadSpec, seed: int) -> list[Part]:
    contents: Sequence[Content] = [_inheriting(c, spec) for c in spec.clients] or [spec]
    parts: list[Part] = []
    for place, content in enumerate(contents):
        prefix: tuple[Any, ...] = (seed, f"client {place}") if spec.clients else (seed,)
        weight = content.weight if isinstance(content, Mixed) else 1.0
        parts += _parts_of(content, weight, prefix)
    return parts


def _inheriting(client: Mixed, spec: WorkloadSpec) -> Mixed:
    """A client with what the mixture says of all, wherever it says nothing itself; arrivals are not passed on."""
    nothing = Content()
    common = {
        name: getattr(spec, name)
        for name in Content.__struct_fields__
        if name != "arrivals" and getattr(client, name) == getattr(nothing, name)
    }
    return msgspec.structs.replace(client, **common)


def _parts_of(content: Content, weight: float, prefix: tuple[Any, ...]) -> list[Part]:
    if content.profile is not None and content.trace is not None:
        raise UserError("a profile or a trace, not both", where="$")
    if content.profile is not None:
        named = content.profile
        profile = named if isinstance(named, Profile) else load_profile(named)
        return _profile_parts(content, profile, weight, prefix)
    streams = _streams(prefix)
    asked = None if content.arrivals is None else arrivals(content.arrivals)
    if content.trace is None:
        if isinstance(asked, Natural):
            raise UserError(
                "natural arrivals are those of a profile or a trace", where="$.arrivals"
            )
        app = content.app or "chat"
        return [Part(content, weight, streams, asked or DEFAULT_ARRIVALS, app)]
    part = Part(content, weight, streams, None, content.app or "chat")
    return [_with_trace(part, asked)]


def _with_trace(part: Part, asked: Arrivals | None) -> Part:
    replay = part.replay
    trace = replay.read()
    _usable(trace, part.content, replay.usable)
    whole = units(trace, closed=replay.sessions == "closed" or not _natural(asked))
    part = replace(part, trace=trace, units=whole, app=part.content.app or trace.app)
    part = replace(part, notes=_trace_notes(trace))
    if trace.arrival_ns is None and isinstance(asked, Natural) and asked.rate is not None:
        asked = Poisson(rate=asked.rate)
        told = f"the trace has no arrival times: Poisson, {asked.rate:g} per second"
        part = replace(part, notes=(*part.notes, told))
    if not _natural(asked):
        assert not isinstance(asked, Natural)
        return replace(part, process=asked)
    if isinstance(asked, Natural) and asked.rate is not None:
        starts = play(trace, whole, replay, part.streams("rate_scale")).start_ns
        if starts[-1] <= 0:
            return part  # all at one instant: there is no rate to scale
        own = len(starts) * SECOND / int(starts[-1])
        scaled = msgspec.structs.replace(replay, rate_scale=replay.rate_scale * asked.rate / own)
        content = msgspec.structs.replace(part.content, trace=scaled)
        return replace(part, content=content)
    return part


def _usable(trace: Trace, content: Content, least: float) -> None:
    """A UserError where less than that share of a trace's rows can be sent: then it is broken, and not just noisy."""
    lost = {"cannot be read": trace.problems.rows}
    for name in ("prompt_tokens", "output_tokens"):
        if getattr(content, name) is None:
            lost[f"have {name} of 0"] = int(np.count_nonzero(getattr(trace, name) < 1))
    total = len(trace) + trace.problems.rows
    if sum(lost.values()) > (1.0 - least) * total:
        told = ", ".join(f"{count:,} {what}" for what, count in lost.items() if count)
        first = f" (first: {trace.problems.first[0]})" if trace.problems.rows else ""
        raise UserError(f"of {total:,} rows {told}{first}", where=trace.source, remedy=_MEND)


_MEND = "mend the file, or take those rows out"


def _natural(asked: Arrivals | None) -> bool:
    return asked is None or isinstance(asked, Natural)


def _trace_notes(trace: Trace) -> tuple[str, ...]:
    told = (f"from {trace.source} ({trace.format}, {len(trace):,} rows)", *trace.notes)
    if trace.problems.rows:
        told += (
            f"{trace.problems.rows:,} rows could not be read; first: {trace.problems.first[0]}",
        )
    return told


def _profile_parts(
    content: Content, profile: Profile, weight: float, prefix: tuple[Any, ...]
) -> list[Part]:
    asked = None if content.arrivals is None else arrivals(content.arrivals)
    total = math.fsum(client.weight for client in profile.clients)
    notes = (f"profile {profile.name}: {profile.source}", *profile.notes)
    if _natural(asked) and all(client.arrivals is None for client in profile.clients):
        asked = Poisson(rate=asked.rate or 1.0) if isinstance(asked, Natural) else DEFAULT_ARRIVALS
        notes += (
            f"profile {profile.name} has no arrival times: Poisson, {asked.rate:g} per second",
        )
    parts = []
    for client in profile.clients:
        part = Part(
            content=content,
            weight=weight * client.weight / total,
            streams=_streams((*prefix, client.name) if len(profile.clients) > 1 else prefix),
            process=_client_arrivals(client, profile, asked),
            app=content.app or client.app or profile.app,
            notes=notes,
            client=client,
        )
        parts.append(part)
    return parts


def _client_arrivals(client: Client, profile: Profile, asked: Arrivals | None) -> Drawn | Replay:
    """A client's own rate table, scaled where the whole profile is; or what is asked for."""
    if asked is not None and not isinstance(asked, Natural):
        return asked
    own = client.arrivals
    if own is None:
        raise UserError(f"client {client.name} has no arrival times", where="$.arrivals")
    if asked is None or asked.rate is None:
        return own
    rates = [c.arrivals.mean_rate for c in profile.clients if c.arrivals is not None]
    return msgspec.structs.replace(own, rate=asked.rate * own.mean_rate / math.fsum(rates))


def _streams(prefix: tuple[Any, ...]) -> Callable[..., Stream]:
    seed, *purpose = prefix
    return lambda *more: Stream(seed, *purpose, *more)


# --- units: what starts when ------------------------------------------------------------------------------------------


def _common_arrivals(spec: WorkloadSpec, parts: list[Part]) -> Drawn | Replay | None:
    """The one process behind all units; None where every part has its own."""
    asked = None if spec.arrivals is None else arrivals(spec.arrivals)
    if asked is not None and not isinstance(asked, Natural):
        if spec.clients and any(client.arrivals is not None for client in spec.clients):
            raise UserError(
                "arrivals of the mixture, or of its clients, not both", where="$.arrivals"
            )
        return asked
    if len(parts) == 1 and parts[0].process is not None:
        return parts[0].process
    if any(isinstance(part.process, Closed) for part in parts):
        raise UserError(
            "a mixture has one closed loop: give it in place of its clients'", where="$.arrivals"
        )
    return None


def _by_common(
    parts: list[Part], process: Drawn | Replay, limit: _Limit
) -> list[tuple[Draft, Array]]:
    """Drafts of all parts and the order of their units, which start by one process."""
    first = parts[0]
    # Rounded, for the last bit of a mean is numpy's choice (and of a `sum`, Python's): it decides how many are drawn.
    weighted = math.fsum(p.weight * p.mean_rows for p in parts)
    per_unit = round(weighted / math.fsum(p.weight for p in parts), 6)
    count = None  # of units; doubled until there are rows enough
    if limit.requests is not None:
        count = limit.requests if per_unit == 1.0 else int(1.05 * limit.requests / per_unit) + 4
    elif limit.horizon_ns is None:
        count = _available(parts)
    while True:
        starts = process.draw(first.streams("arrivals"), count, limit.horizon_ns)
        if isinstance(process, Closed) and count is None:
            starts = starts[: max(process.concurrency, math.ceil(len(starts) / per_unit))]
        whose = np.zeros(len(starts), dtype=np.int64)
        if len(parts) > 1:
            whose = first.streams("mixture").pick([part.weight for part in parts], len(starts))
        mine = [np.flatnonzero(whose == place) for place in range(len(parts))]
        drafts = [drafted(part, starts[at], at) for part, at in zip(parts, mine, strict=True)]
        rows = sum(len(draft.turn) for draft, _ in drafts)
        if count is None or limit.requests is None or rows >= limit.requests or len(starts) < count:
            return drafts
        count *= 2


def _available(parts: list[Part]) -> int:
    """Without a limit: as many units as the traces have."""
    if any(part.units is None for part in parts):
        raise UserError("how much load?", where="$", remedy="give requests, duration_s or both")
    return sum(len(part.units.offset) - 1 for part in parts if part.units is not None)


def _by_own(parts: list[Part], limit: _Limit) -> list[tuple[Draft, Array]]:
    """Drafts of all parts, each with its own arrivals, up to the limit."""
    if limit.requests is None and limit.horizon_ns is None:
        _available(parts)
    horizon = limit.horizon_ns
    if horizon is None and limit.requests is not None and any(p.process is not None for p in parts):
        horizon = 10 * SECOND  # doubled until there is enough
    while True:
        drafts = [_own_draft(part, horizon) for part in parts]
        rows = sum(len(draft.turn) for draft, _ in drafts)
        if limit.horizon_ns is not None or limit.requests is None or horizon is None:
            return drafts
        if rows >= limit.requests or horizon > 10**17:
            return drafts
        horizon *= 2


def _own_draft(part: Part, horizon: int | None) -> tuple[Draft, Array]:
    if part.process is None:
        assert part.trace is not None
        assert part.units is not None
        played = play(part.trace, part.units, part.replay, part.streams("rate_scale"))
        end = len(played.unit)
        if horizon is not None:
            end = int(np.searchsorted(played.start_ns, horizon))
        draft = trace_draft(part, played.unit[:end], played.copy[:end], played.start_ns[:end])
        draft = replace(draft, notes=(*draft.notes, *played.notes))
        return draft, played.start_ns[:end]
    starts = part.process.draw(part.streams("arrivals"), None, horizon)
    return drafted(part, starts, starts)


def _limit_notes(spec: WorkloadSpec, common: Drawn | Replay | None, rows: int) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    if isinstance(common, Closed) and spec.requests is None and spec.duration_s is not None:
        notes += (
            f"closed loop for {spec.duration_s:g} s: the {rows:,} rows are an upper bound, not a promise",
        )
    if spec.requests is not None and rows < spec.requests:
        notes += (f"the plan has {rows:,} requests, not the {spec.requests:,} asked for",)
    return notes
