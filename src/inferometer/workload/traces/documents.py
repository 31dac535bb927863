"""Traces that are JSON documents: agent sessions, conversations, and ServeGen's client descriptions."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.timeline import Ints, offsets
from inferometer.workload.draws import Stream
from inferometer.workload.intensity import gamma_gaps, steady, weibull_gaps
from inferometer.workload.sharing import Blocks, chained, cut, grown, inherited
from inferometer.workload.tokenizer import Tokenizer, load
from inferometer.workload.traces.lines import Records, open_text
from inferometer.workload.traces.links import by_intervals, from_parents, in_turn, iso_ns, number
from inferometer.workload.traces.trace import SHOWN_PROBLEMS, Links, Problems, Trace

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Told:
    """Problems found while a document is read."""

    def __init__(self) -> None:
        self.rows = 0
        self.first: list[str] = []

    def add(self, what: str) -> None:
        """Count one unreadable row."""
        self.rows += 1
        if len(self.first) < SHOWN_PROBLEMS:
            self.first.append(what)

    @property
    def problems(self) -> Problems:
        """All that was found."""
        return Problems(self.rows, tuple(self.first))


def content_of(file: Path) -> bytes:
    """A whole document, gunzipped where it is packed, without a byte order mark."""
    with open_text(file) as opened:
        content: bytes = opened.read()
    return content.removeprefix(BOM_UTF8)


def json_files(folder: Path) -> list[Path]:
    """The JSON documents in a folder and the folders in it, packed ones included."""
    return sorted([*folder.rglob("*.json"), *folder.rglob("*.json.gz")])


def _documents(path: Path, kind: Any, told: Told) -> Iterator[tuple[str, Any]]:
    """The documents of a file, or of all JSON files of a folder, with their names."""
    for file in json_files(path) if path.is_dir() else [path]:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            yield name, msgspec.json.decode(content_of(file), type=kind)
        except ValueError as error:  # not JSON, not of this shape, or not UTF-8
            told.add(f"{name}: {error}")


def _items(raws: list[msgspec.Raw], kind: Any, what: str, told: Told) -> list[Any]:
    """The good ones among a document's items: a bad one costs itself, not its document."""
    out = []
    for place, raw in enumerate(raws):
        try:
            out.append(msgspec.json.decode(raw, type=kind))
        except ValueError as error:
            told.add(f"{what} {place}: {error}")
    return out


# --- WEKA kv-cache-tester --------------------------------------------------------------------------------------------


class _WekaCall(msgspec.Struct):
    t: Seconds
    type: str
    prompt: Count = msgspec.field(name="in", default=0)
    out: Count = 0  # absent in requests that were cut off
    hash_ids: list[int] = []
    api_time: Seconds | None = None
    think_time: Seconds | None = None
    duration_ms: Seconds | None = None
    requests: list[msgspec.Raw] = []


class _Weka(msgspec.Struct):
    id: str
    block_size: Annotated[int, msgspec.Meta(ge=1)]
    requests: list[msgspec.Raw]


class _Sessions:
    """Calls of many sessions while they are gathered."""

    def __init__(self) -> None:
        self.calls: list[_WekaCall] = []
        self.start: list[float] = []
        self.session: list[str] = []
        self.parents: list[list[int]] = []
        self.pause: list[float] = []

    def add(self, call: _WekaCall, session: str, start: float, parents: list[int]) -> int:
        """Append a call; the place where it is."""
        self.calls.append(call)
        self.start.append(start)
        self.session.append(session)
        self.parents.append(parents)
        self.pause.append(self._pause(call, start, parents))
        return len(self.calls) - 1

    def end(self, place: int) -> float:
        """When a call had ended [s]: its start, where its service time is not told."""
        return self.start[place] + (self.calls[place].api_time or 0.0)

    def _pause(self, call: _WekaCall, start: float, parents: list[int]) -> float:
        """Its own think time where it is told and fits, else the gap to the end of what it waited for."""
        gap = max(0.0, start - max((self.end(p) for p in parents), default=start))
        return gap if call.think_time is None else min(call.think_time, gap)


