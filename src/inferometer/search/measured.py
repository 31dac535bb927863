"""A measured server as a world: one Ask becomes a plan, a run directory and a Run.

The workload is the person's own; an Ask sets its load (the rate of its arrivals, or its concurrency), its length and its
seeds, and nothing else. Before a probe the server rests for as long as the Ask says.
Runs stand side by side in one folder, so that any of them can be scored, reported or compared by itself.
A server that has died is no slow server: a probe that ended in refused connections, at a server that still refuses them,
is no answer but a TargetError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inferometer.clock import SECOND, Clock, RealClock
from inferometer.errors import TargetError, UserError
from inferometer.load.fleet import measure
from inferometer.load.options import Drive
from inferometer.load.preflight import Found, reach
from inferometer.load.progress import Progress
from inferometer.load.recovery import read_run
from inferometer.plan import Plan
from inferometer.run import Run
from inferometer.search.capacity import Ask
from inferometer.timeline import ABSENT
from inferometer.workload import WorkloadSpec, make_plan
from inferometer.workload.arrivals import Closed, Poisson, arrivals

DEAD = 5  # refused connections in a row


class Crowded(Exception):
    """More requests are in flight than the Ask allows: the probe has said what it had to say."""


@dataclass(slots=True)
class Measured:
    """A server under a workload, as a world. `folder` gets one run directory per probe."""

    found: Found
    workload: WorkloadSpec
    drive: Drive
    folder: Path
    watch: Callable[[Progress], None] | None = None
    clock: Clock = RealClock()  # noqa: RUF009  has no state
    telemetry: bool = True
    _crowded: bool = False

    def __call__(self, ask: Ask) -> Run:
        """The run of one probe. Raises KeyboardInterrupt where a person ended it, TargetError where the server did."""
        self.clock.sleep_until(self.clock.now_ns() + round(ask.rest_s * SECOND))
        plan, warmup_s = plan_of(self.workload, ask)
        run = self._driven(ask, plan, replace(self.drive, warmup_s=warmup_s, duration_s=None))
        stopped = run.manifest.stopped or ""
        if stopped.startswith("interrupted") and not self._crowded:
            raise KeyboardInterrupt
        if refused(run):
            self._check_alive(ask)
        return warmed(run, ask)

    def _check_alive(self, ask: Ask) -> None:
        for endpoint in self.found.target.endpoints:
            try:
                reach(endpoint, self.found.target.trust)
            except TargetError as error:
                raise TargetError(
                    f"the server died at a load of {ask.load:g} ({error.what})",
                    where=endpoint.authority,
                    remedy="the probes before are kept: start it, and the same command goes on",
                ) from None

    def _driven(self, ask: Ask, plan: Plan, drive: Drive) -> Run:
        path = new_folder(self.folder, ask)
        self._crowded = False
        try:
            return measure(
                plan,
                self.found,
                drive,
                path,
                asked=asked_of(self.workload, ask),
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


def refused(run: Run) -> bool:
    """Whether the last requests found nobody to connect to."""
    last = np.argsort(run.timeline.intended_ns, kind="stable")[-DEAD:]
    return len(last) > 0 and bool((run.timeline.status[last] == "connect_error").all())


def plan_of(workload: WorkloadSpec, ask: Ask) -> tuple[Plan, float]:
    """The plan of an Ask, and when its warm-up ends [s]: as the first request to be measured is due (open loop)."""
    plan = make_plan(at_load(workload, ask), ask.seed)
    if ask.texts is not None:
        plan = replace(plan, seed=ask.texts)  # arrivals and lengths stay, prompts are new
    due_ns = plan.intended_ns[
        plan.intended_ns != ABSENT
    ]  # not that of a closed loop, nor of a later turn
    return plan, float(due_ns[ask.warmup]) / SECOND if len(due_ns) > ask.warmup else 0.0


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
    """A run with its first `warmup` requests as the warm-up; does not modify `run`.

    Of a closed loop nobody knows before when they will have been sent.
    """
    order = np.argsort(run.timeline.intended_ns, kind="stable")
    phase = run.timeline.phase.copy()
    phase[order[: ask.warmup]] = "warmup"
    return replace(run, timeline=run.timeline.with_columns(phase=phase))


def asked_of(workload: WorkloadSpec, ask: Ask) -> dict[str, Any]:
    """What was asked for, for the manifest."""
    return {
        "workload": msgspec.to_builtins(at_load(workload, ask)),
        "ask": msgspec.to_builtins(ask),
    }


def new_folder(folder: Path, ask: Ask) -> Path:
    """A name for one more probe: its number, and the load."""
    number = len(list(folder.glob("probe-*")))
    return folder / f"probe-{number:03d}-{ask.load:.4g}"
