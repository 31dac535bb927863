"""The fleet: one parent, N workers, one run directory.

The parent plans, starts the workers, gives them one epoch, listens to their heartbeats, scrapes the server, and in
the end joins their shards. It does nothing that could disturb a worker: it is another process, and mostly asleep.

What can go wrong, and what is left: SIGINT or SIGTERM cancels what is in flight and keeps everything (a second one
kills the workers, whose spools remain); a worker that dies leaves its spool, which the parent digests; a full disk
stops the run with what was written; if the parent itself is killed, the workers notice, finish their shards, and
`recovery.read_run` joins them later.
"""

from __future__ import annotations

import os
import platform
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

import msgspec

from inferometer.agenda import RAN_OUT
from inferometer.clock import MILLISECOND, anchor
from inferometer.errors import EXIT_UNREACHABLE, InferometerError, TargetError, UserError
from inferometer.load import calibration, instrument
from inferometer.load.instrument import Report
from inferometer.load.options import Drive
from inferometer.load.preflight import Found
from inferometer.load.progress import Heartbeat, Progress, together
from inferometer.load.recovery import gather, tidy
from inferometer.load.stripes import slots, stripe
from inferometer.load.telemetry import Scraper
from inferometer.load.worker import Job, write_job
from inferometer.plan import Plan
from inferometer.run import (
    Manifest,
    Run,
    create,
    read_telemetry,
    write_manifest,
    write_plan,
    write_telemetry,
)
from inferometer.timeline import Timeline
from inferometer.workload import tokenizer as tokenizers
from inferometer.workload.fidelity import fidelity

Watch = Callable[[Progress], None]


def measure(
    plan: Plan,
    found: Found,
    drive: Drive,
    folder: Path,
    *,
    asked: dict[str, Any],
    watch: Watch | None = None,
    telemetry: bool = True,
) -> Run:
    """Drive `plan` against a target and write the run directory `folder`, which must be new or empty.

    Returns the run; an interrupted one has `manifest.complete` false and `manifest.stopped` set.
    Raises UserError before any load for what a person got wrong, TargetError when no worker could start.
    """
    tokenizer = tokenizers.load(drive.tokenizer)
    folder = create(folder)
    manifest = _manifest(plan, found, drive, asked)
    manifest.model["tokenizer"] = {
        "name": tokenizer.name,
        "fingerprint": tokenizer.fingerprint,
        "exact": tokenizer.exact,
    }
    write_manifest(manifest, folder, complete=False)
    write_plan(plan, folder)
    scraper = Scraper(found.target) if telemetry else None
    with _workers(plan, found, drive, folder) as crew, _interrupts(crew):
        crew.until("ready", watch)
        if scraper is not None:
            scraper.start()
        epoch_ns = _begin(crew, manifest, folder)
        crew.until("over", watch)
    if scraper is not None:
        scraper.stop()
        series = scraper.columns(epoch_ns)
        manifest.notes += scraper.notes
        if series:
            write_telemetry(series, folder)
    return _finish(manifest, crew, plan, folder)


def _begin(crew: Crew, manifest: Manifest, folder: Path) -> int:
    """Choose the epoch, write it down, and tell the workers."""
    now = anchor()
    epoch_ns = now.monotonic_ns + 20 * MILLISECOND
    manifest.clock = {**now._asdict(), "epoch_ns": epoch_ns}
    write_manifest(manifest, folder, complete=False)
    crew.tell(f"start {epoch_ns}")
    return epoch_ns


def _finish(manifest: Manifest, crew: Crew, plan: Plan, folder: Path) -> Run:
    reports = sorted(crew.reports, key=lambda report: report.worker)
    lost = sorted(set(range(len(crew.processes))) - {report.worker for report in reports})
    stopped = [report.stopped for report in reports if report.stopped]
    stopped += [f"worker {worker} ended without a report" for worker in lost]
    manifest.stopped = crew.interrupted or (stopped[0] if stopped else None)
    manifest.notes += instrument.notes_of(reports)
    if any(report.exhausted for report in reports):
        manifest.notes.append(RAN_OUT)
    timeline = gather(folder, manifest, plan)
    manifest.instrument = instrument.record(timeline, reports, planned=len(plan))
    manifest.instrument["calibration"] = calibration.cite(calibration.latest())
    manifest.notes[:0] = instrument.beyond_calibration(timeline, manifest.instrument)
    if lost:
        manifest.instrument["valid"] = False
        manifest.instrument["invalid_reasons"].append(stopped[-1])
    manifest.workload["fidelity"] = fidelity(plan, timeline).to_dict() if len(timeline) else None
    manifest.complete = manifest.stopped is None
    keep(folder, timeline, manifest)
    return Run(timeline, manifest, plan, folder, read_telemetry(folder))


