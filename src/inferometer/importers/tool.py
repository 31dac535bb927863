"""What an importer is: a tool's name, how its files are known, and how one becomes benchmarks.

`Part` is one benchmark of a file: its requests, and what the tool said of them all. What it did not record is said in
`LACKS`, by the facts of `metrics.table.NEEDS`; a reader names those that its format never has, the rest is seen in the
rows themselves (`Rows.recorded`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from inferometer.importers.files import Head
from inferometer.importers.rows import Rows

# fact -> what stands in its place
LACKS = {
    "intended": "when requests were due is not recorded: latencies count from the send, and a late client is not seen",
    "starts": "when requests were sent is not recorded: each is on a clock of its own, and there are no rates",
    "prompt_tokens": "prompt lengths are not recorded for all requests: 0 stands for them",
    "failures": "requests that failed are not recorded: what is said of all requests cannot be said",
    "channels": "reasoning and answer are not told apart: all tokens stand as content",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark of a file. `lacks`: facts that the format never holds; `about`: the tool's settings, plain data."""

    rows: Rows
    version: str | None = None
    model: str | None = None
    label: str = ""
    lacks: frozenset[str] = frozenset({"channels"})
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Tool(NamedTuple):
    """One row of the table of tools. `files`: the names that it gives to its raw output, for whoever names a folder."""

    name: str
    says: str  # which of its outputs is read
    files: tuple[str, ...]
    detects: Callable[[Head], bool]
    read: Callable[[Path], list[Part]]
