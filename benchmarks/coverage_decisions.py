"""Do differences, shares, repeats and decisions err as often as they say? Systems with known truth.

    python -m benchmarks.coverage_decisions         about two minutes on one core

Intervals are to cover 92 to 98 % (of 95 %); tests and gates are to err in at most 5 %. A star says that a line misses that by
more than the error of this simulation. Beside each stands what an analysis without the correction would do: intervals for
independent values, a look after every run at the full level, tests without Holm.
M/M/1 runs start in steady state; "paired" runs share arrivals and service times, B being 5 % slower.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.coverage import decode, pooled_gaps, single_server
from inferometer import stats
from inferometer.stats import Interval, Sample
from inferometer.stats.intervals import t_interval, t_quantile

Rng = np.random.Generator
Trial = Callable[
    [Rng], tuple[float, float]
]  # (1 where ours held, 1 where the plain analysis did); NaN: not given


class Line(NamedTuple):
    name: str
    trial: Trial
    nominal: float  # of holding: 0.95 for intervals; of erring: 0.05 for tests
    kind: str  # "covers" or "errs"


def holds(interval: Interval, truth: float) -> float:
    return math.nan if math.isnan(interval.lo) else float(interval.lo <= truth <= interval.hi)


def queue(rho: float, n: int, rng: Rng) -> np.ndarray:
    return single_server(rho, n, 1, rng, exponential=True)[0]


# --- intervals --------------------------------------------------------------------------------------------------------


def share_of(rho: float, n: int, within: float) -> Trial:
    """The share of requests with TTFT <= within; the TTFT of M/M/1 is exponential with rate 1 - rho."""
    truth = 1 - math.exp(-(1 - rho) * within)

    def trial(rng: Rng) -> tuple[float, float]:
        ttft = queue(rho, n, rng)
        hits = ttft <= within
        ours = stats.series_proportion_ci(hits, at_most=stats.effective_n(ttft))
        return holds(ours, truth), holds(stats.proportion_ci(hits.sum(), n), truth)

    return trial


def shift_of(q: float, n: int) -> Trial:
    """A quantile's difference between independent runs at loads 0.5 and 0.6."""
    truth = -math.log(1 - q) * (1 / 0.4 - 1 / 0.5)

    def trial(rng: Rng) -> tuple[float, float]:
        a, b = queue(0.5, n, rng), queue(0.6, n, rng)
        (ours,) = stats.shift_function(Sample(a), Sample(b), [q])
        plain = [stats.quantile_ci(x, q) for x in (a, b)]
        return holds(ours.interval, truth), holds(
            stats.difference_ci(ours.a, plain[0], ours.b, plain[1]), truth
        )

    return trial


def ratio_of(q: float, n: int) -> Trial:
    """The ratio of the same."""

    def trial(rng: Rng) -> tuple[float, float]:
        a, b = queue(0.5, n, rng), queue(0.6, n, rng)
        values = [stats.quantile(x, q) for x in (a, b)]
        ours = [stats.series_quantile_ci(x, [q])[0] for x in (a, b)]
        plain = [stats.quantile_ci(x, q) for x in (a, b)]
        found = [stats.ratio_ci(values[0], c[0], values[1], c[1]) for c in (ours, plain)]
        return holds(found[0], 0.5 / 0.4), holds(found[1], 0.5 / 0.4)

    return trial


def paired_of(q: float, n: int, noise: float) -> Trial:
    """A quantile's difference between runs that share their requests: B = 1.05 A + noise of its own."""

    def trial(rng: Rng) -> tuple[float, float]:
        a = queue(0.5, n, rng)
        b = 1.05 * a + rng.exponential(noise, n) if noise else 1.05 * a
        truth = _sum_quantile(q, 2 * 1.05, noise) + math.log(1 - q) * 2
        at = [stats.quantile(x, q) for x in (a, b)]
        shared = stats.alike(a <= at[0], b <= at[1])
        (ours,) = stats.shift_function(Sample(a), Sample(b), [q], correlation=shared)
        plain = [stats.quantile_ci(x, q) for x in (a, b)]
        return holds(ours.interval, truth), holds(
            stats.difference_ci(ours.a, plain[0], ours.b, plain[1]), truth
        )

    return trial


def _sum_quantile(q: float, mean: float, other: float) -> float:
    """Quantile of the sum of two exponentials of unlike means (the second may be 0)."""
    if not other:
        return -math.log(1 - q) * mean
    lo, hi = 0.0, 100 * mean
    while hi - lo > 1e-9:
        x = (lo + hi) / 2
        above = (mean * math.exp(-x / mean) - other * math.exp(-x / other)) / (mean - other)
        lo, hi = (x, hi) if above > 1 - q else (lo, x)
    return lo


def paired_mean(rng: Rng) -> tuple[float, float]:
    """The mean difference of the same, with noise."""
    a = queue(0.5, 4_000, rng)
    b = 1.05 * a + rng.exponential(0.3, a.size)
    means, truth = (float(a.mean()), float(b.mean())), 0.4
    found = [stats.series_mean_ci(x) for x in (a, b)]
    plain = stats.mean_ci(b - a)
    shared = stats.alike(a - means[0], b - means[1])
    ours = stats.difference_ci(means[0], found[0], means[1], found[1], shared)
    return holds(ours, truth), holds(plain, truth)


