"""`inferometer import`: another tool's raw results as runs, and what they cannot be asked.

A run for each benchmark in the file: one in the folder that is named, several in folders under it, by their labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferometer.cli.options import json_option, opt, section, verb
from inferometer.errors import EXIT_OK

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.importers import Imported
    from inferometer.run import Run

SHOWN_PROBLEMS = 5


@verb(
    click.Argument(["file"], metavar="FILE"),
    *section(
        "Read",
        opt("--from TOOL", "vllm, sglang, aiperf, guidellm, inference-perf, evalscope, genai-perf, llmperf, etalon, veeksha, vidur, own.  [seen from the file]", to="tool"),
        opt("--strict", "Refuse a file with a record that cannot be read."),
    ),
    *section(
        "Result",
        opt("-o, --out RUN", "The run directory.  [runs/TIME-TOOL]"),
        json_option(),
    ),
)  # fmt: skip
def command(*, file: str, tool: str | None, strict: bool, out: str | None, as_json: bool) -> int:
    """Read another tool's raw per-request results as a run.

    FILE is what the tool wrote, or the folder that it wrote to. What it did not record stays null, and the metrics
    that cannot do without are refused. Several benchmarks in a file become several runs, under -o.
    """
    from inferometer.cli import card
    from inferometer.importers import read_results

    found = read_results(file, tool, strict=strict)
    found = _written(found, Path(out or _folder(found.tool)))
    if as_json:
        click.echo(card.plain_json(told(found)))
    else:
        card.show(render(found))
    return EXIT_OK


def told(found: Imported) -> dict[str, Any]:
    """What was imported, as plain data."""
    return {
        "tool": found.tool,
        "runs": [_told(label, run) for label, run in found.runs.items()],
        "problems": {"rows": found.problems.rows, "first": list(found.problems.first)},
    }


def render(found: Imported) -> Iterator[RenderableType]:
    """Each run: what was found, what is missing, and what therefore cannot be judged."""
    from inferometer.cli.card import line

    for run in found.runs.values():
        yield from _lines(found.tool, run)
        yield ""
    if found.problems.rows:
        yield line("unreadable", f"{found.problems.rows:,} records", "yellow")
        for problem in found.problems.first[:SHOWN_PROBLEMS]:
            yield line("", problem)


def _lines(tool: str, run: Run) -> Iterator[RenderableType]:
    from inferometer.cli.card import line
    from inferometer.importers.judged import judged, told_of

    can_not, target = judged(run), run.manifest.target
    version = f" {target['version']}" if "version" in target else ""
    yield line(
        "imported",
        f"{target['file']} · {tool}{version} · {run.manifest.model.get('name', 'unknown model')}",
    )
    yield line("requests", " · ".join(f"{n:,} {status}" for status, n in _statuses(run).items()))
    lacks = [*run.manifest.missing.values(), *told_of(can_not.stamps)]
    for place, what in enumerate(lacks):
        yield line("" if place else "missing", what)
    yield line("no value", ", ".join(can_not.metrics))
    for place, (item, why) in enumerate(can_not.audit.items()):
        yield line("" if place else "audit", f"{item}: {why}")
    for place, note in enumerate(run.manifest.notes):
        yield line("" if place else "note", note)
    yield line("run", str(run.path))


def _told(label: str, run: Run) -> dict[str, Any]:
    from inferometer.importers.judged import judged

    can_not = judged(run)
    return {
        "run": str(run.path),
        "label": label,
        "target": run.manifest.target,
        "model": run.manifest.model.get("name"),
        "requests": {"total": len(run.timeline), "by_status": _statuses(run)},
        "stamps": can_not.stamps,
        "missing": run.manifest.missing,
        "no_value": list(can_not.metrics),
        "audit": can_not.audit,
        "notes": run.manifest.notes,
    }


def _statuses(run: Run) -> dict[str, int]:
    return dict(Counter(run.timeline.status.tolist()).most_common())


def _written(found: Imported, folder: Path) -> Imported:
    """The same runs, each in its directory: the folder itself for one, a folder in it for each of several."""
    from inferometer.run import create, write_run

    create(folder)
    alone = len(found.runs) == 1
    places = {label: folder if alone else folder / _safe(label) for label in found.runs}
    runs = {
        label: replace(run, path=write_run(run, places[label])) for label, run in found.runs.items()
    }
    return found._replace(runs=runs)


def _safe(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_.@" else "-" for letter in label)


def _folder(tool: str) -> str:
    """A new name under runs/: the time, to sort by, and the tool, to know it by."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")[:-4] + "Z"
    return f"runs/{now}-{tool}"
