"""`inferometer score`: what a run directory says, again: on screen, as JSON, or in a form for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferometer.cli.options import json_option, opt, rare, section, verb
from inferometer.errors import UserError

if TYPE_CHECKING:
    from inferometer.metrics import Scorecard
    from inferometer.run import Run


@verb(
    click.Argument(["path"], metavar="RUN"),
    *section(
        "Judge",
        opt("--slo EXPR", "'ttft.p99 <= 0.5s and tbt.p99 <= 50ms', or a preset's name."),
        opt("--conventions", "The same run as other tools would score it, side by side."),
        opt("--prefill FILE", "A prefill curve, in place of the run's own."),
        opt("--steady", "Leave out what came before and after the steady state."),
        opt("--fidelity", "Planned beside achieved: arrivals, lengths, sharing, each with its tolerance."),
        rare("--no-intervals", "Leave out the intervals: quicker on a large run."),
    ),
    *section(
        "Result",
        json_option(),
        opt("--format NAME", "table, json, csv, openmetrics or parquet.  [table]", click.Choice(["table", "json", "csv", "openmetrics", "parquet"]), default="table", to="form"),
        opt("-o, --out FILE", "Of csv, openmetrics or parquet, in place of stdout."),
    ),
)  # fmt: skip
def command(**options: Any) -> int:
    """The figures of a run, and how far to trust them.

    RUN is a directory that measure wrote; an interrupted one is read, too, and
    a folder of repeats is scored as such.
    """
    from inferometer import slo as slos
    from inferometer.cli import card, export, repeats
    from inferometer.cli.compare import runs_in
    from inferometer.metrics import score
    from inferometer.search.repeats import together

    slo = slos.parse(options["slo"], where="--slo") if options["slo"] else None
    runs = [_knowing(run, options["prefill"]) for run in runs_in(options["path"])]
    if runs[0].path != Path(options["path"]):
        found = together(runs, slo)
        return repeats.present(found, Path(options["path"]), as_json=options["as_json"])
    run = runs[0]
    scored = score(run, slo, intervals=not options["no_intervals"], steady=options["steady"])
    form = "json" if options["as_json"] else options["form"]
    if options["out"] and form not in export.FORMATS:
        raise UserError(
            "is for what other programs read", where="-o", remedy="add --format csv, say"
        )
    if options["fidelity"] and form == "table":
        card.show(card.fidelity_table(run))
        return card.exit_code(scored)
    if options["conventions"]:
        return _compare(run, scored, form)
    if form in export.FORMATS:
        export.write(scored, form, options["out"])
        return card.exit_code(scored)
    return card.present(run, scored, as_json=form == "json")


def _knowing(run: Run, curve: str | None) -> Run:
    """The run with the prefill curve in a file, if one is named."""
    from inferometer.metrics.prefill import with_curve
    from inferometer.search.prefill import read_curve

    return run if curve is None else with_curve(run, read_curve(curve))


def _compare(run: Run, scored: Scorecard, form: str) -> int:
    from inferometer.cli import card
    from inferometer.cli.tools import side_by_side
    from inferometer.metrics import conventions

    found = conventions(run)
    if form == "json":
        click.echo(card.plain_json(card.told(run, scored) | {"conventions": found}))
    else:
        card.show(side_by_side(scored, found))
    return card.exit_code(scored)
