"""Traces that are JSON Lines, one typed record a line (plain or gzipped)."""

from __future__ import annotations

import gzip
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from inferometer.clock import MILLISECOND, SECOND
from inferometer.timeline import Ints, offsets
from inferometer.workload.sharing import Blocks, chained, cut, grown
from inferometer.workload.traces.links import from_parents, in_turn, iso_ns, number
from inferometer.workload.traces.trace import SHOWN_PROBLEMS, Problems, Trace

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Time = Annotated[float, msgspec.Meta(ge=0, lt=2**43)]


class Records:
    """The records of a JSONL file as `kind`, decoded while iterated; the lines that are none become `problems`.

    `check` may refuse a record that has the right types, by a ValueError.
    """

    def __init__(self, path: Path, kind: Any, check: Callable[[Any], object] = bool) -> None:
        self._path = path
        self._check = check
        self._decoder = msgspec.json.Decoder(kind, strict=True)
        self._bad = 0
        self._first: list[str] = []

    def __iter__(self) -> Iterator[Any]:
        """Each good record, in file order."""
        for line_number, line in lines_of(self._path):
            try:
                record = self._decoder.decode(line)
                self._check(record)
            except ValueError as error:  # msgspec's errors and a codec's are such, too
                self._bad += 1
                if len(self._first) < SHOWN_PROBLEMS:
                    self._first.append(f"{self._path.name}:{line_number}: {error}")
            else:
                yield record

    @property
    def problems(self) -> Problems:
        """What was wrong so far."""
        return Problems(self._bad, tuple(self._first))


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1; without a byte order mark."""
    with open_text(path) as file:
        for number_, line in enumerate(file, start=1):
            plain = line.removeprefix(BOM_UTF8) if number_ == 1 else line
            if plain.strip():
                yield number_, plain


def open_text(path: Path) -> Any:
    """The bytes of a file, gunzipped where its first two bytes say so (whatever its name is)."""
    return gzip.open(path, "rb") if is_gzipped(path) else path.open("rb")


def is_gzipped(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


class _Mooncake(msgspec.Struct):
    timestamp: Time  # ms
    input_length: Count
    output_length: Count
    hash_ids: list[int] = []


def read_mooncake(path: Path) -> Trace:
    """Mooncake's JSONL: milliseconds in coarse ticks, lengths, and the prefix-chained ids of 512-token blocks."""
    records = Records(path, _Mooncake)
    rows = sorted(records, key=lambda row: row.timestamp)
    prompt = _counts(row.input_length for row in rows)
    return Trace(
        "mooncake",
        path.name,
        prompt_tokens=prompt,
        output_tokens=_counts(row.output_length for row in rows),
        arrival_ns=_since_first([row.timestamp for row in rows], MILLISECOND),
        blocks=_blocks([row.hash_ids for row in rows], 512, prompt),
        problems=records.problems,
    )


class _Bailian(msgspec.Struct):
    chat_id: int
    timestamp: Time  # s
    input_length: Count
    output_length: Count
    turn: int
    parent_chat_id: int = -1
    hash_ids: list[int] = []


def read_bailian(path: Path) -> Trace:
    """Qwen-Bailian usage traces: seconds, conversations by `parent_chat_id`, ids of 16-token blocks.

    The ids hash each block's content alone, so that an id in another context is no hit; they are chained here.
    """
    records = Records(path, _Bailian)
    rows = sorted(records, key=lambda row: row.timestamp)
    prompt = _counts(row.input_length for row in rows)
    arrival = _since_first([row.timestamp for row in rows], SECOND)
    place = {row.chat_id: index for index, row in enumerate(rows)}
    parent = [place.get(row.parent_chat_id, -1) for row in rows]
    parent = [above if above < index else -1 for index, above in enumerate(parent)]
    session: list[int] = []
    for index, above in enumerate(parent):
        session.append(session[above] if above >= 0 else index)
    gap = [int(arrival[i] - arrival[above]) if above >= 0 else 0 for i, above in enumerate(parent)]
    links = from_parents([[above] if above >= 0 else [] for above in parent], np.array(gap))
    return Trace(
        "qwen-bailian",
        path.name,
        prompt_tokens=prompt,
        output_tokens=_counts(row.output_length for row in rows),
        arrival_ns=arrival,
        session=number(session),
        links=links if len(links.row) else None,
        blocks=_blocks([row.hash_ids for row in rows], 16, prompt),
        problems=records.problems,
        notes=("pauses between turns include the earlier turn's service, which is not told",),
    )


