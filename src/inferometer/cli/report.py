"""`inferometer report`: what a run says, as a page that can be mailed, as figures for a paper, as a trace for Perfetto."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferometer.cli.options import json_option, opt, section, verb
from inferometer.errors import UserError

if TYPE_CHECKING:
    from inferometer.report.sections import Section
    from inferometer.run import Run


@verb(
    click.Argument(["path"], metavar="RUN"),
    *section(
        "Judge",
        opt("--slo EXPR", "'ttft.p99 <= 0.5s and tbt.p99 <= 50ms', or a preset's name."),
    ),
    *section(
        "Result",
        opt("-o, --out FILE", "The page: one HTML file.  [RUN/report.html]"),
        opt("--figures DIR", "Every chart as files, with its data as CSV."),
        opt("--format NAMES", "Of the figures: svg, png, pdf.  [svg]", default="svg", to="formats"),
        opt("--perfetto FILE", "The run as a trace that Perfetto and Chrome open."),
        json_option(),
    ),
)  # fmt: skip
def command(**options: Any) -> int:
    """Draw a run: one offline page, figures for a paper, a trace.

    The page opens from disk, needs no network, and can be mailed.
    """
    from inferometer import slo as slos
    from inferometer.cli import card as cards
    from inferometer.load.recovery import read_run
    from inferometer.metrics import score
    from inferometer.report import run_sections

    formats = _formats(options["formats"])
    run = read_run(options["path"])
    asked = slos.parse(options["slo"], where="--slo") if options["slo"] else None
    card = score(run, asked or run.manifest.spec.get("slo"))
    sections = run_sections(run, card)
    written: dict[str, str | list[str]] = {}
    if options["out"] or not (options["figures"] or options["perfetto"]):
        out = Path(options["out"] or Path(options["path"]) / "report.html")
        written["report"] = str(write_page(out, _title(run), sections))
    if options["figures"]:
        written["figures"] = _figures(sections, Path(options["figures"]), formats)
    if options["perfetto"]:
        written["perfetto"] = _perfetto(run, Path(options["perfetto"]))
    if options["as_json"]:
        click.echo(cards.plain_json(written))
    else:
        for kind, path in written.items():
            click.echo(f"{kind:<10}  {path if isinstance(path, str) else f'{len(path)} files'}")
    return 0


def write_page(out: Path, title: str, sections: list[Section]) -> Path:
    """The page of some sections, written; its path."""
    from importlib.metadata import version

    from inferometer.report import html

    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    made = f"Made by Inferometer {version('inferometer')}, {now}."
    _written(out, html(title, sections, made=made).encode())
    return out


def _figures(sections: list[Section], folder: Path, formats: tuple[str, ...]) -> list[str]:
    from inferometer.report import save_figures

    drawn = [chart for section in sections for chart in section.charts]
    return [str(path) for path in save_figures(drawn, folder, formats)]


def _perfetto(run: Run, path: Path) -> str:
    from inferometer.report.perfetto import write_trace

    write_trace(run.timeline, path)
    return str(path)


def _written(path: Path, content: bytes) -> None:
    from inferometer.run import write_whole

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise UserError(
            f"cannot write there: {error.strerror}", where=str(path), remedy="name another with -o"
        ) from None


def _formats(text: str) -> tuple[str, ...]:
    from inferometer.report.page import FORMATS

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    wrong = [name for name in names if name not in FORMATS]
    if wrong or not names:
        raise UserError(
            f"no such format: {', '.join(wrong)!r}",
            where="--format",
            remedy="take of " + ", ".join(FORMATS),
        )
    return names


def _title(run: Run) -> str:
    """What the page is about, in a few words."""
    target = run.manifest.target
    who = target.get("system") or target.get("engine") or "run"
    name = run.path.name if run.path is not None else ""
    return f"{who}: {name}" if name else str(who)
