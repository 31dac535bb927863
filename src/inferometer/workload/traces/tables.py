"""Traces that are tables: CSV and Parquet, read in blocks and by column.

A `Layout` says which column plays which role and in what unit; the rest is common. Every cell is read as text and then
converted by column, so that one bad cell costs a second look at its block and not the file. Memory is bounded by the
columns that are returned (16 bytes a row for times and lengths) plus one block.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inferometer.clock import MILLISECOND, SECOND
from inferometer.errors import UserError
from inferometer.timeline import ABSENT, Array, Ints, offsets
from inferometer.workload.sharing import Blocks, chained, cut, grown, inherited, take
from inferometer.workload.traces.lines import is_gzipped, open_text
from inferometer.workload.traces.links import in_turn, number
from inferometer.workload.traces.trace import SHOWN_PROBLEMS, Links, Problems, Trace

_BLOCK_BYTES = 1 << 20  # larger blocks are no faster, and Arrow keeps several in flight


class Layout(NamedTuple):
    """Which column plays which role: role -> (column, kind); kind is count, iso, seconds, milliseconds or text.

    `finish` turns the columns into a trace, where that is more than putting rows in order of time.
    """

    name: str
    columns: dict[str, tuple[str, str]]
    notes: tuple[str, ...] = ()
    finish: Callable[[str, dict[str, Any], Problems], Trace] | None = None


_TIMES_AND_LENGTHS = {
    "arrival_ns": ("TIMESTAMP", "iso"),
    "prompt_tokens": ("ContextTokens", "count"),
    "output_tokens": ("GeneratedTokens", "count"),
}
_NO_IMAGES = (
    "images are out of scope: a request with images is replayed as text of as many context tokens"
)
_PREFILL_AND_DECODE = {
    "prompt_tokens": ("num_prefill_tokens", "count"),
    "output_tokens": ("num_decode_tokens", "count"),
}


def _session_rounds(source: str, columns: dict[str, Any], problems: Problems) -> Trace:
    """Rounds of sessions: the arrival is the session's, later rounds wait for the tools of the round before."""
    order = np.lexsort((columns["round"], columns["arrival_ns"]))
    order = order[np.argsort(number(columns["session"][order].tolist()), kind="stable")]
    columns = {role: column[order] for role, column in columns.items()}
    session = number(columns["session"].tolist())
    pause = np.roll(columns["wait_ns"], 1)
    links = in_turn(session, pause)
    prompt = (columns["prefix"].astype(np.int64) + columns["new"]).astype(np.int32)
    first = np.diff(links.offset) == 0
    arrival = columns["arrival_ns"] - columns["arrival_ns"].min(initial=2**62)
    return Trace(
        "tracelab-sessions",
        source,
        prompt_tokens=prompt,
        output_tokens=columns["output_tokens"],
        arrival_ns=np.where(first, arrival, ABSENT),
        session=session,
        links=links,
        blocks=grown(session, prompt, columns["prefix"], SESSION_BLOCK),
        app="agent",
        problems=problems,
    )


SESSION_BLOCK = 64

# The most specific layout first: a file is read by the first whose columns it has.
LAYOUTS = (
    Layout("azure-lmm", {**_TIMES_AND_LENGTHS, "_images": ("NumImages", "count")}, (_NO_IMAGES,)),
    Layout(
        "tracelab-sessions",
        {
            "session": ("session_id", "text"),
            "arrival_ns": ("arrival_time", "milliseconds"),
            "round": ("round_idx", "count"),
            "prefix": ("prefix_len", "count"),
            "new": ("input_len", "count"),
            "output_tokens": ("output_len", "count"),
            "wait_ns": ("tool_wait_after_ms", "milliseconds"),
        },
        finish=_session_rounds,
    ),
    Layout("azure", _TIMES_AND_LENGTHS),
    Layout(
        "burstgpt",
        {
            "arrival_ns": ("Timestamp", "seconds"),
            "prompt_tokens": ("Request tokens", "count"),
            "output_tokens": ("Response tokens", "count"),
        },
    ),
    Layout("vidur", {"arrival_ns": ("arrived_at", "seconds"), **_PREFILL_AND_DECODE}),
    Layout("etalon", _PREFILL_AND_DECODE),
    Layout(
        "splitwise",
        {
            "arrival_ns": ("arrival_timestamp", "seconds"),
            "prompt_tokens": ("prompt_size", "count"),
            "output_tokens": ("token_size", "count"),
        },
    ),
    Layout(
        "inferometer",
        {
            "arrival_ns": ("arrival_s", "seconds"),
            "prompt_tokens": ("prompt_tokens", "count"),
            "output_tokens": ("output_tokens", "count"),
        },
    ),
)


