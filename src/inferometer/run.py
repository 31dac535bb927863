"""A Run: what was asked (plan), what happened when (timeline), under what conditions (manifest); and its directory.

    RUN/manifest.json      conditions; written first with "complete": false, and last with true
    RUN/plan.parquet       the plan's columns
    RUN/timeline.parquet   one row per request, chunks as lists
    RUN/telemetry.parquet  optional: t_ns, source, name, labels, value
    RUN/iterations.parquet optional, of a simulation: one row per iteration and pipeline stage
    RUN/shard-*.parquet    only while running, or after a crash: parts of the timeline

Files appear whole or not at all (written beside, then renamed) and are readable by their owner only.
Secrets never reach this module: whoever fills a manifest passes it through `redact` first, and `write_manifest` does
so once more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
import numpy as np

from inferometer.errors import BrokenRun, UserError
from inferometer.plan import PLAN_COLUMNS, RAGGED, Plan
from inferometer.timeline import (
    CHANNELS,
    CHUNK_COLUMNS,
    ROW_COLUMNS,
    Array,
    Timeline,
    absent,
    concat,
    in_order,
)

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1


class Manifest(msgspec.Struct, kw_only=True):
    """Under what conditions a run was made. Sections are plain data: they are read by people and by the audit.

    `clock`: {"monotonic_ns", "unix_ns"}, the one wall-clock anchor, plus "epoch_ns", the monotonic time of t = 0.
    `instrument`: the instrument's own error (`inferometer.load.instrument`), with "valid" and "invalid_reasons".
    `missing`: what the tool that an imported run comes from did not record, and what stands in its place
    (`metrics.table.NEEDS` has the names, and the metrics that cannot do without).
    """

    schema_version: int = SCHEMA_VERSION
    complete: bool = False
    world: str = "measured"  # measured | simulated | imported
    stopped: str | None = None  # why a run ended before its plan did
    spec: dict[str, Any] = {}
    target: dict[str, Any] = {}
    model: dict[str, Any] = {}
    host: dict[str, Any] = {}
    versions: dict[str, str] = {}
    seeds: dict[str, int] = {}
    workload: dict[str, Any] = {}
    clock: dict[str, int] = {}
    instrument: dict[str, Any] = {}
    missing: dict[str, str] = {}
    notes: list[str] = []


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Everything that metrics, statistics, audit and reports may look at."""

    timeline: Timeline
    manifest: Manifest
    plan: Plan | None = None
    path: Path | None = None
    telemetry: dict[str, Array] = field(default_factory=dict)


def create(path: str | Path) -> Path:
    """Make an empty run directory; refuses one that already holds something."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(
                "the folder is not empty", where=str(folder), remedy="name another with -o"
            )
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write there: {error.strerror}",
            where=str(folder),
            remedy="name another folder with -o",
        ) from None
    return folder


def write_run(run: Run, path: str | Path) -> Path:
    """Write all of `run`; `manifest.complete` is as given."""
    folder = create(path)
    write_manifest(run.manifest, folder, complete=False)
    if run.plan is not None:
        write_plan(run.plan, folder)
    write_timeline(run.timeline, folder / "timeline.parquet")
    if run.telemetry:
        write_telemetry(run.telemetry, folder)
    write_manifest(run.manifest, folder, complete=run.manifest.complete)
    return folder


def load_run(path: str | Path) -> Run:
    """The run in a directory; one that was interrupted comes back with `manifest.complete` false and what is there."""
    folder = Path(path)
    if not (folder / "manifest.json").is_file():
        what = (
            "no such folder"
            if not folder.exists()
            else "not a run directory: it has no manifest.json"
        )
        raise UserError(
            what, where=str(folder), remedy="name a folder that `inferometer measure -o` wrote"
        )
    manifest = read_manifest(folder)
    plan = read_plan(folder) if (folder / "plan.parquet").exists() else None
    return Run(read_parts(folder), manifest, plan, folder, read_telemetry(folder))


def read_parts(folder: Path) -> Timeline:
    """`timeline.parquet`, or else whatever shards there are, in order of intended time."""
    whole = folder / "timeline.parquet"
    if whole.exists():
        return read_timeline(whole)
    return in_order(
        concat([read_timeline(shard) for shard in sorted(folder.glob("shard-*.parquet"))])
    ).check()


def read_manifest(folder: Path) -> Manifest:
    """`manifest.json`; refuses a schema newer than this code."""
    where = str(folder / "manifest.json")
    try:
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BrokenRun(f"{where}: {error}") from None
    if manifest.schema_version > SCHEMA_VERSION:
        raise UserError(
            f"written by a newer Inferometer (schema {manifest.schema_version})",
            where=where,
            remedy="upgrade",
        )
    return manifest


def write_manifest(manifest: Manifest, folder: Path, *, complete: bool) -> None:
    """Write `manifest.json` with the given `complete` flag, redacted."""
    plain = redact(msgspec.to_builtins(manifest) | {"complete": complete})
    write_whole(folder / "manifest.json", msgspec.json.format(msgspec.json.encode(plain), indent=2))


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path` whole or not at all, readable by its owner only."""
    beside = path.with_name(path.name + ".part")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


