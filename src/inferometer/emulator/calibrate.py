"""How wrong is the instrument here? The driver against a server that knows the truth, at a ladder of loads.

Each rung starts an emulator in a process of its own (on a core of its own, where there are two; two emulators where there
are three), measures it like any other server, and joins the timeline with the emulator's log by request id and token:
measured minus true, per token.
What decides is `Criteria`; the highest rung that meets them is how far this machine is believed.

The load is a closed loop of N streams: N chains of requests, each of which begins when the one before it has ended.
Their starts are spread over `ramp_s`, because N requests in one instant measure how fast a burst can be written, which
is not the question here. Only the plateau counts, from the ramp's end until the first stream may stop: what happens at
lower load before and after it would flatter the percentiles.

A rung at which the emulator was saturated is discarded: it says nothing about the driver. So is one at which the
emulator was interrupted now and then (by other work on its core) and the errors are large, because a server that is
interrupted between reading the clock and writing makes its truth early. Where the errors are small nevertheless, the
rung stands: the truth is when a token was written, not when it was due, and lateness comes in bursts, which are harder.

Rules: joining and judging are pure (`joined`, `rung_of`, `judged`, `concluded`); only `calibrate` starts anything.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferometer.clock import SECOND
from inferometer.emulator.child import serve_child
from inferometer.emulator.schedule import Count, Positive, Schedule, Seconds, Share
from inferometer.emulator.writes import LATE_NS, MAY_BE_LATE, WriteLog, read_writes
from inferometer.load.calibration import (
    BELIEVED,
    DISCARDED,
    REFUSED,
    Calibration,
    Rung,
    Spread,
    host_id,
)
from inferometer.load.fleet import host_facts, measure
from inferometer.load.instrument import own_lag_ns
from inferometer.load.options import Drive
from inferometer.load.preflight import find
from inferometer.plan import Plan, build_plan
from inferometer.run import Run
from inferometer.spec import Spec
from inferometer.timeline import ABSENT, Ints, Timeline, offsets

EMULATORS = 2  # at most
PROMPT_TOKENS = 16
TTFT_SIGMA = 0.2  # spreads the streams' phases over a gap, however they began
BUSY_LOAD = 0.5  # other work than this, per core, before the first rung is worth a remark


class Load(Spec, frozen=True):
    """One load: `streams` requests in flight, each with a token every `gap_s`, for `seconds` at full height."""

    streams: Positive
    gap_s: Seconds = 0.02
    ttft_s: Seconds = 0.1
    least_tokens: Positive = 64
    most_tokens: Positive = 128
    ramp_s: Seconds = 1.0
    seconds: Seconds = 3.0
    seed: Count = 0

    def plan(self) -> Plan:
        """N chains of requests, long enough for the whole load however short the outputs are drawn."""
        shortest_s = 0.5 * self.ttft_s + (self.least_tokens - 1) * self.gap_s
        turns = 1 + math.ceil((self.ramp_s + self.seconds) / shortest_s)
        rows = np.arange(self.streams * turns)
        first = rows < self.streams
        start_ns = (rows * (self.ramp_s * SECOND / self.streams)).astype(np.int64)
        lengths = np.random.default_rng(self.seed).integers(
            self.least_tokens, self.most_tokens, len(rows), endpoint=True
        )
        return build_plan(
            len(rows),
            request_id=[f"c{row:07d}" for row in rows],
            intended_ns=np.where(first, start_ns, ABSENT),
            parent_offset=np.concatenate([[0], np.cumsum(~first)]),
            parent_row=rows[~first] - self.streams,
            prompt_tokens=PROMPT_TOKENS,
            output_tokens=lengths,
            seed=self.seed,
            generator="calibration/1",
        )

    def schedule(self) -> Schedule:
        """What the emulator plays."""
        return Schedule(
            models=("calibration",), ttft_s=self.ttft_s, ttft_sigma=TTFT_SIGMA, gap_s=self.gap_s, seed=self.seed
        )  # fmt: skip

    @property
    def plateau_ns(self) -> tuple[int, int]:
        """From when until when, since the run's epoch, all streams are live."""
        begin = round((self.ramp_s + self.ttft_s) * SECOND)
        return begin, round((self.ramp_s + self.seconds) * SECOND)


LADDER = tuple(Load(streams=streams) for streams in (20, 64, 256, 512, 1024, 1536))
QUICK = tuple(Load(streams=streams, ramp_s=0.5, seconds=1.5) for streams in (64, 512, 1024))


