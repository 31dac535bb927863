"""What is to serve, as options: the simulated system that `simulate` plays at once and `emulate` in real time.

Knows the names of `sim.Deployment` and of its `Limits`, and nothing of how either is played.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from inferometer.cli.options import ABOVE_0, AT_LEAST_1, DURATION_OR_0, Option, opt, rare
from inferometer.errors import UserError

if TYPE_CHECKING:
    from inferometer.sim import Deployment

NAMES = "static, orca, vllm (2023), sarathi-serve[-chunked-only, -hybrid-only], vllm-v1."


# fmt: off
def details() -> tuple[Option, ...]:
    """All that is not the system's name and its model; made anew for each verb, because each has sections of its own."""
    return (
        opt("--device D", "a100, h100, h200, b200, l4, ...  [a100]", default="a100"),
        opt("--tp N", "Tensor parallelism.  [1]", AT_LEAST_1, default=1),
        rare("--pp N", "Pipeline parallelism.  [1]", AT_LEAST_1, default=1),
        opt("--replicas N", "Copies of all that.  [1]", AT_LEAST_1, default=1),
        rare("--router NAME", "round-robin, random, power-of-two, least-outstanding, session-affinity, prefix-affinity, ...  [round-robin]", default="round-robin"),
        rare("--cost MODEL", "roofline, profile:FILE, or vidur:TABLES.npz.  [roofline]", default="roofline"),
        rare("--precision P", "Of the weights: bf16, fp8, fp4, int8, int4.  [as published]"),
        rare("--kv-precision P", "Of the KV cache: bf16, fp8.  [bf16]"),
        rare("--ep N", "Replicas that share their experts.  [1]", AT_LEAST_1, default=1),
        rare("--compat WHOM", "vidur: its memory, limits and quirks.", click.Choice(["vidur"])),
        rare("--num-blocks N", "KV blocks per replica.  [by memory]", AT_LEAST_1),
        rare("--block-size N", "Tokens per KV block.  [16]", AT_LEAST_1, default=16),
        rare("--max-batch N", "Sequences per replica.  [the system's]", AT_LEAST_1),
        rare("--max-batched-tokens N", "Tokens per iteration.  [the system's]", AT_LEAST_1),
        rare("--chunk N", "Sarathi-Serve's token budget.  [512]", AT_LEAST_1),
        rare("--max-len N", "Tokens of the longest request.  [by trace and model]", AT_LEAST_1),
        rare("--preemption HOW", "recompute, or swap over the host's link (vllm).  [recompute]", click.Choice(["recompute", "swap"])),
        rare("--no-prefix-caching", "Compute every prompt in full (vllm-v1).", to="prefix_caching", flag_value=False, default=None),
        rare("--host-time TIME", "The host's share of an iteration.  [0.5ms]", DURATION_OR_0, to="host_s", default="0.5ms"),
        rare("--front-time TIME", "What a request spends before it reaches the engine.  [0s]", DURATION_OR_0, to="front_s", default="0s"),
        rare("--utilization X", "Share of memory that may be used.  [0.9]", ABOVE_0, default=0.9),
    )
# fmt: on


def deployment(options: dict[str, Any]) -> Deployment:
    """The deployment of a command line that has `--system`, `--model`, `--seed` and the `details`."""
    from inferometer.sim import Deployment, Limits

    if options["utilization"] > 1:
        raise UserError("no more than 1 can be used", where="--utilization")
    given = options | {"seed": options["seed"] or 0}
    limits, own = (
        {name: given[name] for name in spec.__struct_fields__ if name in given}
        for spec in (Limits, Deployment)
    )
    return Deployment(**own, limits=Limits(**limits))
