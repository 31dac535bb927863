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

SHOWN = 5  # malformed rows
QUANTITIES = {
    "prompt_tokens": "prompt tokens",
    "output_tokens": "output tokens",
    "pd_ratio": "prompt : output",
}


@verb(
    click.Argument(["what"], metavar="NAME|FILE|RUN"),
    *section(
        "Read",
        rare("--format NAME", "The trace's format, where it is not seen from its content."),
        opt("--strict", "Refuse a trace with malformed rows."),
    ),
    *section(
        "Result",
        opt("--save NAME|FILE", "Keep a trace as a profile, for --workload."),
        opt("--plot FILE|DIR", "Charts: a page (.html), a picture (.svg, .png, .pdf), or all of them in a folder."),
        opt("--profiles", "List the profiles that ship, by name.", is_eager=True, expose_value=False,
            callback=lambda ctx, _param, wanted: _list_profiles(ctx) if wanted else None),
        json_option(),
    ),
)  # fmt: skip
def command(
    *,
    what: str,
    format: str | None,  # noqa: A002
    strict: bool,
    save: str | None,
    plot: str | None,
    as_json: bool,
) -> int:
    """What a trace, a profile, a spec or a run asks for: lengths, arrivals, sharing.

    FILE is whatever measure's --workload takes: a trace of any format (or a
    folder of one), a profile, a spec. RUN is a run directory.
    """
    from inferometer.cli import card
    from inferometer.workload.describe import describe

    thing = _thing(what, format, strict=strict)
    saved = _saved(thing, save, what) if save is not None else None
    told = describe(thing)
    drawn = _plotted(told, Path(plot), what) if plot is not None else None
    written = {name: path for name, path in (("saved", saved), ("plot", drawn)) if path}
    if as_json:
        click.echo(card.plain_json(told | written))
    else:
        card.show(render(what, told))
        for name, path in written.items():
            click.echo(f"{name:<12}{path}")
    return EXIT_OK


def _plotted(told: dict[str, Any], path: Path, what: str) -> str:
    """Where the charts were written: a page, one picture, or a folder of pictures with their data."""
    from inferometer.cli.report import write_page
    from inferometer.report import save_figure, save_figures, workload_charts, workload_sections
    from inferometer.report.page import FORMATS

    form = path.suffix.removeprefix(".").lower()
    if form not in ("", "html", *FORMATS):
        endings = ", ".join(f".{name}" for name in ("html", *FORMATS))
        raise UserError(
            f"no charts are written as .{form}",
            where="--plot",
            remedy=f"take of {endings}, or a folder",
        )
    try:
        if form == "html":
            write_page(path, f"{told['kind']} {what}", workload_sections(told))
        elif form:
            save_figure(workload_charts(told), path)
        else:
            save_figures(workload_charts(told), path, ("svg", "png"))
    except OSError as error:
        raise UserError(f"cannot write there: {error.strerror}", where=str(path)) from None
    return str(path)


def _saved(thing: Any, save: str, what: str) -> str:
    """Where the profile of a trace was written."""
    from inferometer.workload.profiles import profile_of, save_profile
    from inferometer.workload.tally import Tally
    from inferometer.workload.traces import Trace

    if not isinstance(thing, Trace | Tally):
        raise UserError("only a trace is made into a profile", where=what)
    return str(save_profile(profile_of(thing, Path(save).stem), save))


def render(what: str, told: dict[str, Any]) -> Iterator[RenderableType]:
    """A table of quantiles, and the arrivals in words."""
    from inferometer.cli.card import line, number, table

    rows = f"{told['rows']:,} requests" if told.get("rows") else "a profile"
    yield line(told["kind"], f"{what} · {rows} · {told.get('source') or ''}".rstrip(" ·"))
    yield ""
    shown = table("", "mean", "p50 [95 %]", "iqr [95 %]", "p90", "p99", "max")
    for name, label in QUANTITIES.items():
        shown.add_row(label, *_cells(told[name]))
    if told.get("prefix"):
        shown.add_row("  not cached", *_cells(told["prefix"]["pd_ratio_uncached"]))
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
        yield line("", _over_time(arrivals))
        if arrivals["tick_s"]:
            raw = _known(arrivals["cv_as_stamped"])
            yield line(
                "", f"stamps are {arrivals['tick_s']:.3g} s ticks, spread here; CV as stamped {raw}"
            )
    if told.get("prefix"):
        yield line(
            "sharing", f"{told['prefix']['cached_share']:.0%} of prompt tokens were seen before"
        )
    if told.get("sessions"):
        sessions = told["sessions"]
        turns, pause = (number(sessions[name]["p50"]) for name in ("requests", "think_s"))
        yield line(
            "sessions",
            f"{sessions['count']:,}, the median of {turns} requests, with pauses of {pause} s",
        )
    for place, note in enumerate([*_problems(told), *told.get("notes", ())]):
        yield line("" if place else "note", note)


def _over_time(arrivals: dict[str, Any]) -> str:
    """How uneven the rate is, from minute to minute and over the day."""
    told = (
        f"the busiest minute has {_known(arrivals['peak_to_mean_per_minute'])} times the mean rate"
    )
    by_hour = arrivals["by_hour"]
    if by_hour:
        told += f"; hours of the day {_known(min(by_hour))} to {_known(max(by_hour))} per second"
    return told


def _problems(told: dict[str, Any]) -> Iterator[str]:
    """The rows that could not be read: how many, and the first of them."""
    found = told.get("problems") or {"rows": 0}
    if found["rows"]:
        yield f"{found['rows']:,} rows could not be read and are left out:"
        yield from found["first"][:SHOWN]
        if found["rows"] > SHOWN:
            yield f"... and {found['rows'] - SHOWN:,} more (--json lists the first 20)"


def _thing(what: str, form: str | None, *, strict: bool) -> Any:
    """The trace (or its tally), profile or plan that is meant."""
    from inferometer.cli import wish
    from inferometer.run import load_run
    from inferometer.workload import make_plan
    from inferometer.workload.profiles import load_profile
    from inferometer.workload.tally import read_or_tally

    kind = wish.meant(what) if form is None else "trace"
    if kind == "run":
        plan = load_run(Path(what)).plan
        arrived = Path(what) / "timeline.parquet"  # an imported run has no plan
        return read_or_tally(str(arrived), "parquet", strict=False) if plan is None else plan
    if kind == "trace":
        return read_or_tally(what, form, strict=strict)
    if kind == "spec":
        return make_plan(wish.workload(wish.Load(workload=what, strict=strict)))
    return load_profile(what)


def _cells(q: dict[str, Any]) -> list[str]:
    cells = []
    for name in ("mean", "p50", "iqr", "p90", "p99", "max"):
        ci = q["ci"].get(name) if name in ("p50", "iqr") else None
        bounds = f" [{_known(ci[0])}, {_known(ci[1])}]" if ci else ""
        cells.append(_known(q[name]) + bounds)
    return cells


def _known(x: float | None) -> str:
    from inferometer.cli.card import count

    if x is None:
        return "-"
    return f"{x / 1000:,.0f}k" if x >= 100_000 else count(x)


def _list_profiles(ctx: click.Context) -> None:
    from inferometer.workload.profiles import load_profile, shipped_profiles

    for name in shipped_profiles():
        click.echo(f"{name:<22} {load_profile(name).about}")
    ctx.exit()