class Criteria(Spec, frozen=True):
    """When a rung is believed; besides, its run must be valid, and no request may have failed.

    matched_share: nearly every token must be compared; errors that are missing may be the large ones.
    gap_error_p99_s: 1 ms is a twentieth of a brisk token gap (20 ms), well below what anybody acts on; the issue
    behind it is stalls and tails, so the bound is on the 99th percentile and not on the mean.
    stamp_error_p99_s: the same for the instant itself, which TTFT and TTLT hang on.
    """

    matched_share: Share = 0.999
    gap_error_p99_s: Seconds = 1e-3
    stamp_error_p99_s: Seconds = 1e-3


CRITERIA = Criteria()


def calibrate(
    ladder: Sequence[Load] = LADDER,
    criteria: Criteria = CRITERIA,
    *,
    watch: Callable[[Rung], None] = lambda _: None,
) -> Calibration:
    """Climb the ladder, with the kernel's stamps where it gives them; then the believed load with user stamps, to compare.

    `watch` is told of each rung. Takes some 8 s a rung of the default. Does not store the result.
    Raises KeyboardInterrupt where it was interrupted, UserError where the host forbids a rung (open files).
    """
    host = host_facts()
    rungs = []
    for load in ladder:
        rungs.append(rung(load, criteria))
        watch(rungs[-1])
    found = concluded(rungs, host=host, criteria=criteria)
    if found.stamps != "kernel":
        return found
    best = _best(rungs) or rungs[0]
    beside = rung(ladder[rungs.index(best)], criteria, stamps="user")
    watch(beside)
    return msgspec.structs.replace(found, beside=(beside,))


def rung(load: Load, criteria: Criteria = CRITERIA, *, stamps: str = "kernel") -> Rung:
    """Measure one load and judge it."""
    with tempfile.TemporaryDirectory(prefix="inferometer-") as name, _apart() as cores:
        folder = Path(name)
        logs = [folder / f"log-{number}.parquet" for number in range(len(cores))]
        with ExitStack() as servers:
            urls = [
                servers.enter_context(serve_child(load.schedule(), log=log, cpus=cpus))
                for log, cpus in zip(logs, cores, strict=True)
            ]
            run = measure(
                load.plan(),
                find(urls),
                Drive(stamps=stamps, duration_s=load.ramp_s + load.seconds),
                folder / "run",
                asked={"calibration": msgspec.to_builtins(load)},
                telemetry=False,
            )
        if (run.manifest.stopped or "").startswith("interrupted"):
            raise KeyboardInterrupt
        log = merged([read_writes(log) for log in logs])
    return judged(rung_of(load, run, log), run, criteria)


@contextmanager
def _apart() -> Iterator[tuple[tuple[int, ...], ...]]:
    """The cores of each emulator, which we and our workers keep off while inside; () is any, where there is only one.

    A token costs an emulator about twice what it costs the driver, so there are two where there are cores for them.
    """
    cores = sorted(os.sched_getaffinity(0))
    count = min(EMULATORS, len(cores) - 1)
    if not count:
        yield ((),)
        return
    os.sched_setaffinity(0, cores[:-count])
    try:
        yield tuple((core,) for core in cores[-count:])
    finally:
        os.sched_setaffinity(0, cores)


# --- measured beside true ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Tokens that have both a stamp and a true write [T], by request and then by index; absolute monotonic times."""

    row: Ints  # of the timeline
    index: Ints  # of the token in its request
    stamp_ns: Ints
    wrote_ns: Ints
    share: float  # of all tokens that either side knows

    @property
    def error_ns(self) -> Ints:
        """Measured minus true, per token [T]."""
        return self.stamp_ns - self.wrote_ns

    def gap_error_ns(self) -> tuple[NDArray[np.bool_], Ints]:
        """(which tokens end a gap whose both ends are known [T], the errors of those gaps)."""
        follows = np.zeros(len(self.row), dtype=bool)
        follows[1:] = (np.diff(self.row) == 0) & (np.diff(self.index) == 1)
        return follows, np.diff(self.error_ns, prepend=0)[follows]


