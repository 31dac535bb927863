"""`inferometer measure`: from options to a plan, a target, a run directory and a scorecard.

Everything that a person can get wrong is found before any load is sent: the plan is made first, then the server is
asked, then the folder is created; only then do workers start.
Without a URL, an emulated server is started on loopback and measured, so that a first run needs nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

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
    from inferometer.run import Run
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
        opt("--seed N", "Other prompts and times.  [0]", NOT_NEGATIVE),
        rare("--workers N", "Processes that send.  [1]", AT_LEAST_1, default=1),
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
        rare("--steady", "Score only the steady state."),
        rare("--quiet", "Print nothing but the run directory."),
        rare("--save-text", "Keep the replies' text beside the run."),
        rare("--stamps MODE", "kernel or user.  [kernel]", click.Choice(["kernel", "user"]), default="kernel"),
    ),
)
# fmt: on


@verb(*OPTIONS)
def command(**options: Any) -> int:
    """Send load on time, stamp every token, say what users feel.

    URL: a server's base (http://host:8000) or a whole endpoint; several are
    used in turn. Without one, an emulated server is started and measured.
    A simulated system may stand there too: sim:sarathi-serve?model=llama-3-8b
    """
    from inferometer import slo as slos
    from inferometer.cli import card, wish
    from inferometer.metrics import score

    load = wish.picked(options)
    asked = wish.workload(load)
    drive = wish.drive(load, asked, options)
    slo = slos.parse(options["slo"], where="--slo") if options["slo"] else None
    run = _measured([*options["urls"], *options["base_urls"]], asked, drive, options)
    scored = score(run, slo, steady=options["steady"])
    card.present(run, scored, as_json=options["as_json"], quiet=options["quiet"])
    return card.exit_code_of_measuring(run, scored)


def _measured(urls: list[str], asked: WorkloadSpec, drive: Drive, options: dict[str, Any]) -> Run:
    from inferometer.cli import simulate, target
    from inferometer.cli.panel import watching
    from inferometer.load.fleet import measure
    from inferometer.sim.target import is_simulated
    from inferometer.workload import make_plan

    if any(map(is_simulated, urls)):
        _refuse_drivers()
        return simulate.simulated(asked, target.simulated(options, urls), options)
    plan = make_plan(asked)
    with _served(urls, quiet=options["quiet"]) as served:
        found = target.found(options, served)
        folder = Path(options["out"] or _folder(found.target.model))
        with watching(not options["quiet"], drive.duration_s) as watch:
            return measure(
                plan,
                found,
                drive,
                folder,
                asked=_asked(urls, asked, options),
                watch=watch,
                telemetry=not options["no_telemetry"],
            )


def _refuse_drivers() -> None:
    """A UserError where an option was given that is for whoever drives sockets; nobody does in a simulation."""
    patience = [
        option.name or "" for option in OPTIONS if getattr(option, "section", "") == "Patience"
    ]
    if given := typed([*_OF_DRIVERS, *patience]):
        raise UserError("a simulated system has no sockets to drive", where=", ".join(given))


_OF_DRIVERS = ("workers", "no_preflight", "no_telemetry", "save_text", "stamps")


@contextmanager
def _served(urls: list[str], *, quiet: bool) -> Iterator[list[str]]:
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


def _asked(urls: list[str], asked: WorkloadSpec, options: dict[str, Any]) -> dict[str, Any]:
    """The spec as asked, for the manifest; of secrets only the fact that they were given."""
    return {
        "urls": urls or ["emulated"],
        "workload": msgspec.to_builtins(asked),
        "slo": options["slo"],
        "with_key": options["api_key"] is not None,
    }


def _folder(model: str) -> str:
    """A new name under runs/: the time, to sort by, and the model, to know it by."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")[:-4] + "Z"
    short = re.sub(r"[^A-Za-z0-9.-]+", "-", model.rsplit("/", 1)[-1])[:40].strip("-.")
    return f"runs/{now}-{short or 'model'}"
