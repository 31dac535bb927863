"""What every benchmark stands on: a calibrated server, the cost of a command, the error of what it reported.

    with serving(Schedule(), room_for=...) as server:       a C server on its own core; keeps the true times
        cost = spend(argv, ...)                             a client on the other core: its CPU, memory, exit code
    errors(observation, server.truth)                       what the client said, minus what was so

Rules: the client never shares a core with the server; the truth is the server's log, joined by request, never a
nominal schedule; the server's own lateness is read after every run (`Server.account`). A benchmark knows of the
client only its command line and what it left on disk.
Times are int64 ns of CLOCK_MONOTONIC unless a name says otherwise.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
CLIENT_CORE, SERVER_CORE = 0, 1
LATE_SERVER_US = (
    2_000.0  # a run whose server wrote later than this (p99) says nothing about the client
)
SAMPLE_S = 0.25

# --- the schedule and its server ------------------------------------------------------------------


class Schedule(NamedTuple):
    """What the server plays to each request: first token after `ttft_ms`, then one every `gap_ms`."""

    ttft_ms: float = 100.0
    gap_ms: float = 20.0
    tokens: int = 128
    lockstep: bool = False

    @property
    def reply_s(self) -> float:
        """Mean duration of a reply; the random phase adds half a gap."""
        return (self.ttft_ms + (self.tokens - 0.5) * self.gap_ms) / 1e3

    def rate(self, streams: int) -> float:
        """Tokens per second that `streams` closed-loop clients are served if they lose no time."""
        return streams * self.tokens / self.reply_s


@dataclass(frozen=True)
class Truth:
    """The server's log: arrival of each request [R], and when each token was due and written, as CSR [R+1], [W]."""

    row: dict[str, int]
    received_ns: np.ndarray
    offset: np.ndarray
    due_ns: np.ndarray
    wrote_ns: np.ndarray

    @property
    def tokens(self) -> int:
        return len(self.wrote_ns)

    def of(self, request_id: str) -> tuple[int, np.ndarray] | None:
        """(received_ns, wrote_ns[n]) of a request, or None where the server never saw it."""
        row = self.row.get(request_id)
        if row is None:
            return None
        return int(self.received_ns[row]), self.wrote_ns[self.offset[row] : self.offset[row + 1]]

    def only(self, ids: Sequence[str]) -> Truth:
        """The log of some requests: without a client's probes and warm-up, say."""
        rows = np.array([self.row[name] for name in ids if name in self.row], dtype=np.int64)
        counts = np.diff(self.offset)[rows]
        offset = np.concatenate([[0], np.cumsum(counts)])
        source = np.repeat(self.offset[rows] - offset[:-1], counts) + np.arange(offset[-1])
        names = [name for name in ids if name in self.row]
        row = dict(zip(names, range(len(names)), strict=True))
        return Truth(
            row, self.received_ns[rows], offset, self.due_ns[source], self.wrote_ns[source]
        )

    def rate_per_s(self) -> float:
        """Tokens written in the median whole second between the first and the last request's arrival."""
        start, end = int(self.received_ns.min()), int(self.received_ns.max())
        seconds = np.arange(start, max(end, start + 1_000_000_000) + 1, 1_000_000_000)
        return float(np.median(np.histogram(self.wrote_ns, seconds)[0]))

    def in_flight(self) -> float:
        """Mean number of replies in progress between the first and the last request's arrival."""
        start, end = self.received_ns.min(), self.received_ns.max()
        served = np.flatnonzero(np.diff(self.offset))
        ended = self.wrote_ns[self.offset[served + 1] - 1]
        busy = np.minimum(ended, end) - self.received_ns[served]
        return float(busy.sum() / (end - start)) if end > start else float("nan")


@dataclass
class Server:
    """A running server; `account` and `truth` are there once the `serving` block has ended."""

    url: str
    port: int
    account: dict[str, Any] = field(default_factory=dict)
    truth: Truth | None = None

    @property
    def complaint(self) -> str:
        """Why a run on this server says nothing about its client; empty where it does."""
        if self.account["unlogged"]:
            return f"the server's log was too small by {self.account['unlogged']} tokens"
        late_us = self.account["late_us"]["p99"]
        return f"the server was late: p99 {late_us:,.0f} µs" if late_us > LATE_SERVER_US else ""


