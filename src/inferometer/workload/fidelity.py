"""Is what was asked what was sent? The plan and the timeline of its run, side by side.

Each line compares one property of the load as intended with the same as achieved, and says whether the distance is
within its tolerance. A line without a verdict is a fact that has no right value (how much the server cached), or one
that cannot be known here; it says why.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferometer.clock import SECOND
from inferometer.plan import PLANNED, Plan
from inferometer.timeline import ABSENT, Array, Ints, Timeline, absent
from inferometer.workload.burstiness import WINDOWS_S, gap_cv, idc
from inferometer.workload.draws import Floats
from inferometer.workload.sharing import cached_tokens, goes_on_from

SHARE = "cached prompt share"
# How far achieved may be from intended, relative to intended; for KS, the distance itself.
RATE = 0.005
GAPS = 0.02  # CV
DISPERSION = 0.05
LENGTH = 0.02
KS = 0.02
RATIO = 0.03
MOST_AROUND = (
    16.0  # tokens that a chat template may put around a message; more is not a template's doing
)
REPEATED = "later turns repeat real replies: the plan's lengths are estimates, achieved is the server's count"


class Line(NamedTuple):
    """One property. `ok` is None where there is no verdict; `difference` is relative, unless `unit` is "KS"."""

    name: str
    unit: str
    intended: float | None
    achieved: float | None
    difference: float | None
    tolerance: float | None
    ok: bool | None
    why: str = ""


class Fidelity(NamedTuple):
    """All lines, and whether all those with a verdict are within tolerance."""

    lines: tuple[Line, ...]
    ok: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"ok": self.ok, "lines": [line._asdict() for line in self.lines]}


def fidelity(plan: Plan, timeline: Timeline) -> Fidelity:
    """Intended versus achieved, over the rows that the run got to."""
    mine, theirs = _joined(plan, timeline)
    lines = [
        _requests(plan, len(mine), int(np.count_nonzero(timeline.sent_ns[theirs] != ABSENT))),
        *_arrivals(plan.intended_ns[mine], timeline.sent_ns[theirs]),
        *_lengths(plan, timeline, mine, theirs, _depths(plan)),
        _sharing(plan, timeline, mine, theirs),
    ]
    return Fidelity(tuple(lines), all(line.ok is not False for line in lines))


def _joined(plan: Plan, timeline: Timeline) -> tuple[Ints, Ints]:
    """Rows of the plan and of the timeline that are the same request, in the plan's order."""
    place = {name: row for row, name in enumerate(timeline.request_id.tolist())}
    pairs = [
        (row, place[name]) for row, name in enumerate(plan.request_id.tolist()) if name in place
    ]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _requests(plan: Plan, reached: int, sent: int) -> Line:
    if plan.concurrency is not None:
        intended, why = reached, "a closed loop sends what the server lets it"
    elif (later := plan.intended_ns == ABSENT).any():
        intended = max(int(np.count_nonzero(~later)), reached)
        why = "later turns that the run's end came before are not counted"
    else:
        intended, why = len(plan), ""
    return _compared("requests sent", "", float(intended), float(sent), 0.0, why=why)


def _arrivals(intended: Ints, sent: Ints) -> list[Line]:
    timed = (intended != ABSENT) & (sent != ABSENT)
    if np.count_nonzero(timed) < 3:
        return [
            Line("arrivals", "", None, None, None, None, None, "the plan has no intended times")
        ]
    asked = np.sort(intended[timed]) / SECOND
    given = np.sort(sent[timed]) / SECOND
    lines = [
        _compared("rate", "1/s", _rate(asked), _rate(given), RATE),
        _compared("gap CV", "", gap_cv(asked), gap_cv(given), GAPS, slack=0.02),
    ]
    for window in WINDOWS_S:
        pair = idc(asked, window), idc(given, window)
        if (asked[-1] - asked[0]) / window >= 8:
            lines.append(_compared(f"IDC {window} s", "", *pair, DISPERSION, slack=0.05))
    return lines


def _rate(times: Floats) -> float:
    span = float(times[-1] - times[0])
    return (len(times) - 1) / span if span > 0 else math.nan


def _depths(plan: Plan) -> Ints:
    """How many turns stand in the history of each row [R]."""
    depth = [0] * len(plan)
    for row, earlier in enumerate(goes_on_from(plan).tolist()):  # earlier rows come first
        if earlier >= 0:
            depth[row] = depth[earlier] + 1
    return np.array(depth, dtype=np.int64)


