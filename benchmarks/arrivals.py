"""Open loop: whether requests leave when the plan says, and whether the plan is the process that was asked for.

    python -m benchmarks.arrivals [--rates 50,500,2000] [--seconds 20]

Poisson arrivals against the C server with short replies (4 tokens, 20 ms + 3 × 5 ms).
    send lag       sent - intended of every request, p99
    rate error     the span over which they were sent beside the span that was planned, and nothing left out
    exponential    of the planned gaps: Kolmogorov-Smirnov against the exponential of the rate asked for, and how
                   probable a largest gap no larger than the one drawn is, (1 - e^(-x/m))^n, for n gaps of mean m: a
                   truncated exponential makes that vanish (fails below 1e-4; a fair draw does so once in 10,000 runs)
The same two tests of the gaps between arrivals at the server are printed beside them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.stage import (
    Schedule,
    Target,
    Truth,
    conditions,
    inferometer,
    judge,
    note,
    number,
    serving,
    spend,
    table,
    verdict_of,
)

LAG_MS = {50: 1.0, 500: 2.0, 2000: 5.0}
SHORT = Schedule(ttft_ms=20.0, gap_ms=5.0, tokens=4)
LEAST_P = 1e-4


class Arrivals(NamedTuple):
    """What one open-loop run shows."""

    rate: float
    sent: int
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    rate_error: float
    unsent: int
    ks_p: float
    largest_p: float
    served_ks_p: float
    served_largest_p: float
    cpu_share: float
    verdict: str


def main() -> int:
    """Measure each rate once; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rates", default="50,500,2000")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    print(conditions())
    found = [measure(float(rate), options.seconds) for rate in options.rates.split(",")]
    print(table(HEAD, [shown(one) for one in found]))
    print(*(f"{one.rate:g}/s says: {one.verdict}" for one in found if ":" in one.verdict), sep="\n")
    return judge([target for one in found for target in targets(one)])


def measure(rate: float, seconds: float) -> Arrivals:
    """One open-loop run."""
    from inferometer.run import load_run

    room = int(rate * seconds * SHORT.tokens * 1.5) + 10_000
    limit_s = 4 * seconds + 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(SHORT, folder, room_for=room, seconds=int(limit_s) + 10) as server:
            how = ["--rate", rate, "--arrivals", "poisson", "--duration", f"{seconds}s"]
            how += ["--prompt-tokens", 16, "--output-tokens", SHORT.tokens]
            argv = inferometer("measure", server.url, *how, "-o", folder / "run")
            cost = spend(argv, folder, timeout_s=limit_s)
        note(server)
        if not (folder / "run" / "timeline.parquet").exists():
            raise SystemExit(f"inferometer measure ended with {cost.code}: {cost.said[-500:]}")
        run = load_run(folder / "run")
    return arrivals_of(rate, run, server.truth, cost.cpu_s / cost.wall_s)


def arrivals_of(rate: float, run: object, truth: Truth, cpu_share: float) -> Arrivals:
    """The figures of a run."""
    from inferometer.timeline import is_absent

    t = run.timeline
    went = ~is_absent(t.sent_ns)
    sent, intended = t.sent_ns[went], t.intended_ns[went]
    lag = (sent - intended) / 1e6
    planned, achieved = np.ptp(intended), np.ptp(sent)
    mine = truth.only(t.request_id[went].tolist())
    ks_p, largest_p = exponential(np.diff(np.sort(t.intended_ns)) / 1e9, rate)
    served_ks_p, served_largest_p = exponential(np.diff(np.sort(mine.received_ns)) / 1e9, rate)
    return Arrivals(
        rate=rate,
        sent=len(sent),
        lag_p50_ms=float(np.percentile(lag, 50)),
        lag_p99_ms=float(np.percentile(lag, 99)),
        lag_max_ms=float(lag.max()),
        rate_error=float(abs(planned / achieved - 1)),
        unsent=int(len(t) - went.sum()),
        ks_p=ks_p,
        largest_p=largest_p,
        served_ks_p=served_ks_p,
        served_largest_p=served_largest_p,
        cpu_share=cpu_share,
        verdict=verdict_of(run.manifest),
    )


def exponential(gaps_s: np.ndarray, rate: float) -> tuple[float, float]:
    """(p of Kolmogorov-Smirnov, probability of a largest gap at most as large as the one seen)."""
    from scipy.stats import kstest

    p = float(kstest(gaps_s, "expon", args=(0, 1 / rate)).pvalue)
    return p, float(np.exp(len(gaps_s) * np.log1p(-np.exp(-rate * gaps_s.max()))))


HEAD = (
    "requests/s", "sent", "unsent", "send lag p50 ms", "p99 ms", "max ms", "rate error", "KS p", "largest gap p",
    "at the server: KS p", "largest gap p", "core", "says of itself",
)  # fmt: skip


def shown(a: Arrivals) -> list[str]:
    """One line of the table."""
    lags = [a.lag_p50_ms, a.lag_p99_ms, a.lag_max_ms]
    tests = [a.ks_p, a.largest_p, a.served_ks_p, a.served_largest_p]
    return [
        number(a.rate),
        str(a.sent),
        str(a.unsent),
        *map(number, lags),
        f"{a.rate_error:.3%}",
        *map(number, tests),
        f"{a.cpu_share:.0%}",
        a.verdict.partition(":")[0],
    ]


def targets(a: Arrivals) -> list[Target]:
    """The figures to reach at this rate."""
    at = f"{a.rate:g}/s: "
    lag = (
        [Target(at + "send lag p99", a.lag_p99_ms, LAG_MS[int(a.rate)], "ms")]
        if int(a.rate) in LAG_MS
        else []
    )
    return [
        *lag,
        Target(at + "rate error", a.rate_error * 100, 0.5, "%"),
        Target(at + "planned but not sent", a.unsent, 0, "requests"),
        Target(at + "exponential, KS p", a.ks_p, LEAST_P, at_least=True),
        Target(at + "exponential, largest gap p", a.largest_p, LEAST_P, at_least=True),
    ]


if __name__ == "__main__":
    sys.exit(main())
