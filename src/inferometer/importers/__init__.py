"""Other tools' raw results as runs: one file per tool, one table of them, and what each of them did not record.

`read_results(path)` looks at how a file begins, picks its reader, and returns a `Run` for each benchmark in it, with
`manifest.world` "imported". Readers know formats and nothing of metrics; what is not in a file is null, or named in
`manifest.missing`, and the metrics that cannot do without it refuse (`metrics.table.NEEDS`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from inferometer.errors import UserError
from inferometer.importers import (
    aiperf,
    etalon,
    evalscope,
    genai_perf,
    guidellm,
    inference_perf,
    llmperf,
    own,
    sglang,
    veeksha,
    vidur,
    vllm,
)
from inferometer.importers.files import head_of
from inferometer.importers.judged import Judged, judged
from inferometer.importers.tool import LACKS, Part, Tool
from inferometer.run import Manifest, Run, redact
from inferometer.workload.traces import Problems

__all__ = ["LACKS", "TOOLS", "Imported", "Judged", "judged", "read_results"]

TOOLS: dict[str, Tool] = {
    reader.TOOL.name: reader.TOOL
    for reader in (
        vllm,
        sglang,
        aiperf,
        guidellm,
        inference_perf,
        evalscope,
        genai_perf,
        llmperf,
        etalon,
        veeksha,
        vidur,
        own,
    )
}


class Imported(NamedTuple):
    """The runs of a file, one per benchmark in it, by their labels; and the records that could not be read."""

    tool: str
    runs: dict[str, Run]
    problems: Problems


def read_results(path: str | Path, tool: str | None = None, *, strict: bool = False) -> Imported:
    """The runs in a tool's raw output (a file, or the folder that it was written to); detected unless named.

    Records that cannot be read are counted in `problems` with their places; `strict` refuses them. UserError where the
    file is no result of a known tool, or holds no request at all.
    """
    found = _file(Path(path), tool)
    chosen = _named(tool, found) if tool else _detected(found)
    parts = chosen.read(found)
    problems = Problems(
        sum(part.rows.bad for part in parts),
        tuple(line for part in parts for line in part.rows.first),
    )
    if strict and problems.rows:
        raise UserError(
            f"{problems.first[0]} ({problems.rows} such records)", where=str(found.parent)
        )
    full = [part for part in parts if part.rows.rows]
    if not full:
        what = f"no readable request; {problems.first[0]}" if problems.rows else "no requests in it"
        raise UserError(what, where=str(found), remedy=f"{chosen.name}: {chosen.says}")
    runs = {_label(part, place): _run(part, chosen, found) for place, part in enumerate(full)}
    return Imported(chosen.name, runs, problems)


def _file(path: Path, tool: str | None) -> Path:
    if not path.is_dir():
        return path
    known = [name for one in TOOLS.values() if tool in (None, one.name) for name in one.files]
    inside = [path / name for name in known if (path / name).is_file()]
    if len(inside) != 1:
        what = "no file" if not inside else f"{len(inside)} files"
        raise UserError(
            f"{what} of a known name in this folder", where=str(path), remedy="name the file"
        )
    return inside[0]


def _named(tool: str, path: Path) -> Tool:
    if tool not in TOOLS:
        raise UserError(f"no tool {tool!r}", where=str(path), remedy=f"one of {', '.join(TOOLS)}")
    return TOOLS[tool]


def _detected(path: Path) -> Tool:
    head = head_of(path)
    for tool in TOOLS.values():
        if tool.detects(head):
            return tool
    remedy = f"name it with --from: {', '.join(TOOLS)}"
    raise UserError("this is no result of a tool that I know", where=str(path), remedy=remedy)


def _label(part: Part, place: int) -> str:
    return f"{place + 1:02d}" + (f"-{part.label}" if part.label else "")


def _run(part: Part, tool: Tool, path: Path) -> Run:
    rows = part.rows
    lacks = part.lacks | ({"intended", "starts", "prompt_tokens"} - rows.recorded)
    notes = [*part.notes, *_odd(part)]
    target: dict[str, Any] = {"tool": tool.name, "version": part.version, "file": path.name}
    manifest = Manifest(
        complete=True,
        world="imported",
        spec={"imported": part.about},
        target=redact({name: value for name, value in target.items() if value is not None}),
        model={} if part.model is None else {"name": part.model},
        versions={} if part.version is None else {tool.name: part.version},
        missing={fact: says for fact, says in LACKS.items() if fact in lacks},
        notes=notes,
    )
    return Run(rows.timeline(), manifest)


def _odd(part: Part) -> list[str]:
    rows, out = part.rows, []
    if rows.bad:
        out.append(f"{rows.bad} records could not be read: {rows.first[0]}")
    if rows.early:
        out.append(
            f"{rows.early} requests were sent before they were due: they count from the send"
        )
    return out
