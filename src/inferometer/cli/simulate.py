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

from inferometer.cli import wish
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
from inferometer.errors import UserError

if TYPE_CHECKING:
    from inferometer.run import Run
    from inferometer.sim import Deployment

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
        opt("--prompt-tokens LENGTH", "256, lognormal:median=512,sigma=1, ...  [256]"),
        opt("--output-tokens LENGTH", "64, uniform:low=16,high=256, ...  [64]"),
        rare("--app NAME", "The application column: chat, code, agent, ..."),
        opt("--seed N", "Other prompts, times and routes.  [0]", NOT_NEGATIVE),
    ),
    *section(
        "System",
        opt("--system NAME", "static, orca, vllm (2023), sarathi-serve, vllm-v1.  [vllm-v1]", default="vllm-v1"),
        opt("--model M", "llama-3-8b, qwen3-32b, ..., or a config.json.", required=True),
        opt("--device D", "a100, h100, h200, b200, l4, ...  [a100]", default="a100"),
        opt("--tp N", "Tensor parallelism.  [1]", AT_LEAST_1, default=1),
        opt("--pp N", "Pipeline parallelism.  [1]", AT_LEAST_1, default=1),
        opt("--replicas N", "Copies of all that.  [1]", AT_LEAST_1, default=1),
        rare("--router NAME", "round-robin, random, least-outstanding, least-queued, power-of-two.  [round-robin]", default="round-robin"),
        opt("--cost MODEL", "roofline, or vidur:TABLES.npz.  [roofline]", default="roofline"),
        rare("--compat WHOM", "vidur: its memory, limits and quirks.", click.Choice(["vidur"])),
        rare("--num-blocks N", "KV blocks per replica.  [by memory]", AT_LEAST_1),
        rare("--block-size N", "Tokens per KV block.  [16]", AT_LEAST_1, default=16),
        rare("--max-batch N", "Sequences per replica.  [the system's]", AT_LEAST_1),
        rare("--max-batched-tokens N", "Tokens per iteration.  [the system's]", AT_LEAST_1),
        rare("--chunk N", "Sarathi-Serve's token budget.  [512]", AT_LEAST_1),
        rare("--max-len N", "Tokens of the longest request.  [by trace and model]", AT_LEAST_1),
        rare("--host-time TIME", "The host's share of an iteration.  [1ms]", DURATION_OR_0, to="host_s", default="1ms"),
        rare("--utilization X", "Share of memory that may be used.  [0.9]", ABOVE_0, default=0.9),
    ),
    *section(
        "Result",
        opt("--slo EXPR", "'ttft.p99 <= 0.5s and tbt.p99 <= 50ms'"),
        opt("-o, --out RUN", "The run directory.  [runs/TIME-SYSTEM]"),
        json_option(),
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
    from inferometer.workload import make_plan

    asked = wish.workload(wish.picked(options | {"warmup_s": 0.0}))
    slo = slos.parse(options["slo"], where="--slo") if options["slo"] else None
    served = _deployment(options)
    run = _kept(make_plan(asked), served, asked, options)
    return card.present(run, score(run, slo), as_json=options["as_json"], quiet=options["quiet"])


def _kept(plan: Any, served: Deployment, asked: Any, options: dict[str, Any]) -> Run:
    """The run, written to its folder; the spec in its manifest is what the person asked for."""
    from dataclasses import replace

    from inferometer.run import write_run
    from inferometer.sim import simulate

    run = simulate(plan, served)
    run.manifest.spec |= {"workload": msgspec.to_builtins(asked), "slo": options["slo"]}
    return replace(run, path=write_run(run, Path(options["out"] or _folder(served.system))))


def _deployment(options: dict[str, Any]) -> Deployment:
    """What serves."""
    from inferometer.sim import Deployment, Limits

    limits = {name: options[name] for name in _LIMITS}
    if limits["utilization"] > 1:
        raise UserError("no more than 1 can be used", where="--utilization")
    chosen = {name: options[name] for name in _CHOSEN}
    return Deployment(**chosen, limits=Limits(**limits), seed=options["seed"] or 0)


_LIMITS = (
    "num_blocks",
    "block_size",
    "max_batch",
    "max_batched_tokens",
    "chunk",
    "max_len",
    "utilization",
)
_CHOSEN = (
    "system",
    "model",
    "device",
    "tp",
    "pp",
    "replicas",
    "router",
    "cost",
    "compat",
    "host_s",
)


def _folder(system: str) -> str:
    """A new name under runs/: the time, to sort by, and the system, to know it by."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")[:-4] + "Z"
    return f"runs/{now}-sim-{system}"
