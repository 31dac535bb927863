"""`inferometer reproduce`: the seed paper's figures and tables beside ours, with what it states and what we find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferometer.cli.options import NOT_NEGATIVE, json_option, opt, rare, section, verb
from inferometer.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.reproduce.reproduction import Reproduction


@verb(
    click.Argument(["what"], metavar="WHAT"),
    *section(
        "Data",
        opt("--traces FOLDER", "Public traces, for table1 (mooncake_trace.jsonl)."),
        opt("--quick", "Fewer requests, wider intervals."),
        rare("--seed N", "Other arrivals and lengths.  [0]", NOT_NEGATIVE, default=0),
    ),
    *section(
        "Result",
        opt("-o, --out FILE", "One page with everything, as HTML."),
        opt("--figures DIR", "Every chart as SVG, PNG and PDF, with its data as CSV."),
        json_option(),
    ),
)
def command(**options: Any) -> int:
    """Make a figure or table of the seed paper again, from our own runs.

    WHAT: fig1, fig2, table1, table2, sarathi, dilution, or all.
    """
    from inferometer.cli import card
    from inferometer.reproduce.reproduction import NAMES, Ask, make, names

    what = options["what"]
    if what not in (*NAMES, "all"):
        raise UserError(
            f"there is no {what!r}", where="WHAT", remedy="take of " + ", ".join((*NAMES, "all"))
        )
    traces = Path(options["traces"]) if options["traces"] else None
    ask = Ask(traces, options["seed"], options["quick"], lambda said: click.echo(said, err=True))
    found = [make(name, ask) for name in names(what, ask)]
    if options["out"]:
        _page(Path(options["out"]), found)
    if options["figures"]:
        _figures(Path(options["figures"]), found)
    if options["as_json"]:
        plain = [one.to_dict() for one in found]
        click.echo(
            card.plain_json(plain[0] if what != "all" else {one["name"]: one for one in plain})
        )
    else:
        for one in found:
            card.show(render(one))
    return EXIT_OK


def render(found: Reproduction) -> Iterator[RenderableType]:
    """Statements beside each other, then the grids."""
    from rich.markup import escape
    from rich.text import Text

    from inferometer.cli import card

    yield Text(found.title, style="bold")
    yield card.line("", found.caption)
    words = {True: ("agrees", "green"), False: ("differs", "red"), None: ("open", "yellow")}
    for one in found.statements:
        word, colour = words[one.agrees]
        yield card.line(word, f"paper: {one.paper}", colour)
        yield card.line("", f"ours: {one.ours}")
        if one.why:
            yield card.line("", one.why)
    for grid in found.grids:
        table = card.table(*map(escape, grid.head))
        for row in grid.rows:
            table.add_row(*map(escape, row))
        yield table
    yield ""


def _page(path: Path, found: list[Reproduction]) -> None:
    from inferometer.cli.report import write_page

    write_page(path, "The paper's figures, from our own runs", [one.section() for one in found])


def _figures(folder: Path, found: list[Reproduction]) -> None:
    from inferometer.report import save_figures
    from inferometer.report.page import FORMATS

    save_figures([chart for one in found for chart in one.charts], folder, FORMATS)