def bootstrap(rng: Rng) -> tuple[float, float]:
    """The mean of an AR(1) series by the block bootstrap."""
    x = np.empty(1_000)
    x[0] = rng.normal() / math.sqrt(1 - 0.36)
    for i, step in enumerate(rng.normal(size=999)):
        x[i + 1] = 0.6 * x[i] + step
    seed = int(rng.integers(1 << 31))
    (ours,) = stats.block_bootstrap_ci(x, np.mean, draws=299, seed=seed)
    return holds(ours, 0), holds(stats.mean_ci(x), 0)


def gaps_mean(rng: Rng) -> tuple[float, float]:
    """Whether two halves of one batched server's run are told apart by their pooled mean gap (they do not differ)."""
    run = decode(2_600, rng)
    found = []
    for keep in (slice(300, 1_300), slice(1_300, 2_300)):
        values, offsets = pooled_gaps(run, keep)
        mean = float(values.mean())
        found.append((mean, stats.clustered_mean_ci(values, offsets), stats.mean_ci(values)))
    (a, a_ci, a_plain), (b, b_ci, b_plain) = found
    return holds(stats.difference_ci(a, a_ci, b, b_ci), 0), holds(
        stats.difference_ci(a, a_plain, b, b_plain), 0
    )


def repeats(rng: Rng) -> tuple[float, float]:
    """The mean of five repeats whose true levels differ by 5 %; plainly, by what each run believes of itself."""
    levels = 1 + 0.05 * rng.normal(size=5)
    results = levels + 0.02 * rng.normal(size=5)
    inside = t_interval(float(results.mean()), 0.02 / math.sqrt(5), 1e9)
    return holds(stats.mean_ci(results), 1), holds(inside, 1)


def looks(rng: Rng) -> tuple[float, float]:
    """The interval at which a series of repeats stops for ±5 %: looks after runs 3 to 10; plainly, each at 95 %."""
    x = 1 + 0.05 * rng.normal(size=10)
    counts = list(range(3, 11))
    levels = stats.look_levels([n / 10 for n in counts])
    return stops(x, counts, levels), stops(x, counts, [0.95] * len(counts))


def stops(x: np.ndarray, counts: list[int], levels: list[float]) -> float:
    found = stats.UNKNOWN
    for n, level in zip(counts, levels, strict=True):
        found = stats.mean_ci(x[:n], level)
        if stats.precise_enough(float(x[:n].mean()), found, 0.05):
            break
    return holds(found, 1)


# --- tests and gates: how often they err ------------------------------------------------------------------------------


def permuted(rng: Rng) -> tuple[float, float]:
    """Two sides of five runs each, from one source; plainly, 2,000 requests a side as if independent."""
    a, b = (np.array([queue(0.5, 400, rng).mean() for _ in range(5)]) for _ in range(2))
    x, y = queue(0.5, 2_000, rng), queue(0.5, 2_000, rng)
    error = math.sqrt(x.var() / x.size + y.var() / y.size)
    plain = stats.t_p_value(float(y.mean() - x.mean()), error, 4_000)
    return float(stats.permutation_p(a, b) <= 0.05), float(plain <= 0.05)


def flipped(rng: Rng) -> tuple[float, float]:
    """Eight pairs of blocks that do not differ, on a host that drifts; plainly, all of A ran before all of B."""
    drift = np.linspace(0, 1, 16)
    pairs = drift.reshape(8, 2) + 0.1 * rng.normal(size=(8, 2))
    swapped = rng.random(8) < 0.5
    d = np.where(swapped, pairs[:, 0] - pairs[:, 1], pairs[:, 1] - pairs[:, 0])
    before, after = drift[:8] + 0.1 * rng.normal(size=8), drift[8:] + 0.1 * rng.normal(size=8)
    apart = stats.permutation_p(before, after, draws=499)
    return float(stats.sign_flip_p(d) <= 0.05), float(apart <= 0.05)


def family(rng: Rng) -> tuple[float, float]:
    """Twenty statistics, none of which differs, and correlated as those of one run are: any called different."""
    z = math.sqrt(0.5) * rng.normal() + math.sqrt(0.5) * rng.normal(size=20)
    p = np.array([math.erfc(abs(v) / math.sqrt(2)) for v in z])
    return float(min(stats.holm(p)) <= 0.05), float(p.min() <= 0.05)


