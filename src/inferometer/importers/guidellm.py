"""GuideLLM's benchmarks.json (read from 0.8.1): a document with several benchmarks, one per rate or number of streams.

Wall-clock seconds throughout. When a request was due (`targeted_start`: by the schedule, or when its stream was free)
and when it was sent are both there; of its tokens, only the first one's time and the last one's (guidellm#1145).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from inferometer.errors import UserError
from inferometer.importers import files
from inferometer.importers.rows import (
    Count,
    Row,
    Rows,
    Stream,
    ends,
    last_line,
    ns,
    since,
    status_of,
    whole,
)
from inferometer.importers.tool import Part, Tool


class _Timings(msgspec.Struct):
    request_start: float | None = None
    request_end: float | None = None
    resolve_end: float | None = None
    targeted_start: float | None = None
    first_token_iteration: float | None = None
    last_token_iteration: float | None = None
    token_iterations: int | None = None


class _Info(msgspec.Struct):
    timings: _Timings
    error: str | None = None
    turn_index: Count = 0
    conversation_id: str | None = None


class _Record(msgspec.Struct):
    info: _Info
    request_id: str | None = None
    prompt_tokens: Count | None = None
    output_tokens: Count | None = None
    cached_tokens: Count | None = None


def read(path: Path) -> list[Part]:
    """A part for each benchmark."""
    found = files.document(path)
    benchmarks = found.get("benchmarks")
    if not isinstance(benchmarks, list) or not benchmarks:
        raise UserError("no benchmarks in it", where=str(path))
    version = files.word(found, "metadata", "guidellm_version")
    model = files.word(found, "config", "spec", "backend", "model")
    return [_part(path, n, one, version, model) for n, one in enumerate(benchmarks)]


def _part(path: Path, number: int, found: Any, version: str | None, model: str | None) -> Part:
    rows = Rows(path.name)
    requests = found.get("requests") if isinstance(found, dict) else None
    if not isinstance(requests, dict):
        raise UserError(f"benchmark {number} has no requests", where=str(path))
    for kind, make in _KINDS.items():
        records = requests.get(kind)
        for place, record in enumerate(records if isinstance(records, list) else ()):
            rows.read(f"benchmarks[{number}].{kind}[{place}]", record, _Record, make)
    config = found.get("config")
    strategy = config.get("strategy") if isinstance(config, dict) else None
    about = files.picked(strategy, "type_", "streams", "rate", "max_concurrency")
    load = about.get("streams", about.get("rate"))
    label = f"{about.get('type_', 'benchmark')}" + ("" if load is None else f"@{load:g}")
    return Part(rows, version, model, label, about=about, notes=(_COUNTED,))


def _row(r: _Record) -> Row:
    t = r.info.timings
    started = t.request_start if t.request_start is not None else t.targeted_start
    return Row(
        Stream(),
        ns(started),
        None if t.targeted_start is None else ns(t.targeted_start),
        since(t.request_end if t.request_end is not None else t.resolve_end, started),
        prompt_tokens=r.prompt_tokens,
        request_id=r.request_id,
        session_id=r.info.conversation_id,
        turn=r.info.turn_index,
        cached_tokens=r.cached_tokens,
    )


def _good(r: _Record) -> Row:
    row, t, tokens = _row(r), r.info.timings, r.output_tokens or 0
    if t.first_token_iteration is None or t.last_token_iteration is None:  # not streamed
        return row._replace(stream=whole(row.ended_ns, tokens, streamed=False))
    first, last = (
        since(at, t.request_start) for at in (t.first_token_iteration, t.last_token_iteration)
    )
    return row._replace(stream=ends(first, last, tokens))


def _bad(r: _Record) -> Row:
    began = r.info.timings.first_token_iteration is not None
    told = r.info.error or "failed, without a reason"
    return _row(r)._replace(status=status_of(told, began=began), error=last_line(told))


def _cut(r: _Record) -> Row:
    return _row(r)._replace(status="cancelled", error="still under way when the benchmark ended")


_KINDS = {"successful": _good, "errored": _bad, "incomplete": _cut}
_COUNTED = "GuideLLM takes the number of tokens asked for where the server sends no usage: the file does not tell"

TOOL = Tool(
    "guidellm",
    "benchmarks.json (--output kind=json)",
    ("benchmarks.json",),
    lambda head: head.has('"guidellm_version"'),
    read,
)