def read_weka(path: Path) -> Trace:
    """WEKA's kv-cache-tester sessions (a file or a folder of them), with sub-agents and local ids of 64-token blocks.

    `t` restarts at 0 inside a sub-agent: it counts from its spawn. `api_time` and `think_time` are optional.
    """
    told, sessions = Told(), _Sessions()
    size = 0
    documents = 0
    for name, document in _documents(path, _Weka, told):
        if size not in {0, document.block_size}:
            told.add(f"{name}: blocks of {document.block_size} tokens among others of {size}")
            continue
        size = document.block_size
        documents += 1
        _weka_calls(document.requests, name, f"{name}:{document.id}", sessions, told)
    trace = _weka_trace(path, sessions, size, told)
    if documents < 2:
        return trace.in_order()
    note = "each session has a clock of its own: they start when the plan's arrivals say so"
    return replace(trace, arrival_ns=None, notes=(*trace.notes, note))


def _weka_calls(
    raws: list[msgspec.Raw], name: str, session: str, out: _Sessions, told: Told
) -> None:
    calls: list[_WekaCall] = _items(raws, _WekaCall, f"{name}: request", told)
    last: list[int] = []  # the main line's latest call
    running: list[
        tuple[float, int]
    ] = []  # sub-agents not yet joined: when they end, and their last call
    for call in sorted(calls, key=lambda call: call.t):
        if call.type == "subagent":
            inner = list(last)
            what = f"{name}: sub-agent at {call.t:g} s, request"
            subs: list[_WekaCall] = _items(call.requests, _WekaCall, what, told)
            for place, sub in enumerate(sorted(subs, key=lambda sub: sub.t)):
                inner = [out.add(sub, f"{session}/{call.t}", call.t + sub.t, inner)]
                if place == len(subs) - 1:
                    end = call.t + (call.duration_ms or 0.0) / 1000.0
                    running.append((max(end, out.end(inner[0])), inner[0]))
            continue
        joined = [place for end, place in running if end <= call.t]
        running = [(end, place) for end, place in running if end > call.t]
        last = [out.add(call, session, call.t, [*last, *joined])]


def _weka_trace(path: Path, sessions: _Sessions, size: int, told: Told) -> Trace:
    prompt = np.array([call.prompt for call in sessions.calls], dtype=np.int32)
    top = [name.split("/", 1)[0] for name in sessions.session]
    ids: dict[tuple[str, int], int] = {}
    flat = [  # ids are local to a file; its sub-agents share one set of them
        ids.setdefault((name, block), len(ids))
        for name, call in zip(top, sessions.calls, strict=True)
        for block in call.hash_ids
    ]
    offset = offsets(np.array([len(call.hash_ids) for call in sessions.calls], dtype=np.int64))
    pause = np.rint(np.array(sessions.pause) * SECOND).astype(np.int64)
    return Trace(
        "weka",
        path.name,
        prompt_tokens=prompt,
        output_tokens=np.array([call.out for call in sessions.calls], dtype=np.int32),
        arrival_ns=np.rint(np.array(sessions.start) * SECOND).astype(np.int64),
        session=number(top),
        links=from_parents(sessions.parents, pause),
        blocks=cut(chained(Blocks(offset, np.array(flat, dtype=np.int64), size)), prompt)
        if flat
        else None,
        app="agent",
        problems=told.problems,
    )


# --- OpenTelemetry agent traces ---------------------------------------------------------------------------------------


class _Span(msgspec.Struct):
    span_id: str
    start_time: str
    end_time: str
    attributes: dict[str, Any]


class _Otel(msgspec.Struct):
    trace_id: str
    spans: list[msgspec.Raw]


class _Turn(NamedTuple):
    """One model call of an agent, with its texts."""

    session: str
    start_ns: int
    end_ns: int
    messages: tuple[str, ...]  # each with its role, as one string
    reply: str
    prompt_tokens: int | None
    output_tokens: int | None


OTEL_BLOCK = 16
_PROMPT_USAGE = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT_USAGE = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")


