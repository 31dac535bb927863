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
    click.Argument(["paths"], nargs=-1, required=True, metavar="PATH..."),
    *section(
        "Judge",
        opt("--slo EXPR", "'ttft.p99 <= 0.5s and tbt.p99 <= 50ms', or a preset's name."),
    ),
    *section(
        "Result",
        opt("-o, --out FILE", "The page: one HTML file.  [PATH/report.html]"),
        opt("--figures DIR", "Every chart as files, with its data as CSV."),
        opt("--format NAMES", "Of the figures: svg, png, pdf.  [svg]", default="svg", to="formats"),
        opt("--perfetto FILE", "The run as a trace that Perfetto and Chrome open."),
        json_option(),
    ),
)  # fmt: skip
def command(**options: Any) -> int:
    """Draw a run, a search or several sides: a page, figures, a trace.

    PATH: a run, repeats of one, a study, or the folder of a capacity search;
    several runs are drawn over each other, and two are compared. The page opens
    from disk and can be mailed.
    """
    from inferometer import slo as slos
    from inferometer.cli import card as cards

    formats = _formats(options["formats"])
    if options["slo"]:
        slos.parse(options["slo"], where="--slo")
    if options["perfetto"] and len(options["paths"]) > 1:
        raise UserError("a trace is of one run", where="--perfetto", remedy="name one RUN")
    title, sections = drawn([Path(path) for path in options["paths"]], options["slo"])
    written: dict[str, str | list[str]] = {}
    if options["out"] or not (options["figures"] or options["perfetto"]):
        out = Path(options["out"] or Path(options["paths"][0]) / "report.html")
        written["report"] = str(write_page(out, title, sections))
    if options["figures"]:
        written["figures"] = _figures(sections, Path(options["figures"]), formats)
    if options["perfetto"]:
        written["perfetto"] = _perfetto(options["paths"][0], Path(options["perfetto"]))
    if options["as_json"]:
        click.echo(cards.plain_json(written))
    else:
        for kind, path in written.items():
            click.echo(f"{kind:<10}  {path if isinstance(path, str) else f'{len(path)} files'}")
    return 0


def drawn(paths: list[Path], slo: str | None) -> tuple[str, list[Section]]:
    """The title and the sections of what lies at the paths."""
    from inferometer.report.judged import audit_lights
    from inferometer.report.searched import ANSWER, search_sections
    from inferometer.report.studied import study_sections
    from inferometer.search.study import is_study, read_study

    if len(paths) > 1 or _is_repeats(paths[0]):
        return _sides(paths, slo)
    if is_study(paths[0]):
        study = read_study(paths[0])
        return study.spec.title or paths[0].resolve().name, study_sections(
            study, lights=audit_lights(paths)
        )
    if (paths[0] / ANSWER).is_file():
        return f"capacity: {paths[0].resolve().name}", search_sections(paths[0])
    return run_page(paths[0], slo)


def _is_repeats(path: Path) -> bool:
    """Whether a folder holds runs, as `measure --repeats` leaves them, and is none itself; a search's holds its answer."""
    from inferometer.report.searched import ANSWER

    if (path / "manifest.json").is_file() or (path / ANSWER).is_file():
        return False
    return any(path.glob("*/manifest.json"))


def run_page(path: Path, slo: str | None) -> tuple[str, list[Section]]:
    """The title and the sections of one run, judged by `slo` or else by what it was measured for."""
    from inferometer.load.recovery import read_run
    from inferometer.metrics import score
    from inferometer.report import run_sections
    from inferometer.report.judged import audit_lights

    run = read_run(path)
    card = score(run, slo or run.manifest.spec.get("slo"))
    return _title(run), run_sections(run, card, lights=audit_lights([path]))


def _sides(paths: list[Path], slo: str | None) -> tuple[str, list[Section]]:
    from inferometer.cli.compare import runs_in
    from inferometer.report.sides import side_sections
    from inferometer.search.compare import compare

    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    sides = {name: runs_in(str(path)) for name, path in zip(names, paths, strict=True)}
    found = compare(*sides.values(), slo=slo, anyway=True) if len(paths) == 2 else None
    return " · ".join(names), side_sections(sides, found, slo)


def page(title: str, sections: list[Section]) -> str:
    """The page of some sections, with its date."""
    from importlib.metadata import version

    from inferometer.report import html

    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return html(title, sections, made=f"Made by Inferometer {version('inferometer')}, {now}.")


def write_page(out: Path, title: str, sections: list[Section]) -> Path:
    """The page of some sections, written; its path."""
    _written(out, page(title, sections).encode())
    return out


def _figures(sections: list[Section], folder: Path, formats: tuple[str, ...]) -> list[str]:
    from inferometer.report import save_figures

    drawn = [chart for section in sections for chart in section.charts]
    return [str(path) for path in save_figures(drawn, folder, formats)]


def _perfetto(run: str, path: Path) -> str:
    from inferometer.load.recovery import read_run
    from inferometer.report.perfetto import write_trace

    write_trace(read_run(run).timeline, path)
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
