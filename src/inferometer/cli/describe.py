"""`inferometer describe`: what a trace, a profile or the plan of a run is like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferometer.cli.options import json_option, opt, rare, section, verb
from inferometer.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

QUANTITIES = {
    "prompt_tokens": "prompt tokens",
    "output_tokens": "output tokens",
    "pd_ratio": "prompt : output",
}


@verb(
    click.Argument(["what"], metavar="NAME|FILE|RUN"),
    *section(
        "Result",
        rare("--format NAME", "The trace's format, where it is not seen from its first line."),
        opt("--profiles", "List the profiles that ship, by name.", is_eager=True, expose_value=False,
            callback=lambda ctx, _param, wanted: _list_profiles(ctx) if wanted else None),
        json_option(),
    ),
)  # fmt: skip
def command(*, what: str, format: str | None, as_json: bool) -> int:  # noqa: A002
    """What a trace, a profile or a run asks for: lengths, arrivals, sharing.

    FILE is a trace of any format that measure replays; RUN a run directory.
    """
    from inferometer.cli import card
    from inferometer.workload.describe import describe

    told = describe(_thing(what, format))
    if as_json:
        click.echo(card.plain_json(told))
    else:
        card.show(render(what, told))
    return EXIT_OK


def render(what: str, told: dict[str, Any]) -> Iterator[RenderableType]:
    """A table of quantiles, and the arrivals in words."""
    from inferometer.cli.card import line, number, table

    rows = f"{told['rows']:,} requests" if told.get("rows") else "a profile"
    yield line(told["kind"], f"{what} · {rows} · {told.get('source') or ''}".rstrip(" ·"))
    yield ""
    shown = table("", "mean", "p25", "p50 [95 %]", "p75", "p90", "p99", "max")
    for name, label in QUANTITIES.items():
        shown.add_row(label, *_cells(told[name]))
    yield shown
    yield ""
    arrivals = told["arrivals"]
    if arrivals is None:
        yield line("arrivals", "no times")
    else:
        idc = ", ".join(f"{w} s: {_known(x)}" for w, x in arrivals["idc"].items())
        rate = f"{number(arrivals['rate_per_s'])} per second over {number(arrivals['span_s'])} s"
        yield line("arrivals", f"{rate} · CV of gaps {_known(arrivals['cv'])}")
        yield line("", f"index of dispersion at {idc}")
    if told.get("prefix"):
        yield line(
            "sharing", f"{told['prefix']['cached_share']:.0%} of prompt tokens were seen before"
        )
    if told.get("sessions"):
        sessions = told["sessions"]
        turns = number(sessions["requests"]["mean"])
        yield line("sessions", f"{sessions['count']:,}, of {turns} requests in the mean")
    for place, note in enumerate(told.get("notes", ())):
        yield line("" if place else "note", note)


def _thing(what: str, form: str | None) -> Any:
    """The trace, profile or plan that is meant."""
    from inferometer.run import load_run
    from inferometer.workload import read_trace
    from inferometer.workload.profiles import load_profile

    path = Path(what)
    if path.is_dir():
        plan = load_run(path).plan
        if plan is None:
            raise UserError("this run has no plan", where=what)
        return plan
    if path.is_file() and path.suffix != ".json":
        return read_trace(path, form)
    return load_profile(what)


def _cells(q: dict[str, Any]) -> list[str]:
    cells = []
    for name in ("mean", "p25", "p50", "p75", "p90", "p99", "max"):
        ci = q["ci"].get(name) if name == "p50" else None
        bounds = f" [{_known(ci[0])}, {_known(ci[1])}]" if ci else ""
        cells.append(_known(q[name]) + bounds)
    return cells


def _known(x: float | None) -> str:
    from inferometer.cli.card import count

    return "-" if x is None else count(x)


def _list_profiles(ctx: click.Context) -> None:
    from inferometer.workload.profiles import load_profile, shipped_profiles

    for name in shipped_profiles():
        click.echo(f"{name:<22} {load_profile(name).about}")
    ctx.exit()
