"""A system that is up, with one configuration, ready to be measured: a simulation, a server that was there, or one started.

`standing` is the only place that knows the three apart. What it yields plays a plan into a run directory, or searches for
a capacity; every run says of which study and cell it is, with which configuration, and how the server was launched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from inferometer.clock import SECOND
from inferometer.load.fleet import measure
from inferometer.load.options import Drive
from inferometer.load.preflight import Found, find
from inferometer.load.progress import Progress
from inferometer.plan import Plan
from inferometer.run import Run, write_run
from inferometer.search.capacity import Ask, Capacity, Header, Search, capacity, open_journal
from inferometer.search.measured import Measured, plan_of, warmed
from inferometer.search.study.asked import Config, StudySpec
from inferometer.search.study.places import launch_of, target_of
from inferometer.search.study.server import Server, serving
from inferometer.sim import Deployment, simulate
from inferometer.sim.target import read_target
from inferometer.slo import Slo
from inferometer.workload import WorkloadSpec

Key = Callable[[str], str | None]  # where an API key is to be found -> the key
Watch = Callable[[Progress], None]


class Which(NamedTuple):
    """A system of a study, on a model, with a configuration."""

    spec: StudySpec
    system: str
    model: str
    config: Config


class Job(NamedTuple):
    """What is to be played, where the run goes, and what its manifest is to say of it."""

    workload: WorkloadSpec
    folder: Path
    asked: dict[str, Any]
    warmup_s: float


class Stand(Protocol):
    """A system that is up."""

    def play(self, job: Job, plan: Plan, watch: Watch | None) -> Run:
        """Play a plan into the job's folder."""
        ...

    def search(self, job: Job, slo: Slo, search: Search, watch: Watch | None) -> Capacity:
        """Search for the capacity; the probes go into the job's folder, which resumes."""
        ...

    def gone(self) -> str | None:
        """How the server ended, if it did."""
        ...


@contextmanager
def standing(which: Which, log: Path, key: Key) -> Iterator[Stand]:
    """The system while inside. Raises TargetError where it cannot be used."""
    spec, name, model, config = which
    system = spec.system(name)
    told = {"config": config, "about": system.about}
    if system.command is not None:
        with serving(system, lambda port: launch_of(spec, name, model, config, port), log) as up:
            launch = up.described(system)
            yield _Served(_found(which, up.url, key, told | {"launch": launch}), which, up)
        return
    target = target_of(spec, name, model, config)
    if system.simulated:
        yield _Simulated(read_target(target), told)
    else:
        yield _Served(_found(which, target, key, told), which, None)


def _found(which: Which, url: str, key: Key, told: dict[str, Any]) -> Found:
    system = which.spec.system(which.system)
    found = find(
        [url],
        model=system.model,
        dialect=system.dialect,
        api_key=None if system.api_key is None else key(system.api_key),
    )
    return replace(found, facts=found.facts | told)


@dataclass(frozen=True, slots=True)
class _Simulated:
    """A simulated system."""

    deployment: Deployment
    told: dict[str, Any]

    def play(self, job: Job, plan: Plan, _watch: Watch | None) -> Run:
        run = simulate(plan, self.deployment)
        run = _warmed(run, job.warmup_s)
        run.manifest.spec |= job.asked
        run.manifest.target |= self.told
        return replace(run, path=write_run(run, job.folder))

    def search(self, job: Job, slo: Slo, search: Search, _watch: Watch | None) -> Capacity:
        known, keep = open_journal(job.folder, _header(job, slo, search, self.deployment.system))

        def world(ask: Ask) -> Run:
            plan, warmup_s = plan_of(job.workload, ask)
            number = len(list(job.folder.glob("probe-*")))
            folder = job.folder / f"probe-{number:03d}-{ask.load:.4g}"
            asked = job.asked | {"ask": msgspec.to_builtins(ask)}
            run = self.play(Job(job.workload, folder, asked, warmup_s), plan, None)
            return warmed(run, ask) if plan.concurrency is not None else run

        return capacity(world, slo, search, known=known, keep=keep)

    def gone(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Served:
    """A server, and where it was started here, its process."""

    found: Found
    which: Which
    server: Server | None

    def play(self, job: Job, plan: Plan, watch: Watch | None) -> Run:
        drive = self._drive(job.warmup_s)
        run = measure(plan, self.found, drive, job.folder, asked=job.asked, watch=watch)
        if (run.manifest.stopped or "").startswith("interrupted"):
            raise KeyboardInterrupt
        return run

    def search(self, job: Job, slo: Slo, search: Search, watch: Watch | None) -> Capacity:
        where = " ".join(self.found.target.described()["urls"]) if self.server is None else ""
        known, keep = open_journal(job.folder, _header(job, slo, search, where))
        world = Measured(self.found, job.workload, self._drive(0.0), job.folder, watch=watch)
        return capacity(world, slo, search, known=known, keep=keep)

    def gone(self) -> str | None:
        return None if self.server is None else self.server.gone()

    def _drive(self, warmup_s: float) -> Drive:
        return Drive(
            warmup_s=warmup_s, tokenizer=self.which.spec.system(self.which.system).tokenizer
        )


def _header(job: Job, slo: Slo, search: Search, target: str) -> Header:
    workload = msgspec.json.encode(job.workload).decode()
    return Header(slo=slo.text, target=target, workload=workload, whole=search.whole)


def _warmed(run: Run, warmup_s: float) -> Run:
    """A simulated run whose first `warmup_s` seconds are its warm-up."""
    early = run.timeline.intended_ns < round(warmup_s * SECOND)
    phase = np.where(early, "warmup", run.timeline.phase).astype(object)
    return replace(run, timeline=run.timeline.with_columns(phase=phase))
