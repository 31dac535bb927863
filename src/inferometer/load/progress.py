"""What is known of a run while it runs: one small message per worker a few times a second, summed by the parent.

For display only. Latencies here are rough (from reads, not from tokens); the numbers of record come from the timeline.
"""

from __future__ import annotations

import msgspec

from inferometer.clock import SECOND


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's counters. Times are ns; medians over its last few requests; None where there is none yet."""

    worker: int
    stage: str  # encoding | ready | running | digesting | done
    elapsed_ns: int = 0
    started: int = 0
    in_flight: int = 0
    ended: int = 0
    failed: int = 0
    reads: int = 0
    bytes: int = 0
    ttft_ns: int | None = None
    gap_ns: int | None = None
    lag_ns: int | None = None
    error: str | None = None  # set when a worker cannot go on


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The sum over the workers, as the live display shows it. `reads_per_s` stands for the token rate."""

    stage: str
    elapsed_s: float
    planned: int
    started: int
    in_flight: int
    done: int
    failed: int
    reads_per_s: float
    ttft_s: float | None
    gap_s: float | None
    lag_s: float | None


_STAGES = ("encoding", "ready", "running", "digesting", "done")


def together(beats: list[Heartbeat], planned: int) -> Progress:
    """The sum of the latest heartbeat of each worker."""
    elapsed_s = max((beat.elapsed_ns for beat in beats), default=0) / SECOND
    reads = sum(beat.reads for beat in beats)
    stage = min((beat.stage for beat in beats), key=_STAGES.index, default="encoding")
    return Progress(
        stage=stage,
        elapsed_s=elapsed_s,
        planned=planned,
        started=sum(beat.started for beat in beats),
        in_flight=sum(beat.in_flight for beat in beats),
        done=sum(beat.ended - beat.failed for beat in beats),
        failed=sum(beat.failed for beat in beats),
        reads_per_s=reads / elapsed_s if elapsed_s > 0 else 0.0,
        ttft_s=_middle([beat.ttft_ns for beat in beats]),
        gap_s=_middle([beat.gap_ns for beat in beats]),
        lag_s=_middle([beat.lag_ns for beat in beats]),
    )


def _middle(values: list[int | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] / SECOND if known else None
