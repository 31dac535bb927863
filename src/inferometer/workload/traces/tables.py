"""Traces that are tables: CSV and Parquet, read in blocks and by column.

A `Layout` says which column plays which role and in what unit; the rest is common. Every cell is read as text and then
converted by column, so that one bad cell costs a second look at its block and not the file. Memory is bounded by the
columns that are returned (16 bytes a row for times and lengths) plus one block.
"""

from __future__ import annotations

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
from inferometer.workload.traces.links import in_turn, number
from inferometer.workload.traces.trace import SHOWN_PROBLEMS, Links, Problems, Trace

_BLOCK_BYTES = 8 << 20


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


def read_table(path: Path, layout: Layout) -> Trace:
    """The trace in a CSV file (plain or gzipped) of a known layout."""
    parts: dict[str, list[Array]] = {role: [] for role in layout.columns}
    failures: list[_Failure] = []
    failed = seen = 0
    ragged: list[Any] = []
    for block in _blocks(path, layout, ragged):
        columns, good, what = _convert(block, layout)
        for role, column in columns.items():
            parts[role].append(column[good])
        failures += (
            _Failure(seen + row, text) for row, text in what[: SHOWN_PROBLEMS - len(failures)]
        )
        failed += len(what)
        seen += len(good)
    columns = {
        role: np.concatenate(parts.pop(role)) if parts[role] else np.zeros(0)
        for role in layout.columns
    }
    problems = _problems(path, failures, failed, ragged)
    return (layout.finish or partial(_by_time, layout))(path.name, columns, problems)