class _Failure(NamedTuple):
    row: int  # among the rows that had the right number of cells
    what: str


class Header(NamedTuple):
    """The first line of a CSV: the names in it, without blanks and quotes, and what stands between them."""

    names: tuple[str, ...]
    delimiter: str


def header_of(text: str) -> Header:
    """The header of a CSV that begins with `text`; the delimiter is the one that makes most names."""
    line = text.removeprefix("\ufeff").partition("\n")[0]
    delimiter = max(",;\t|", key=line.count)
    names = (cell.strip().strip('"').strip() for cell in line.split(delimiter))
    return Header(tuple(names), delimiter)


def read_table(path: Path, layout: Layout) -> Trace:
    """The trace in a CSV file (plain or gzipped) of a known layout."""
    parts: dict[str, list[Array]] = {role: [] for role in layout.columns}
    problems = Problems()
    for columns, told in _columns(path, layout):
        for role, column in columns.items():
            parts[role].append(column)
        problems = problems.and_then(told)
    columns = {
        role: np.concatenate(parts.pop(role)) if parts[role] else np.zeros(0)
        for role in layout.columns
    }
    return (layout.finish or partial(_by_time, layout))(path.name, columns, problems)


def table_batches(path: Path, layout: Layout) -> Iterator[Trace]:
    """The same in batches, in the order of the file; times count from the first row."""
    base: int | None = None
    for columns, problems in _columns(path, layout):
        kept: dict[str, Any] = {
            role: column for role, column in columns.items() if not role.startswith("_")
        }
        times = kept.get("arrival_ns")
        if times is not None and len(times):
            base = int(times[0]) if base is None else base
            kept["arrival_ns"] = times - base
        yield Trace(layout.name, path.name, **kept, problems=problems, notes=layout.notes)


def _columns(path: Path, layout: Layout) -> Iterator[tuple[dict[str, Array], Problems]]:
    """The good rows of each block by role, and what was wrong with the others."""
    seen = 0
    ragged: list[_Ragged] = []
    told = 0  # of the ragged
    for block in _blocks(path, layout, ragged):
        columns, good, failures = _convert(block, layout)
        lines = [_line(seen + failure.row, ragged) for failure in failures[:SHOWN_PROBLEMS]]
        first = [(line, failure.what) for line, failure in zip(lines, failures, strict=False)]
        fresh = ragged[told:]
        first += [(row.line, f"{row.have} cells, not {row.want}") for row in fresh[:SHOWN_PROBLEMS]]
        shown = tuple(f"{path.name}:{line}: {what}" for line, what in sorted(first))
        problems = Problems(len(failures) + len(fresh), shown[:SHOWN_PROBLEMS])
        seen, told = seen + len(good), len(ragged)
        yield {role: column[good] for role, column in columns.items()}, problems


class _Ragged(NamedTuple):
    line: int
    have: int
    want: int


def _line(row: int, ragged: list[_Ragged]) -> int:
    """The line of a row that has the right number of cells; the header is line 1.

    `ragged` holds at least all rows above it that have not.
    """
    whole_above = [each.line - 2 - place for place, each in enumerate(ragged)]
    return row + 2 + bisect_right(whole_above, row)


