"""`inferometer simulate`: from options to a plan, a deployment, a run directory and a scorecard.

The simulated twin of `measure`: the same workload options, the same plan, the same run directory, the same card; the
options of a server take the place of its URL. Everything that a person can get wrong is found before the first event.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from inferometer.cli import system, wish
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from inferometer.metrics.scorecard import Scorecard
    from inferometer.plan import Plan
    from inferometer.run import Run
    from inferometer.sim import Deployment, Window
    from inferometer.sim.sensitivity import Slopes
    from inferometer.workload import WorkloadSpec

# fmt: off
OPTIONS = (
    *section(
        "Load",
        opt("--trace FILE", "Any readable trace, or a spec in YAML.", to="workload"),
        opt("--concurrency N", "Closed loop: N requests in flight.  [8]", AT_LEAST_1),
        opt("--rate R", "Open loop: R requests per second.", ABOVE_0),
        opt("--arrivals PROCESS", "poisson, constant, gamma:cv=2, ...  [poisson]"),
        opt("--requests N", "Send N requests.  [8 per slot]", AT_LEAST_1),
        opt("--duration TIME", "Send for so long.  [60s with --rate]", DURATION, to="duration_s"),
        rare("--warmup TIME", "Sent before that, and not scored.", DURATION_OR_0, to="warmup_s", default="0s"),
        opt("--prompt-tokens LENGTH", "256, lognormal:median=512,sigma=1, ...  [256]"),
        opt("--output-tokens LENGTH", "64, uniform:low=16,high=256, ...  [64]"),
        rare("--app NAME", "The application column: chat, code, agent, ..."),
        rare("--strict", "Refuse a trace with malformed rows."),
        opt("--seed N", "Other prompts, times and routes.  [0]", NOT_NEGATIVE),
    ),
    *section(
        "System",
        opt("--system NAME", f"{system.NAMES}  [vllm-v1]", default="vllm-v1"),
        opt("--model M", "llama-3-8b, qwen3-32b, ..., or a config.json.", required=True),
        *system.details(),
    ),
    *section(
        "Result",
        opt("--slo EXPR", "'ttft.p99 <= 0.5s and tbt.p99 <= 50ms'"),
        opt("-o, --out RUN", "The run directory.  [runs/TIME-SYSTEM]"),
        json_option(),
        rare("--iterations", "Also write what every iteration did: iterations.parquet."),
        rare("--sensitivity", "How much each figure hangs on the service times: two more runs."),
        rare("--quiet", "Print nothing but the run directory."),
    ),
)
# fmt: on


@verb(*OPTIONS)
def command(**options: Any) -> int:
    """Serve a plan in simulation; the result is a run like any other."""
    from inferometer import slo as slos
    from inferometer.cli import card
    from inferometer.metrics import score
    from inferometer.sim.sensitivity import sensitivity
    from inferometer.workload import make_plan

    asked = wish.workload(wish.picked(options))
    slo = slos.parse(options["slo"], where="--slo") if options["slo"] else None
    served = system.deployment(options)
    plan = make_plan(_careful(asked))
    run = _simulated(plan, asked, served, options)
    scored = score(run, slo)
    if not options["sensitivity"]:
        return card.present(run, scored, as_json=options["as_json"], quiet=options["quiet"])
    slopes = sensitivity(plan, served, window=_window(asked, options))
    return _with_slopes(run, scored, slopes, as_json=options["as_json"])


def _with_slopes(run: Run, scored: Scorecard, slopes: Slopes, *, as_json: bool) -> int:
    """The card, and beside it how much each figure hangs on the service times."""
    from inferometer.cli import card

    if as_json:
        shown = scored.to_dict() | {"run": str(run.path), "sensitivity": slopes}
        click.echo(card.plain_json(shown))
    else:
        card.show([*card.render(run, scored), *_slopes(slopes)])
    return card.exit_code(scored)


def _slopes(slopes: Slopes) -> Iterator[RenderableType]:
    """d ln(figure) / d ln(service time), a row per metric; and a warning from the cliff."""
    from inferometer.cli import card
    from inferometer.sim.sensitivity import CLIFF, STATISTICS, steepest

    shown = card.table("% per % of service time", *STATISTICS)
    for metric, found in slopes.items():
        shown.add_row(metric, *("-" if s is None else f"{s:.1f}" for s in found.values()))
    yield ""
    yield shown
    worst = steepest(slopes)
    if worst is not None and worst[1] >= CLIFF:
        name, slope = worst
        yield card.line(
            "cliff",
            f"{name}: 1 % of error in the service times is {slope:.0f} % here; compare, do not quote",
            "yellow",
        )


def _simulated(plan: Plan, asked: WorkloadSpec, served: Deployment, options: dict[str, Any]) -> Run:
    """The run, kept in its folder."""
    from inferometer.cli.panel import counting
    from inferometer.search import arms

    spec = {"workload": msgspec.to_builtins(asked), "slo": options["slo"]}
    window = _window(asked, options)
    with counting("served", len(plan)) as told:
        arm = arms.simulated(
            served, window=window, asked=spec, iterations=options["iterations"], told=told
        )
        return arm(plan, asked.seed, Path(options["out"] or _folder(served.system)))


def _window(asked: WorkloadSpec, options: dict[str, Any]) -> Window:
    """When load is sent, and from when on it is scored."""
    from inferometer.sim import Window

    return Window(asked.duration_s, options["warmup_s"])


def _careful(asked: WorkloadSpec) -> WorkloadSpec:
    """The same workload, whose trace is refused where a good part of it cannot be served: the file is all there is."""
    from inferometer.workload.replay import Replay

    trace = asked.trace
    if trace is None:
        return asked
    replay = Replay(trace) if isinstance(trace, str) else trace
    return msgspec.structs.replace(asked, trace=msgspec.structs.replace(replay, usable=USABLE))


USABLE = (
    0.95  # of a trace's rows: production traces have some without output, a broken file has many
)


def _folder(name: str) -> str:
    """A new name under runs/: the time, to sort by, and the system, to know it by."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")[:-4] + "Z"
    return f"runs/{now}-sim-{name}"