def read_otel(path: Path, tokenizer: Tokenizer | None = None) -> Trace:
    """Spans of model calls (`gen_ai.*`); who waited for whom is inferred from who had ended, per session.

    Lengths are the spans' usage where they tell it, else counted from their messages.
    """
    told = Told()
    turns: list[_Turn] = []
    for name, document in _documents(path, _Otel, told):
        for span in _items(document.spans, _Span, f"{name}: span", told):
            turn = _turn(span, name, document.trace_id, told)
            turns += [turn] if turn is not None else []
    turns.sort(key=lambda turn: turn.start_ns)
    tokenizer = tokenizer or load()
    prompt, output, notes = _otel_lengths(turns, tokenizer)
    start = np.array([turn.start_ns for turn in turns], dtype=np.int64)
    return Trace(
        "otel",
        path.name,
        prompt_tokens=prompt,
        output_tokens=output,
        arrival_ns=start - start[:1],
        session=number(turn.session for turn in turns),
        links=_otel_links(turns),
        blocks=_message_blocks(turns, prompt, tokenizer),
        app="agent",
        problems=told.problems,
        notes=notes,
    )


def _turn(span: _Span, file: str, trace_id: str, told: Told) -> _Turn | None:
    """The model call that a span is; None for other spans, and for those that cannot be read."""
    facts = span.attributes
    if not any(key.startswith("gen_ai.input") or key in _PROMPT_USAGE for key in facts):
        return None
    try:
        messages = facts.get("gen_ai.input.messages") or []
        messages = json.loads(messages) if isinstance(messages, str) else messages
        reply = facts.get("gen_ai.output.text") or facts.get("gen_ai.output.messages") or ""
        return _Turn(
            session=f"{file}: {facts.get('exgentic.session.id') or facts.get('session.id') or trace_id}",
            start_ns=iso_ns(span.start_time),
            end_ns=iso_ns(span.end_time),
            messages=tuple(json.dumps(message, sort_keys=True) for message in messages),
            reply=reply if isinstance(reply, str) else json.dumps(reply),
            prompt_tokens=_usage(facts, _PROMPT_USAGE),
            output_tokens=_usage(facts, _OUTPUT_USAGE),
        )
    except (ValueError, TypeError) as error:
        told.add(f"{file}: span {span.span_id!r}: {error}")
        return None


def _usage(facts: dict[str, Any], names: tuple[str, ...]) -> int | None:
    tokens = next((int(facts[name]) for name in names if name in facts), None)
    if tokens is not None and not 0 <= tokens < 2**31:
        raise ValueError(f"{tokens} tokens")
    return tokens


def _otel_lengths(turns: list[_Turn], tokenizer: Tokenizer) -> tuple[Any, Any, tuple[str, ...]]:
    counted = tokenizer.count(["".join(turn.messages) for turn in turns])
    replies = tokenizer.count([turn.reply for turn in turns])
    prompt = [
        n if turn.prompt_tokens is None else turn.prompt_tokens
        for turn, n in zip(turns, counted, strict=True)
    ]
    output = [
        n if turn.output_tokens is None else turn.output_tokens
        for turn, n in zip(turns, replies, strict=True)
    ]
    bare = sum(turn.prompt_tokens is None or turn.output_tokens is None for turn in turns)
    notes = _counted_note(bare, tokenizer) if bare else ()
    return np.array(prompt, dtype=np.int32), np.array(output, dtype=np.int32), notes


def _counted_note(rows: int, tokenizer: Tokenizer) -> tuple[str, ...]:
    how = "counted" if tokenizer.exact else "estimated"
    return (f"lengths of {rows:,} requests were {how} with the {tokenizer.name} tokenizer",)


def _otel_links(turns: list[_Turn]) -> Links:
    parents: list[list[int]] = [[] for _ in turns]
    mine: dict[str, list[int]] = {}
    for place, turn in enumerate(turns):
        mine.setdefault(turn.session, []).append(place)
    for places in mine.values():
        inferred = by_intervals(
            [turns[k].start_ns for k in places], [turns[k].end_ns for k in places]
        )
        for place, rows in zip(places, inferred, strict=True):
            parents[place] = [places[k] for k in rows]
    ended = [max((turns[p].end_ns for p in rows), default=0) for rows in parents]
    pause = np.array(
        [turn.start_ns - end for turn, end in zip(turns, ended, strict=True)], dtype=np.int64
    )
    return from_parents(parents, pause)


