"""`inferometer audit`: runs, a study or a record of an evaluation, judged item by item."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from inferometer.cli.options import json_option, opt, section, verb
from inferometer.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.audit import Evaluation, Finding, Report
    from inferometer.audit.claims import Tested

MARKS = {
    "pass": ("✓ pass", "green"),
    "warn": ("~ warn", "yellow"),
    "fail": ("✗ FAIL", "bold red"),
    "attested": ("✓ word", "cyan"),
    "not-evaluated": ("? open", "dim"),
}
CLAIMS = {"supported": "green", "reversed": "red", "not shown": "yellow", "not parsed": "dim"}
SHOWN = 170  # characters of a reason in the table


@verb(
    click.Argument(["paths"], metavar="PATH...", nargs=-1),
    *section(
        "Evaluation",
        opt("--paper FILE", "A record (YAML): alone, or for what runs cannot tell."),
        opt("--template", "Write the questionnaire that --paper reads, and exit."),
    ),
    *section(
        "Result",
        opt("--explain ITEM", "One item with its parts, evidence and remedy; or validity."),
        json_option(),
    ),
)
def command(**options: Any) -> int:
    """Judge an evaluation by the eight items, on evidence.

    PATH: run directories, folders of runs (an arm each), or one study.
    Exit code: 0 nothing failed, 1 an item failed, 3 the measurement is invalid.
    """
    from inferometer.audit import audit
    from inferometer.cli import card

    if options["template"]:
        from inferometer.audit.template import template

        click.echo(template(), nl=False)
        return EXIT_OK
    report = audit(_evaluation(list(options["paths"]), options["paper"]))
    if options["as_json"]:
        click.echo(card.plain_json(report))
    elif options["explain"]:
        card.show(explained(_item(report, options["explain"])))
    else:
        card.show(render(report))
    return report.exit_code


def _evaluation(paths: list[str], paper: str | None) -> Evaluation:
    from inferometer.audit import evaluation_of
    from inferometer.audit.papers import read_record

    if not paths and paper is None:
        raise UserError("nothing to audit", where="PATH", remedy="name runs, a study, or --paper FILE")  # fmt: skip
    record = None if paper is None else read_record(paper)
    if not paths:
        assert record is not None
        return record
    return evaluation_of(paths, record, _progress())


def _progress() -> Any:
    """Tells which run is read, on a terminal; None elsewhere."""
    import sys

    if not sys.stderr.isatty():
        return None
    return lambda what: click.echo(f"\r\033[Kreading {what[-80:]}\r", nl=False, err=True)


# --- on screen --------------------------------------------------------------------------------------------------------


def render(report: Report) -> Iterator[RenderableType]:
    """Validity, the eight items in a line or two each, the claims, and what to do next."""
    from rich.text import Text

    from inferometer.cli import card

    yield Text(report.title[:100], style="bold")
    yield from _line(report.validity, "validity")
    yield ""
    for name, finding in report.findings().items():
        yield from _line(finding, name.replace("_", " "))
    for claim in report.claims:
        yield card.line(claim.verdict, claim.text, CLAIMS[claim.verdict])
        yield card.line("", claim.reason + _robust(claim))
    worst = [n for n, f in report.findings().items() if f.verdict == "fail"]
    if worst:
        yield card.line("next", f"inferometer audit ... --explain {worst[0]}")


def _line(finding: Finding, name: str) -> Iterator[RenderableType]:
    from rich.text import Text

    word, colour = MARKS[finding.verdict]
    room = SHOWN if finding.verdict != "pass" else 62
    reason = textwrap.shorten(finding.reason, room, placeholder=" ...")
    lines = textwrap.wrap(reason, 62) or [""]
    yield Text(f"{name:<28}", end="").append(f"{word:<8}", style=colour).append(lines[0])
    for more in lines[1:]:
        yield Text(" " * 36 + more)


def _robust(claim: Tested) -> str:
    found = claim.robustness
    if found is None or found.share is None:
        return ""
    differ = found.holds + found.against
    return f"; the direction holds in {found.holds} of {differ} cells that differ"


def _item(report: Report, name: str) -> Finding:
    found = report.findings() | {"validity": report.validity}
    wanted = name.lower().replace("-", "_").replace(" ", "_")
    close = [key for key in found if key == wanted] or [
        key for key in found if key.startswith(wanted)
    ]
    if not close:
        raise UserError(f"no item is called {name!r}", where="--explain", remedy="one of " + ", ".join(found))  # fmt: skip
    return found[close[0]]


def explained(finding: Finding) -> Iterator[RenderableType]:
    """A finding with its parts: verdict, reason, evidence, remedy, and the question that a person may answer."""
    from rich.text import Text

    from inferometer.cli import card

    word, colour = MARKS[finding.verdict]
    yield Text(f"{finding.item.replace('_', ' ')}: ").append(word, style=colour)
    for part in finding.parts or (finding,):
        word, colour = MARKS[part.verdict]
        yield ""
        yield card.line(
            word, f"{part.item.rpartition('.')[2].replace('_', ' ')}: {part.reason}", colour
        )
        for each in part.evidence:
            yield card.line("", f"{each.where} = {_shown(each.value)}")
        if part.remedy and part.verdict != "pass":
            yield card.line("remedy", part.remedy)
    if finding.question:
        yield ""
        yield card.line("to answer", finding.question)


def _shown(value: Any) -> str:
    import msgspec

    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return textwrap.shorten(text, 200, placeholder=" ...")