# --- tables -----------------------------------------------------------------------------------------------------------


def write_timeline(timeline: Timeline, path: Path) -> None:
    """Write the columns of DESIGN 4.1; chunk columns become lists, times are delta-packed (about 4 bytes a token)."""
    write_parts([timeline], path)


def write_parts(parts: Iterable[Timeline], path: Path, *, shared: bool = False) -> None:
    """The same for a timeline that comes in parts, each of which is forgotten once it is written.

    `shared`: many requests have the very same times, as in a simulated batch; then repetition packs better (up to 17
    times smaller) than differences do.
    """
    _write_tables((_table(part) for part in parts), path, () if shared else _TIMES)


def _table(timeline: Timeline) -> pa.Table:
    import pyarrow as pa

    columns = {
        name: _to_arrow(getattr(timeline, name), nullable)
        for name, (_, nullable) in ROW_COLUMNS.items()
    }
    offset, list_array = pa.array(timeline.chunk_offset), pa.LargeListArray
    channel = pa.DictionaryArray.from_arrays(pa.array(timeline.chunk_channel), pa.array(CHANNELS))
    columns["chunk_ns"] = list_array.from_arrays(offset, pa.array(timeline.chunk_ns))
    columns["chunk_tokens"] = list_array.from_arrays(offset, pa.array(timeline.chunk_tokens))
    columns["chunk_channel"] = list_array.from_arrays(offset, channel)
    return pa.table(columns)


def read_timeline(path: Path) -> Timeline:
    """The checked timeline of a Parquet file that `write_timeline`, or anybody with the same columns, wrote."""
    import pyarrow as pa

    table = _read_table(path)
    if "stamped" not in table.column_names:  # older runs: all measured or simulated
        table = table.append_column("stamped", pa.array(["tokens"] * len(table), pa.string()))
    missing = [name for name in (*ROW_COLUMNS, *CHUNK_COLUMNS) if name not in table.column_names]
    if missing:
        raise BrokenRun(f"{path}: no column {missing[0]!r}")
    columns = {
        name: _from_arrow(table.column(name), dtype) for name, (dtype, _) in ROW_COLUMNS.items()
    }
    lists = {name: table.column(name).combine_chunks() for name in CHUNK_COLUMNS}
    ns = lists["chunk_ns"]
    offset = np.asarray(ns.offsets, dtype=np.int64)
    channel = lists["chunk_channel"].flatten()
    channel = channel.cast(pa.string()) if isinstance(channel, pa.DictionaryArray) else channel
    names = channel.dictionary_encode()
    codes = np.array([CHANNELS.index(name) for name in names.dictionary.to_pylist()], dtype=np.int8)
    return Timeline(
        **columns,
        chunk_offset=offset - offset[0],
        chunk_ns=np.asarray(ns.flatten(), dtype=np.int64),
        chunk_tokens=np.asarray(lists["chunk_tokens"].flatten(), dtype=np.int32),
        chunk_channel=codes[np.asarray(names.indices)]
        if len(codes)
        else np.zeros(0, dtype=np.int8),
    ).check()


def write_plan(plan: Plan, folder: Path) -> None:
    """Write `plan.parquet`; what is not a column stands in the file's metadata."""
    import pyarrow as pa

    columns = {
        name: _to_arrow(getattr(plan, name), nullable)
        for name, (_, nullable) in PLAN_COLUMNS.items()
    }
    for offset, values in RAGGED:
        columns[values] = pa.LargeListArray.from_arrays(
            pa.array(getattr(plan, offset)), pa.array(getattr(plan, values))
        )
    rest = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name in _PLAN_SCALARS}
    _write_table(
        pa.table(columns).replace_schema_metadata({"inferometer": msgspec.json.encode(rest)}),
        folder / "plan.parquet",
    )


def read_plan(folder: Path) -> Plan:
    """The checked plan of a run directory."""
    table = _read_table(folder / "plan.parquet")
    columns: dict[str, Any] = {
        name: _from_arrow(table.column(name), dtype) for name, (dtype, _) in PLAN_COLUMNS.items()
    }
    for offset, values in RAGGED:
        lists = table.column(values).combine_chunks()
        columns[offset] = np.asarray(lists.offsets, dtype=np.int64)
        columns[values] = np.asarray(lists.flatten(), dtype=np.int64)
    rest = msgspec.json.decode((table.schema.metadata or {}).get(b"inferometer", b"{}"))
    rest["notes"] = tuple(rest.get("notes", ()))
    return Plan(**columns, **rest).check()


_PLAN_SCALARS = ("block_tokens", "concurrency", "seed", "generator", "replies", "notes")


def write_telemetry(series: Mapping[str, Array], folder: Path) -> None:
    """Write `telemetry.parquet`: equally long columns t_ns, source, name, labels, value."""
    import pyarrow as pa

    _write_table(
        pa.table({name: pa.array(column) for name, column in series.items()}),
        folder / "telemetry.parquet",
    )


