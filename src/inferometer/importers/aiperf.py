"""AIPerf's profile_export.jsonl (read from 0.13): a record per request, in wall-clock ns and in ms.

The richest of the formats: when a request's credit was issued (its due time), when it started (before a connection is
opened), when each chunk with content was read, and what failed. Chunks of one TCP read share a stamp. Output tokens
are the client's count, unless --use-server-token-count was given: then `usage_completion_tokens` says the same number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from inferometer.importers import files
from inferometer.importers.rows import (
    Count,
    Row,
    Rows,
    Stream,
    Unreadable,
    chunks,
    ends,
    last_line,
    running,
    status_of,
    whole,
)
from inferometer.importers.tool import Part, Tool

_MS = 1e-3
_REMEDY = "name profile_export.jsonl, which stands beside it"


class _Meta(msgspec.Struct):
    request_start_ns: int
    request_end_ns: int
    credit_issued_ns: int | None = None
    request_ack_ns: int | None = None
    x_request_id: str | None = None
    conversation_id: str | None = None
    turn_index: Count | None = None
    benchmark_phase: str = "profiling"
    was_cancelled: bool = False


class _Metric(msgspec.Struct):
    value: Any
    unit: str


class _Error(msgspec.Struct):
    message: str = ""
    code: int | None = None
    type: str | None = None


class _Record(msgspec.Struct):
    metadata: _Meta
    metrics: dict[str, _Metric]
    error: _Error | None = None


class _Config(msgspec.Struct):
    models: dict[str, list[dict[str, str]]] = {}


class _Summary(msgspec.Struct):
    aiperf_version: str | None = None
    input_config: _Config = msgspec.field(default_factory=_Config)


def read(path: Path) -> list[Part]:
    """The one benchmark of the file; its warm-up is phase warmup."""
    if files.head_of(path).has('"aiperf_version"'):
        raise files.wrong(path, "AIPerf's summary", _REMEDY)
    rows = Rows(path.name)
    for line, found in files.lines(path, rows):
        if "metrics" not in found and "responses" in found:
            raise files.wrong(path, "AIPerf's raw records", _REMEDY)
        rows.read(line, found, _Record, _row)
    told = _summary(path)
    model = next(iter(told.input_config.models.get("items", [])), {}).get("name")
    return [Part(rows, told.aiperf_version, model)]


def _summary(path: Path) -> _Summary:
    """AIPerf's own summary beside the file, for what only it knows; nothing where there is none."""
    beside = path.with_name(f"{path.stem}_aiperf.json")
    try:
        return msgspec.json.decode(beside.read_bytes(), type=_Summary)
    except (OSError, msgspec.MsgspecError):
        return _Summary()


def _row(r: _Record) -> Row:
    meta, start = r.metadata, r.metadata.request_start_ns
    ended = max(0, meta.request_end_ns - start)
    row = Row(
        Stream(),
        start,
        meta.credit_issued_ns,
        ended,
        prompt_tokens=_count(r, "input_sequence_length"),
        request_id=meta.x_request_id,
        session_id=meta.conversation_id,
        turn=meta.turn_index or 0,
        phase="warmup" if meta.benchmark_phase == "warmup" else "measure",
        first_byte_ns=None if meta.request_ack_ns is None else meta.request_ack_ns - start,
    )
    if r.error is not None or meta.was_cancelled:
        error = r.error or _Error("cancelled")
        told = f"{error.type or ''} {error.message}"
        status = "cancelled" if meta.was_cancelled else status_of(told, code=error.code)
        return row._replace(
            status=status, error=last_line(told), http_status=_http(error.code), stream=Stream()
        )
    return row._replace(stream=_stream(r), counted_by=_source(r))


def _stream(r: _Record) -> Stream:
    first, latency = _ms(r, "time_to_first_token"), _ms(r, "request_latency")
    tokens = _count(r, "output_sequence_length") or 0
    if first is None:  # not streamed
        if latency is None:
            raise Unreadable("it has neither a latency nor an error")
        return whole(running(latency, ())[0], tokens, streamed=False)
    gaps = r.metrics.get("inter_chunk_latency")
    if gaps is not None and isinstance(gaps.value, list):
        return chunks(running(first, [_scaled(gap, gaps.unit) for gap in gaps.value]), tokens)
    last = first if latency is None or tokens < 2 else latency
    return ends(running(first, ())[0], running(last, ())[0], tokens)


def _source(r: _Record) -> str:
    usage, counted = (
        _count(r, name) for name in ("usage_completion_tokens", "output_sequence_length")
    )
    return "server" if usage is not None and usage == counted else "tokenizer"


def _ms(r: _Record, name: str) -> float | None:
    found = r.metrics.get(name)
    return None if found is None else _scaled(found.value, found.unit)


def _scaled(value: Any, unit: str) -> float:
    if unit != "ms" or not isinstance(value, int | float):
        raise Unreadable(f"{value!r} {unit} is not a time in ms")
    return value * _MS


def _count(r: _Record, name: str) -> int | None:
    found = r.metrics.get(name)
    return None if found is None else msgspec.convert(found.value, Count, strict=False)


def _http(code: int | None) -> int | None:
    return code if code is not None and 100 <= code < 1000 else None


TOOL = Tool(
    "aiperf",
    "profile_export.jsonl (--export-level records)",
    ("profile_export.jsonl",),
    lambda head: head.has('"credit_issued_ns"') or head.has('"aiperf_version"'),
    read,
)
