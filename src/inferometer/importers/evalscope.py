"""evalscope perf's benchmark_data.db (read from 1.14): an SQLite table `result`, monotonic seconds.

`inter_token_latencies` (JSON) has a gap for each chunk with content after the first. What else is in the table (request
and reply, the latter pickled) is never looked at. When requests were due is not recorded.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
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
    Unreadable,
    chunks,
    ns,
    running,
    since,
    whole,
)
from inferometer.importers.tool import Part, Tool

_NEEDED = (
    "start_time",
    "success",
    "latency",
    "first_chunk_latency",
    "prompt_tokens",
    "completion_tokens",
)
_OPTIONAL = ("completed_time", "inter_token_latencies", "is_stream", "chunk_times")


class _Record(msgspec.Struct):
    start_time: float
    success: bool | int
    latency: float | None = None
    first_chunk_latency: float | None = None
    completed_time: float | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    inter_token_latencies: str | None = None
    is_stream: bool | int | None = None


def read(path: Path) -> list[Part]:
    """The one benchmark of the file."""
    rows = Rows(path.name)
    for number, record in _records(path):
        rows.read(f"row {number}", record, _Record, _row)
    args = _arguments(path)
    about = files.picked(args, "parallel", "rate", "open_loop", "dataset", "number")
    note = "output tokens are the server's count where it sent one, else the tool's tokenizer's: the file does not tell"
    lacks = frozenset({"channels", "intended"})
    return [Part(rows, None, files.word(args, "model"), lacks=lacks, about=about, notes=(note,))]


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        ) as base:
            known = [name for _, name, *_ in base.execute("PRAGMA table_info(result)")]
            missing = [name for name in _NEEDED if name not in known]
            if missing:
                raise UserError(f"no column {missing[0]!r} in a table 'result'", where=str(path))
            names = [name for name in (*_NEEDED, *_OPTIONAL) if name in known]
            found = base.execute(f"SELECT {', '.join(names)} FROM result")  # noqa: S608  names are ours
            for number, values in enumerate(found, start=1):
                yield number, dict(zip(names, values, strict=True))
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        raise UserError(f"not a readable SQLite table: {error}", where=str(path)) from None


def _arguments(path: Path) -> dict[str, Any]:
    """The tool's own record of its arguments, beside the file; empty where there is none."""
    try:
        found = json.loads(path.with_name("benchmark_args.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _row(r: _Record) -> Row:
    after = () if r.first_chunk_latency is None else running(r.first_chunk_latency, _gaps(r))
    row = Row(Stream(), ns(r.start_time), prompt_tokens=r.prompt_tokens)
    if not r.success:
        ended = None if r.completed_time is None else since(r.completed_time, r.start_time)
        told = "failed; evalscope does not keep why"
        return row._replace(status="protocol_error", error=told, ended_ns=ended)
    if r.latency is None:
        raise Unreadable("a request that succeeded has no latency")
    ended, tokens = ns(r.latency), r.completion_tokens or 0
    streamed = r.is_stream is None or bool(r.is_stream)
    stream = (
        chunks(after, tokens) if after and streamed else whole(ended, tokens, streamed=streamed)
    )
    return row._replace(stream=stream, ended_ns=ended)


def _gaps(r: _Record) -> list[float]:
    try:
        return msgspec.convert(json.loads(r.inter_token_latencies or "[]"), list[float])
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"inter_token_latencies: {error}") from None


TOOL = Tool(
    "evalscope",
    "benchmark_data.db of evalscope perf",
    ("benchmark_data.db",),
    lambda head: head.raw.startswith(b"SQLite format 3\0"),
    read,
)