def joined(timeline: Timeline, log: WriteLog, epoch_ns: int) -> Joined:
    """The timeline's tokens beside the writes that carried them; writes for other requests (a preflight's) are left out.

    A token has no partner where its write was held back by a full socket, or never arrived.
    """
    row, index, stamp_ns = _stamps(timeline, epoch_ns)
    key, wrote_ns = _truth(timeline, log)
    mine = row * _ROW + index
    place = np.searchsorted(key, mine)
    found = place < len(key)
    found[found] = key[place[found]] == mine[found]
    place = place[found]
    exact = wrote_ns[place] != ABSENT
    kept = np.flatnonzero(found)[exact]
    known = len(mine) + len(key) - len(place)
    return Joined(
        row[kept],
        index[kept],
        stamp_ns[kept],
        wrote_ns[place[exact]],
        len(kept) / known if known else 0.0,
    )


def merged(logs: Sequence[WriteLog]) -> WriteLog:
    """The writes of several servers, each of which had requests of its own."""
    before = offsets(np.array([len(log.request_ids) for log in logs]))
    columns = {
        name: np.concatenate([getattr(log, name) for log in logs])
        for name in ("request_ids", "index", "tokens", "due_ns", "wrote_ns")
    }
    request = [log.request + start for log, start in zip(logs, before[:-1], strict=True)]
    return WriteLog(request=np.concatenate(request), **columns)


_ROW = 1 << 32  # more tokens than a request can have: row * _ROW + index is unique, and in order


def _stamps(timeline: Timeline, epoch_ns: int) -> tuple[Ints, Ints, Ints]:
    row = np.repeat(np.arange(len(timeline)), timeline.output_tokens)
    first = np.cumsum(timeline.output_tokens, dtype=np.int64) - timeline.output_tokens
    index = np.arange(len(row)) - np.repeat(first, timeline.output_tokens)
    return row, index, np.repeat(timeline.chunk_ns, timeline.chunk_tokens) + epoch_ns


def _truth(timeline: Timeline, log: WriteLog) -> tuple[Ints, Ints]:
    """(key, true time) of each token of the log that belongs to the timeline, in order of keys."""
    rows = {name: row for row, name in enumerate(timeline.request_id.tolist())}
    of_id = np.array([rows.get(name, -1) for name in log.request_ids.tolist()], dtype=np.int64)
    row = of_id[log.request] if len(log) else np.zeros(0, dtype=np.int64)
    mine = row >= 0
    tokens = log.tokens[mine]
    within = np.arange(tokens.sum()) - np.repeat(np.cumsum(tokens) - tokens, tokens)
    key = np.repeat(row[mine] * _ROW + log.index[mine], tokens) + within
    wrote_ns = np.repeat(log.wrote_ns[mine], tokens)
    order = np.argsort(key, kind="stable")
    return key[order], wrote_ns[order]


# --- figures, and what they are worth ---------------------------------------------------------------------------------


def rung_of(load: Load, run: Run, log: WriteLog) -> Rung:
    """The figures of one rung, not judged yet: errors over the plateau, costs over the whole run."""
    epoch_ns = run.manifest.clock["epoch_ns"]
    begin_ns, end_ns = (epoch_ns + bound for bound in load.plateau_ns)

    def on_plateau(t_ns: Ints) -> NDArray[np.bool_]:
        return (t_ns >= begin_ns) & (t_ns < end_ns)

    tokens = joined(run.timeline, log, epoch_ns)
    live, errors = on_plateau(tokens.wrote_ns), tokens.error_ns
    follows, gap_errors = tokens.gap_error_ns()
    exact = log.wrote_ns != ABSENT
    late_ns = (log.wrote_ns - log.due_ns)[exact & on_plateau(log.due_ns)]
    count = int(np.count_nonzero(live))
    record = run.manifest.instrument
    total = int(run.timeline.output_tokens.sum())
    return Rung(
        streams=load.streams,
        stamps=record["stamps"]["mode"],
        tokens=count,
        tokens_per_s=count / ((end_ns - begin_ns) / SECOND),
        matched_share=tokens.share,
        stamp_error=spread(errors[live]),
        gap_error=spread(gap_errors[live[follows]]),
        ttft_error=spread(errors[live & (tokens.index == 0)]),
        send_lag=spread(own_lag_ns(run.timeline)),
        shared_stamps=_share(np.diff(tokens.stamp_ns, prepend=0)[follows & live] == 0),
        cpu_us_per_token=1e6 * record["cpu_s"] / total if total else None,
        cpu_share=record["cpu_share"],
        emulator_late_share=_share(late_ns > LATE_NS),
        emulator_lateness=spread(late_ns),
    )


