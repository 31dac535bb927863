"""`inferometer capacity`: from options to a world, a search in it, and what it found.

The search itself is `inferometer.search.capacity`; here it is told what to do, watched, and shown. A server and a
simulated system differ in the world that they become, and in nothing else. Every probe is a run directory beside the
journal, so that a search that was interrupted goes on with the same command.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
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
    from rich.live import Live as Terminal

    from inferometer.load.options import Drive
    from inferometer.load.preflight import Found
    from inferometer.load.progress import Progress
    from inferometer.report.live import Live
    from inferometer.search.capacity import Capacity, Probe, Search, Standing, Uneven, World
    from inferometer.sim import Deployment
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
    click.Argument(["urls"], nargs=-1, required=True, metavar="TARGET..."),
    *section(
        "Search",
        opt("--slo EXPR", "'ttft.p99 <= 0.5s and ...', or a preset.", required=True),
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
        rare("--longest TIME", "No probe is longer.  [30m]", DURATION, to="longest_s", default="30m"),
        rare("--rest TIME", "Before each probe.  [2s]", DURATION_OR_0, to="rest_s", default="2s"),
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
        opt("-o, --out FOLDER", "Where the runs go; the same folder resumes."),
        json_option(),
        serve_option(),
        rare("--quiet", "No progress on stderr."),
    ),
)
# fmt: on


@verb(*OPTIONS)
def command(**options: Any) -> int:
    """Find the highest load that meets an SLO, with an interval.

    TARGET: a server's URL, or a simulated system (sim:NAME?model=M).
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
    folder = None if options["out"] is None else Path(options["out"])
    served = target.read(options)
    header = Header(
        slo=slo.text,
        target=_described(served),
        workload=msgspec.json.encode(asked).decode(),
        whole=search.whole,
    )
    if options["serve"] and folder is None:
        raise UserError("a report needs a folder", where="--serve", remedy="name one with -o")
    known, keep = ([], None) if folder is None else open_journal(folder, header)
    where = None if folder is None else str(folder)
    ends = Ends([] if folder is None else [folder])
    with browser(options["serve"], f"capacity: {where}", ends) as live:
        with _watching(options["as_json"] or options["quiet"]) as screen:
            world = _world(served, asked, folder, options, screen)
            watch = also(live, screen.probed, tell)
            answer = capacity(world, slo, search, known=known, keep=keep, watch=watch)
        told = card.plain_json(answer.to_dict() | {"folder": where})
        if folder is not None:
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
        rest_s=options["rest_s"],
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


def _described(served: Found | Deployment) -> str:
    """The target in the header of a journal."""
    from inferometer.sim import Deployment

    if isinstance(served, Deployment):
        return msgspec.json.encode(served).decode()
    return " ".join(served.target.described()["urls"]) + f" {served.target.model}"


def _world(
    served: Found | Deployment,
    asked: WorkloadSpec,
    folder: Path | None,
    options: dict[str, Any],
    screen: Screen,
) -> World:
    from inferometer.metrics.prefill import with_curve
    from inferometer.search.measured import Measured
    from inferometer.search.prefill import read_curve
    from inferometer.search.simulated import Simulated
    from inferometer.sim import Deployment

    world: World
    if isinstance(served, Deployment):
        world = Simulated(served, asked, folder)
    elif folder is None:
        raise UserError("where do the runs go?", where="-o", remedy="name a folder")
    else:
        world = Measured(
            served, asked, _drive(options), folder, watch=screen.running,
            telemetry=not options["no_telemetry"],
        )  # fmt: skip
    if options["prefill"] is None:
        return world
    curve = read_curve(options["prefill"])
    return lambda ask: with_curve(world(ask), curve)


def _drive(options: dict[str, Any]) -> Drive:
    from inferometer.load.options import Drive, Patience

    names = ("connect_s", "first_token_s", "between_s", "total_s")
    patience = Patience(**{name: options[name] for name in names if options[name] is not None})
    return Drive(
        workers=options["workers"],
        patience=patience,
        retries=options["retries"],
        tokenizer=options["tokenizer"],
    )


# --- what is seen of it -----------------------------------------------------------------------------------------------


class Screen:
    """Where a search is watched: on a terminal the curve so far and the probe that runs, else a line per probe."""

    def __init__(self, live: Terminal | None) -> None:
        self._live = live
        self._above: list[Any] = []

    def probed(self, probes: Sequence[Probe], now: Standing | None) -> None:
        """One more probe is there."""
        if self._live is None:
            click.echo(progress(probes, now), err=True)
            return
        self._above = [curve(probes), progress(probes, now)]
        self._draw("")

    def running(self, seen: Progress) -> None:
        """What is known of the probe that runs."""
        told = f"{seen.started:,} of {seen.planned:,} sent, {seen.in_flight:,} in flight"
        self._draw(f"now: {seen.stage}, {told}, {seen.failed:,} failed")

    def _draw(self, last: str) -> None:
        from rich.console import Group

        if self._live is not None:
            self._live.update(Group(*self._above, last), refresh=True)


class Silent(Screen):
    """Nothing is watched."""

    def __init__(self) -> None:
        super().__init__(None)

    def probed(self, probes: Sequence[Probe], now: Standing | None) -> None:
        """Say nothing."""


@contextmanager
def _watching(silent: bool) -> Iterator[Screen]:
    if silent:
        yield Silent()
        return
    if not sys.stderr.isatty():
        yield Screen(None)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield Screen(live)


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


def render(answer: Capacity, folder: Path | None) -> Iterator[RenderableType]:
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
    if answer.uneven is not None:
        yield card.line("uneven", _uneven(answer.uneven), "red")
    yield ""
    yield curve(answer.probes)
    spent = math.fsum(probe.spent_s for probe in answer.probes)
    requests = sum(probe.requests for probe in answer.probes)
    yield card.line("cost", f"{len(answer.probes)} probes · {requests:,} requests · {spent:,.0f} s")
    if answer.missing:
        yield card.line("missing", _missing(answer, answer.missing))
    if folder is not None:
        yield card.line("runs", str(folder))


def _uneven(seen: Uneven) -> str:
    """What contradicts the search's one assumption."""
    told = f"{seen.share:.1%} at {_load(seen.load)} but {seen.higher_share:.1%} at {_load(seen.higher_load)}"
    return f"{told} ({seen.criterion}): more than one state?"


def _missing(answer: Capacity, requests: float) -> str:
    """What an unresolved search would still need."""
    told = f"about {requests:,.0f} requests for ±{answer.search.precision:.0%}"
    if answer.search.whole or math.isnan(answer.load):
        return told
    return f"{told}, {requests / answer.load / 60:,.0f} min at {_load(answer.load)} requests/s"


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