def _blocks(path: Path, layout: Layout, ragged: list[_Ragged]) -> Iterator[Any]:
    """Record batches of the layout's columns, as bytes; rows with a wrong number of cells go to `ragged`."""
    import pyarrow as pa
    from pyarrow import csv

    def note(row: Any) -> str:
        ragged.append(_Ragged(row.number, row.actual_columns, row.expected_columns))
        return "skip"

    with open_text(path) as file:
        header = header_of(file.readline(1 << 20).decode("utf-8-sig", errors="replace"))
    wanted = {column for column, _ in layout.columns.values()}
    if not wanted <= set(header.names):
        missing = sorted(wanted - set(header.names))[0]
        raise UserError(f"the format {layout.name} needs a column {missing!r}", where=str(path))
    # A column that is there twice counts once; a header's spelling is ours to read, so it is skipped.
    names = [
        name if name in wanted and name not in header.names[:place] else f"column {place}"
        for place, name in enumerate(header.names)
    ]
    packed = "gzip" if is_gzipped(path) else None
    with pa.input_stream(str(path), compression=packed) as stream:
        try:
            yield from csv.open_csv(
                stream,
                csv.ReadOptions(
                    use_threads=False, block_size=_BLOCK_BYTES, column_names=names, skip_rows=1
                ),
                csv.ParseOptions(
                    delimiter=header.delimiter,
                    invalid_row_handler=note,
                    ignore_empty_lines=False,
                ),
                csv.ConvertOptions(
                    column_types=dict.fromkeys(wanted, pa.binary()),
                    include_columns=list(wanted),
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV file" not in str(error):  # a header alone
                raise UserError(f"not a readable CSV table: {error}", where=str(path)) from None


def _convert(block: Any, layout: Layout) -> tuple[dict[str, Array], Array, list[_Failure]]:
    """Columns [B], which rows are good [B], and what is wrong with those that are neither good nor blank."""
    cells = [_decoded(block.column(column)) for column, _ in layout.columns.values()]
    blank = np.logical_and.reduce([np.asarray(cell.is_null()) for cell in cells])
    good, columns, failures = ~blank, {}, {}
    for (role, (column, kind)), cell in zip(layout.columns.items(), cells, strict=True):
        columns[role], fine = _KINDS[kind](cell)
        for row in np.flatnonzero(~fine & good).tolist():
            failures[row] = f"{column} is {_shown(cell[row].as_py())}, not {_MEANING[kind]}"
        good = good & fine
    return columns, good, [_Failure(row, failures[row]) for row in sorted(failures)]


def _counts(cell: Any) -> tuple[Array, Array]:
    values, fine = _floats(cell)
    with np.errstate(invalid="ignore"):
        fine = fine & (values >= 0) & (values < 2**31) & (values == np.floor(values))
    return np.where(fine, values, 0).astype(np.int32), fine


def _seconds(cell: Any) -> tuple[Array, Array]:
    values, fine = _floats(cell)
    fine = fine & (np.abs(values) < 2**33)
    return np.rint(np.where(fine, values, 0.0) * SECOND).astype(np.int64), fine


def _milliseconds(cell: Any) -> tuple[Array, Array]:
    values, fine = _floats(cell)
    fine = fine & (np.abs(values) < 2**43)
    return np.rint(np.where(fine, values, 0.0) * MILLISECOND).astype(np.int64), fine


def _decoded(cell: Any) -> Any:
    """Bytes as text without blanks around it; what is not UTF-8 becomes text that no reader takes for a value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        text = pc.cast(cell, pa.string())
    except pa.ArrowInvalid:
        each = [None if x is None else x.decode(errors="replace") for x in cell.to_pylist()]
        text = pa.array(each, pa.string())
    return pc.ascii_trim_whitespace(text)


def _floats(cell: Any) -> tuple[Array, Array]:
    """Numbers, and where they are finite ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = np.asarray(pc.fill_null(_cast(cell, pa.float64()), float("nan")))
    return plain, np.isfinite(plain)


def _stamps(cell: Any) -> tuple[Array, Array]:
    """ISO 8601 stamps as ns since 1970; without a zone they are taken as UTC. Any number of fractional digits up to 9."""
    import pyarrow as pa
    import pyarrow.compute as pc

    plain, zoned = pa.timestamp("ns"), pa.timestamp("ns", "UTC")
    has_zone = pc.fill_null(pc.match_substring_regex(cell, _ZONE), False)
    some = np.asarray(has_zone)
    ns, valid = np.zeros(len(cell), dtype=np.int64), np.zeros(len(cell), dtype=bool)
    for mine, kind in ((some, zoned), (~some, plain)):
        if mine.any():
            values = _cast(cell if mine.all() else cell.filter(pa.array(mine)), kind)
            ns[mine] = np.asarray(pc.fill_null(values.cast(pa.int64()), 0))
            valid[mine] = np.asarray(values.is_valid())
    return ns, valid


_ZONE = r":\d\d[.\d]*\s?(Z|[+-]\d\d(:?\d\d)?)$"


def _cast(cell: Any, kind: Any) -> Any:
    """`cell` as another type, null where that cannot be: a bad cell is looked for by halves."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.cast(cell, kind)
    except pa.ArrowInvalid:
        if len(cell) == 1:
            return pa.nulls(1, kind)
    except pa.ArrowNotImplementedError:
        return pa.nulls(len(cell), kind)
    half = len(cell) // 2
    return pa.concat_arrays([_cast(cell[:half], kind), _cast(cell[half:], kind)])


def _texts(cell: Any) -> tuple[Array, Array]:
    packed = cell.dictionary_encode()
    names = np.array([*packed.dictionary.to_pylist(), None], dtype=object)
    return names[np.asarray(packed.indices.fill_null(len(names) - 1))], np.ones(len(cell), bool)


_KINDS = {
    "count": _counts,
    "seconds": _seconds,
    "milliseconds": _milliseconds,
    "iso": _stamps,
    "text": _texts,
}
_MEANING = {
    "count": "a whole number",
    "seconds": "a number of seconds",
    "milliseconds": "a number of milliseconds",
    "iso": "a time",
}


def _shown(cell: str | None) -> str:
    return "empty" if cell is None else repr(cell[:40])


def _by_time(layout: Layout, source: str, columns: dict[str, Any], problems: Problems) -> Trace:
    notes = list(layout.notes)
    columns = {role: column for role, column in columns.items() if not role.startswith("_")}
    times = columns.get("arrival_ns")
    if times is not None and len(times):
        if np.any(times[1:] < times[:-1]):
            order = np.argsort(times, kind="stable")
            columns = {role: column[order] for role, column in columns.items()}
            notes.append("the rows were not in order of time; they have been sorted")
        columns["arrival_ns"] -= columns["arrival_ns"][0]
    return Trace(layout.name, source, **columns, problems=problems, notes=tuple(notes))


# --- Parquet ----------------------------------------------------------------------------------------------------------


def read_parquet(path: Path) -> Trace:
    """Parquet with our columns, or those of the kv-cache-tester sessions as one table.

    Ours: `prompt_tokens`, `output_tokens`, and where there are such: `arrival_s` (or `intended_ns`, of a run's own
    timeline or plan), `session_id`, `hash_ids` (or `block_id`) with the block size in the column's or the file's
    metadata as "block_tokens" (512 without).
    """
    file = _opened(path)
    names = set(file.schema_arrow.names)
    if names >= _AGENT_COLUMNS:
        return _sessions_table(path, file.read())
    trace = _our_table(path, file.read(columns=_wanted(path, names)), file.schema_arrow.metadata)
    if trace.arrival_ns is None or not len(trace):
        return trace
    ordered = trace.in_order()
    assert ordered.arrival_ns is not None
    return replace(ordered, arrival_ns=ordered.arrival_ns - ordered.arrival_ns[0])


def parquet_batches(path: Path) -> Iterator[Trace]:
    """The same in batches, in the order of the file; times count from the first row. With sessions or blocks, whole."""
    file = _opened(path)
    names = set(file.schema_arrow.names)
    if names >= _AGENT_COLUMNS or names & {*_IDS, "session_id"}:
        yield read_parquet(path)
        return
    base: int | None = None
    row = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=_wanted(path, names)):
        import pyarrow as pa

        trace = _our_table(path, pa.Table.from_batches([batch]), None, above=row)
        row += batch.num_rows
        if trace.arrival_ns is not None and len(trace):
            base = int(trace.arrival_ns[0]) if base is None else base
            trace = replace(trace, arrival_ns=trace.arrival_ns - base)
        yield trace


_AGENT_COLUMNS = {"req_idx", "n_blocks", "shared_blocks", "parent_req_idx", "think_time_s"}
_LENGTHS = ("prompt_tokens", "output_tokens")
_TIMES = ("arrival_s", "intended_ns")
_IDS = ("hash_ids", "block_id")
_BATCH_ROWS = 1 << 17


def _opened(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"not a readable Parquet file: {error}", where=str(path)) from None


def _wanted(path: Path, names: set[str]) -> list[str]:
    if not names >= set(_LENGTHS):
        raise UserError("no columns prompt_tokens and output_tokens", where=str(path))
    return [name for name in (*_LENGTHS, *_TIMES, *_IDS, "session_id") if name in names]


def _our_table(
    path: Path, table: Any, metadata: dict[bytes, bytes] | None, *, above: int = 0
) -> Trace:
    """The rows of a table with our columns, in their order; `above`: rows of the file before it."""
    columns: dict[str, Any] = {}
    good = np.ones(table.num_rows, dtype=bool)
    for role in _LENGTHS:
        columns[role], fine = _counts(table.column(role).combine_chunks())
        good &= fine
    time = next((name for name in _TIMES if name in table.column_names), None)
    if time is not None:
        read = _seconds if time == "arrival_s" else _nanoseconds
        columns["arrival_ns"], fine = read(table.column(time).combine_chunks())
        good &= fine
    if "session_id" in table.column_names:
        columns["session"] = _session_numbers(table.column("session_id").to_pylist())
    blocks, fine = _list_blocks(table, metadata or {}, columns["prompt_tokens"])
    good &= fine
    bad = np.flatnonzero(~good)
    first = tuple(
        f"{path.name}: row {above + row + 1}: a value is missing or out of range"
        for row in bad[:SHOWN_PROBLEMS]
    )
    kept = np.flatnonzero(good)
    return Trace(
        "parquet",
        path.name,
        **{role: column[good] for role, column in columns.items()},
        blocks=None
        if blocks is None
        else cut(chained(take(blocks, kept)), columns["prompt_tokens"][good]),
        problems=Problems(len(bad), first),
    )


def _nanoseconds(cell: Any) -> tuple[Array, Array]:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = _cast(cell, pa.int64())
    return np.asarray(pc.fill_null(values, 0)).astype(np.int64), np.asarray(values.is_valid())


def _session_numbers(names: list[Any]) -> Ints:
    numbers = number(name for name in names if name is not None)
    out = np.full(len(names), -1, dtype=np.int64)
    out[[name is not None for name in names]] = numbers
    return out


def _list_blocks(
    table: Any, metadata: dict[bytes, bytes], prompt: Any
) -> tuple[Blocks | None, Array]:
    """The blocks of all rows, if there are any, and which rows [R] have no hole in theirs."""
    fine = np.ones(len(prompt), dtype=bool)
    name = next((name for name in _IDS if name in table.column_names), None)
    if name is None:
        return None, fine
    lists = table.column(name).combine_chunks()
    flat = lists.flatten()
    if not len(flat):
        return None, fine
    edges: Ints = np.asarray(lists.offsets).astype(np.int64)
    counts = edges[1:] - edges[:-1]
    holes = np.asarray(flat.is_null())
    np.logical_and.at(fine, np.repeat(np.arange(len(counts)), counts)[holes], False)
    facts = {**metadata, **(table.schema.field(name).metadata or {})}
    scalars = msgspec.json.decode(facts.get(b"inferometer", b"{}"))
    tokens = int(facts.get(b"block_tokens", scalars.get("block_tokens", 512)))
    # Hashes of 64 bits, of whatever type, become small numbers.
    _, dense = np.unique(np.asarray(flat.fill_null(0)), return_inverse=True)
    return Blocks(offsets(counts), dense.reshape(-1).astype(np.int64), tokens), fine


AGENT_BLOCK = 1024


def _sessions_table(path: Path, table: Any) -> Trace:
    """kv-cache-tester sessions as one table: the call that a prompt begins like, and by how many 64-token blocks."""
    columns = {name: table.column(name) for name in table.column_names}
    session = number(columns["session_id"].to_pylist())
    prompt = columns["prompt_tokens"].to_numpy().astype(np.int32)
    first = np.searchsorted(session, session)  # where each row's session begins
    relative = columns["parent_req_idx"].to_numpy().astype(np.int64)
    parent = np.where(relative >= 0, first + relative, -1)
    kept = columns["shared_blocks"].to_numpy().astype(np.int64)
    whole = (parent >= 0) & (kept >= columns["n_blocks"].to_numpy()[parent] - 1)
    total = -(-prompt.astype(np.int64) // AGENT_BLOCK)
    # A prompt that goes on where the other ended goes on in its last, cut block, too.
    have = np.where(whole, total[parent], kept * 64 // AGENT_BLOCK)
    have = np.where(parent >= 0, np.minimum(have, np.minimum(total, total[parent])), 0)
    pause = columns["think_time_s"].fill_null(0.0).to_numpy()
    counts = (parent >= 0).astype(np.int64)
    links = Links(
        offsets(counts), parent[parent >= 0], np.rint(pause * SECOND).astype(np.int64) * counts
    )
    return Trace(
        "kv-cache-tester",
        path.name,
        prompt_tokens=prompt,
        output_tokens=columns["output_tokens"].fill_null(0).to_numpy().astype(np.int32),
        session=session,
        links=links,
        blocks=Blocks(offsets(total), inherited(parent, have, total), AGENT_BLOCK),
        app="agent",
        notes=(
            "each session has a clock of its own: they start when the plan's arrivals say so",
            "sub-agents are told apart, but not what they waited for",
        ),
    )