def _share(of: NDArray[np.bool_]) -> float | None:
    return float(np.mean(of)) if len(of) else None


def spread(error_ns: Ints) -> Spread:
    """Quantiles of the magnitudes of some errors, those that so many can carry."""
    size = np.abs(error_ns)
    if not len(size):
        return Spread()
    p50, p99, p999, most = (np.percentile(size, [50, 99, 99.9, 100]) / SECOND).tolist()
    n = len(size)
    return Spread(n, p50, p99 if n >= 100 else None, p999 if n >= 1000 else None, most)


def judged(figures: Rung, run: Run, criteria: Criteria) -> Rung:
    """The rung with its verdict, and the reasons against it."""
    reasons = (*_run_reasons(run), *_error_reasons(figures, criteria))
    late = _emulator_late(figures, errors_are_small=not reasons)
    if late is not None:
        return msgspec.structs.replace(figures, verdict=DISCARDED, reasons=(late, *reasons))
    verdict = REFUSED if reasons else BELIEVED
    return msgspec.structs.replace(figures, verdict=verdict, reasons=reasons)


def _emulator_late(figures: Rung, *, errors_are_small: bool) -> str | None:
    """Why nothing can be said of the driver; None where something can."""
    share, median_s = figures.emulator_late_share, figures.emulator_lateness.p50
    if share is None or median_s is None:
        return None
    said = f"{share:.1%} of its writes were more than 1 ms late"
    if median_s > LATE_NS / SECOND:  # a queue, not an interruption
        return f"the emulator could not keep up ({said}): it is saturated, not the driver"
    if share > MAY_BE_LATE and not errors_are_small:
        return f"the emulator was interrupted ({said}): what follows may not be the driver's doing"
    return None


def _run_reasons(run: Run) -> Iterator[str]:
    yield from run.manifest.instrument["invalid_reasons"]
    if run.manifest.stopped:
        yield f"the run stopped early: {run.manifest.stopped}"
    failed = int(np.count_nonzero(~run.timeline.ok))
    if failed:
        yield f"{failed:,} of {len(run.timeline):,} requests failed"


def _error_reasons(figures: Rung, criteria: Criteria) -> Iterator[str]:
    if figures.matched_share < criteria.matched_share:
        yield (
            f"only {figures.matched_share:.2%} of the tokens could be compared, not {criteria.matched_share:.1%}"
        )
    bounds = (
        ("gap error", figures.gap_error.p99, criteria.gap_error_p99_s),
        ("stamp error", figures.stamp_error.p99, criteria.stamp_error_p99_s),
    )
    yield from filter(None, starmap(_above, bounds))


def _above(name: str, p99: float | None, bound: float) -> str | None:
    if p99 is None:
        return f"{name}: too few tokens for a p99"
    return f"{name} p99 {1e3 * p99:.3g} ms is above {1e3 * bound:g} ms" if p99 > bound else None


def concluded(rungs: Sequence[Rung], *, host: dict[str, Any], criteria: Criteria) -> Calibration:
    """What a ladder comes to: its highest believed rung."""
    best = _best(rungs)
    return Calibration(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        host_id=host_id(),
        stamps=rungs[0].stamps,
        rungs=tuple(rungs),
        believed_tokens_per_s=best.tokens_per_s if best else None,
        gap_error_p99_s=best.gap_error.p99 if best else None,
        stamp_error_p99_s=best.stamp_error.p99 if best else None,
        criteria=msgspec.to_builtins(criteria),
        host=host,
        notes=tuple(_remarks(rungs, host)),
    )


def _best(rungs: Sequence[Rung]) -> Rung | None:
    held = [rung for rung in rungs if rung.verdict == BELIEVED]
    return max(held, key=lambda rung: rung.tokens_per_s, default=None)


def _remarks(rungs: Sequence[Rung], host: dict[str, Any]) -> Iterator[str]:
    busy, cores = host["load_average"][0], host["cpus"] or 1
    if busy > BUSY_LOAD * cores:
        yield (
            f"other work was running (load average {busy:.1f} on {cores} cores): the errors are upper bounds;"
            " calibrate again when the machine is idle"
        )
    if rungs[-1].verdict == BELIEVED:
        yield "the highest rung held: the limit is above this ladder (--rungs)"
    elif rungs[-1].verdict == DISCARDED:
        yield "the highest rung was discarded: the limit may be higher than what is believed"
    if cores < 2:
        yield "one core for driver and emulator: each delays the other"
