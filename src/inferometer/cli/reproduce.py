"""`inferometer reproduce`: what the seed paper states, beside what can be computed again, cell by cell.

Only `table1` so far. A number that cannot be recomputed is never filled in: its line says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from inferometer.cli.options import json_option, opt, section, verb
from inferometer.errors import EXIT_OK

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.workload.table1 import Cell


@verb(
    click.Argument(["what"], metavar="table1", type=click.Choice(["table1"])),
    *section(
        "Data",
        opt(
            "--traces FOLDER",
            "Where Mooncake's arXiv trace is (mooncake_trace.jsonl).",
            required=True,
        ),
        json_option(),
    ),
)
def command(*, what: str, traces: str, as_json: bool) -> int:  # noqa: ARG001 - the choice has one member
    """A table of the seed paper beside ours, from public data."""
    from inferometer.cli import card
    from inferometer.workload.table1 import as_columns, table1

    cells = table1(traces)
    if as_json:
        click.echo(card.plain_json(as_columns(cells)))
    else:
        card.show(_render(cells))
    return EXIT_OK


def _render(cells: list[Cell]) -> Iterator[RenderableType]:
    from inferometer.cli import card
    from inferometer.workload.table1 import matches

    table = card.table("trace", "number", "paper", "ours", "95 %", wide=16)
    reasons: dict[str, None] = {}
    for cell in cells:
        low_high = f"[{card.number(cell.ci[0])}, {card.number(cell.ci[1])}]" if cell.ci else ""
        ours = "-" if cell.ours is None else f"{card.number(cell.ours)} {cell.verdict}"
        table.add_row(
            cell.trace, f"{cell.column} {cell.statistic}", f"{cell.paper:g}", ours, low_high
        )
        if cell.why:
            reasons[f"{cell.trace}, {cell.column} {cell.statistic}: {cell.why}"] = None
    yield table
    yield card.line(
        "exact",
        f"{matches(cells)} of the {sum(c.ours is not None for c in cells)} that can be recomputed",
    )
    for reason in reasons:
        yield card.line("", reason)
