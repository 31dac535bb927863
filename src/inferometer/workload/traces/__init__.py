"""Readers of production traces: many formats, one schema.

`read_trace(path)` looks at the first bytes of the file, picks the reader, and returns a `Trace`. Tables (CSV, Parquet)
are read by column in blocks, so that 27 million rows fit; records (JSON Lines) one by one; documents (JSON) whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from inferometer.errors import UserError
from inferometer.workload.tokenizer import Tokenizer
from inferometer.workload.traces.documents import (
    read_otel,
    read_servegen,
    read_sharegpt,
    read_weka,
)
from inferometer.workload.traces.lines import (
    open_text,
    read_bailian,
    read_dynamo,
    read_llmservingsim,
    read_mooncake,
    read_tracelab,
)
from inferometer.workload.traces.tables import LAYOUTS, read_parquet, read_table
from inferometer.workload.traces.trace import Links, Problems, Trace, tick_of

__all__ = ["FORMATS", "Links", "Problems", "Trace", "read_trace", "tick_of"]

Reader = Callable[[Path], Trace]

_TABLES: dict[str, Reader] = {
    layout.name: partial(read_table, layout=layout) for layout in LAYOUTS
} | {"parquet": read_parquet}
# name -> the keys that the first record of such a file has, and its reader; the most specific first
_RECORDS: dict[str, tuple[set[str], Reader]] = {
    "qwen-bailian": ({"chat_id", "timestamp", "input_length", "output_length"}, read_bailian),
    "mooncake": ({"timestamp", "input_length", "output_length"}, read_mooncake),
    "llmservingsim": ({"input_toks", "output_toks", "arrival_time_ns"}, read_llmservingsim),
    "tracelab": ({"session_id", "round_index", "timing_events"}, read_tracelab),
    "dynamo": ({"timestamp", "event"}, read_dynamo),
}
# name -> what the beginning of such a document holds, and its reader
_DOCUMENTS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "weka": (('"block_size"', '"requests"'), read_weka),
    "otel": (('"trace_id"', '"spans"'), read_otel),
    "sharegpt": (('"conversations"',), read_sharegpt),
}
_READERS: dict[str, Reader] = {
    **_TABLES,
    **{name: reader for name, (_, reader) in (*_RECORDS.items(), *_DOCUMENTS.items())},
    "servegen": read_servegen,
}
_OF_TEXTS = {"otel": read_otel, "sharegpt": read_sharegpt}
FORMATS = tuple(_READERS)


def read_trace(
    path: str | Path,
    format: str | None = None,  # noqa: A002  what a person calls it
    *,
    strict: bool = False,
    tokenizer: Tokenizer | None = None,
) -> Trace:
    """The trace in a file (or a folder of sessions or clients); its format is detected unless named.

    Rows that cannot be read are counted in `trace.problems` with their lines; `strict` refuses them. `tokenizer`
    counts the lengths of formats that hold texts (ShareGPT, OpenTelemetry); without one they are estimated.
    """
    file = Path(path)
    try:
        name = format or _detect(file)
        trace = _reader(name, file, tokenizer)(file)
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror or error}", where=str(file)) from None
    problems = trace.problems
    if strict and problems.rows:
        raise UserError(f"{problems.first[0]} ({problems.rows} such rows)", where=str(file.parent))
    if not len(trace):
        what = f"no readable row; {problems.first[0]}" if problems.rows else "no rows"
        raise UserError(what, where=str(file), remedy=f"formats: {', '.join(FORMATS)}")
    return trace


def _reader(name: str, file: Path, tokenizer: Tokenizer | None) -> Reader:
    if name not in _READERS:
        raise UserError(
            f"no trace format {name!r}", where=str(file), remedy=f"formats: {', '.join(FORMATS)}"
        )
    if name in _OF_TEXTS:
        return partial(_OF_TEXTS[name], tokenizer=tokenizer)
    return _READERS[name]


def _detect(file: Path) -> str:
    """The format of a file by how it begins, or of a folder by the files in it."""
    if file.is_dir():
        if list(file.glob("chunk-*-trace.csv")):
            return "servegen"
        inside = sorted(file.glob("*.json"))
        if not inside:
            raise _unknown(file)
        return _detect(inside[0])
    with open_text(file) as opened:
        head = opened.read(1 << 16)
    if head[:4] == b"PAR1":
        return "parquet"
    text = head.decode("utf-8-sig", errors="replace")
    found = _of_table(text, file) or _of_record(file) or _of_document(text)
    if found is None:
        raise _unknown(file)
    return found


def _of_table(text: str, file: Path) -> str | None:
    header = {cell.strip().strip('"') for cell in text.partition("\n")[0].split(",")}
    for layout in LAYOUTS:
        if {column for column, _ in layout.columns.values()} <= header:
            return layout.name
    if file.name.startswith("chunk-") and file.name.endswith("-trace.csv"):
        return "servegen"
    return None


def _of_record(file: Path) -> str | None:
    with open_text(file) as opened:
        for line in opened:
            if line.strip():
                break
        else:
            return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    keys = set(record) if isinstance(record, dict) else set()
    return next((name for name, (needed, _) in _RECORDS.items() if needed <= keys), None)


def _of_document(text: str) -> str | None:
    if not text.lstrip().startswith(("{", "[")):
        return None
    return next(
        (name for name, (marks, _) in _DOCUMENTS.items() if all(mark in text for mark in marks)),
        None,
    )


def _unknown(file: Path) -> UserError:
    return UserError(
        "this is no trace format that I know",
        where=str(file),
        remedy=f"name it with --format; formats: {', '.join(FORMATS)}",
    )
