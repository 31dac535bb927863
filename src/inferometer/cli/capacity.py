"""`inferometer capacity`: from options to a world, a search in it, and what it found.

The search itself is `inferometer.search.capacity`; here it is told what to do, watched, and shown. Every probe is a run
directory beside the journal, so that a search that was interrupted goes on with the same command.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from inferometer.cli import measure, target, wish
from inferometer.cli.browser import Ends, also, browser, serve_option
from inferometer.cli.options import (
    ABOVE_0,
    AT_LEAST_1,
    DURATION,
    DURATION_OR_0,
    NOT_NEGATIVE,
    json_option,
    opt,
    rare,
    section,
    verb,
)
from inferometer.errors import EXIT_FAILED, EXIT_INVALID, EXIT_OK, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.load.preflight import Found
    from inferometer.report.live import Live
    from inferometer.search.capacity import Capacity, Probe, Search, Standing, World
    from inferometer.workload import WorkloadSpec

EXITS = {
    "resolved": EXIT_OK,
    "cliff": EXIT_OK,
    "unbounded": EXIT_OK,
    "infeasible": EXIT_FAILED,
    "unresolved": EXIT_INVALID,
}
COLOURS = {"resolved": "green", "cliff": "yellow", "unbounded": "yellow"}

# fmt: off
OPTIONS = (
    click.Argument(["urls"], nargs=-1, required=True, metavar="URL..."),
    *section(
        "Search",
        opt("--slo EXPR", "'ttft.p99 <= 0.5s and tbt.p99 <= 50ms', or a preset.", required=True),
        opt("--start LOAD", "Where to begin: requests/s, or in flight.  [1]", ABOVE_0),
        opt("--in-flight", "Search the concurrency of a closed loop instead.", to="whole"),
        opt("--precision SHARE", "Until the interval is this narrow.  [0.05]", ABOVE_0, default=0.05),
        rare("--budget TIME", "Give up after so long.  [none]", DURATION, to="budget_s"),
        rare("--lowest LOAD", "Infeasible if not met here.", ABOVE_0),
        rare("--highest LOAD", "Unbounded if met here.", ABOVE_0),
        rare("--confidence SHARE", "Of the interval.  [0.9]", ABOVE_0, default=0.9),
        rare("--probe-requests N", "Requests of a first probe.  [200]", AT_LEAST_1, default=200),
        rare("--most-requests N", "Requests of any probe.  [8000]", AT_LEAST_1, default=8_000),
        rare("--shortest TIME", "No probe is shorter.  [10s]", DURATION, to="shortest_s", default="10s"),
        rare("--longest TIME", "No probe is longer.  [10m]", DURATION, to="longest_s", default="10m"),
        rare("--rest TIME", "Between two probes.  [2s]", DURATION_OR_0, to="rest_s", default="2s"),
        rare("--probes N", "At most so many.  [80]", AT_LEAST_1, default=80),
        rare("--no-hysteresis", "Do not look whether an overload leaves a mark."),
        rare("--prefill FILE", "A prefill curve, for SLOs on scheduling_delay."),
    ),
    *section(
        "Load",
        opt("--arrivals PROCESS", "poisson, constant, gamma:cv=2, ...  [poisson]"),
        opt("--prompt-tokens LENGTH", "256, lognormal:median=512,sigma=1, ...  [256]"),
        opt("--output-tokens LENGTH", "64, uniform:low=16,high=256, ...  [64]"),
        opt("--workload FILE", "A spec in YAML; its rate is what is searched."),
        rare("--app NAME", "The application column: chat, code, agent, ..."),
        opt("--seed N", "Other prompts and times.  [0]", NOT_NEGATIVE, default=0),
        rare("--workers N", "Processes that send.  [1]", AT_LEAST_1, default=1),
    ),
    *(o for o in measure.OPTIONS if getattr(o, "section", "") in ("Target", "Patience")),
    *section(
        "Result",
        opt("-o, --out FOLDER", "Where the runs go; the same folder resumes.", required=True),
        json_option(),
        serve_option(),
        rare("--quiet", "No progress on stderr."),
    ),
)
# fmt: on


@verb(*OPTIONS)
def command(**options: Any) -> int:
    """Find the highest load that meets an SLO, with an interval.

    Loads are requests per second, or requests in flight with --in-flight.
    Exit code 1: infeasible at any load; 3: unresolved.
    """
    from inferometer import slo as slos
    from inferometer.cli import card
    from inferometer.report.searched import ANSWER
    from inferometer.run import write_whole
    from inferometer.search.capacity import Header, capacity, open_journal

    slo = slos.parse(options["slo"], where="--slo")
    search = _search(options)
    asked = _workload(options)
    folder = Path(options["out"])
    found = target.found(options)
    header = Header(
        slo=slo.text,
        target=" ".join(found.target.described()["urls"]) + f" {found.target.model}",
        workload=msgspec.json.encode(asked).decode(),
        whole=search.whole,
    )
    known, keep = open_journal(folder, header)
    world = _world(found, asked, folder, options)
    silent = options["as_json"] or options["quiet"]
    with browser(options["serve"], f"capacity: {folder.name}", Ends([folder])) as live:
        with _watching(silent) as shown:
            watch = also(live, shown, tell)
            answer = capacity(world, slo, search, known=known, keep=keep, watch=watch)
        told = card.plain_json(answer.to_dict() | {"folder": str(folder)})
        write_whole(folder / ANSWER, told.encode())
        if options["as_json"]:
            click.echo(told)
        else:
            card.show(render(answer, folder))
    return EXITS[answer.verdict]


def _search(options: dict[str, Any]) -> Search:
    from inferometer.search.capacity import Search

    if not options["confidence"] < 1:
        raise UserError("a confidence lies between 0 and 1", where="--confidence")
    given = {name: options[name] for name in _LIMITS if options[name] is not None}
    return Search(
        start=options["start"] or 1.0,
        whole=options["whole"],
        precision=options["precision"],
        confidence=options["confidence"],
        requests=options["probe_requests"],
        most_requests=options["most_requests"],
        shortest_s=options["shortest_s"],
        longest_s=options["longest_s"],
        probes=options["probes"],
        seed=options["seed"],
        hysteresis=not options["no_hysteresis"],
        **given,
    )


_LIMITS = ("lowest", "highest", "budget_s")


def _workload(options: dict[str, Any]) -> WorkloadSpec:
    closed = options["whole"]
    if closed and options["arrivals"]:
        raise UserError("a closed loop has no --arrivals", where="--in-flight")
    own = options["workload"] is not None and options["arrivals"] is None
    return wish.workload(
        wish.Load(
            workload=options["workload"],
            concurrency=1 if closed else None,
            rate=None if closed or own else 1.0,
            arrivals=options["arrivals"],
            requests=1,
            prompt_tokens=options["prompt_tokens"],
            output_tokens=options["output_tokens"],
            app=options["app"],
        )
    )


def _world(found: Found, asked: WorkloadSpec, folder: Path, options: dict[str, Any]) -> World:
    from dataclasses import replace

    from inferometer.load.options import Drive, Patience
    from inferometer.metrics.prefill import with_curve
    from inferometer.search.measured import Measured
    from inferometer.search.prefill import read_curve

    names = ("connect_s", "first_token_s", "between_s", "total_s")
    patience = Patience(**{name: options[name] for name in names if options[name] is not None})
    drive = Drive(
        workers=options["workers"],
        patience=patience,
        retries=options["retries"],
        tokenizer=options["tokenizer"],
    )
    world = Measured(found, asked, drive, folder, rest_s=options["rest_s"])
    world = replace(world, telemetry=not options["no_telemetry"])
    if options["prefill"] is None:
        return world
    curve = read_curve(options["prefill"])
    return lambda ask: with_curve(world(ask), curve)


# --- what is seen of it -----------------------------------------------------------------------------------------------


@contextmanager
def _watching(silent: bool) -> Iterator[Callable[[Sequence[Probe], Standing | None], None] | None]:
    """What to call after each probe: on a terminal the whole curve is redrawn, else a line is written."""
    if silent:
        yield None
        return
    if not sys.stderr.isatty():
        yield lambda probes, now: click.echo(progress(probes, now), err=True)
        return
    from rich.console import Console, Group
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield lambda probes, now: live.update(
            Group(curve(probes), progress(probes, now)), refresh=True
        )


def progress(probes: Sequence[Probe], now: Standing | None) -> str:
    """One line: the last probe, and where the search stands."""
    from inferometer.cli.card import number

    last = probes[-1]
    share = "invalid" if last.attainment is None else f"{last.attainment:.1%}"
    told = f"probe {len(probes)}: {number(last.ask.load)} ({last.ask.role}): {share}"
    told += f" of {last.requests:,}, {'met' if last.met else 'not met'}"
    if now is None:
        return told
    return f"{told}; capacity {_load(now.load)} in [{_load(now.interval.lo)}, {_load(now.interval.hi)}]"


def tell(live: Live, probes: Sequence[Probe], now: Standing | None) -> None:
    """The same, for a browser."""
    last = probes[-1]
    figures = {
        "load": last.ask.load,
        "attainment [%]": None if last.attainment is None else 100 * last.attainment,
        "TTFT p99 [ms]": None if last.ttft_p99_s is None else 1e3 * last.ttft_p99_s,
        "capacity": None if now is None or not math.isfinite(now.load) else now.load,
    }
    live.tell(figures, progress(probes, now))
    live.table(HEADS, [cells(probe) for probe in by_load(probes)])


def render(answer: Capacity, folder: Path) -> Iterator[RenderableType]:
    """The verdict, the curve, and what it took."""
    from inferometer.cli import card

    unit = "in flight" if answer.search.whole else "requests/s"
    ends = f"[{_load(answer.interval.lo)}, {_load(answer.interval.hi)}]"
    told = "-" if math.isnan(answer.load) else card.number(answer.load)
    level = f"{answer.search.confidence:.0%} interval {ends}"
    yield card.line("capacity", f"{told} {unit} · {level}")
    colour = COLOURS.get(answer.verdict, "red")
    yield card.line(
        "verdict", f"{answer.verdict}{': ' if answer.reason else ''}{answer.reason}", colour
    )
    yield card.line("SLO", f"{answer.slo.name or answer.slo.text} · binding: {answer.binding}")
    if answer.hysteresis is not None:
        yield card.line("hysteresis", _hysteresis(answer), "red" if answer.hysteresis.shown else "")
    yield ""
    yield curve(answer.probes)
    spent = math.fsum(probe.spent_s for probe in answer.probes)
    requests = sum(probe.requests for probe in answer.probes)
    yield card.line("cost", f"{len(answer.probes)} probes · {requests:,} requests · {spent:,.0f} s")
    yield card.line("runs", str(folder))


def _hysteresis(answer: Capacity) -> str:
    seen = answer.hysteresis
    assert seen is not None
    told = f"at {_load(seen.load)}: {seen.before:.1%} before an overload, {seen.after:.1%} after"
    return told + ("" if seen.shown else "; no fall is shown")


def curve(probes: Sequence[Probe]) -> RenderableType:
    """Attainment, TTFT and TBT versus load, a row per probe."""
    from inferometer.cli import card

    shown = card.table(*HEADS)
    for probe in by_load(probes):
        shown.add_row(*cells(probe), style="" if probe.met else "dim")
    return shown


HEADS = ("load", "share", "", "ttft p50", "ttft p99", "tbt p50", "tbt p99", "requests", "failed", "probe")  # fmt: skip


def by_load(probes: Sequence[Probe]) -> list[Probe]:
    """The probes, the lowest load first."""
    return sorted(probes, key=lambda probe: probe.ask.load)


def cells(probe: Probe) -> list[str]:
    """A probe under `HEADS`."""
    from inferometer.cli.card import number

    return [
        number(probe.ask.load),
        "-" if probe.attainment is None else f"{probe.attainment:.1%}",
        "met" if probe.met else "invalid" if probe.invalid else "not met",
        *map(_ms, (probe.ttft_p50_s, probe.ttft_p99_s, probe.tbt_p50_s, probe.tbt_p99_s)),
        f"{probe.requests:,}",
        f"{probe.failed:,}",
        probe.ask.role + (", stopped" if probe.stopped else ""),
    ]


def _ms(seconds: float | None) -> str:
    from inferometer.cli.card import number

    return "-" if seconds is None else f"{number(1e3 * seconds)} ms"


def _load(value: float) -> str:
    from inferometer.cli.card import number

    return "-" if math.isnan(value) else "∞" if math.isinf(value) else number(value)
