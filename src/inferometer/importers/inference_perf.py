"""inference-perf's per_request_lifecycle_metrics.json (read from 0.7): an array of requests, monotonic seconds.

Every chunk with text has its time. There are two counts of the output: the server's usage, and that of the client's
tokenizer, on which inference-perf's own TPOT and ITL rest by default. The server's is taken where there is one. When
a request was due is known to the tool, but not written (its summary has the distribution of the delay).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from inferometer.importers import files
from inferometer.importers.rows import (
    Count,
    Row,
    Rows,
    Stream,
    Unreadable,
    chunks,
    last_line,
    ns,
    since,
    status_of,
    whole,
)
from inferometer.importers.tool import Part, Tool


class _Usage(msgspec.Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class _Response(msgspec.Struct):
    output_tokens: Count = 0
    server_usage: _Usage | None = None
    chunk_times: list[float] = []
    output_token_times: list[float] = []


class _Info(msgspec.Struct):
    input_tokens: Count | None = None
    response_metrics: _Response | None = None


class _Error(msgspec.Struct):
    error_type: str = ""
    error_msg: str = ""


class _Record(msgspec.Struct):
    start_time: float
    end_time: float
    info: _Info | None = None
    error: _Error | None = None


def read(path: Path) -> list[Part]:
    """The one benchmark of the file: all its stages."""
    rows = Rows(path.name)
    for place, record in enumerate(files.array(path)):
        rows.read(f"[{place}]", record, _Record, _row)
    return [Part(rows, lacks=frozenset({"channels", "intended"}))]


def _row(r: _Record) -> Row:
    info = r.info or _Info()
    found = info.response_metrics or _Response()
    usage = found.server_usage or _Usage()
    prompt = info.input_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    row = Row(
        Stream(), ns(r.start_time), None, since(r.end_time, r.start_time), prompt_tokens=prompt
    )
    stamps = found.chunk_times or sorted(set(found.output_token_times))
    after = tuple(since(at, r.start_time) for at in stamps)
    if r.error is not None:
        told = f"{r.error.error_type}: {r.error.error_msg}"
        status = status_of(told, began=bool(after))
        return row._replace(stream=chunks(after, 0), status=status, error=last_line(told))
    if info.response_metrics is None:
        raise Unreadable(
            "no response_metrics: report.request_lifecycle.per_request_fields.info is off"
        )
    counted = usage.completion_tokens
    tokens = found.output_tokens if counted is None else counted
    stream = chunks(after, tokens) if after else whole(row.ended_ns, tokens, streamed=False)
    return row._replace(stream=stream, counted_by="tokenizer" if counted is None else "server")


TOOL = Tool(
    "inference-perf",
    "per_request_lifecycle_metrics.json (report.request_lifecycle.per_request: true)",
    ("per_request_lifecycle_metrics.json",),
    lambda head: (
        head.raw.lstrip()[:1] == b"[" and head.has('"start_time"', '"end_time"', '"error"')
    ),
    read,
)
