"""How much a prediction hangs on its service times: d ln(metric) / d ln(service time).

The same plan is served twice more, with every service time a little longer and a little shorter, and nothing else changed
(common random numbers), so that a small step suffices. 1 is what an idle system answers: 1 % slower iterations make a
latency 1 % longer. Near saturation queues amplify: 10 to 30 there means that an error of 5 % of the cost model comes back
as 50 to 150 %, and that the number should not be believed in absolute terms. Below 0 or at jumps (a batch limit, a
preemption) it is a difference quotient over ±`STEP`, no derivative.
"""

from __future__ import annotations

import math

import msgspec

from inferometer.metrics import score
from inferometer.plan import Plan
from inferometer.run import Run
from inferometer.sim.simulate import WHOLE, Deployment, Window, simulate

STEP = 0.02
METRICS = ("ttft", "tbt", "tpot", "ttlt", "normalized_latency")
STATISTICS = ("mean", "p50", "p90", "p99")
CLIFF = 5.0  # from here on a prediction is said to stand on the cliff

Slopes = dict[str, dict[str, float | None]]
"""{metric: {statistic: slope}}; None where a metric has no such value."""


def sensitivity(
    plan: Plan, deployment: Deployment, *, window: Window = WHOLE, step: float = STEP
) -> Slopes:
    """The slope of each metric's statistics, from two simulations of `plan`."""
    slower, faster = (
        _values(simulate(plan, _at(deployment, factor), window=window))
        for factor in (1 + step, 1 - step)
    )
    width = math.log1p(step) - math.log1p(-step)
    return {
        metric: {name: _slope(found[name], faster[metric][name], width) for name in found}
        for metric, found in slower.items()
    }


def steepest(slopes: Slopes) -> tuple[str, float] | None:
    """("ttft.p99", slope) of the statistic that hangs most on service times; None of nothing."""
    known = [
        (f"{metric}.{name}", slope)
        for metric, found in slopes.items()
        for name, slope in found.items()
        if slope is not None
    ]
    return max(known, key=lambda one: one[1], default=None)


def _at(deployment: Deployment, factor: float) -> Deployment:
    return msgspec.structs.replace(deployment, slowdown=deployment.slowdown * factor)


def _values(run: Run) -> dict[str, dict[str, float]]:
    card = score(run, intervals=False)
    return {
        metric: {"mean": (row := card.row(metric)).mean}
        | {name: row.quantiles.get(name, math.nan) for name in STATISTICS[1:]}
        for metric in METRICS
    }


def _slope(slower: float, faster: float, width: float) -> float | None:
    if not (slower > 0 and faster > 0):
        return None
    return (math.log(slower) - math.log(faster)) / width
