"""`inferometer simulate`: from options to a plan, a deployment, a run directory and a scorecard.

The simulated twin of `measure`: the same workload options, the same plan, the same run directory, the same card; the
options of a server take the place of its URL. Everything that a person can get wrong is found before the first event.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from inferometer.run import Run
    from inferometer.sim import Deployment
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

    asked = wish.workload(wish.picked(options))
    slo = slos.parse(options["slo"], where="--slo") if options["slo"] else None
    run = _simulated(asked, system.deployment(options), options)
    return card.present(run, score(run, slo), as_json=options["as_json"], quiet=options["quiet"])


def _simulated(asked: WorkloadSpec, served: Deployment, options: dict[str, Any]) -> Run:
    """The run, kept in its folder."""
    from inferometer.cli.panel import counting
    from inferometer.search import arms
    from inferometer.sim import Window
    from inferometer.workload import make_plan

    plan = make_plan(_careful(asked))
    spec = {"workload": msgspec.to_builtins(asked), "slo": options["slo"]}
    window = Window(asked.duration_s, options["warmup_s"])
    with counting("served", len(plan)) as told:
        arm = arms.simulated(
            served, window=window, asked=spec, iterations=options["iterations"], told=told
        )
        return arm(plan, asked.seed, Path(options["out"] or _folder(served.system)))


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
