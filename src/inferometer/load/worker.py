"""One worker process: encode, open connections, drive, digest, report. Run as `python -m inferometer.load`.

It is told its job over a pipe (pickled by the parent: the pipe is private, and the job holds secrets that must not
touch the disk), then "start NS"; later perhaps "stop REASON" or "cancel REASON". It answers in JSON lines: heartbeats,
and one report at the end. No record of a request crosses a process boundary while the clock runs.
If the parent dies the pipe closes, and the worker cancels, digests what it has, and ends.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import msgspec
import numpy as np

from inferometer.agenda import NEVER, Agenda
from inferometer.clock import SECOND
from inferometer.errors import InferometerError, UserError
from inferometer.load.connection import kernel_stamps_work
from inferometer.load.digest import Remarks, Stripe, digest, has_token
from inferometer.load.driver import DISK_FULL, Driver
from inferometer.load.gauges import CollectorOff, allow_descriptors, sharpen_timers
from inferometer.load.instrument import Report
from inferometer.load.options import Drive, Target
from inferometer.load.progress import Heartbeat
from inferometer.load.requests import Requests, encode
from inferometer.load.spool import Spool, read_spool
from inferometer.load.stripes import groups
from inferometer.plan import Plan
from inferometer.run import write_parts
from inferometer.timeline import Ints
from inferometer.wire import DIALECTS, Limits
from inferometer.workload import tokenizer as tokenizers

BEAT_NS = SECOND // 4


@dataclass(frozen=True, slots=True)
class Job:
    """All that a worker needs to know."""

    worker: int
    plan: Plan
    rows: Ints  # this worker's rows of the plan
    concurrency: int | None  # this worker's share of the slots
    target: Target
    drive: Drive
    folder: Path


def write_job(job: Job, pipe: IO[bytes]) -> None:
    """Send a job to a worker."""
    pickle.dump(job, pipe, protocol=5)
    pipe.flush()


def read_job(pipe: IO[bytes]) -> Job:
    """Receive a job."""
    job = pickle.load(pipe)  # noqa: S301 - from our own parent, over a private pipe
    assert isinstance(job, Job)
    return job


def spool_path(folder: Path, worker: int) -> Path:
    """Where a worker keeps what arrived, until it is digested."""
    return folder / f"spool-{worker}.bin"


def shard_path(folder: Path, worker: int) -> Path:
    """Where a worker puts its part of the timeline."""
    return folder / f"shard-{worker}.parquet"


class Worker:
    """One job from beginning to end."""

    def __init__(self, job: Job, commands: int, beats: IO[bytes]) -> None:
        self.job = job
        self._commands = commands
        self._beats = beats
        self._heard = b""
        self._next_beat_ns = 0
        self._stage = "encoding"
        self._driver: Driver | None = None
        self._tokenizer = tokenizers.load(job.drive.tokenizer)
        # Requests go round; those of a session go to where its first one went.
        self._endpoint = groups(job.plan)[job.rows] % len(job.target.endpoints)

    def work(self) -> None:
        """Do the job; returns when the shard is written and the report is said."""
        job = self.job
        agenda = Agenda(self._stripe(), until=_duration_ns(job.drive))
        requests = self._encoded()
        spool = Spool(spool_path(job.folder, job.worker))
        driver = self._made_driver(agenda, requests, spool)
        with CollectorOff(driver.gauges):
            self._get_ready(driver)
            epoch_ns = self._started()
            self._stage = "running"
            driver.run(epoch_ns, self._watch)
        driver.close()
        spool.close()
        self._stage = "digesting"
        self._beat()
        try:
            remarks = self._digest(requests, epoch_ns)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            return  # the spool is whole; the parent, or a later reader, digests it
        self._report(driver, remarks)

    def _stripe(self) -> Plan:
        job = self.job
        whole = len(job.rows) == len(job.plan)
        part = job.plan if whole else job.plan.take(job.rows)
        return replace(part, concurrency=job.concurrency)

    def _endpoint_of(self, place: int) -> int:
        return int(self._endpoint[place])

    def _encoded(self) -> Requests:
        job = self.job
        try:
            return encode(
                job.plan,
                job.rows,
                job.target,
                tokenizer=self._tokenizer,
                folder=job.folder,
                endpoint_of=self._endpoint_of,
                ahead=likely(job),
                note=self._beat_if_due,
            )
        except OSError as error:
            what = f"no room for the encoded requests: {error.strerror}"
            raise UserError(what, where=str(job.folder)) from None

    def _made_driver(self, agenda: Agenda, requests: Requests, spool: Spool) -> Driver:
        job = self.job
        drive = replace(job.drive, stamps=_stamps(job.drive))
        asked, limits = job.plan.output_tokens[job.rows], Limits()
        return Driver(
            agenda,
            requests,
            job.target,
            drive,
            spool,
            allowed_events=lambda place: limits.events(int(asked[place])),
            endpoint_of=self._endpoint_of,
            has_token=partial(has_token, DIALECTS[job.target.dialect]),
            replies=requests.replies,
        )

    def _get_ready(self, driver: Driver) -> None:
        ahead = connections_ahead(self.job)
        allow_descriptors(max(ahead, self.job.concurrency or 0))
        sharpen_timers()
        driver.open_ahead(ahead)
        self._driver = driver
        self._stage = "ready"
        self._beat()

    def _started(self) -> int:
        """Wait for the parent's word; returns the epoch."""
        while b"\n" not in self._heard:
            data = os.read(self._commands, 4096)
            if not data:
                raise SystemExit(1)
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        os.set_blocking(self._commands, False)
        return int(line.removeprefix(b"start "))

    def _watch(self) -> None:
        driver = self._driver
        assert driver is not None
        for verb, reason in self._orders():
            driver.cancel(reason) if verb == "cancel" else driver.stop(reason)
        self._beat_if_due()

    def _orders(self) -> Iterator[tuple[str, str]]:
        try:
            data = os.read(self._commands, 4096)
        except BlockingIOError:
            return
        if not data:
            yield "cancel", "the parent process ended"
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            verb, _, reason = line.decode().partition(" ")
            yield verb, reason

    def _beat_if_due(self) -> None:
        if time.monotonic_ns() >= self._next_beat_ns:
            self._beat()

    def _beat(self) -> None:
        self._next_beat_ns = time.monotonic_ns() + BEAT_NS
        self._say(self._heartbeat())

    def _heartbeat(self) -> Heartbeat:
        driver = self._driver
        if driver is None:
            return Heartbeat(worker=self.job.worker, stage=self._stage)
        gauges = driver.gauges
        return Heartbeat(
            worker=self.job.worker,
            stage=self._stage,
            elapsed_ns=max(0, time.monotonic_ns() - driver.epoch_ns) if driver.epoch_ns else 0,
            started=gauges.started,
            in_flight=driver.in_flight,
            ended=gauges.ended,
            failed=gauges.failed,
            reads=gauges.reads,
            bytes=gauges.bytes,
            ttft_ns=_median(gauges.recent_first_ns),
            gap_ns=_median(gauges.recent_gap_ns),
            lag_ns=_median(gauges.recent_lag_ns),
        )

    def _digest(self, requests: Requests, epoch_ns: int) -> Remarks:
        job, remarks = self.job, Remarks()
        warmup_ns = int(job.drive.warmup_s * SECOND)
        stripe = Stripe(job.plan, job.rows, requests.prompt_tokens, epoch_ns, warmup_ns)
        with _Texts(job) as texts:
            parts = digest(
                read_spool(spool_path(job.folder, job.worker)),
                stripe,
                job.target,
                self._tokenizer.count,
                remarks,
                keep=texts.keep if job.drive.keep_text else None,
                exact=self._tokenizer.exact,
            )
            write_parts(parts, shard_path(job.folder, job.worker))
        return remarks

    def _report(self, driver: Driver, remarks: Remarks) -> None:
        gauges = driver.gauges
        same = {
            name: getattr(gauges, name)
            for name in Report.__struct_fields__
            if hasattr(gauges, name)
        }
        self._stage = "done"
        self._beat()
        self._say(
            Report(
                worker=self.job.worker,
                stamps=driver.drive.stamps,
                clamped=remarks.clamped,
                stopped=driver.stopped,
                exhausted=driver.agenda.exhausted() and driver.drive.duration_s is not None,
                notes=dict(remarks.notes),
                **same,
            )
        )

    def _say(self, message: Heartbeat | Report) -> None:
        try:
            self._beats.write(msgspec.json.encode(message) + b"\n")
            self._beats.flush()
        except BrokenPipeError:  # the parent is gone; its closed pipe of orders says so too
            return