def _message_blocks(turns: list[_Turn], prompt: Any, tokenizer: Tokenizer) -> Blocks | None:
    """Blocks that say which prompts begin with the same messages; exact to a block of 16 tokens."""
    known: dict[tuple[str, ...], int] = {}
    parent = np.full(len(turns), -1, dtype=np.int64)
    heads: list[str] = []
    for place, turn in enumerate(turns):
        depth = next((k for k in range(len(turn.messages), 0, -1) if turn.messages[:k] in known), 0)
        if depth:
            parent[place] = known[turn.messages[:depth]]
        heads.append("".join(turn.messages[:depth]))
        known.update(
            dict.fromkeys((turn.messages[:k] for k in range(1, len(turn.messages) + 1)), place)
        )
    total = -(-prompt.astype(np.int64) // OTEL_BLOCK)
    have = np.minimum(np.array(tokenizer.count(heads), dtype=np.int64) // OTEL_BLOCK, total)
    have = np.where(parent >= 0, np.minimum(have, total[parent]), 0)
    if not have.any():
        return None
    return Blocks(offsets(total), inherited(parent, have, total), OTEL_BLOCK)


# --- ShareGPT ---------------------------------------------------------------------------------------------------------


class _Message(msgspec.Struct):
    sender: str = msgspec.field(name="from")
    value: str


class _Conversation(msgspec.Struct):
    conversations: list[_Message]


SHAREGPT_BLOCK = 256


def _conversations(path: Path, told: Told) -> list[Any]:
    """The items of a JSON list, of one object, or of JSON Lines."""
    try:
        whole = msgspec.json.decode(content_of(path))
    except ValueError:
        records = Records(path, Any)
        items = list(records)
        told.rows += records.problems.rows
        told.first += records.problems.first
        return items
    return whole if isinstance(whole, list) else [whole]


def read_sharegpt(path: Path, tokenizer: Tokenizer | None = None) -> Trace:
    """ShareGPT's conversations: each reply is a request, whose prompt is all that was said before it.

    There are no times: turns follow each other without a pause, sessions start when the plan's arrivals say so.
    """
    told = Told()
    tokenizer = tokenizer or load()
    rows: list[tuple[int, int, int]] = []  # session, prompt, output
    for index, item in enumerate(_conversations(path, told)):
        try:
            talk = msgspec.convert(item, _Conversation).conversations
        except msgspec.ValidationError as error:
            told.add(f"{path.name}: conversation {index}: {error}")
            continue
        counts = tokenizer.count([message.value for message in talk])
        for place, message in enumerate(talk):
            if place and message.sender in {"gpt", "assistant", "chatgpt", "bing", "bard"}:
                rows.append((index, sum(counts[:place]), counts[place]))
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    session = number(table[:, 0].tolist())
    prompt = table[:, 1].astype(np.int32)
    return Trace(
        "sharegpt",
        path.name,
        prompt_tokens=prompt,
        output_tokens=table[:, 2].astype(np.int32),
        session=session,
        links=in_turn(session, np.zeros(len(table), dtype=np.int64)),
        blocks=grown(session, prompt, prompt, SHAREGPT_BLOCK) if len(table) else None,
        problems=told.problems,
        notes=_counted_note(len(table), tokenizer),
    )


# --- ServeGen ---------------------------------------------------------------------------------------------------------

_WINDOW_S = 600


class Pdf(NamedTuple):
    """A distribution over values [K] with weights [K]."""

    values: NDArray[np.float64]
    weights: NDArray[np.float64]

    def draw(self, stream: Stream, n: int) -> Ints:
        """`n` whole values; zeros where there is no distribution."""
        if not len(self.values):
            return np.zeros(n, dtype=np.int64)
        return np.rint(self.values[stream.pick(self.weights, n)]).astype(np.int64)


def read_servegen(path: Path) -> Trace:
    """ServeGen's description of a client (chunk-N-trace.csv beside chunk-N-dataset.json), played once.

    ServeGen publishes no requests but, per client, 10-minute windows of (rate, CV, family of gaps) and distributions
    of lengths per window of hours. A trace is drawn from these, with a fixed seed; a folder is all of its clients.
    """
    told = Told()
    files = sorted(path.glob("chunk-*-trace.csv")) if path.is_dir() else [path]
    clients = [_client(file, told) for file in files]
    table = np.concatenate([np.zeros((0, 3), dtype=np.int64), *clients])
    table = table[np.argsort(table[:, 0], kind="stable")]
    return Trace(
        "servegen",
        path.name,
        prompt_tokens=table[:, 1].astype(np.int32),
        output_tokens=table[:, 2].astype(np.int32),
        arrival_ns=table[:, 0] - table[:1, 0],
        app="reasoning" if path.absolute().parent.name == "reason" else "chat",
        problems=told.problems,
        notes=(
            f"ServeGen publishes distributions: {len(table):,} requests were drawn from {len(files)} clients",
            "prompt and output lengths are drawn apart, for only their marginals are published",
            "images are out of scope: their tokens are counted as text",
        ),
    )


def _client(file: Path, told: Told) -> Ints:
    """Start [ns], prompt and output tokens of one client's requests [n, 3]."""
    beside = file.with_name(file.name.replace("-trace.csv", "-dataset.json"))
    try:
        data = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"the lengths of a ServeGen client are beside its rates: {error}", where=str(beside)
        ) from None
    laws = _window_laws(data, beside.name, told)
    parts = [np.zeros((0, 3), dtype=np.int64)]
    for line, text in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            window, rate, cv, family = _window(text)
        except ValueError as error:
            told.add(f"{file.name}:{line}: {error}")
            continue
        if rate > 0 and not laws:
            told.add(f"{file.name}:{line}: a rate of {rate:g}, and no lengths are published")
        elif rate > 0:
            stream = Stream(0, "servegen", file.name, window)
            times = _times(rate, cv, family, stream) + window * SECOND
            # The window that covers this time, or the nearest that has any lengths.
            law = laws[min(laws, key=lambda at: abs(at + 10_800 - window))]
            columns = (times, law.prompts(stream, len(times)), law.output.draw(stream, len(times)))
            parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts)


