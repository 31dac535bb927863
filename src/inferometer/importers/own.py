"""Our own columns, as CSV or Parquet: for results of a tool that has no reader here (and `timeline.parquet` itself).

One row per request; `output_tokens` and a time after the send are needed, all else is optional. A time is a column in
ns (`sent_ns`) or in s (`sent_s`), on one clock for all rows; in a file without `sent`, times count from each request's
own send. Lists (`chunk_ns`, `chunk_tokens`) are lists in Parquet, and numbers with spaces between them in CSV. Without
`chunk_*`, `first_token` and `last_token` are what is known of the stream. `docs/importing.md` has the whole table.
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
    Unreadable,
    chunks,
    each,
    ends,
    first,
    ns,
    whole,
)
from inferometer.importers.tool import Part, Tool
from inferometer.timeline import CHANNELS, PHASES, STATUSES, TOKEN_SOURCES

_TIMES = ("intended", "sent", "first_byte", "first_token", "last_token", "ended", "scheduled")
_LISTS = ("chunk_ns", "chunk_s", "chunk_tokens", "chunk_channel")
_AFTER = {
    f"{name}_{unit}"
    for name in ("first_token", "last_token", "ended", "chunk")
    for unit in ("s", "ns")
}


class _Record(msgspec.Struct):
    output_tokens: Count
    times: dict[str, int]
    chunk_ns: list[int] | None = None
    chunk_s: list[float] | None = None
    chunk_tokens: list[Count] | None = None
    chunk_channel: list[str] | None = None
    prompt_tokens: Count | None = None
    cached_tokens: Count | None = None
    http_status: Count | None = None
    turn: Count | None = None
    request_id: str | None = None
    session_id: str | None = None
    app: str | None = None
    status: str | None = None
    error: str | None = None
    token_source: str | None = None
    finish_reason: str | None = None
    phase: str | None = None
    stamped: str | None = None


def read(path: Path) -> list[Part]:
    """The one benchmark of the file."""
    rows = Rows(path.name)
    table = (
        _parquet(path)
        if files.head_of(path).raw.startswith(b"PAR1")
        else list(files.cells(path, rows))
    )
    known = {name for _, cells in table for name in cells}
    if table and "output_tokens" not in known:
        raise UserError(
            "no column 'output_tokens'", where=str(path), remedy="docs/importing.md has the columns"
        )
    if known & {"intended_s", "intended_ns"} and not known & {"sent_s", "sent_ns"}:
        remedy = "write the same times, if nothing can be late"
        raise UserError("it has intended times, but no sent ones", where=str(path), remedy=remedy)
    for place, cells in table:
        rows.read(place, cells, dict, lambda found: _row(_record(found)))
    failed = any(row.status != "ok" for row in rows.rows) or "status" in known
    lacks = {"channels"} - ({"channels"} if "chunk_channel" in known else set())
    return [Part(rows, lacks=frozenset(lacks | (set() if failed else {"failures"})))]


def _parquet(path: Path) -> list[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"not a readable Parquet table: {error}", where=str(path)) from None
    return [
        (f"row {number}", {name: cell for name, cell in cells.items() if cell is not None})
        for number, cells in enumerate(found, start=1)
    ]


def _record(cells: dict[str, Any]) -> _Record:
    out = dict(cells)
    for name in _LISTS:
        if isinstance(out.get(name), str):
            out[name] = out[name].split()
    return msgspec.convert(out | {"times": _times(cells)}, _Record, strict=False)


def _times(cells: dict[str, Any]) -> dict[str, int]:
    out = {}
    for name in _TIMES:
        if f"{name}_ns" in cells:
            out[name] = msgspec.convert(cells[f"{name}_ns"], int, strict=False)
        elif f"{name}_s" in cells:
            out[name] = ns(msgspec.convert(cells[f"{name}_s"], float, strict=False))
    return out


def _row(r: _Record) -> Row:
    at = dict(r.times)
    status = r.status or "ok"
    sent = at.get("sent", at.get("intended") if status == "dropped" else None)
    zero = sent or 0
    if sent is None and "intended" in at:
        raise Unreadable("it has an intended time, but no sent one")
    ended = at["ended"] - zero if "ended" in at else None
    return Row(
        _stream(r, zero, ended),
        sent,
        at.get("intended"),
        ended,
        at["scheduled"] - at.get("intended", zero) if "scheduled" in at else None,
        prompt_tokens=r.prompt_tokens,
        counted_by=_one_of(r.token_source or "unknown", TOKEN_SOURCES, "token_source"),
        status=_one_of(status, STATUSES, "status"),
        error=r.error,
        http_status=r.http_status,
        request_id=r.request_id,
        session_id=r.session_id,
        turn=r.turn or 0,
        app=r.app or "chat",
        cached_tokens=r.cached_tokens,
        finish_reason=r.finish_reason,
        phase=_one_of(r.phase or "measure", PHASES, "phase"),
        first_byte_ns=at["first_byte"] - zero if "first_byte" in at else None,
    )


def _stream(r: _Record, zero: int, ended: int | None) -> Stream:
    listed = (
        r.chunk_ns
        if r.chunk_ns is not None
        else None
        if r.chunk_s is None
        else [*map(ns, r.chunk_s)]
    )
    if listed is not None and (listed or not r.output_tokens):
        return _listed(r, tuple(at - zero for at in listed))
    begin, last = (
        r.times[name] - zero if name in r.times else None for name in ("first_token", "last_token")
    )
    if begin is not None and last is not None:
        return ends(begin, last, r.output_tokens)
    if begin is not None and ended is not None:
        return first(begin, ended, r.output_tokens)
    if r.output_tokens and ended is None:
        raise Unreadable("tokens came, but no time says when: first_token and last_token, or ended")
    return whole(ended, r.output_tokens)


def _listed(r: _Record, after: tuple[int, ...]) -> Stream:
    if r.chunk_tokens is None:
        return chunks(after, r.output_tokens)
    if len(r.chunk_tokens) != len(after) or sum(r.chunk_tokens) != r.output_tokens:
        raise Unreadable("chunk_tokens are not one per chunk, or do not add up to output_tokens")
    channel = tuple(
        CHANNELS.index(_one_of(name, CHANNELS, "chunk_channel")) for name in r.chunk_channel or ()
    )
    if channel and len(channel) != len(after):
        raise Unreadable("chunk_channel is not one per chunk")
    stream = each(after, r.chunk_tokens)._replace(channel=channel)
    return stream if r.stamped is None else stream._replace(stamped=r.stamped)


def _one_of(value: str, allowed: tuple[str, ...], what: str) -> str:
    if value not in allowed:
        raise Unreadable(f"{what} is {value!r}, not one of {', '.join(allowed)}")
    return value


def _detects(head: files.Head) -> bool:
    parquet = head.raw.startswith(b"PAR1")
    return parquet or ("output_tokens" in head.header and bool(_AFTER & head.header))


TOOL = Tool("own", "CSV or Parquet with our own columns", (), _detects, read)
