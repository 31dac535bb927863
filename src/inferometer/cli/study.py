"""`inferometer study`: from a YAML file to a directory of runs, what they say, and whether the claims hold.

The study itself is `inferometer.search.study`; here it is announced, watched, shown, and its claims are handed to the
audit's evaluator, which stands a floor above it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from inferometer.cli.browser import Ends, also, browser, serve_option
from inferometer.cli.options import json_option, opt, rare, section, verb
from inferometer.errors import (
    EXIT_FAILED,
    EXIT_INVALID,
    EXIT_OK,
    EXIT_UNREACHABLE,
    UserError,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.report.live import Live
    from inferometer.search.study import Asked, Planned, Study, Told
    from inferometer.search.study.cells import Estimate
    from inferometer.search.study.folder import Ended

EVALUATOR = "inferometer.audit.claims"
SUPPORTED = "supported"
COLOURS = {SUPPORTED: "green", "reversed": "red"}

# fmt: off
OPTIONS = (
    click.Argument(["file"], required=False, metavar="FILE.yaml"),
    *section(
        "Study",
        opt("--dry-run", "Print the plan, its duration and its fingerprint; measure nothing."),
        opt("--template", "Print an annotated study file to start from."),
    ),
    *section(
        "Result",
        opt("-o, --out STUDY", "The directory; the same one resumes.  [studies/FILE]"),
        json_option(),
        serve_option(),
        rare("--quiet", "No progress on stderr."),
    ),
)
# fmt: on


@verb(*OPTIONS)
def command(**options: Any) -> int:
    """Systems, workloads, loads and repeats, tuned and interleaved.

    The same command goes on with a study that was interrupted.
    Exit code 4: a cell has no run; 3: a run is invalid; 1: a claim is not
    supported.
    """
    from inferometer.cli import card, wish
    from inferometer.search.study import read_asked, run_study

    if options["template"]:
        click.echo(template(), nl=False)
        return EXIT_OK
    if options["file"] is None:
        raise UserError("which study?", where="study", remedy="name a YAML file, or see --template")
    asked = read_asked(options["file"])
    _check_claims(asked)
    if options["dry_run"]:
        return _announced(asked, as_json=options["as_json"])
    folder = Path(options["out"] or Path("studies") / Path(options["file"]).stem)
    with browser(options["serve"], f"study: {folder.name}", Ends([folder])) as live:
        with watching(silent=options["as_json"] or options["quiet"]) as shown:
            study = run_study(asked, folder, look=also(live, shown, tell), key=wish.api_key)
        study = _judged(study)
        if options["as_json"]:
            click.echo(card.plain_json({"study": str(folder)} | (study.result or {})))
        else:
            card.show(render(study))
    return exit_code(study)


def template() -> str:
    """The annotated study file."""
    return (resources.files("inferometer.search.study") / "template.yaml").read_text("utf-8")


def exit_code(study: Study) -> int:
    """A cell without a run before an invalid one, before a claim."""
    if any(ended.status == "failed" for ended in study.ended.values()):
        return EXIT_UNREACHABLE
    if any(ended.valid is False for ended in study.ended.values()):
        return EXIT_INVALID
    claims = (study.result or {}).get("claims", [])
    return EXIT_FAILED if any(claim["verdict"] != SUPPORTED for claim in claims) else EXIT_OK


# --- claims -----------------------------------------------------------------------------------------------------------


def _check_claims(asked: Asked) -> None:
    """A claim that cannot be read is told before anything is measured."""
    evaluator = _evaluator()
    for k, claim in enumerate(asked.spec.claims if evaluator else ()):
        evaluator.parse(claim, where=asked.document.where("claims", k))


def _evaluator() -> Any:
    """Who reads and tests claims: a floor above studies; None where this build has none."""
    return import_module(EVALUATOR) if find_spec(EVALUATOR.rpartition(".")[0]) else None


def _judged(study: Study) -> Study:
    """The study with the verdicts on its claims in its result."""
    from inferometer.search.study import read_study, store_claims

    evaluator = _evaluator()
    if not study.spec.claims or evaluator is None:
        return study
    store_claims(study.path, evaluator.evaluate(study))
    return read_study(study.path)


# --- the plan ---------------------------------------------------------------------------------------------------------


def _announced(asked: Asked, *, as_json: bool) -> int:
    """The dry run."""
    from inferometer.cli import card
    from inferometer.search.study import fingerprint, plan_study
    from inferometer.search.study.cells import estimate

    planned = plan_study(asked)
    mark, took = fingerprint(asked.spec, planned), estimate(asked.spec, planned)
    if as_json:
        told = {"fingerprint": mark, "title": asked.spec.title, "estimate": took._asdict()}
        click.echo(card.plain_json(told | {"cells": msgspec.to_builtins(planned)}))
    else:
        card.show(announce(asked, planned, mark, took))
    return EXIT_OK


def announce(
    asked: Asked, planned: tuple[Planned, ...], mark: str, took: Estimate
) -> Iterator[RenderableType]:
    """The plan: what is played, how often, in which order, how long it takes."""
    from inferometer.cli import card

    spec = asked.spec
    yield card.line("study", f"{spec.title} · fingerprint {mark[:16]} · seed {spec.seed}")
    if spec.question:
        yield card.line("question", spec.question)
    yield card.line("duration", _duration(took))
    yield ""
    yield _systems(asked, planned)
    yield ""
    yield _cells(asked, planned)
    yield ""
    yield card.line("order", "of the first block of the headline, whose turns are random:")
    headline = [cell for cell in planned if cell.split == "headline"]
    for cell in headline[:8]:
        if cell.block == headline[0].block:
            yield card.line("", cell.id)
    for k, claim in enumerate(spec.claims):
        yield card.line("" if k else "claims", claim)


def _systems(asked: Asked, planned: tuple[Planned, ...]) -> RenderableType:
    from inferometer.cli import card

    shown = card.table("system", "what", "tuning", "headline", "starts")
    for name in asked.spec.systems:
        system, own = asked.spec.system(name), asked.spec.systems[name]
        kind = "simulated" if system.simulated else "started" if system.command else "a server"
        if own.ablation_of:
            kind = f"ablation of {own.ablation_of}, {kind}"
        mine = [cell for cell in planned if cell.system == name]
        tuned = [cell for cell in mine if cell.split == "tuning"]
        of = len(own.configurations()) if own.tune else 0
        budget = f"{min(of, asked.spec.tuning.budget)} of {of} each" if of else "-"
        shown.add_row(
            name, kind, budget, str(len(mine) - len(tuned)), str(len({c.turn for c in mine}))
        )
    return shown


def _cells(asked: Asked, planned: tuple[Planned, ...]) -> RenderableType:
    """A row per workload, load and split: what one plan is, and how many cells play one like it."""
    from inferometer.cli import card

    shown = card.table("workload", "load", "split", "cells", "requests", "lasts", "plan", "SLO")
    seen: dict[tuple[str, str, str], list[Planned]] = {}
    for cell in planned:
        seen.setdefault((cell.workload, cell.load.label, cell.split), []).append(cell)
    order = list(asked.spec.workloads)
    for (workload, load, split), group in sorted(seen.items(), key=lambda x: order.index(x[0][0])):
        one = min(group, key=lambda cell: cell.repeat)
        shown.add_row(
            workload,
            load,
            split,
            str(len(group)),
            "-" if one.requests is None else f"{one.requests:,}",
            "-" if one.span_s is None else f"{one.span_s:,.0f} s",
            "-" if one.plan is None else one.plan[:8],
            _short(one.slo or "-", 24),
        )
    return shown


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _duration(took: Estimate) -> str:
    words = []
    if took.measured_s:
        words.append(f"at least {_time(took.measured_s)} of load")
    if took.untimed:
        words.append(f"{took.untimed} closed loops, as long as the server takes")
    if took.searches:
        words.append(f"{took.searches} searches for capacity")
    if took.starts:
        words.append(f"{took.starts} starts of a server")
    if took.simulated:
        words.append(f"{took.simulated} simulations, about {_time(took.simulated_s)}")
    return " · ".join(words)


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{max(whole, 1)} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole / 3600:.1f} h"


# --- while it runs ----------------------------------------------------------------------------------------------------


@contextmanager
def watching(*, silent: bool) -> Iterator[Callable[[Told], None] | None]:
    """What to call while the study runs: a bar on a terminal, else a line per cell."""
    if silent:
        yield None
        return
    if not sys.stderr.isatty():
        yield lambda told: None if told.ended is None else click.echo(progress(told), err=True)
        return
    from rich.console import Console
    from rich.live import Live as Terminal

    console = Console(stderr=True, highlight=False)
    with Terminal(console=console, refresh_per_second=4, transient=True) as terminal:

        def look(told: Told) -> None:
            if told.ended is not None:
                terminal.console.print(progress(told), soft_wrap=True)
            terminal.update(_panel(told, console.width))

        yield look


def tell(live: Live, told: Told) -> None:
    """The same, for a browser: how far, and a row per cell that has ended."""
    ended, total = told.study.ended, len(told.study.planned)
    figures = {
        "cells": float(len(ended)),
        "failed": float(sum(cell.status == "failed" for cell in ended.values())),
        "in flight": None if told.progress is None else float(told.progress.in_flight),
    }
    now = "" if told.playing is None else f"; now {told.playing.id}"
    live.tell(figures, f"{len(ended)} of {total} cells{now}", len(ended) / total)
    if told.ended is not None:
        rows = [(one.cell, became(one), f"{one.seconds:.1f} s") for one in ended.values()]
        live.table(("cell", "", "took"), rows)


def progress(told: Told) -> str:
    """One line: how far the study is, and what the cell that has just ended came to."""
    ended = told.ended
    assert ended is not None
    done, total = len(told.study.ended), len(told.study.planned)
    return f"{done}/{total} {ended.cell}: {became(ended)} ({ended.seconds:.1f} s)"


def became(ended: Ended) -> str:
    """What a cell came to, in a few words."""
    if ended.status == "failed":
        return f"FAILED: {ended.error}"
    return "ok" if ended.valid else "INVALID: " + "; ".join(ended.invalid_reasons)


def _panel(told: Told, width: int) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    study = told.study
    done, total = len(study.ended), len(study.planned)
    spent = [ended.seconds for ended in study.ended.values()]
    left = (total - done) * sum(spent) / len(spent) if spent else None
    words = f"{done} of {total} cells" + ("" if left is None else f", about {_time(left)} left")
    now = "" if told.playing is None else told.playing.id
    if told.progress is not None:
        now += f": {told.progress.in_flight} in flight"
    return Group(
        Text(words), Text(now, overflow="crop"), ProgressBar(total, done, width=min(72, width))
    )


# --- afterwards -------------------------------------------------------------------------------------------------------


def render(study: Study) -> Iterator[RenderableType]:
    """What was chosen, what was seen, what the claims came to."""
    from inferometer.cli import card

    result = study.result or {}
    counts = result["cells"]
    told = f"{counts['ended']} of {counts['planned']} cells"
    colour = "yellow" if counts["failed"] or counts["invalid"] else ""
    yield card.line("study", f"{study.spec.title} · fingerprint {study.fingerprint[:16]}")
    yield card.line(
        "cells", f"{told} · {counts['failed']} failed · {counts['invalid']} invalid", colour
    )
    for cell, ended in study.ended.items():
        if ended.error:
            yield card.line("FAILED", f"{cell}: {ended.error}", "red")
    if study.choices:
        yield ""
        yield _choices(study)
    yield ""
    repeats = study.spec.repeats
    yield card.line("headline", f"means of {repeats} runs each" if repeats > 1 else "one run each")
    yield _summary(study)
    for claim in result.get("claims", []):
        verdict = claim["verdict"]
        why = f"{claim['text']}: {verdict}; {claim['reason']}"
        yield card.line("claim", why, COLOURS.get(verdict, "yellow"))
    yield card.line("result", str(study.path))


def _choices(study: Study) -> RenderableType:
    """What tuning chose, out of how many; a star where the best value is at the edge of its range."""
    from inferometer.cli import card

    shown = card.table("tuned", "workload", "tried", "chosen (* at an edge)")
    shown.columns[-1].justify = "left"
    for choice in study.choices:
        best = {} if choice.best is None else choice.best
        flags = [f"{k}={v}{'*' * (k in choice.edges)}" for k, v in best.items()]
        tried = choice.inherited_from and "as its base"
        shown.add_row(
            _short(choice.system, WIDE),
            _short(" ".join(filter(None, (choice.workload, choice.model))), WIDE),
            tried or str(len(choice.trials)),
            _short(" ".join(flags) or "no trial could be used", 48),
        )
    return shown


WIDE = 20
WORDS = {"attainment": "attained"}
HEADS = ("ttft.p50", "ttft.p99", "tbt.p99")


def _summary(study: Study) -> RenderableType:
    """A row per workload, load and system: the mean over repeats of a few numbers; all stand in result.json."""
    from inferometer.cli import card

    rows = (study.result or {})["summary"]
    heads = [head for head in _heads(study) if any(head in row["figures"] for row in rows)]
    shown = card.table("workload", "load", "system", *(WORDS.get(h, h) for h in heads))
    shown.columns[2].justify = "left"
    before = None
    for row in rows:
        where = (_short(" ".join(filter(None, (row["workload"], row["model"]))), WIDE), row["load"])
        first = where if where != before else ("", "")
        values = [_figure(head, row["figures"].get(head)) for head in heads]
        shown.add_row(*first, _short(row["system"], WIDE), *values)
        before = where
    return shown


def _heads(study: Study) -> tuple[str, ...]:
    """What is shown: what the study reports, as far as it fits, and whether the SLO was kept."""
    own = tuple(name for name in study.spec.report if name in HEADS) or study.spec.report
    return (*own[:3], "attainment", "capacity")


def _figure(name: str, found: dict[str, Any] | None) -> str:
    from inferometer.cli import card
    from inferometer.metrics.table import DISTRIBUTIONS

    if found is None or found["mean"] is None:
        return "-"
    if name == "attainment":
        return f"{found['mean']:.1%}"
    metric = DISTRIBUTIONS.get(name.partition(".")[0])
    if metric is not None and metric.unit == "s":
        return f"{card.number(1e3 * found['mean'])} ms"
    return str(card.number(found["mean"]))
