"""Files as other tools write them: JSON documents, JSON Lines, CSV; what cannot be read at all is one clear line.

Python's JSON, because that is what wrote most of these files: NaN and Infinity are in them, and are no numbers here.
"""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inferometer.errors import UserError
from inferometer.importers.rows import Rows
from inferometer.workload.traces.lines import open_text

HEAD_BYTES = 1 << 16


class Head(NamedTuple):
    """How a file begins: enough to know whose it is."""

    name: str
    raw: bytes

    def has(self, *marks: str) -> bool:
        """Whether all of these stand in it."""
        return all(mark.encode() in self.raw for mark in marks)

    @property
    def header(self) -> frozenset[str]:
        """The cells of its first line, as of a CSV table."""
        line = self.raw.decode("utf-8-sig", errors="replace").partition("\n")[0]
        return frozenset(cell.strip().strip('"') for cell in line.split(","))


def head_of(path: Path) -> Head:
    """The beginning of a file, gunzipped; UserError where it cannot be read."""
    try:
        with open_text(path) as file:
            return Head(path.name, file.read(HEAD_BYTES))
    except (OSError, EOFError, zlib.error) as error:
        raise _unread(path, error) from None


def document(path: Path) -> dict[str, Any]:
    """The JSON object that a file is."""
    found = _whole(path)
    if not isinstance(found, dict):
        raise UserError("not a JSON object", where=str(path))
    return found


def array(path: Path) -> list[Any]:
    """The JSON array that a file is."""
    found = _whole(path)
    if not isinstance(found, list):
        raise UserError("not a JSON array", where=str(path))
    return found


def lines(path: Path, rows: Rows) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, each with its line number; lines that are none are problems of `rows`."""
    for number, line in enumerate(_bytes(path).split(b"\n"), start=1):
        if line.strip():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                rows.refuse(str(number), f"not JSON: {error}")
                continue
            if isinstance(found, dict):
                yield str(number), found
            else:
                rows.refuse(str(number), "not a JSON object")


def cells(path: Path, rows: Rows) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file by column, each with its line number; empty cells are left out."""
    try:
        text = _bytes(path).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        while (row := _next(reader, rows)) is not None:
            if None in row or None in row.values():
                rows.refuse(
                    str(reader.line_num), "the number of its cells is not that of the header"
                )
            else:
                yield str(reader.line_num), {name: cell for name, cell in row.items() if cell}
    except UnicodeDecodeError:
        raise UserError("not text in UTF-8", where=str(path)) from None


def _next(reader: csv.DictReader[str], rows: Rows) -> dict[Any, Any] | None:
    while True:
        try:
            return next(reader, None)
        except csv.Error as error:
            rows.refuse(str(reader.line_num), str(error))


def columns(
    path: Path,
    found: dict[str, Any],
    needed: Sequence[str],
    optional: Sequence[str] = (),
    *,
    remedy: str,
) -> list[dict[str, Any]]:
    """The records of a document that holds them as parallel arrays; UserError where one is missing, or uneven."""
    lists = {
        name: found[name] for name in (*needed, *optional) if isinstance(found.get(name), list)
    }
    for name in needed:
        if name not in lists:
            raise UserError(f"no list {name!r}", where=str(path), remedy=remedy)
    sizes = {len(values) for values in lists.values()}
    if len(sizes) != 1:
        told = ", ".join(f"{name} has {len(values)}" for name, values in lists.items())
        raise UserError(f"its lists are not equally long: {told}", where=str(path))
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def word(found: dict[str, Any], *path: str) -> str | None:
    """The string under a path of keys; None where there is none."""
    value: Any = found
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def picked(found: Any, *names: str) -> dict[str, Any]:
    """Those of `names` that an object has, as plain scalars: a tool's settings."""
    if not isinstance(found, dict):
        return {}
    kinds = (str, int, float, bool)
    return {name: found[name] for name in names if isinstance(found.get(name), kinds)}


def _whole(path: Path) -> Any:
    try:
        return json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}", where=str(path)) from None


def _bytes(path: Path) -> bytes:
    try:
        with open_text(path) as file:
            return bytes(file.read())
    except (OSError, EOFError, zlib.error) as error:
        raise _unread(path, error) from None


def _unread(path: Path, error: Exception) -> UserError:
    what = getattr(error, "strerror", None) or error
    return UserError(f"cannot read: {what}", where=str(path))


def wrong(path: Path, what: str, remedy: str) -> UserError:
    """The error of a file that is of the tool, but not the one that holds its requests."""
    return UserError(f"this is {what}, not its requests", where=str(path), remedy=remedy)
