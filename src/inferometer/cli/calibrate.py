"""`inferometer calibrate`: how wrong the instrument is on this host, found against a server that logs the truth.

Each rung of a ladder of loads is shown as it ends; the record is kept for this host, where later runs cite it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from inferometer.cli.options import json_option, opt, section, verb
from inferometer.errors import EXIT_INVALID, EXIT_OK, UserError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from inferometer.emulator.calibrate import Load
    from inferometer.load.calibration import Calibration, Rung

MOST_STREAMS = 100_000
ACROSS = 7  # rungs side by side in 100 columns


@verb(
    *section(
        "Ladder",
        opt("--quick", "Three rungs of some seconds each."),
        opt("--rungs N,N,...", "Other numbers of streams, in rising order."),
        opt("--show", "Measure nothing: show this host's record."),
    ),
    *section("Result", json_option()),
)
def command(*, quick: bool, rungs: str | None, show: bool, as_json: bool) -> int:
    """Measure the instrument's own error on this host: measured minus true.

    Keep the host idle meanwhile. A minute for all rungs, 20 s for --quick.
    """
    from inferometer.cli import card

    found, where = _recorded() if show else _measured(ladder(quick, rungs))
    if as_json:
        click.echo(card.plain_json(found))
    else:
        card.show([*tables(found), "", *_remarks(found, where)])
    return EXIT_OK if found.believed_tokens_per_s is not None else EXIT_INVALID


def ladder(quick: bool, rungs: str | None) -> tuple[Load, ...]:
    """The loads to try."""
    from inferometer.emulator.calibrate import LADDER, QUICK, Load

    if rungs is None:
        return QUICK if quick else LADDER
    if quick:
        raise UserError("--quick has rungs of its own", where="--rungs", remedy="leave one out")
    try:
        streams = [int(part) for part in rungs.split(",")]
    except ValueError:
        raise UserError(f"{rungs!r} is not a list of numbers", where="--rungs") from None
    if streams != sorted(set(streams)) or not 1 <= streams[0] <= streams[-1] <= MOST_STREAMS:
        raise UserError(
            f"numbers of streams rise, from 1 to {MOST_STREAMS:,} at most", where="--rungs"
        )
    return tuple(Load(streams=n) for n in streams)


def _measured(loads: tuple[Load, ...]) -> tuple[Calibration, str]:
    from inferometer.emulator.calibrate import calibrate
    from inferometer.load.calibration import store

    found = calibrate(loads, watch=lambda rung: click.echo(told(rung), err=True))
    return found, str(store(found))


def _recorded() -> tuple[Calibration, str]:
    from inferometer.load.calibration import latest, record_path

    found = latest()
    if found is None:
        raise UserError("this host has no calibration", remedy="make one: inferometer calibrate")
    return found, str(record_path())


def told(rung: Rung) -> str:
    """A rung in one line, with the reasons against it."""
    why = f": {'; '.join(rung.reasons)}" if rung.reasons else ""
    return f"{_name(rung)}: {rung.verdict}{why}"


def _name(rung: Rung) -> str:
    return f"{rung.streams:,} streams, {rung.stamps} stamps"


def tables(found: Calibration) -> Iterator[Table]:
    """A column per rung, `ACROSS` of them side by side; errors are magnitudes in µs."""
    from inferometer.cli.card import table

    rungs = (*found.rungs, *found.beside)
    for start in range(0, len(rungs), ACROSS):
        part = rungs[start : start + ACROSS]
        out = table("streams", *(f"{rung.streams:,}" for rung in part))
        for column in out.columns[1:]:
            column.justify = "right"
        for name, cell in ROWS.items():
            out.add_row(name, *map(cell, part))
        yield out


def _number(value: float | None) -> str:
    from inferometer.cli.card import number

    return "-" if value is None else number(value)


def _percent(share: float | None) -> str:
    return "-" if share is None else _number(100 * share)


def _us(seconds: float | None) -> str:
    """Microseconds; what is far out of any bound, in seconds."""
    if seconds is None:
        return "-"
    return f"{seconds:.2g} s" if seconds >= 0.1 else _number(1e6 * seconds)


_TOLD = {"believed": "yes", "refused": "no", "discarded": "void"}
# Names must differ, so those of quantiles end in spaces.
ROWS: dict[str, Callable[[Rung], str]] = {
    "stamps": lambda r: r.stamps,
    "tokens/s": lambda r: f"{r.tokens_per_s:,.0f}",
    "compared, %": lambda r: f"{100 * r.matched_share:.2f}",
    "stamp error p50, µs": lambda r: _us(r.stamp_error.p50),
    "  p99": lambda r: _us(r.stamp_error.p99),
    "  max": lambda r: _us(r.stamp_error.max),
    "gap error p50, µs": lambda r: _us(r.gap_error.p50),
    "  p99 ": lambda r: _us(r.gap_error.p99),
    "  p99.9": lambda r: _us(r.gap_error.p999),
    "TTFT error p50, µs": lambda r: _us(r.ttft_error.p50),
    "  p99  ": lambda r: _us(r.ttft_error.p99),
    "send lag p99, µs": lambda r: _us(r.send_lag.p99),
    "shared stamps, %": lambda r: _percent(r.shared_stamps),
    "CPU µs per token": lambda r: _number(r.cpu_us_per_token),
    "driver's core, %": lambda r: _percent(r.cpu_share),
    "emulator late, %": lambda r: _percent(r.emulator_late_share),
    "believed": lambda r: _TOLD[r.verdict],
}


def _remarks(found: Calibration, where: str) -> Iterator[Text]:
    from inferometer.cli.card import line

    yield line("errors", "measured minus true, the server's own log of its writes being the truth")
    for rung in (*found.rungs, *found.beside):
        if rung.reasons:
            yield line(rung.verdict, f"{_name(rung)}: {'; '.join(rung.reasons)}")
    for place, note in enumerate(found.notes):
        yield line("note" if not place else "", note)
    yield line("verdict", found.verdict(), "" if found.believed_tokens_per_s else "red")
    yield line("record", f"{where} ({found.when})")