def read_telemetry(folder: Path) -> dict[str, Array]:
    """The telemetry columns of a run directory; empty where it has none."""
    path = folder / "telemetry.parquet"
    if not path.exists():
        return {}
    table = _read_table(path)
    return {name: table.column(name).to_numpy() for name in table.column_names}


def _write_table(table: pa.Table, path: Path) -> None:
    _write_tables([table], path)


def _write_tables(tables: Iterable[pa.Table], path: Path, times: Iterable[str] = ()) -> None:
    with _file(path, times) as write:
        for table in tables:
            write(table)


@contextmanager
def columns_file(path: Path) -> Iterator[Callable[[Mapping[str, Array]], None]]:
    """What to call with one part after the other of a table of equally long columns; the file is there at the end."""
    import pyarrow as pa

    with _file(path) as write:
        yield lambda columns: write(
            pa.table({name: pa.array(column) for name, column in columns.items()})
        )


@contextmanager
def _file(path: Path, times: Iterable[str] = ()) -> Iterator[Callable[[pa.Table], None]]:
    """What to call with each part of a Parquet file, which appears when all are written; without parts there is none.

    `times`: the columns that are written as differences.
    """
    import pyarrow.parquet as pq

    beside = path.with_name(path.name + ".part")
    with ExitStack() as open_:
        writers: list[Any] = []

        def write(table: pa.Table) -> None:
            if not writers:
                descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                file = open_.enter_context(os.fdopen(descriptor, "wb"))
                open_.callback(_sync, file)
                options = _packing(table, frozenset(times))
                writers.append(open_.enter_context(pq.ParquetWriter(file, table.schema, **options)))
            writers[0].write_table(table)

        yield write
    if writers:
        beside.replace(path)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


_TIMES = ("chunk_ns.list.element",)
_CHUNKS = ("chunk_ns.list.element", "chunk_tokens.list.element")


def _packing(table: pa.Table, times: frozenset[str]) -> dict[str, Any]:
    """How a table is compressed. Chunk columns have no dictionary and no statistics, which cost more than they give."""
    leaves = _leaves(table)
    return {
        "compression": "zstd",
        "use_dictionary": [leaf for leaf in leaves if leaf not in _CHUNKS],
        "write_statistics": [leaf for leaf in leaves if not leaf.startswith("chunk_")],
        "column_encoding": dict.fromkeys(times, "DELTA_BINARY_PACKED") or None,
    }


def _leaves(table: pa.Table) -> list[str]:
    import pyarrow.types as kinds

    nested = [kinds.is_list(f.type) or kinds.is_large_list(f.type) for f in table.schema]
    return [f.name + ".list.element" * deep for f, deep in zip(table.schema, nested, strict=True)]


def _read_table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BrokenRun(f"{path}: not a readable Parquet file ({error})") from None


def _to_arrow(column: Array, nullable: bool) -> pa.Array:
    import pyarrow as pa

    if column.dtype == object:
        return pa.array(column, type=pa.string())
    return pa.array(column, mask=column == absent(column.dtype) if nullable else None)


def _from_arrow(column: pa.ChunkedArray, dtype: Any) -> Array:
    if dtype is object:
        import pyarrow as pa

        values = column.cast(pa.string()).to_numpy(zero_copy_only=False)
        return np.asarray(values, dtype=object)
    if column.null_count:
        column = column.fill_null(absent(dtype))
    return np.asarray(column.to_numpy(), dtype=dtype)


# --- secrets ----------------------------------------------------------------------------------------------------------

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"auth|cookie|credential|password|passwd|secret|token$|[-_]key$|^key$|api[-_]?key|signature|session[-_]?id$",
    re.IGNORECASE,
)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_URL_QUERY = re.compile(
    r"([?&][^=&\s]*(?:key|token(?!s)|secret|sig|password|auth)[^=&\s]*=)[^&\s\"']+", re.IGNORECASE
)
_BEARER = re.compile(
    r"\b(bearer|basic)\s+[\w.~+/=-]+|\b(?:sk|hf|pk|ghp|xox[a-z])[-_][\w-]{8,}", re.IGNORECASE
)


def redact(value: Any) -> Any:
    """`value` (plain data) without secrets: under a secret-sounding name, in a URL, or shaped like a credential."""
    if isinstance(value, Mapping):
        return {
            key: REDACTED
            if isinstance(inner, str) and _SECRET_NAME.search(str(key))
            else redact(inner)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(inner) for inner in value]
    return redact_text(value) if isinstance(value, str) else value


def redact_text(text: str) -> str:
    """`text` without logins and keys in URLs, and without bearer tokens or known key shapes."""
    text = _URL_LOGIN.sub(REDACTED, text)
    text = _URL_QUERY.sub(rf"\g<1>{REDACTED}", text)
    return _BEARER.sub(REDACTED, text)
