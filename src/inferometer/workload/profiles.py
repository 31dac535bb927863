"""Profiles: what a production trace is like, in a few kilobytes.

A profile is one client or a mixture of them; each has joint lengths, arrivals (a rate table and an operational CV), and
where its trace tells them, sessions or the sharing of prefixes. Those that ship with the package are derived from
public traces by `scripts/make_profiles.py`; `profile_of` makes one from any trace.
A profile keeps distributions, not sequences: bursts of long prompts, or the order of sessions, are only in the trace.
"""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.spec import Spec, parse
from inferometer.timeline import ABSENT
from inferometer.workload.arrivals import Table
from inferometer.workload.fitting import fit_arrivals, fit_pace
from inferometer.workload.joint import Joint, fit_joint, joint_of
from inferometer.workload.replay import spread
from inferometer.workload.sessions import Learned, fit_learned
from inferometer.workload.sharing import Sharing, fit_sharing
from inferometer.workload.tally import Tally
from inferometer.workload.traces import Trace

SCHEMA = 1


class Client(Spec, frozen=True):
    """One client of a profile; `weight` is its share of the requests, `app` its own class where it has one."""

    name: str
    lengths: Joint
    app: str | None = None
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    arrivals: Table | None = None
    sessions: Learned | None = None
    sharing: Sharing | None = None


class Profile(Spec, frozen=True):
    """A workload in a few kilobytes: where it is from, what it is for, and its clients.

    `app` is its class of application and `slo` the name of a fitting SLO preset; `rows` is how many requests it was made
    from (0: not from single requests); `notes` say what it cannot do.
    """

    name: str
    about: str
    source: str
    licence: str
    app: str
    slo: str
    rows: int
    clients: Annotated[tuple[Client, ...], msgspec.Meta(min_length=1)]
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA


# The SLO preset (see `inferometer.slo.PRESETS`) that fits a class of application.
FITTING_SLO = {
    "chat": "distserve-chat-13b",
    "code": "distserve-code-66b",
    "summarize": "distserve-summarization-66b",
    "agent": "mlperf-gpt-oss",
    "reasoning": "mlperf-deepseek-r1-interactive",
    "batch": "mlperf-llama-405b",
}
APPS = tuple(FITTING_SLO)


def profile_of(
    trace: Trace | Tally, name: str, *, about: str = "", licence: str = "not stated"
) -> Profile:
    """The profile of a trace, or of one that was counted."""
    notes = list(trace.notes)
    if trace.problems.rows:
        notes.append(f"{trace.problems.rows:,} rows of the trace could not be read")
    client = _counted(trace, name) if isinstance(trace, Tally) else _learned(trace, name, notes)
    if client.arrivals is None:
        notes.append("the trace has no arrival times to learn from")
    return Profile(
        name=name,
        about=about or f"made from {trace.source}",
        source=f"{trace.source} ({trace.format})",
        licence=licence,
        app=trace.app,
        slo=FITTING_SLO.get(trace.app, FITTING_SLO["chat"]),
        rows=trace.rows if isinstance(trace, Tally) else len(trace),
        clients=(client,),
        notes=tuple(notes),
    )


def _learned(trace: Trace, name: str, notes: list[str]) -> Client:
    sessions = fit_learned(trace)
    sharing = None
    if sessions is None and trace.blocks is not None:
        sharing = fit_sharing(trace.blocks, trace.prompt_tokens)
    return Client(
        name=name,
        lengths=fit_joint(trace.prompt_tokens, trace.output_tokens),
        arrivals=_arrivals(trace, sessions, notes),
        sessions=sessions,
        sharing=sharing,
    )


def _counted(trace: Tally, name: str) -> Client:
    timed = trace.pace is not None and trace.pace.span_s > 0
    return Client(
        name=name,
        lengths=joint_of(trace.prompt, trace.output, trace.pairs),
        arrivals=fit_pace(trace.pace) if trace.pace is not None and timed else None,
    )


def _arrivals(trace: Trace, sessions: Learned | None, notes: list[str]) -> Table | None:
    """Rate table and operational CV of the trace's requests, or of its session starts; ticks are spread first."""
    if trace.arrival_ns is None or len(trace) < 2:
        return None
    times, told = spread(trace, detick=True, seed=0)
    notes += told
    if sessions is not None and trace.session is not None:
        known = np.flatnonzero(trace.arrival_ns != ABSENT)
        _, first = np.unique(trace.session[known], return_index=True)
        times = np.sort(times[known][first])
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    return fit_arrivals(times / SECOND)


# --- where profiles are kept ------------------------------------------------------------------------------------------


def shipped_profiles() -> tuple[str, ...]:
    """The names of the profiles that ship with the package."""
    folder = resources.files("inferometer.workload") / "shipped"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".json")))


def own_profiles() -> Path:
    """The folder in which a person's own profiles are kept by name."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "inferometer" / "profiles"


def load_profile(name: str) -> Profile:
    """The profile of that name (shipped, or one's own), or in that file."""
    if name in shipped_profiles():
        text = (resources.files("inferometer.workload") / "shipped" / f"{name}.json").read_bytes()
        return _parsed(text, name)
    own = own_profiles() / f"{name}.json"
    file = own if _NAME.fullmatch(name) and own.is_file() else Path(name)
    try:
        return _parsed(file.read_bytes(), str(file))
    except OSError as error:
        raise UserError(
            f"no profile {name!r}: {error.strerror}",
            where="$.profile",
            remedy=f"one of {', '.join(shipped_profiles())}, one of your own, or a file",
        ) from None


def save_profile(profile: Profile, where: str | Path) -> Path:
    """Write a profile to a file (a path ending in .json), or under a name among one's own; the path written."""
    named = _NAME.fullmatch(str(where)) is not None
    file = own_profiles() / f"{where}.json" if named else Path(where)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(profile))
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", where=str(file)) from None
    return file


def encoded(profile: Profile) -> bytes:
    """A profile as JSON: readable, with each table on a line of its own."""
    text = msgspec.json.format(msgspec.json.encode(profile), indent=1).decode()
    return (re.sub(r"(?<=[\[\d,])\n\s*(?=[-\d\]])", "", text) + "\n").encode()


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def _parsed(content: bytes, where: str) -> Profile:
    try:
        plain = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise UserError(f"not a profile: {error}", where=where) from None
    if (
        isinstance(plain, dict)
        and isinstance(plain.get("schema"), int)
        and plain["schema"] > SCHEMA
    ):
        raise UserError("written by a newer Inferometer", where=where, remedy="upgrade")
    profile: Profile = parse(plain, Profile, where=f"{where}: $")
    return profile
