"""What serves a plan, as one kind of function: an `Arm` takes a plan, a seed and a new folder, and keeps a Run there.

Repeats, randomized blocks, prefill ladders and studies run arms, and cannot tell a server from a simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferometer.plan import Plan
from inferometer.run import Run, load_run, write_manifest
from inferometer.search.repeats import Arm
from inferometer.sim import Deployment, Window, simulate_into
from inferometer.sim.simulate import WHOLE
from inferometer.workload import fidelity

if TYPE_CHECKING:
    from inferometer.load.fleet import Watch
    from inferometer.load.options import Drive
    from inferometer.load.preflight import Found


def measured(
    found: Found,
    drive: Drive,
    *,
    asked: dict[str, Any] | None = None,
    watch: Watch | None = None,
    telemetry: bool = True,
) -> Arm:
    """A server; `asked` goes to the manifest as what a person wanted."""
    from inferometer.load.fleet import measure

    def arm(plan: Plan, seed: int, folder: Path) -> Run:
        spec = _seeded(asked, seed)
        return measure(plan, found, drive, folder, asked=spec, watch=watch, telemetry=telemetry)

    return arm


def simulated(
    deployment: Deployment,
    *,
    window: Window = WHOLE,
    asked: dict[str, Any] | None = None,
    iterations: bool = False,
    told: Callable[[int], None] | None = None,
) -> Arm:
    """A simulated system; `window` says what is warm-up and when no more is sent, the rest is `simulate_into`'s."""

    def arm(plan: Plan, seed: int, folder: Path) -> Run:
        spec = _seeded(asked, seed)
        path = simulate_into(
            plan, deployment, folder, window=window, iterations=iterations, spec=spec, told=told
        )
        run = load_run(path)
        run.manifest.workload["fidelity"] = fidelity(plan, run.timeline).to_dict()
        write_manifest(run.manifest, folder, complete=True)
        return run

    return arm


def _seeded(asked: dict[str, Any] | None, seed: int) -> dict[str, Any]:
    """`asked` with the seed of this run in its workload."""
    asked = asked or {}
    if "workload" not in asked:
        return asked
    return asked | {"workload": asked["workload"] | {"seed": seed}}
