"""Conversations and agents: turns that wait for each other, with pauses, history and sub-agents.

Two ways to say what sessions look like: `Sessions`, in a few numbers, and `Learned`, from a trace. Both draw the same
thing: the rows of S sessions, session by session, each row after the rows that it waits for. The start of a session is
the arrivals' business; every later row starts a pause after the last row that it waits for has ended.

A prompt is what was said before plus something new. Rows of one `chain` therefore begin alike, as far as both go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferometer.clock import MILLISECOND, SECOND
from inferometer.spec import Spec
from inferometer.timeline import Array, Ints, offsets
from inferometer.workload.draws import Floats, Stream
from inferometer.workload.joint import LEVELS, Joint, Table, quantile_table, read_table
from inferometer.workload.lengths import Lengths, lengths
from inferometer.workload.sharing import shared
from inferometer.workload.traces import Trace

NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Streams = Callable[[str], Stream]  # the stream of a purpose


class Rows(NamedTuple):
    """The rows [R] of S sessions: `unit_rows` [S] of each; row r waits for `parent[offset[r]:offset[r+1]]`."""

    unit_rows: Ints
    turn: Ints
    prompt_tokens: Ints
    output_tokens: Ints
    think_ns: Ints
    chain: Ints
    offset: Ints
    parent: Ints


class Forks(Spec, frozen=True):
    """Sub-agents: with a `chance` per turn, `branches` sessions of `turns` turns start, and the next turn awaits them.

    A sub-agent has a context of its own; what it shares with others is the shared prefix, where there is one.
    """

    chance: Share
    branches: int | str | Lengths = 2
    turns: int | str | Lengths = 3


class Sessions(Spec, frozen=True):
    """Sessions in a few numbers: `turns` each, pauses of `think_s` seconds on average (gamma, of CV `think_cv`).

    With `history`, a prompt is all that was said before, the planned replies included, and something new; without, it
    is new. A session ends early where its next prompt and output would pass `max_tokens`.
    """

    turns: int | str | Lengths = 5
    think_s: NotNegative = 10.0
    think_cv: NotNegative = 1.0
    history: bool = True
    max_tokens: Annotated[int, msgspec.Meta(ge=2)] | None = None
    forks: Forks | None = None

    def mean_rows(self, stream: Stream) -> float:
        """About how many rows a session has."""
        turns = lengths(self.turns, where="$.sessions.turns").draw(stream, 2000).mean()
        if self.forks is None:
            return float(turns)
        branches = lengths(self.forks.branches, where="$.sessions.forks.branches").draw(
            stream, 2000
        )
        sub = lengths(self.forks.turns, where="$.sessions.forks.turns").draw(stream, 2000)
        return float(turns + (turns - 1) * self.forks.chance * branches.mean() * sub.mean())

    def draw(self, streams: Streams, sessions: int, new: Lengths, output: Lengths) -> Rows:
        """The rows of so many sessions, whose turns bring `new` tokens and get `output` tokens."""
        turns = lengths(self.turns, where="$.sessions.turns").draw(streams("turns"), sessions)
        main = self._conversations(streams, "", turns.astype(np.int64), new, output)
        return main if self.forks is None else self._forked(streams, main, self.forks, new, output)

    def _conversations(
        self, streams: Streams, kind: str, turns: Ints, new: Lengths, output: Lengths
    ) -> Rows:
        """Sessions without forks."""
        rows = int(turns.sum())
        fresh = new.draw(streams(f"{kind}prompt_tokens"), rows).astype(np.int64)
        reply = output.draw(streams(f"{kind}output_tokens"), rows).astype(np.int64)
        session = np.repeat(np.arange(len(turns)), turns)
        first = np.arange(rows) == np.repeat(offsets(turns)[:-1], turns)
        said = np.cumsum(fresh + reply)
        before = np.concatenate([[0], said])[offsets(turns)[:-1]]
        prompt = said - reply - before[session] if self.history else fresh
        pause = self._pauses(streams(f"{kind}think"), rows)
        keep = np.ones(rows, dtype=bool)
        if self.max_tokens is not None:
            keep = first | (prompt + reply <= self.max_tokens)
        session = session[keep]
        chain = session if self.history else np.arange(len(session))
        return _linear(session, len(turns), (prompt[keep], reply[keep]), pause[keep], chain)

    def _pauses(self, stream: Stream, rows: int) -> Ints:
        if self.think_s == 0.0 or self.think_cv == 0.0:
            return np.full(rows, round(self.think_s * SECOND), dtype=np.int64)
        shape = 1.0 / (self.think_cv * self.think_cv)
        return np.rint(stream.gamma(shape, rows) * (self.think_s * SECOND / shape)).astype(np.int64)

    def _forked(
        self, streams: Streams, main: Rows, forks: Forks, new: Lengths, output: Lengths
    ) -> Rows:
        """`main` with sub-agents behind some of its rows."""
        rows = len(main.turn)
        has_next = np.zeros(rows, dtype=bool)
        has_next[main.parent] = True
        forking = np.flatnonzero(has_next & (streams("forks").uniform(rows) < forks.chance))
        branches = lengths(forks.branches, where="$.sessions.forks.branches")
        width = branches.draw(streams("branches"), len(forking)).astype(np.int64)
        anchor = np.repeat(forking, width)
        depth = lengths(forks.turns, where="$.sessions.forks.turns")
        turns = depth.draw(streams("fork turns"), len(anchor)).astype(np.int64)
        sub = self._conversations(streams, "fork ", turns, new, output)
        return _interleaved(main, sub, anchor)


class Learned(Spec, frozen=True):
    """Sessions as a trace has them, as quantile tables.

    `requests` per session; `first`: prompt tokens of its first; `growth`: tokens by which a prompt exceeds the one before;
    `breaks`: how many of 10,000 prompts begin anew (a compacted context), with `after` tokens; `think_ms`: pauses.
    Prompts that are drawn so have nearly, not exactly, the trace's distribution; `path` is theirs, and its ranks read
    the true lengths from the profile's joint distribution. The map is monotone, so that conversations still grow.
    """

    requests: Table
    first: Table
    growth: Table
    after: Table
    breaks: Annotated[int, msgspec.Meta(ge=0, le=10_000)]
    think_ms: Table
    path: Table

    @property
    def mean_rows(self) -> float:
        """About how many rows a session has."""
        return float(read_table(self.requests, (np.arange(2000) + 0.5) / 2000).mean())

    def draw(self, streams: Streams, sessions: int, joint: Joint) -> Rows:
        """The rows of so many sessions, with lengths from `joint`."""
        count = np.maximum(
            np.rint(read_table(self.requests, streams("turns").uniform(sessions))), 1
        ).astype(np.int64)
        rows = int(count.sum())
        session = np.repeat(np.arange(sessions), count)
        path, segment = self._paths(streams, session)
        rank = np.clip(_rank(self.path, path), 1e-9, 1.0 - 1e-9)
        pair = joint.given(rank, streams("output_tokens"))
        pause = read_table(self.think_ms, streams("think").uniform(rows))
        return _linear(
            session,
            sessions,
            (pair.prompt.astype(np.int64), pair.output.astype(np.int64)),
            np.rint(pause * MILLISECOND).astype(np.int64),
            segment,
        )

    def _paths(self, streams: Streams, session: Ints) -> tuple[Floats, Ints]:
        """Prompt lengths as they grow from turn to turn [R], and which stretch between breaks each row is in [R]."""
        rows = len(session)
        opens = np.diff(session, prepend=-1) != 0
        starts = opens | (streams("breaks").uniform(rows) < self.breaks / 10_000)
        draw = streams("path").uniform(rows)
        step = np.where(starts, read_table(self.after, draw), read_table(self.growth, draw))
        step = np.rint(np.where(opens, read_table(self.first, draw), step))
        segment = np.cumsum(starts) - 1
        total = np.cumsum(step)
        before = (total - step)[starts]
        return total - before[segment], segment


def fit_learned(trace: Trace) -> Learned | None:
    """The sessions of a trace as tables; None where it has none of more than one request."""
    if trace.session is None or trace.links is None:
        return None
    order = np.argsort(trace.session, kind="stable")
    order = order[trace.session[order] >= 0]
    session, prompt = trace.session[order], trace.prompt_tokens[order].astype(np.int64)
    follows = np.zeros(len(order), dtype=bool)
    follows[1:] = session[1:] == session[:-1]
    if not follows.any():
        return None
    growth = np.diff(prompt, prepend=0)
    broken = follows & (growth < 0)
    if trace.blocks is not None:  # a context may be thrown away without its prompt getting shorter
        kept = shared(trace.blocks, trace.prompt_tokens).tokens[order]
        broken |= follows & (kept < 0.9 * (prompt - growth))
    goes_on = follows & ~broken
    waited = np.diff(trace.links.offset) > 0
    after = prompt[broken] if broken.any() else prompt[~follows]
    tables = {
        "requests": np.unique(session, return_counts=True)[1],
        "first": prompt[~follows],
        "growth": growth[goes_on] if goes_on.any() else np.zeros(1),
        "after": after,
        "think_ms": trace.links.think_ns[waited] / MILLISECOND,
        "path": prompt,
    }
    fitted = Learned(
        breaks=round(10_000 * broken.sum() / follows.sum()),
        **{name: quantile_table(values) for name, values in tables.items()},
    )
    return msgspec.structs.replace(fitted, path=_own_path(fitted))


def _own_path(fitted: Learned) -> tuple[int, ...]:
    """The distribution of the prompts that the tables give by themselves."""
    sessions = max(200, round(400_000 / fitted.mean_rows))
    count = read_table(fitted.requests, Stream(0, "fit", "turns").uniform(sessions))
    session = np.repeat(np.arange(sessions), np.maximum(np.rint(count), 1).astype(np.int64))
    path, _ = fitted._paths(lambda purpose: Stream(0, "fit", purpose), session)  # noqa: SLF001
    return quantile_table(path)


def _rank(table: Table, values: Floats) -> Floats:
    """The rank in [0, 1] of each value in a quantile table: `read_table` the other way round."""
    edges = np.asarray(table, dtype=np.float64)
    k = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    width = edges[k + 1] - edges[k]
    part = np.where(width > 0, (values - edges[k]) / np.where(width > 0, width, 1.0), 0.5)
    return np.asarray(LEVELS[k] + np.clip(part, 0.0, 1.0) * (LEVELS[k + 1] - LEVELS[k]))


def _linear(
    session: Ints, sessions: int, lengths_: tuple[Ints, Ints], pause: Ints, chain: Array
) -> Rows:
    """Rows in session order, each waiting for the one before it."""
    prompt, output = lengths_
    count = np.bincount(session, minlength=sessions)
    start = offsets(count)[:-1]
    turn = np.arange(len(session)) - start[session]
    later = turn > 0
    return Rows(
        unit_rows=count,
        turn=turn,
        prompt_tokens=prompt,
        output_tokens=output,
        think_ns=np.where(later, pause, 0),
        chain=chain,
        offset=offsets(later),
        parent=np.flatnonzero(later) - 1,
    )


def _interleaved(main: Rows, sub: Rows, anchor: Ints) -> Rows:
    """`main` with each sub-session [K] behind the row `anchor` [K] that spawns it, and awaited by the row after."""
    rows, subs = len(main.turn), len(sub.turn)
    owner = np.repeat(np.arange(len(sub.unit_rows)), sub.unit_rows)
    behind = np.bincount(anchor[owner], minlength=rows) if subs else np.zeros(rows, dtype=np.int64)
    place = offsets(1 + behind)[:-1]  # of the main rows
    sub_place = np.arange(subs) - np.repeat(offsets(behind)[:-1], behind) + place[anchor[owner]] + 1
    session = np.repeat(np.arange(len(main.unit_rows)), main.unit_rows)
    waits = np.flatnonzero(np.diff(main.offset) > 0)  # a main row waits for the one before it
    inner = np.flatnonzero(np.diff(sub.offset) > 0)
    first, last = offsets(sub.unit_rows)[:-1], offsets(sub.unit_rows)[1:] - 1
    child = np.concatenate([place[waits], sub_place[inner], sub_place[first], place[anchor + 1]])
    parent = np.concatenate(
        [place[main.parent], sub_place[sub.parent], place[anchor], sub_place[last]]
    )
    order = np.lexsort((parent, child))
    child, parent = child[order], parent[order]
    total = rows + subs
    return Rows(
        unit_rows=np.bincount(
            np.concatenate([session, session[anchor[owner]]]), minlength=len(main.unit_rows)
        ),
        turn=_laid(total, place, main.turn, sub_place, sub.turn),
        prompt_tokens=_laid(total, place, main.prompt_tokens, sub_place, sub.prompt_tokens),
        output_tokens=_laid(total, place, main.output_tokens, sub_place, sub.output_tokens),
        think_ns=_laid(total, place, main.think_ns, sub_place, sub.think_ns),
        chain=_laid(
            total, place, main.chain, sub_place, sub.chain + int(main.chain.max(initial=0)) + 1
        ),
        offset=offsets(np.bincount(child, minlength=total)),
        parent=parent,
    )


def _laid(total: int, place: Ints, main: NDArray[np.int64], sub_place: Ints, sub: Ints) -> Ints:
    out = np.empty(total, dtype=np.int64)
    out[place], out[sub_place] = main, sub
    return out
