"""`inferometer plan-run`: from a pilot run, how many requests or minutes a stated precision asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from inferometer.cli.options import ABOVE_0, json_option, opt, rare, section, verb
from inferometer.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.search.lengths import Needed


@verb(
    click.Argument(["path"], metavar="PILOT"),
    *section(
        "Wish",
        opt("--precision SHARE", "Half of the interval, as a share: 0.05 or 5%.  [5%]", default="5%"),
        opt("--metric NAME", "ttft.p99, tbt.mean, ...; repeatable.  [twelve]", to="names", multiple=True),
        rare("--level SHARE", "Of the interval.  [0.95]", ABOVE_0, default=0.95),
    ),
    *section("Result", json_option()),
)  # fmt: skip
def command(**options: Any) -> int:
    """How long a run must be for a stated precision.

    PILOT is a run directory at the load in question: a minute will do.
    """
    from inferometer.cli import card
    from inferometer.load.recovery import read_run
    from inferometer.search import lengths

    precision = share(options["precision"], "--precision")
    if not options["level"] < 1:
        raise UserError("a level lies between 0 and 1", where="--level")
    names = options["names"] or lengths.ASKED
    rows = lengths.needed(read_run(options["path"]), names, precision, options["level"])
    if options["as_json"]:
        click.echo(card.plain_json(lengths.to_dict(rows, precision, options["level"])))
    else:
        card.show(render(rows, precision, options["level"]))
    return EXIT_OK


def share(text: str, where: str) -> float:
    """ "5%" or "0.05" as 0.05."""
    try:
        value = float(text.rstrip("% ")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise UserError(f"{text!r} is not a share", where=where, remedy="write 5%") from None
    if not 0 < value < 1:
        raise UserError(f"{text} does not lie between 0 and 1", where=where)
    return value


def render(rows: Sequence[Needed], precision: float, level: float) -> Iterator[RenderableType]:
    """A row per statistic."""
    from inferometer.cli import card

    yield card.line("wanted", f"{level:.0%} intervals within ±{precision:.3g} of each value")
    yield ""
    shown = card.table("", "because of", "pilot", "± now", "requests", "time at its rate")
    for row in rows:
        shown.add_row(
            row.name,
            row.because,
            _seen(row),
            "-" if math.isnan(row.now) else f"{row.now:.1%}",
            "-" if row.requests is None else f"{row.requests:,}",
            "-" if row.seconds is None else duration(row.seconds),
        )
    yield shown


def _seen(row: Needed) -> str:
    """The pilot's own value, in its unit."""
    from inferometer.cli.card import number
    from inferometer.metrics.table import DISTRIBUTIONS

    timed = DISTRIBUTIONS[row.name.partition(".")[0]].unit == "s"
    if math.isnan(row.seen):
        return "-"
    return f"{number(1e3 * row.seen)} ms" if timed else number(row.seen)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, in two digits."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} s"