def note(server: Server) -> None:
    """Say aloud that a run was not served as it should have been."""
    if server.complaint:
        print(f"note: {server.complaint}", file=sys.stderr)


@contextmanager
def serving(schedule: Schedule, folder: Path, *, room_for: int, seconds: int) -> Iterator[Server]:
    """The C server on its own core, with log space for `room_for` tokens, and at most `seconds` to live."""
    log = folder / "served.log"
    argv = [compiled("server"), "--ttft-ms", schedule.ttft_ms, "--gap-ms", schedule.gap_ms]
    argv += ["--tokens", schedule.tokens, "--log", log, "--seconds", seconds]
    argv += ["--writes-max", room_for, "--requests-max", room_for // schedule.tokens + 1_000]
    argv += ["--lockstep"] * schedule.lockstep
    process = subprocess.Popen(pinned(argv, (SERVER_CORE,)), stdout=subprocess.PIPE, text=True)
    try:
        ready = process.stdout.readline().split()
        if ready[:1] != ["ready"]:
            raise SystemExit("the benchmark server did not start")
        server = Server(f"http://127.0.0.1:{ready[1]}", int(ready[1]))
        yield server
    finally:
        process.terminate()
        said = process.communicate()[0]
    server.account = json.loads(said)
    server.truth = read_truth(log)


def read_truth(path: Path) -> Truth:
    """The log that server.c wrote."""
    request = np.dtype([("id", "S64"), ("received_ns", "<i8"), ("port", "<u4"), ("serial", "<u4")])
    write = np.dtype([("request", "<u4"), ("token", "<u4"), ("due_ns", "<i8"), ("wrote_ns", "<i8")])
    raw = path.read_bytes()
    magic, rows, writes = raw[:8], *np.frombuffer(raw, "<u8", 2, offset=8)
    assert magic == b"IFSERVE1", f"{path} is not a log of server.c"
    requests = np.frombuffer(raw, request, int(rows), offset=24)
    tokens = np.frombuffer(raw, write, int(writes), offset=24 + requests.nbytes)
    tokens = tokens[np.lexsort((tokens["token"], tokens["request"]))]
    offset = np.searchsorted(tokens["request"], np.arange(int(rows) + 1))
    ids = [name.decode() for name in requests["id"].tolist()]
    row = dict(zip(ids, range(len(ids)), strict=True))
    return Truth(row, requests["received_ns"], offset, tokens["due_ns"], tokens["wrote_ns"])


def pinned(argv: Sequence[Any], cores: Sequence[int]) -> list[str]:
    """A command line that may run on these cores only."""
    return ["taskset", "-c", ",".join(map(str, cores)), *map(str, argv)]


def compiled(name: str) -> Path:
    """`wire/<name>.c` as a program, built once per version of its source."""
    source = HERE / "wire" / f"{name}.c"
    version = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    program = cache_folder() / f"{name}-{version}"
    if not program.exists():
        compiler = os.environ.get("CC", "cc")
        beside = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", "-Wall", "-o", beside, source], check=True)
        beside.replace(program)
    return program


def cache_folder() -> Path:
    """Where built programs lie, outside of the repository."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = home / "inferometer-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- the cost of a command ------------------------------------------------------------------------


class Sample(NamedTuple):
    """A glance at a process tree: CPU seconds so far, and the sum of its processes' peak resident bytes.

    From /proc, because `ru_maxrss` of a child begins at the size of the parent that forked it.
    """

    t_ns: int
    cpu_s: float
    rss: int


@dataclass(frozen=True)
class Cost:
    """What a command cost, with all its processes, start-up included."""

    code: int
    cpu_s: float
    wall_s: float
    rss_mb: (
        float  # peak resident memory, summed over processes; pages that they share count in each
    )
    samples: list[Sample]
    said: str

    def cpu_between(self, start_ns: int, end_ns: int) -> float:
        """CPU seconds spent between two times, interpolated between samples."""
        t = np.array([sample.t_ns for sample in self.samples], dtype=np.float64)
        cpu = np.array([sample.cpu_s for sample in self.samples])
        return float(np.diff(np.interp([start_ns, end_ns], t, cpu))[0]) if len(t) else float("nan")

    def rss_mb_until(self, end_ns: int) -> float:
        """Peak resident memory of the tree before a time."""
        before = [sample.rss for sample in self.samples if sample.t_ns <= end_ns]
        return max(before, default=0) / 1e6


def spend(
    argv: Sequence[Any],
    folder: Path,
    *,
    timeout_s: float,
    cores: Sequence[int] = (CLIENT_CORE,),
    env: dict[str, str] | None = None,
) -> Cost:
    """Run a command to its end on `cores`; its output goes to `folder`/said.txt. Past `timeout_s` it is killed (code -9).

    CPU is what the kernel accounted to it and to every descendant that was waited for; orphans are reaped here.
    """
    _adopt_orphans()
    said = folder / "said.txt"
    start = time.monotonic()
    with said.open("w") as out:
        process = subprocess.Popen(
            pinned(argv, cores),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env=os.environ | (env or {}),
            start_new_session=True,
        )
    samples: list[Sample] = []
    glance = Glance(process.pid)
    with out_of_the_way():
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            samples.append(glance.now())
            if time.monotonic() - start > timeout_s:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(SAMPLE_S)
    wall_s = time.monotonic() - start
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(
        status
    )  # it is reaped: Popen must not wait again
    usages = [usage, *_reap(process.pid)]
    rss = max((sample.rss for sample in samples), default=0)
    cpu_s = sum(u.ru_utime + u.ru_stime for u in usages)
    text = said.read_text(errors="replace")
    return Cost(process.returncode, cpu_s, wall_s, rss / 1e6, samples, text)


def _adopt_orphans() -> None:
    """Make this process the parent of orphaned descendants, so that their CPU can be counted."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _reap(group: int) -> list[Any]:
    """End and wait for what a command left behind in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    usages = []
    with suppress(ChildProcessError):
        while True:
            _, _, usage = os.wait4(-group, 0)
            usages.append(usage)
    return usages


@contextmanager
def out_of_the_way() -> Iterator[None]:
    """Let this process, while it only watches, run on the server's core and only when the server sleeps."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, cores)


class Glance:
    """Looks at a process and its descendants; remembers which are not, because looking at all takes milliseconds."""

    def __init__(self, leader: int) -> None:
        self._leader = leader  # of a session; descendants that leave it are known by their parent
        self._mine = {leader}
        self._others: set[str] = set()
        self._tick = os.sysconf("SC_CLK_TCK")

    def now(self) -> Sample:
        cpu = rss = 0
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or folder.name in self._others:
                continue
            with suppress(OSError):  # it may end while we look
                stat = Path(folder, "stat").read_text().rpartition(") ")[2].split()
                parent, session = int(stat[1]), int(stat[3])
                if session != self._leader and parent not in self._mine:
                    self._others.add(folder.name)
                    continue
                self._mine.add(int(folder.name))
                cpu += sum(map(int, stat[11:15]))
                rss += _peak_rss(folder)
        return Sample(time.monotonic_ns(), cpu / self._tick, rss)


def _peak_rss(process: Path) -> int:
    lines = Path(process, "status").read_text().splitlines()
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM")), 0)


def inferometer(*args: Any) -> list[str]:
    """The command line of the tool that lives beside this Python."""
    return [str(Path(sys.executable).parent / "inferometer"), *map(str, args)]


# --- the error of what was reported ---------------------------------------------------------------


@dataclass(frozen=True)
class Observation:
    """What a client says that it saw, per request; None where it keeps no such thing.

    `ttft_ns` [R]; `gaps_ns`: R arrays of time between consecutive tokens; `stamps_ns`: R arrays of absolute times.
    """

    ids: list[str]
    ttft_ns: np.ndarray
    gaps_ns: list[np.ndarray] | None = None
    stamps_ns: list[np.ndarray] | None = None
    verdict: str = "-"  # what the client itself says about its own validity


class Errors(NamedTuple):
    """|observed - true| over all joined requests. Gaps and stamps: requests with every token accounted for."""

    ttft_p50_ms: float
    ttft_p99_ms: float
    gap_p99_ms: float
    stamp_p50_us: float
    stamp_p99_us: float
    joined: int
    unjoined: int
    odd: int  # joined, but the client saw another number of deliveries than were written


def errors(seen: Observation, truth: Truth) -> Errors:
    """How far a client's report is from what was served."""
    ttft, gap, stamp = [], [], []
    joined = odd = 0
    for i, request_id in enumerate(seen.ids):
        served = truth.of(request_id)
        if served is None or not len(served[1]):
            continue
        received, wrote = served
        joined += 1
        ttft.append(seen.ttft_ns[i] - (wrote[0] - received))
        if seen.gaps_ns is not None:
            whole = len(seen.gaps_ns[i]) == len(wrote) - 1
            odd += not whole
            gap.append(seen.gaps_ns[i] - np.diff(wrote) if whole else [])
        if seen.stamps_ns is not None and len(seen.stamps_ns[i]) == len(wrote):
            stamp.append(seen.stamps_ns[i] - wrote)
    return Errors(
        ttft_p50_ms=_quantile(ttft, 50) / 1e6,
        ttft_p99_ms=_quantile(ttft, 99) / 1e6,
        gap_p99_ms=_quantile(np.concatenate(gap) if gap else [], 99) / 1e6,
        stamp_p50_us=_quantile(np.concatenate(stamp) if stamp else [], 50) / 1e3,
        stamp_p99_us=_quantile(np.concatenate(stamp) if stamp else [], 99) / 1e3,
        joined=joined,
        unjoined=len(seen.ids) - joined,
        odd=odd,
    )


def _quantile(values: Any, percent: float) -> float:
    values = np.abs(np.asarray(values, dtype=np.float64))
    values = values[~np.isnan(values)]
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def observed_run(path: Path) -> Observation:
    """What an Inferometer run directory says: TTFT from the intended time, a stamp for each token."""
    from inferometer.run import load_run

    run = load_run(path)
    t, epoch = run.timeline, run.manifest.clock["epoch_ns"]
    stamps = []
    for start, end in zip(t.chunk_offset[:-1], t.chunk_offset[1:], strict=True):
        stamps.append(np.repeat(t.chunk_ns[start:end], t.chunk_tokens[start:end]) + epoch)
    intended = t.intended_ns + epoch
    pairs = zip(stamps, intended, strict=True)
    ttft = np.array([s[0] - at if len(s) else np.nan for s, at in pairs], dtype=np.float64)
    gaps = [np.diff(s) for s in stamps]
    return Observation(t.request_id.tolist(), ttft, gaps, stamps, verdict_of(run.manifest))


def verdict_of(manifest: Any) -> str:
    """ "valid", or the first reason why not, as the run itself says."""
    instrument = manifest.instrument
    if instrument.get("valid"):
        return "valid"
    reasons = instrument.get("invalid_reasons") or ["no verdict in the manifest"]
    return f"INVALID: {reasons[0]}"


# --- tables and targets ---------------------------------------------------------------------------


class Target(NamedTuple):
    """A figure to reach: `value` must be at most (or, with `at_least`, at least) `target`."""

    what: str
    value: float
    target: float
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target


def judge(targets: Sequence[Target]) -> int:
    """Print each figure beside its target; the exit code is 1 if one is missed."""
    rows = [
        [
            t.what,
            f"{number(t.value)} {t.unit}",
            f"{'≥' if t.at_least else '≤'} {number(t.target)} {t.unit}",
            "pass" if t.met else "MISS",
        ]
        for t in targets
    ]
    print("\n" + table(["", "measured", "target", ""], rows) if rows else "")
    return 0 if all(t.met for t in targets) else 1


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also aligned for a terminal."""
    lines = [list(map(str, head)), *[list(map(str, row)) for row in rows]]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    shown = (
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(f"| {line} |" for line in shown)


def number(value: float, digits: int = 3) -> str:
    """Three significant digits without an exponent; "-" where there is no number."""
    if value is None or np.isnan(value):
        return "-"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-3 else f"{value:.1e}" if value else "0"


def conditions() -> str:
    """One line on the machine and on how busy it was, to be printed above every table."""
    model = "unknown CPU"
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    load = os.getloadavg()[0]
    python = ".".join(map(str, sys.version_info[:3]))
    system = f"{os.uname().sysname} {os.uname().release}"
    return f"{model}, {os.cpu_count()} cores, {system}, Python {python}; load average before: {load:.2f}"