def _blocks(path: Path, layout: Layout, ragged: list[Any]) -> Iterator[Any]:
    """Record batches of text columns; rows with a wrong number of cells go to `ragged`."""
    import pyarrow as pa
    from pyarrow import csv

    def note(row: Any) -> str:
        ragged.append((row.number, row.actual_columns, row.expected_columns))
        return "skip"

    wanted = [column for column, _ in layout.columns.values()]
    with pa.input_stream(str(path), compression="detect") as stream:
        try:
            yield from csv.open_csv(
                stream,
                csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
                csv.ParseOptions(invalid_row_handler=note, ignore_empty_lines=False),
                csv.ConvertOptions(
                    column_types=dict.fromkeys(wanted, pa.string()),
                    include_columns=wanted,
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise UserError(f"not a readable CSV table: {error}", where=str(path)) from None


def _convert(block: Any, layout: Layout) -> tuple[dict[str, Array], Array, list[_Failure]]:
    """Columns [B], which rows are good [B], and what is wrong with those that are neither good nor blank."""
    cells = [block.column(column) for column, _ in layout.columns.values()]
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


def _floats(cell: Any) -> tuple[Array, Array]:
    """Numbers and where they are finite; cells that are none cost a look at each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        values = pc.cast(cell, pa.float64())
    except pa.ArrowInvalid:
        values = pa.array([_number(text) for text in cell.to_pylist()], pa.float64())
    plain = np.asarray(pc.fill_null(values, float("nan")))
    return plain, np.isfinite(plain)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _stamps(cell: Any) -> tuple[Array, Array]:
    """ISO 8601 stamps as ns since 1970; without a zone they are taken as UTC. Any number of fractional digits up to 9."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for unit in (pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        try:
            values = pc.cast(cell, unit)
        except pa.ArrowInvalid:
            continue
        return np.asarray(pc.fill_null(values.cast(pa.int64()), 0)), np.asarray(values.is_valid())
    each = [_stamp(text) for text in cell.to_pylist()]  # zones in some rows only, or bad cells
    return np.array([ns or 0 for ns in each], np.int64), np.array([ns is not None for ns in each])


def _stamp(text: str | None) -> int | None:
    import pyarrow as pa

    for unit in (pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        try:
            return int(pa.scalar(text, pa.string()).cast(unit).value)
        except (pa.ArrowInvalid, TypeError):
            continue
    return None


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


def _problems(path: Path, failures: list[_Failure], failed: int, ragged: list[Any]) -> Problems:
    """All that went wrong, with line numbers; the header is line 1."""
    ragged_line = np.array([number for number, _, _ in ragged], dtype=np.int64)
    before = ragged_line - np.arange(len(ragged)) - 2  # whole rows that stand above each ragged one
    told = [
        (failure.row + 2 + int(np.searchsorted(before, failure.row, side="right")), failure.what)
        for failure in failures
    ]
    told += [
        (number, f"{have} cells, not {want}") for number, have, want in ragged[:SHOWN_PROBLEMS]
    ]
    first = tuple(f"{path.name}:{line}: {what}" for line, what in sorted(told)[:SHOWN_PROBLEMS])
    return Problems(failed + len(ragged), first)


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
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"not a readable Parquet file: {error}", where=str(path)) from None
    names = set(file.schema_arrow.names)
    if {"req_idx", "n_blocks", "shared_blocks", "parent_req_idx", "think_time_s"} <= names:
        return _sessions_table(path, file.read())
    if not {"prompt_tokens", "output_tokens"} <= names:
        raise UserError("no columns prompt_tokens and output_tokens", where=str(path))
    wanted = [name for name in (*_LENGTHS, *_TIMES, *_IDS, "session_id") if name in names]
    return _our_table(path, file.read(columns=wanted), file.schema_arrow.metadata or {})


_LENGTHS = ("prompt_tokens", "output_tokens")
_TIMES = ("arrival_s", "intended_ns")
_IDS = ("hash_ids", "block_id")


def _our_table(path: Path, table: Any, metadata: dict[bytes, bytes]) -> Trace:
    import pyarrow.compute as pc

    columns: dict[str, Any] = {}
    good = np.ones(table.num_rows, dtype=bool)
    for role in _LENGTHS:
        columns[role], fine = _counts(table.column(role).combine_chunks())
        good &= fine
    if "arrival_s" in table.column_names:
        columns["arrival_ns"], fine = _seconds(table.column("arrival_s").combine_chunks())
        good &= fine
    elif "intended_ns" in table.column_names:
        cell = table.column("intended_ns")
        columns["arrival_ns"] = np.asarray(pc.fill_null(cell, 0)).astype(np.int64)
        good &= np.asarray(cell.is_valid())
    if "session_id" in table.column_names:
        columns["session"] = _session_numbers(table.column("session_id").to_pylist())
    bad = np.flatnonzero(~good)
    first = tuple(
        f"{path.name}: row {row + 1}: a value is missing or out of range"
        for row in bad[:SHOWN_PROBLEMS]
    )
    trace = Trace(
        "parquet",
        path.name,
        **{role: column[good] for role, column in columns.items()},
        blocks=_list_blocks(table, metadata, good, columns["prompt_tokens"]),
        problems=Problems(len(bad), first),
    )
    if trace.arrival_ns is None or not len(trace):
        return trace
    ordered = trace.in_order()
    assert ordered.arrival_ns is not None
    return replace(ordered, arrival_ns=ordered.arrival_ns - ordered.arrival_ns[0])


def _session_numbers(names: list[Any]) -> Ints:
    numbers = number(name for name in names if name is not None)
    out = np.full(len(names), -1, dtype=np.int64)
    out[[name is not None for name in names]] = numbers
    return out


def _list_blocks(
    table: Any, metadata: dict[bytes, bytes], good: Array, prompt: Any
) -> Blocks | None:
    name = next((name for name in _IDS if name in table.column_names), None)
    if name is None:
        return None
    lists = table.column(name).combine_chunks()
    ids = np.asarray(lists.flatten(), dtype=np.int64)
    if not len(ids):
        return None
    counts = np.diff(np.asarray(lists.offsets, dtype=np.int64))
    facts = {**metadata, **(table.schema.field(name).metadata or {})}
    scalars = msgspec.json.decode(facts.get(b"inferometer", b"{}"))
    tokens = int(facts.get(b"block_tokens", scalars.get("block_tokens", 512)))
    _, dense = np.unique(ids, return_inverse=True)  # hashes of 64 bits become small numbers
    kept = take(Blocks(offsets(counts), dense.reshape(-1), tokens), np.flatnonzero(good))
    return cut(chained(kept), prompt[good])


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