class _Serving(msgspec.Struct):
    input_toks: Count
    output_toks: Count
    arrival_time_ns: Annotated[int, msgspec.Meta(ge=0)]
    input_tok_ids: list[int] = []


def read_llmservingsim(path: Path) -> Trace:
    """LLMServingSim's JSONL: nanoseconds, lengths and the token ids themselves (each becomes a block of one token)."""
    records = Records(path, _Serving)
    rows = sorted(records, key=lambda row: row.arrival_time_ns)
    prompt = _counts(row.input_toks for row in rows)
    return Trace(
        "llmservingsim",
        path.name,
        prompt_tokens=prompt,
        output_tokens=_counts(row.output_toks for row in rows),
        arrival_ns=_since_first([row.arrival_time_ns for row in rows], 1),
        blocks=_blocks([row.input_tok_ids for row in rows], 1, prompt),
        problems=records.problems,
    )


class _Event(msgspec.Struct):
    event_type: str
    timestamp: str


class _Round(msgspec.Struct):
    session_id: str
    round_index: int
    input_tokens_total: Count
    prefix_tokens: Count
    output_tokens: Count
    timing_events: Annotated[list[_Event], msgspec.Meta(min_length=1)]


TRACELAB_BLOCK = 256


def read_tracelab(path: Path) -> Trace:
    """TraceLab's rounds: agent sessions with the time of each event, and how much of a prompt was cached.

    A round starts with its last user message or tool result, and ends with its last event.
    """
    records = Records(path, _Round, lambda row: _span(row.timing_events))
    rounds = sorted(records, key=lambda row: (row.session_id, row.round_index))
    session = number(row.session_id for row in rounds)
    times = np.array([_span(row.timing_events) for row in rounds], np.int64).reshape(-1, 2)
    for row in range(
        1, len(rounds)
    ):  # clocks of logs stutter; a round never starts before the one before it
        if session[row] == session[row - 1]:
            times[row, 0] = max(times[row, 0], times[row - 1, 0])
    think = times[:, 0] - np.roll(times[:, 1], 1)
    prompt = _counts(row.input_tokens_total for row in rounds)
    cached = _counts(row.prefix_tokens for row in rounds)
    return Trace(
        "tracelab",
        path.name,
        prompt_tokens=prompt,
        output_tokens=_counts(row.output_tokens for row in rounds),
        arrival_ns=times[:, 0] - times[:, 0].min(initial=2**62),
        session=session,
        links=in_turn(session, think),
        blocks=grown(session, prompt, cached, TRACELAB_BLOCK),
        cached_tokens=cached,
        app="agent",
        problems=records.problems,
    ).in_order()


def _span(events: list[_Event]) -> tuple[int, int]:
    """When the request went out and when its answer was complete [ns since 1970]."""
    stamps = [iso_ns(event.timestamp) for event in events]
    asked = [
        stamp
        for stamp, event in zip(stamps, events, strict=True)
        if event.event_type in {"user_message", "tool_result"}
    ]
    return (asked[-1] if asked else stamps[0]), max(stamps)


class _Agent(msgspec.Struct):
    session_id: str
    parent_session_id: str | None = None


class _Hashes(msgspec.Struct):
    trace_block_size: Annotated[int, msgspec.Meta(ge=1)]
    input_sequence_hashes: list[int]


class _Request(msgspec.Struct):
    input_tokens: Count
    output_tokens: Count
    request_received_ms: Time
    cached_tokens: Count | None = None
    total_time_ms: Time | None = None
    replay: _Hashes | None = None


