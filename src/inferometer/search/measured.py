"""A measured server as a world: one Ask becomes a plan, a run directory and a Run.

The workload is the person's own; an Ask sets its load (the rate of its arrivals, or its concurrency), its length and its
seed, and nothing else. Between probes the server rests; after one that stopped itself in a crowd it rests `AFTER_CROWD`
times as long, because what it had queued is still being worked off.
Runs stand side by side in one folder, so that any of them can be scored, reported or compared by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inferometer.clock import SECOND, Clock, RealClock
from inferometer.errors import UserError
from inferometer.load.fleet import measure
from inferometer.load.options import Drive
from inferometer.load.preflight import Found
from inferometer.load.progress import Progress
from inferometer.load.recovery import read_run
from inferometer.plan import Plan
from inferometer.run import Run
from inferometer.search.capacity import Ask
from inferometer.workload import WorkloadSpec, make_plan
from inferometer.workload.arrivals import Closed, Poisson, arrivals

REST_S = 2.0
AFTER_CROWD = 5


class Crowded(Exception):
    """More requests are in flight than the Ask allows: the probe has said what it had to say."""


@dataclass(slots=True)
class Measured:
    """A server under a workload, as a world. `folder` gets one run directory per probe."""

    found: Found
    workload: WorkloadSpec
    drive: Drive
    folder: Path
    rest_s: float = REST_S
    watch: Callable[[Progress], None] | None = None
    clock: Clock = RealClock()  # noqa: RUF009  has no state
    telemetry: bool = True
    _crowded: bool = False
    _begun: bool = False

    def __call__(self, ask: Ask) -> Run:
        """The run of one probe. Raises KeyboardInterrupt where a person ended it."""
        if self._begun and ask.rested:
            rest_s = self.rest_s * (AFTER_CROWD if self._crowded else 1)
            self.clock.sleep_until(self.clock.now_ns() + round(rest_s * SECOND))
        self._begun = True
        plan, warmup_s = plan_of(self.workload, ask)
        run = self._driven(ask, plan, replace(self.drive, warmup_s=warmup_s, duration_s=None))
        stopped = run.manifest.stopped or ""
        if stopped.startswith("interrupted") and not self._crowded:
            raise KeyboardInterrupt
        return warmed(run, ask) if plan.concurrency is not None else run

    def _driven(self, ask: Ask, plan: Plan, drive: Drive) -> Run:
        path = _new(self.folder, ask)
        asked: dict[str, Any] = {
            "workload": msgspec.to_builtins(at_load(self.workload, ask)),
            "ask": msgspec.to_builtins(ask),
        }
        self._crowded = False
        try:
            return measure(
                plan,
                self.found,
                drive,
                path,
                asked=asked,
                watch=self._watching(ask),
                telemetry=self.telemetry,
            )
        except Crowded:
            self._crowded = True
            return read_run(path)

    def _watching(self, ask: Ask) -> Callable[[Progress], None] | None:
        limit = ask.most_in_flight
        if limit is None:
            return self.watch

        def look(progress: Progress) -> None:
            if self.watch is not None:
                self.watch(progress)
            if progress.in_flight > limit:
                raise Crowded

        return look


def plan_of(workload: WorkloadSpec, ask: Ask) -> tuple[Plan, float]:
    """The plan of an Ask, and when its warm-up ends [s]: as the first request to be measured is due (open loop)."""
    plan = make_plan(at_load(workload, ask), ask.seed)
    if plan.concurrency is not None or len(plan) <= ask.warmup:
        return plan, 0.0
    return plan, float(plan.intended_ns[ask.warmup]) / SECOND


def at_load(workload: WorkloadSpec, ask: Ask) -> WorkloadSpec:
    """The workload at an Ask's load and length; the shape of its arrivals stays."""
    process = arrivals(workload.arrivals or Poisson(rate=1))
    if isinstance(process, Closed):
        process = Closed(concurrency=round(ask.load))
    elif hasattr(process, "rate") and workload.trace is None and not workload.clients:
        process = msgspec.structs.replace(process, rate=ask.load)
    else:
        raise UserError(
            "its arrivals have no rate that could be searched",
            where="--arrivals",
            remedy="take poisson, constant, gamma, weibull, a rate table or a closed loop",
        )
    total = ask.requests + ask.warmup
    return msgspec.structs.replace(
        workload, arrivals=process, requests=total, duration_s=None, seed=ask.seed
    )


def warmed(run: Run, ask: Ask) -> Run:
    """A closed loop's run with its first `warmup` requests as the warm-up; does not modify `run`."""
    order = np.argsort(run.timeline.intended_ns, kind="stable")
    phase = run.timeline.phase.copy()
    phase[order[: ask.warmup]] = "warmup"
    return replace(run, timeline=run.timeline.with_columns(phase=phase))


def _new(folder: Path, ask: Ask) -> Path:
    """A folder for one more probe: its number, and the load."""
    number = len(list(folder.glob("probe-*")))
    return folder / f"probe-{number:03d}-{ask.load:.4g}"
