"""`inferometer measure`: from options to a plan, a target, a run directory and a scorecard.

Everything that a person can get wrong is found before any load is sent: the plan is made first, then the server is
asked, then the folder is created; only then do workers start.
Without a URL, an emulated server is started on loopback and measured, so that a first run needs nothing at all.

A target with its options is an `Arm`: whatever is to be run on it (one plan, repeats, turns with another target, the
ladder of a prefill curve) is handed to it, and it says where that was kept.
    one run     RUN
    --repeats   RUN/000, RUN/001, ...
    --versus    RUN/a/000, RUN/b/000, ...
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from inferometer.cli.browser import Ends, browser, serve_option
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
    typed,
    verb,
)
from inferometer.errors import UserError

if TYPE_CHECKING:
    from inferometer.emulator import Schedule
    from inferometer.load.options import Drive
    from inferometer.load.preflight import Found
    from inferometer.plan import Plan
    from inferometer.report.live import Live
    from inferometer.run import Run
    from inferometer.search.repeats import Arm
    from inferometer.sim import Deployment
    from inferometer.slo import Slo
    from inferometer.workload import WorkloadSpec

DEMO_NOTE = "no URL was given: this is an emulated server on loopback"

# fmt: off
OPTIONS = (
    click.Argument(["urls"], nargs=-1, metavar="[URL]..."),
    *section(
        "Load",
        opt("--concurrency N", "Closed loop: N requests in flight.  [8]", AT_LEAST_1),
        opt("--rate R", "Open loop: R requests per second.", ABOVE_0),
        opt("--arrivals PROCESS", "poisson, constant, gamma:cv=2, ...  [poisson]"),
        opt("--requests N", "Send N requests.  [8 per slot]", AT_LEAST_1),
        opt("--duration TIME", "Send for so long.  [60s with --rate]", DURATION, to="duration_s"),
        rare("--warmup TIME", "Sent before that, and not scored.", DURATION_OR_0, to="warmup_s", default="0s"),
        opt("--prompt-tokens LENGTH", "256, lognormal:median=512,sigma=1, ...  [256]"),
        opt("--output-tokens LENGTH", "64, uniform:low=16,high=256, ...  [64]"),
        opt("--workload NAME|FILE", "A profile, a trace, or a spec in YAML."),
        rare("--app NAME", "The application column: chat, code, agent, ..."),
        rare("--strict", "Refuse a trace with malformed rows."),
        rare("--replies KIND", "What later turns repeat: planned text, or the model's real words.  [planned]", click.Choice(["planned", "real"])),
        opt("--seed N", "Other prompts and times.  [0]", NOT_NEGATIVE),
        opt("--repeats N", "N runs, each with a seed of its own.", AT_LEAST_1),
        rare("--workers N", "Processes that send.  [1]", AT_LEAST_1, default=1),
    ),
    *section(
        "Repeat",
        rare("--until PRECISION", "'ttft.p99 ci<5%': until it is known so well.  [at most 20 runs]"),
        rare("--versus TARGET", "Another target, in turns with the first, in random order."),
        rare("--prefill-curve [LENGTHS]", "First the TTFT of lone prompts, by length.  [16,64,256,1024,2048,4096]", is_flag=False, flag_value=""),
    ),
    *section(
        "Target",
        opt("--model NAME", "Needed where the server has several."),
        opt("--api-key KEY", "env:NAME, file:PATH, or the key itself."),
        rare("--base-url URL", "One more URL; requests go round-robin.", to="base_urls", multiple=True),
        rare("--dialect NAME", "openai-chat, anthropic, ...  [by the URL's path]"),
        rare("--header NAME:VALUE", "For every request; may be NAME:env:VAR.", to="headers", multiple=True),
        rare("--field NAME=JSON", "Added to every request's body.", to="fields", multiple=True),
        rare("--ca FILE", "Authorities (PEM) that TLS is to believe."),
        rare("--insecure", "Do not verify TLS; the manifest says so."),
        rare("--tokenizer PATH", "A tokenizer.json or its folder.  [built-in]"),
        rare("--no-preflight", "Send no trial request first."),
        rare("--no-telemetry", "Do not read the server's /metrics."),
    ),
    *section(
        "Patience",
        rare("--timeout-connect TIME", "Until a connection stands.  [10s]", DURATION, to="connect_s"),
        rare("--timeout-first-token TIME", "From sending to the first token.  [120s]", DURATION, to="first_token_s"),
        rare("--timeout-between TIME", "Between two reads of a stream.  [30s]", DURATION, to="between_s"),
        rare("--timeout-total TIME", "From sending to the end.  [15m]", DURATION, to="total_s"),
        rare("--retries N", "Latency still counts from the start.  [0]", NOT_NEGATIVE, default=0),
    ),
    *section(
        "Result",
        opt("--slo EXPR", "'ttft.p99 <= 0.5s and tbt.p99 <= 50ms'"),
        opt("-o, --out RUN", "The run directory.  [runs/TIME-MODEL]"),
        json_option(),
        serve_option(),
        rare("--steady", "Score only the steady state."),
        rare("--quiet", "Print nothing but the run directory."),
        rare("--save-text", "Keep the replies' text beside the run."),
        rare("--stamps MODE", "kernel or user.  [kernel]", click.Choice(["kernel", "user"]), default="kernel"),
    ),
)
# fmt: on


class Wanted(NamedTuple):
    """What was asked for, whatever it is to be run on."""

    asked: WorkloadSpec
    drive: Drive
    slo: Slo | None
    options: dict[str, Any]
    live: Live | None = None  # a browser that watches

    @property
    def folder(self) -> Path:
        """Where the result is to be kept."""
        return Path(self.options["out"])

    @property
    def ends(self) -> Ends:
        """What a browser is shown at the end."""
        sides = [""] if self.options["versus"] is None else ["a", "b"]
        return Ends([self.folder / side for side in sides], self.options["slo"])

    def plan(self, seed: int) -> Plan:
        """The plan of one run."""
        from inferometer.workload import make_plan

        return make_plan(msgspec.structs.replace(self.asked, seed=seed))


@verb(*OPTIONS)
def command(**options: Any) -> int:
    """Send load on time, stamp every token, say what users feel.

    URL: a server's base (http://host:8000) or a whole endpoint; several are
    used in turn. Without one, an emulated server is started and measured.
    A simulated system may stand there too: sim:sarathi-serve?model=llama-3-8b
    """
    from inferometer import slo as slos
    from inferometer.cli import repeats, target, wish
    from inferometer.sim.target import is_simulated

    options, lengths = repeats.lengths(options)
    until = repeats.until(options)
    load = wish.picked(options)
    asked = wish.workload(load)
    drive = wish.drive(load, asked, options)
    slo = slos.parse(options["slo"], where="--slo") if options["slo"] else None
    wanted = Wanted(asked, drive, slo, options)
    wanted.plan(asked.seed)  # what is wrong with it is told before any server is asked
    with _served([*options["urls"], *options["base_urls"]], quiet=options["quiet"]) as urls:
        served = target.read(options | {"urls": urls, "base_urls": ()})
        if options["versus"] is None and is_simulated(urls[0]):
            _refuse_drivers()
        options["out"] = options["out"] or _folder(served)
        with browser(options["serve"], f"measure: {wanted.folder.name}", wanted.ends) as live:
            wanted = wanted._replace(live=live)
            if options["versus"] is not None:
                other = target.read(options | {"urls": (options["versus"],), "base_urls": ()})
                arms = {"a": arm(served, wanted), "b": arm(other, wanted, options["versus"])}
                return repeats.versus(arms, wanted)
            if lengths is not None:
                served = repeats.with_its_curve(served, wanted, lengths)
            if options["repeats"] is not None or until is not None:
                return repeats.series(arm(served, wanted), wanted, until)
            return _once(arm(served, wanted), wanted)


def _once(arm: Arm, wanted: Wanted) -> int:
    from inferometer.cli import card
    from inferometer.metrics import score

    run = arm(wanted.plan(wanted.asked.seed), wanted.asked.seed, wanted.folder)
    scored = score(run, wanted.slo, steady=wanted.options["steady"])
    options = wanted.options
    card.present(run, scored, as_json=options["as_json"], quiet=options["quiet"])
    return card.exit_code_of_measuring(run, scored)


def arm(served: Found | Deployment, wanted: Wanted, *names: str) -> Arm:
    """A target with the options that were given for it, ready to be handed a plan; `names`: as a person wrote it."""
    from inferometer.cli.panel import watching
    from inferometer.load.preflight import Found
    from inferometer.search import arms
    from inferometer.sim import Window

    spec = _asked(wanted, names)
    if not isinstance(served, Found):
        window = Window(wanted.asked.duration_s, wanted.drive.warmup_s)
        spec = {name: spec[name] for name in ("workload", "slo")}  # no URL, and no key
        return arms.simulated(served, window=window, asked=spec)
    telemetry = not wanted.options["no_telemetry"]

    def run(plan: Plan, seed: int, folder: Path) -> Run:
        looked_at = not wanted.options["quiet"]
        with watching(looked_at, wanted.drive.duration_s, wanted.live) as watch:
            driven = arms.measured(
                served, wanted.drive, asked=spec, watch=watch, telemetry=telemetry
            )
            return driven(plan, seed, folder)

    return run


def _refuse_drivers() -> None:
    """A UserError where an option was given that is for whoever drives sockets; nobody does in a simulation."""
    patience = [
        option.name or "" for option in OPTIONS if getattr(option, "section", "") == "Patience"
    ]
    if given := typed([*_OF_DRIVERS, *patience]):
        raise UserError("a simulated system has no sockets to drive", where=", ".join(given))


_OF_DRIVERS = ("workers", "no_preflight", "no_telemetry", "save_text", "stamps")


@contextmanager
def _served(urls: Sequence[str], *, quiet: bool) -> Iterator[Sequence[str]]:
    """`urls`; or, where there are none, that of an emulated server which lives as long as the measurement."""
    if urls:
        yield urls
        return
    from inferometer.emulator import serve_child

    if not quiet:
        click.echo(DEMO_NOTE, err=True)
    with serve_child(_demo()) as url:
        yield [url]


def _demo() -> Schedule:
    """About 8 s of the default load (64 requests, 8 at a time), with what a real server has: jitter, and some stalls."""
    from inferometer.emulator import Schedule

    return Schedule(
        models=("emulated",),
        ttft_s=0.12,
        ttft_sigma=0.3,
        gap_s=0.012,
        gap_sigma=0.2,
        stall_s=0.25,
        stall_probability=0.004,
    )


def _asked(wanted: Wanted, names: Sequence[str]) -> dict[str, Any]:
    """The spec as asked, for the manifest; of secrets only the fact that they were given."""
    options = wanted.options
    return {
        "urls": list(names or [*options["urls"], *options["base_urls"]] or ["emulated"]),
        "workload": msgspec.to_builtins(wanted.asked),
        "slo": options["slo"],
        "with_key": options["api_key"] is not None,
    }


def _folder(served: Found | Deployment) -> str:
    """A new name under runs/: the time, to sort by, and the model or the system, to know it by."""
    from inferometer.load.preflight import Found

    name = served.target.model if isinstance(served, Found) else f"sim-{served.system}"
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")[:-4] + "Z"
    short = re.sub(r"[^A-Za-z0-9.-]+", "-", name.rsplit("/", 1)[-1])[:40].strip("-.")
    return f"runs/{now}-{short or 'model'}"