class _DynamoEvent(msgspec.Struct):
    event_type: str
    request: _Request | None = None
    agent_context: _Agent | None = None


class _Dynamo(msgspec.Struct):
    event: _DynamoEvent


def read_dynamo(path: Path) -> Trace:
    """Dynamo's request trace (schema v1): its `request_end` events; sessions, sub-sessions and sequence hashes."""
    records = Records(path, _Dynamo)
    ended = [
        (event.event.request, event.event.agent_context)
        for event in records
        if event.event.event_type == "request_end" and event.event.request is not None
    ]
    ended.sort(key=lambda pair: pair[0].request_received_ms)
    requests = [request for request, _ in ended]
    start = [request.request_received_ms for request in requests]
    end = [r.request_received_ms + (r.total_time_ms or 0.0) for r in requests]
    names = [agent.session_id if agent else f"request {i}" for i, (_, agent) in enumerate(ended)]
    above = {
        agent.session_id: agent.parent_session_id
        for _, agent in ended
        if agent is not None and agent.parent_session_id is not None
    }
    parents = with_sub_sessions(names, above, start, end)
    pause = [
        max(0.0, begin - max((end[p] for p in rows), default=begin))
        for begin, rows in zip(start, parents, strict=True)
    ]
    sizes = [r.replay.trace_block_size for r in requests if r.replay]
    prompt = _counts(r.input_tokens for r in requests)
    return Trace(
        "dynamo",
        path.name,
        prompt_tokens=prompt,
        output_tokens=_counts(r.output_tokens for r in requests),
        arrival_ns=_since_first(start, MILLISECOND),
        session=number(_root(name, above) for name in names),
        links=from_parents(parents, np.rint(np.array(pause) * MILLISECOND).astype(np.int64)),
        blocks=_blocks(
            [r.replay.input_sequence_hashes if r.replay else [] for r in requests],
            sizes[0] if sizes else 0,
            prompt,
        ),
        cached_tokens=_counts(r.cached_tokens or 0 for r in requests),
        app="agent",
        problems=records.problems,
    )


def with_sub_sessions(
    names: list[str], above: dict[str, str | None], start: list[float], end: list[float]
) -> list[list[int]]:
    """The parents of each call, where a session's calls are in turn and a sub-session runs between two of its parent's.

    A sub-session's first call waits for the last call of the session above that had ended; the first call above that
    begins after a sub-session's end waits for its last call.
    """
    calls: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        calls.setdefault(name, []).append(place)
    parents: list[list[int]] = [[] for _ in names]
    for mine in calls.values():
        for before, after in pairwise(mine):
            parents[after].append(before)
    for name, mine in calls.items():
        outer = calls.get(above.get(name) or "", [])
        spawner = [k for k in outer if end[k] <= start[mine[0]] and k < mine[0]]
        if spawner:
            parents[mine[0]].append(spawner[-1])
        joined = [k for k in outer if start[k] >= end[mine[-1]] and k > mine[-1]]
        if joined:
            parents[joined[0]].append(mine[-1])
    return parents


def _root(name: str, above: dict[str, str | None]) -> str:
    for _ in range(len(above)):
        upper = above.get(name)
        if upper is None:
            break
        name = upper
    return name


def _blocks(lists: list[list[int]], tokens: int, prompt: Any) -> Blocks | None:
    """Ragged block ids, renumbered from 0 and chained; None where there are none."""
    flat = [block for row in lists for block in row]
    if not flat:
        return None
    dense: dict[int, int] = {}
    ids = np.fromiter((dense.setdefault(block, len(dense)) for block in flat), np.int64, len(flat))
    offset = offsets(np.array([len(row) for row in lists], dtype=np.int64))
    return cut(chained(Blocks(offset, ids, tokens)), prompt)


def _counts(values: Any) -> Any:
    return np.array(list(values), dtype=np.int32)


def _since_first(times: list[float] | list[int], unit_ns: int) -> Ints:
    if not times:
        return np.zeros(0, dtype=np.int64)
    return np.array([round((time - times[0]) * unit_ns) for time in times], dtype=np.int64)