def keep(folder: Path, timeline: Timeline, manifest: Manifest) -> None:
    """Put the timeline and the last word of the manifest in place."""
    try:
        tidy(folder, timeline)
        write_manifest(manifest, folder, complete=manifest.complete)
    except OSError as error:
        raise UserError(
            f"cannot write: {error.strerror}",
            where=str(folder),
            remedy="what was measured is kept there; make room, then `inferometer score` it",
        ) from None


# --- the crew ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Crew:
    """The worker processes and what they said last."""

    processes: list[subprocess.Popen[bytes]]
    planned: int
    beats: dict[int, Heartbeat] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    interrupted: str | None = None
    _lines: dict[int, bytes] = field(default_factory=dict)

    def tell(self, order: str) -> None:
        """Send one line to every worker that still listens."""
        for process in self.processes:
            assert process.stdin is not None
            try:
                process.stdin.write(order.encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                continue

    def until(self, goal: str, watch: Watch | None) -> None:
        """Listen until every worker is "ready", or has ended ("over")."""
        with selectors.DefaultSelector() as selector:
            for worker, process in enumerate(self.processes):
                if process.stdout is not None and not process.stdout.closed:
                    selector.register(process.stdout, selectors.EVENT_READ, worker)
            while selector.get_map() and not (goal == "ready" and self._all_ready()):
                for key, _ in selector.select(timeout=0.5):
                    if not self._hear(key.data, cast("IO[bytes]", key.fileobj)):
                        selector.unregister(key.fileobj)
                if watch is not None:
                    watch(together(list(self.beats.values()), self.planned))
        if goal == "ready" and not self._all_ready():
            self._explain()

    def interrupt(self, name: str) -> None:
        """The first interrupt cancels; the second kills."""
        if self.interrupted:
            for process in self.processes:
                process.kill()
        self.interrupted = f"interrupted ({name})"
        self.tell(f"cancel {self.interrupted}")

    def _hear(self, worker: int, pipe: IO[bytes]) -> bool:
        data = os.read(pipe.fileno(), 65536)
        *lines, self._lines[worker] = (self._lines.get(worker, b"") + data).split(b"\n")
        for line in lines:
            self._take(worker, line)
        return bool(data)

    def _take(self, worker: int, line: bytes) -> None:
        try:
            beat = msgspec.json.decode(line, type=Heartbeat)
        except msgspec.ValidationError:
            self.reports.append(msgspec.json.decode(line, type=Report))
            return
        self.beats[worker] = beat
        if beat.error:
            code, _, what = beat.error.partition(" ")
            raise TargetError(what) if int(code) == EXIT_UNREACHABLE else UserError(what)

    def _all_ready(self) -> bool:
        ready = [worker for worker, beat in self.beats.items() if beat.stage != "encoding"]
        return len(ready) == len(self.processes)

    def _explain(self) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        codes = [process.wait() for process in self.processes]
        raise InferometerError(
            f"a worker ended before the run began (exit codes {codes}); its words stand above"
        )


@contextmanager
def _workers(plan: Plan, found: Found, drive: Drive, folder: Path) -> Iterator[Crew]:
    stripes = stripe(plan, drive.workers)
    crew = Crew([_spawn() for _ in stripes], len(plan))
    try:
        for worker, (rows, process) in enumerate(zip(stripes, crew.processes, strict=True)):
            share = slots(plan.concurrency, worker, len(stripes))
            job = Job(worker, plan, rows, share, found.target, drive, folder)
            write_job(job, cast("IO[bytes]", process.stdin))
        yield crew
    finally:
        for process in crew.processes:
            _end(process)


def _spawn() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "inferometer.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # an interrupt at the terminal is the parent's to handle
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _interrupts(crew: Crew) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM mean: stop, and keep everything."""

    def told(number: int, _frame: FrameType | None) -> None:
        crew.interrupt(signal.Signals(number).name)

    try:
        before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever owns it handles signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _manifest(plan: Plan, found: Found, drive: Drive, asked: dict[str, Any]) -> Manifest:
    return Manifest(
        spec=asked | {"drive": msgspec.to_builtins(drive)},
        target=found.target.described() | found.facts,
        model={"name": found.target.model},
        host=host_facts(),
        versions={
            name: version(name)
            for name in ("inferometer", "numpy", "pyarrow", "msgspec", "httptools")
        },
        seeds={"plan": plan.seed},
        workload={
            "fingerprint": plan.fingerprint,
            "generator": plan.generator,
            "requests": len(plan),
        },
        notes=[*found.notes, *plan.notes],
    )


def host_facts() -> dict[str, Any]:
    """What machine the instrument ran on; no names of people or networks."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "load_average": list(os.getloadavg()),
    }