class _Texts:
    """`responses-N.jsonl.zst`, when text is to be kept."""

    def __init__(self, job: Job) -> None:
        self._path = job.folder / f"responses-{job.worker}.jsonl.zst"
        self._wanted = job.drive.keep_text
        self._stream: Any = None

    def __enter__(self) -> Self:
        if self._wanted:
            import pyarrow as pa

            self._path.touch(mode=0o600)
            self._stream = pa.output_stream(str(self._path), compression="zstd")
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def keep(self, request_id: str, text: dict[str, str]) -> None:
        self._stream.write(msgspec.json.encode({"request_id": request_id, **text}) + b"\n")


def likely(job: Job) -> int | None:
    """How many requests a closed loop with a time limit is likely to send, at 50 tokens per second; None: all."""
    if job.concurrency is None or job.drive.duration_s is None or not len(job.rows):
        return None
    reply_s = 0.02 * (1 + float(job.plan.output_tokens[job.rows].mean()))
    return math.ceil(job.concurrency * (2 + job.drive.duration_s / reply_s))


def connections_ahead(job: Job) -> int:
    """How many connections to open before t = 0: a closed loop's slots; or two seconds of arrivals at their densest."""
    if job.concurrency is not None:
        return min(job.concurrency, len(job.rows))
    times = job.plan.intended_ns[job.rows]
    times = np.sort(times[times >= 0])
    if not len(times):
        return 1
    within = np.searchsorted(times, times + 2 * SECOND) - np.arange(len(times))
    return int(min(max(4, within.max()), 2048))


def _stamps(drive: Drive) -> str:
    return "kernel" if drive.stamps == "kernel" and kernel_stamps_work() else "user"


def _duration_ns(drive: Drive) -> int:
    return NEVER if drive.duration_s is None else int(drive.duration_s * SECOND)


def _median(values: Any) -> int | None:
    return int(statistics.median(values)) if values else None


def main() -> int:
    """The worker's life; an error that is somebody's fault goes to the parent as one line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    job = read_job(sys.stdin.buffer)
    beats = sys.stdout.buffer
    try:
        Worker(job, sys.stdin.fileno(), beats).work()
    except InferometerError as error:
        beat = Heartbeat(worker=job.worker, stage="done", error=f"{error.exit_code} {error}")
        beats.write(msgspec.json.encode(beat) + b"\n")
        beats.flush()
        return error.exit_code
    return 0
