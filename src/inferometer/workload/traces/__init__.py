"""Readers of production traces: many formats, one schema.

`read_trace(path)` looks at the first bytes of the file, picks the reader, and returns a `Trace`. Tables (CSV, Parquet)
are read by column in blocks, so that 27 million rows fit (16 bytes each; `read_batches` holds one block at a time);
records (JSON Lines) one by one; documents (JSON) whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec

from inferometer.errors import UserError
from inferometer.workload.tokenizer import Tokenizer
from inferometer.workload.traces.documents import (
    content_of,
    json_files,
    read_otel,
    read_servegen,
    read_sharegpt,
    read_weka,
)
from inferometer.workload.traces.lines import (
    lines_of,
    open_text,
    read_bailian,
    read_dynamo,
    read_llmservingsim,
    read_mooncake,
    read_tracelab,
)
from inferometer.workload.traces.tables import (
    LAYOUTS,
    header_of,
    parquet_batches,
    read_parquet,
    read_table,
    table_batches,
)
from inferometer.workload.traces.trace import Links, Problems, Trace, tick_of

__all__ = [
    "FORMATS",
    "Links",
    "Problems",
    "Trace",
    "detected",
    "read_batches",
    "read_trace",
    "tick_of",
]

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
# name -> the keys that such a document has, and its reader
_DOCUMENTS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "weka": (("block_size", "requests"), read_weka),
    "otel": (("trace_id", "spans"), read_otel),
    "sharegpt": (("conversations",), read_sharegpt),
}
_READERS: dict[str, Reader] = {
    **_TABLES,
    **{name: reader for name, (_, reader) in (*_RECORDS.items(), *_DOCUMENTS.items())},
    "servegen": read_servegen,
}
_OF_TEXTS = {"otel": read_otel, "sharegpt": read_sharegpt}
_OF_FOLDERS = ("weka", "otel", "servegen")
_IN_BATCHES: dict[str, Callable[[Path], Iterator[Trace]]] = {
    layout.name: partial(table_batches, layout=layout) for layout in LAYOUTS if not layout.finish
} | {"parquet": parquet_batches}
_LOOKED_AT = 20  # lines of a file, or files of a folder, in search of the first good one
FORMATS = tuple(_READERS)
_FORMATS = f"formats: {', '.join(FORMATS)}"


def read_trace(
    path: str | Path,
    format: str | None = None,  # noqa: A002  what a person calls it
    *,
    strict: bool = False,
    tokenizer: Tokenizer | None = None,
) -> Trace:
    """The trace in a file, or in a folder (of sessions, of clients, or a run's); its format is detected unless named.

    Rows that cannot be read are counted in `trace.problems` with their lines; `strict` refuses them. `tokenizer`
    counts the lengths of formats that hold texts (ShareGPT, OpenTelemetry); without one they are estimated.
    """
    file = _of_run(Path(path))
    with _readable(file):
        name = format or _known(file)
        trace = _reader(name, file, tokenizer)(file)
    problems = trace.problems
    if strict and problems.rows:
        raise _refused(problems, file)
    if not len(trace):
        what = f"no readable row; {problems.first[0]}" if problems.rows else "no rows"
        raise UserError(what, where=str(file))
    return trace


def read_batches(
    path: str | Path,
    format: str | None = None,  # noqa: A002
    *,
    strict: bool = False,
) -> Iterator[Trace]:
    """The trace in a table (CSV, Parquet), in batches of some 100,000 rows in the order of the file.

    Times count from the file's first row. Each batch says what was wrong with its own rows. Memory does not grow with
    the file. What is no plain table of single requests (sessions, shared blocks, JSON) comes as one batch, whole.
    """
    file = _of_run(Path(path))
    with _readable(file):
        name = format or _known(file)
        if name not in _IN_BATCHES:
            yield read_trace(file, name, strict=strict)
            return
        for batch in _IN_BATCHES[name](file):
            if strict and batch.problems.rows:
                raise _refused(batch.problems, file)
            yield batch


def detected(path: str | Path) -> str | None:
    """The name of the format that a file or folder has; None where it is none that is known."""
    with _readable(Path(path)):
        return _detect(_of_run(Path(path)))


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        told = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read: {told}", where=str(file)) from None


def _of_run(path: Path) -> Path:
    """The timeline of a run directory; any other path as it is."""
    timeline = path / "timeline.parquet"
    return timeline if timeline.is_file() else path


def _refused(problems: Problems, file: Path) -> UserError:
    return UserError(f"{problems.first[0]} ({problems.rows} such rows)", where=str(file.parent))


def _reader(name: str, file: Path, tokenizer: Tokenizer | None) -> Reader:
    if name not in _READERS:
        raise UserError(f"no trace format {name!r}", where=str(file), remedy=_FORMATS)
    if file.is_dir() and name not in _OF_FOLDERS:
        raise UserError(f"the format {name} is of a file, this is a folder", where=str(file))
    if name in _OF_TEXTS:
        return partial(_OF_TEXTS[name], tokenizer=tokenizer)
    return _READERS[name]


def _known(file: Path) -> str:
    found = _detect(file)
    if found is not None:
        return found
    if file.is_dir():
        what = "no trace in this folder"
    else:
        what = "this is no trace format that I know" if file.stat().st_size else "the file is empty"
    raise UserError(what, where=str(file), remedy=f"name it with --format; {_FORMATS}")


def _detect(file: Path) -> str | None:
    """The format of a file by how it begins, or of a folder by the files in it."""
    if file.is_dir():
        if list(file.glob("chunk-*-trace.csv")):
            return "servegen"
        found = next(filter(None, map(_detect, json_files(file)[:_LOOKED_AT])), None)
        return found if found in _OF_FOLDERS else None
    with open_text(file) as opened:
        head = opened.read(1 << 16)
    if head[:4] == b"PAR1":
        return "parquet"
    text = head.decode("utf-8-sig", errors="replace")
    return _of_table(text, file) or _of_record(file) or _of_document(text, file)


def _of_table(text: str, file: Path) -> str | None:
    header = set(header_of(text).names)
    for layout in LAYOUTS:
        if {column for column, _ in layout.columns.values()} <= header:
            return layout.name
    if file.name.startswith("chunk-") and file.name.endswith("-trace.csv"):
        return "servegen"
    return None


def _of_record(file: Path) -> str | None:
    """By the first record among the first lines that is one of ours: a line before it may be malformed."""
    for _, line in islice(lines_of(file), _LOOKED_AT):
        try:
            record = msgspec.json.decode(line)
        except ValueError:
            continue
        keys = set(record) if isinstance(record, dict) else set()
        found = next((name for name, (needed, _) in _RECORDS.items() if needed <= keys), None)
        if found is not None:
            return found
    return None


def _of_document(text: str, file: Path) -> str | None:
    """By what stands in its beginning; or else, for keys come in any order, by the keys of the whole."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    for name, (keys, _) in _DOCUMENTS.items():
        if all(f'"{key}"' in text for key in keys):
            return name
    try:
        whole = msgspec.json.decode(content_of(file), type=dict[str, msgspec.Raw])
    except ValueError:
        return None
    return next((name for name, (keys, _) in _DOCUMENTS.items() if set(keys) <= set(whole)), None)