def _window(text: str) -> tuple[int, float, float, str]:
    cells = text.strip().split(",")
    if len(cells) != 6:
        raise ValueError(f"{len(cells)} cells, not 6")
    rate, cv = float(cells[1]), float(cells[2])
    if not (0 <= rate < 1e6 and 0 <= cv < 1e4):
        raise ValueError("a rate or a CV that cannot be")
    if cells[3] not in {"Gamma", "Weibull", "Exponential", ""}:
        raise ValueError(f"no family of gaps {cells[3]!r}")
    return int(float(cells[0])), rate, cv, cells[3]


def _times(rate: float, cv: float, family: str, stream: Stream) -> Ints:
    """Starts within one window [ns]: a stationary renewal process of the window's family."""
    samplers = weibull_gaps if family == "Weibull" else gamma_gaps
    gaps, first = samplers(stream, min(max(cv, 0.02), 200.0))
    return steady(rate).draw(gaps, first, None, _WINDOW_S * SECOND)


class _Laws(NamedTuple):
    """The lengths of one window of hours."""

    text: Pdf
    output: Pdf
    image: Pdf
    images: Pdf

    def prompts(self, stream: Stream, n: int) -> Ints:
        """Text tokens and those of all images."""
        return self.text.draw(stream, n) + self.image.draw(stream, n) * self.images.draw(stream, n)


def _window_laws(data: Any, name: str, told: Told) -> dict[int, _Laws]:
    """Distributions by window, of those windows that have any."""
    out = {}
    for window, fields in data.items():
        try:
            laws = _Laws(
                _pdf(fields.get("input_tokens", fields.get("text_tokens", "{}"))),
                _pdf(fields.get("output_tokens", "{}")),
                _pdf(fields.get("image_tokens", "{}")),
                _pdf(fields.get("image_count", "{}")),
            )
        except (ValueError, AttributeError) as error:
            told.add(f"{name}: window {window}: {error}")
            continue
        if len(laws.text.values) and len(laws.output.values):
            out[int(window)] = laws
    return out


def _pdf(text: str) -> Pdf:
    """A Python dict literal of numbers, read as what it is: never evaluated."""
    body = text.strip()
    if not (body.startswith("{") and body.endswith("}")):
        raise ValueError(f"not a literal of numbers: {body[:40]!r}")
    pairs = [pair.split(":") for pair in body[1:-1].split(",") if pair.strip()]
    table = np.array([(float(value), float(weight)) for value, weight in pairs]).reshape(-1, 2)
    if not np.all(np.isfinite(table)) or np.any(table < 0):
        raise ValueError("a value or a weight that cannot be")
    some = table[:, 1].sum() > 0
    return Pdf(table[:, 0], table[:, 1]) if some else Pdf(np.zeros(0), np.zeros(0))