def welch(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Difference, its standard error, degrees of freedom (equal sizes and variances)."""
    error = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / a.size)
    return float(b.mean() - a.mean()), error, 2 * a.size - 2


def equivalent(rng: Rng) -> tuple[float, float]:
    """B is exactly as much worse as is allowed, and called equivalent; plainly, because p of no difference is large."""
    a, b = 1 + 0.05 * rng.normal(size=8), 1.05 + 0.05 * rng.normal(size=8)
    found = welch(a, b)
    ours = stats.equivalence_p(*found, Interval(-0.05, 0.05)) <= 0.05
    return float(ours), float(stats.t_p_value(*found) > 0.05)


def gated(rng: Rng) -> tuple[float, float]:
    """B is exactly as much worse as is allowed, and called a regression; plainly, because it is above in the sample."""
    a, b = 1 + 0.05 * rng.normal(size=8), 1.05 + 0.05 * rng.normal(size=8)
    change, error, dof = welch(a, b)
    half = t_quantile(0.95, dof) * error
    ours = stats.gate(Interval(change - half, change + half), 0.05)
    return float(ours == "regression"), float(change > 0.05)


def crossed(rng: Rng) -> tuple[float, float]:
    """Two runs of one source, and their CDFs said to cross; plainly, because the samples' deciles do."""
    a, b = queue(0.5, 2_000, rng), queue(0.5, 2_000, rng)
    deciles = [np.quantile(x, np.arange(1, 10) / 10) for x in (a, b)]
    signs = np.sign(deciles[1] - deciles[0])
    return float(bool(stats.crossings(Sample(a), Sample(b)))), float(abs(signs.sum()) < 9)


def drifted(rng: Rng) -> tuple[float, float]:
    """A stationary queue at load 0.7 called moving at alpha = 2 % (any size); plainly, by Mann-Kendall on its values."""
    x = queue(0.7, 3_000, rng)
    means = stats.batch_means(x, 300)
    i, j = np.triu_indices(300, 1)
    z = float(np.sign(means[j] - means[i]).sum()) / math.sqrt(300 * 299 * 605 / 18)
    return float(stats.trend(x).p_value < 0.02), float(math.erfc(abs(z) / math.sqrt(2)) < 0.02)


LINES = (
    Line("attainment 90 %, M/M/1 0.5, n 2,000", share_of(0.5, 2_000, math.log(10) * 2), 0.95, "covers"),
    Line("attainment 99 %, M/M/1 0.5, n 10,000", share_of(0.5, 10_000, math.log(100) * 2), 0.95, "covers"),
    Line("shift of p50, n 4,000 a side", shift_of(0.5, 4_000), 0.95, "covers"),
    Line("shift of p90, n 10,000 a side", shift_of(0.9, 10_000), 0.95, "covers"),
    Line("ratio of p50, n 4,000 a side", ratio_of(0.5, 4_000), 0.95, "covers"),
    Line("paired shift of p50, n 4,000", paired_of(0.5, 4_000, 0.0), 0.95, "covers"),
    Line("paired shift of p90, n 10,000", paired_of(0.9, 10_000, 0.0), 0.95, "covers"),
    Line("paired shift of p50, own noise", paired_of(0.5, 4_000, 0.5), 0.95, "covers"),
    Line("paired shift of p90, own noise", paired_of(0.9, 10_000, 0.5), 0.95, "covers"),
    Line("paired mean, own noise, n 4,000", paired_mean, 0.95, "covers"),
    Line("block bootstrap of a mean, AR(1) 0.6", bootstrap, 0.95, "covers"),
    Line("clustered mean gap, differences", gaps_mean, 0.95, "covers"),
    Line("mean of five repeats", repeats, 0.95, "covers"),
    Line("where --until stops", looks, 0.95, "covers"),
    Line("permutation over runs", permuted, 0.05, "errs"),
    Line("sign flips over blocks, drifting host", flipped, 0.05, "errs"),
    Line("Holm over 20 statistics", family, 0.05, "errs"),
    Line("equivalence at the margin (TOST)", equivalent, 0.05, "errs"),
    Line("gate: regression at the margin", gated, 0.05, "errs"),
    Line("crossings of one source", crossed, 0.05, "errs"),
    Line("trend of a stationary queue", drifted, 0.02, "errs"),
)  # fmt: skip


def told(line: Line, reps: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    ours, plain = np.array([line.trial(rng) for _ in range(reps)]).T
    given = ~np.isnan(ours)
    rate, n = float(ours[given].mean()), int(given.sum())
    error = stats.proportion_ci(rate * n, n)
    lo, hi = (0.92, 0.98) if line.kind == "covers" else (0.0, line.nominal)
    mark = "*" if error.hi < lo or error.lo > hi else " "
    return (
        f"{line.name:40s} {line.kind:6s} {line.nominal:5.0%} | {rate:6.1%}{mark} {given.mean():6.0%} | "
        f"{np.nanmean(plain):6.1%}"
    )


def lines(reps: int, seed: int, only: str) -> Iterator[str]:
    yield f"{'what':40s} {'':6s} {'said':>5s} | {'is':>7s} {'given':>6s} | {'plain':>6s}"
    for line in LINES:
        if only in line.name:
            yield told(line, reps, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a line's name")
    asked = parser.parse_args()
    began = time.perf_counter()
    for each in lines(asked.replicates, asked.seed, asked.only):
        print(each, flush=True)
    print(f"* missed by more than simulation error; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