def _lengths(plan: Plan, timeline: Timeline, mine: Ints, theirs: Ints, depths: Ints) -> list[Line]:
    """Prompt, output and prompt:output of the requests that completed."""
    ok = timeline.ok[theirs]
    mine, theirs = mine[ok], theirs[ok]
    if not len(mine):
        return [Line("lengths", "tokens", None, None, None, None, None, "no request completed")]
    asked_prompt, prompt = _pair(plan.prompt_tokens[mine], timeline.prompt_tokens[theirs])
    asked_output, output = _pair(plan.output_tokens[mine], timeline.output_tokens[theirs])
    real = plan.replies != PLANNED
    around = _overheads(prompt - asked_prompt, depths[mine], real=real)
    prompt = prompt - around.each
    lines = around.lines
    lines += _distribution("prompt", asked_prompt, prompt, REPEATED if real else "")
    lines += _distribution("output", asked_output, output)
    given = output > 0
    ratio = asked_prompt[given] / asked_output[given], prompt[given] / output[given]
    if given.any():
        medians = (float(np.median(ratio[0])), float(np.median(ratio[1])))
        lines.append(_compared("prompt:output p50", "", *medians, RATIO))
        lines.append(_ks("prompt:output", *ratio))
    return lines


def _pair(asked: Array, given: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return asked.astype(np.float64), given.astype(np.float64)


class _Around(NamedTuple):
    """What the server counts around the prompts [n], and what is said of it."""

    each: Floats
    lines: list[Line]


def _overheads(extra: Floats, depth: Ints, *, real: bool) -> _Around:
    """The chat template's tokens: some around a prompt, and, with a planned history, some around each message of it.

    With real replies the latter cannot be told from replies of other lengths, so nothing is taken off for it.
    """
    first = depth == 0
    base = float(np.median(extra[first] if first.any() else extra))
    why = "what the server counts around a prompt: its chat template; taken off below"
    lines = [Line("tokens around a prompt", "tokens", 0.0, base, None, None, None, why)]
    if real or first.all():
        return _Around(np.full(len(extra), base), lines)
    each = float(np.median((extra - base)[~first] / (2 * depth[~first])))
    each = min(max(each, 0.0), MOST_AROUND)
    why = "the same around each message of a conversation's history"
    lines.append(Line("tokens around a message", "tokens", 0.0, each, None, None, None, why))
    return _Around(np.asarray(base + each * 2.0 * depth, dtype=np.float64), lines)


def _distribution(name: str, asked: Floats, given: Floats, why: str = "") -> list[Line]:
    lines = []
    for q in (0.5, 0.9, 0.99):
        pair = float(np.quantile(asked, q)), float(np.quantile(given, q))
        lines.append(_compared(f"{name} p{100 * q:g}", "tokens", *pair, LENGTH, slack=1.0, why=why))
    return [*lines, _ks(name, asked, given, why)]


def _ks(name: str, asked: Floats, given: Floats, why: str = "") -> Line:
    """The greatest distance between both distribution functions, where values within `LENGTH` (or a token) are one.

    (Else a fixed length, of which a server counts a token more or less, would be as far off as can be.)
    """
    points = np.sort(np.concatenate([asked, given]))
    beyond = points + np.maximum(LENGTH * points, 0.5 if name != "prompt:output" else 0.0)
    early = _below(asked, points) - _below(given, beyond)
    late = _below(given, points) - _below(asked, beyond)
    distance = float(max(0.0, early.max(), late.max()))
    return Line(f"{name} KS", "KS", 0.0, distance, distance, KS, distance <= KS, why)


def _below(values: Floats, points: Floats) -> Floats:
    return np.searchsorted(np.sort(values), points, side="right") / len(values)


def _sharing(plan: Plan, timeline: Timeline, mine: Ints, theirs: Ints) -> Line:
    """What an infinite prefix cache would have held, beside what the server says that it had."""
    cached = timeline.cached_tokens[theirs]
    told = cached != absent(cached.dtype)
    seen = mine[told] if told.any() else mine
    prompt = plan.prompt_tokens[seen].sum(dtype=np.int64)
    ideal = float(cached_tokens(plan)[seen].sum() / max(int(prompt), 1))
    if not told.any():
        why = "the server does not report cached tokens"
        return Line(SHARE, "", ideal, None, None, None, None, why)
    total = int(timeline.prompt_tokens[theirs][told].sum(dtype=np.int64))
    achieved = float(cached[told].sum(dtype=np.int64) / max(total, 1))
    why = "intended is the ideal of an infinite cache; a server's is finite"
    return Line(SHARE, "", ideal, achieved, achieved - ideal, None, None, why)


def _compared(
    name: str,
    unit: str,
    intended: float,
    achieved: float,
    tolerance: float,
    *,
    slack: float = 0.0,
    why: str = "",
) -> Line:
    """A line with a verdict: within `tolerance` of intended, or within `slack` in its own unit."""
    if not (math.isfinite(intended) and math.isfinite(achieved)):
        return Line(name, unit, None, None, None, tolerance, None, "not defined on so few requests")
    off = achieved - intended
    relative = off / intended if intended else (0.0 if not off else math.inf)
    ok = abs(off) <= max(tolerance * abs(intended), slack) + 1e-12
    return Line(name, unit, intended, achieved, relative, tolerance, ok, why)
