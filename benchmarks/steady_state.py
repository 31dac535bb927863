"""How often is the steady-state verdict wrong, and what does the warm-up cut do to the mean?

    python benchmarks/steady_state.py             about half a minute on one core

M/M/1 seen as a run sees it: requests in flight and mean TTFT on a grid of 300 points. Three questions:
stationary runs must be called steady (2 % are allowed not to be, by the test's alpha) and lose little;
runs past saturation must be told; a cold start must be cut, and leave a mean that is nearer to the truth.
"""

from __future__ import annotations

import argparse

import numpy as np

from inferometer import stats

GRID = 300


def run(rho: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Arrival times and TTFT of n requests; stationary below saturation, from empty above it."""
    gaps, service = rng.exponential(1 / rho, n), rng.exponential(1, n)
    walk = np.cumsum(np.r_[0, service[:-1] - gaps[1:]])
    start = rng.exponential(1 / (1 - rho)) * (rng.random() < rho) if rho < 1 else 0.0
    return np.cumsum(gaps), walk + np.maximum(start, -np.minimum.accumulate(walk)) + service


def on_grid(arrive: np.ndarray, ttft: np.ndarray) -> dict[str, np.ndarray]:
    """In flight at, and mean TTFT of the arrivals within, each cell of the grid while requests arrive."""
    edges = np.linspace(0, arrive[-1], GRID + 1)
    leave = np.sort(arrive + ttft)
    flying = np.searchsorted(arrive, edges[1:]) - np.searchsorted(leave, edges[1:])
    cell = np.minimum(np.searchsorted(edges, arrive, "right") - 1, GRID - 1)
    counts = np.bincount(cell, minlength=GRID)
    with np.errstate(invalid="ignore"):
        return {"in flight": flying, "ttft": np.bincount(cell, ttft, GRID) / counts}


def verdicts(rho: float, n: int, reps: int, rng: np.random.Generator) -> str:
    cut, before, after, found = [], [], [], []
    for _ in range(reps):
        arrive, ttft = run(rho, n, rng)
        state = stats.steady_state(on_grid(arrive, ttft))
        found.append(state.verdict)
        if state.verdict == "steady":
            lo, hi = (int(n * edge / GRID) for edge in (state.start, state.stop))
            cut.append(1 - (hi - lo) / n)
            before.append(ttft.mean())
            after.append(ttft[lo:hi].mean())
    steady = found.count("steady") / reps
    line = f"load {rho:<5} {n:7d} requests: steady {steady:5.1%}, no steady state {found.count('no steady state') / reps:5.1%}"
    if rho >= 1 or not cut:
        return line
    truth = 1 / (1 - rho)
    return line + (
        f"; of the steady: cut {np.mean(cut):5.1%} of the run, mean off by {np.mean(before) / truth - 1:+.1%} before"
        f" and {np.mean(after) / truth - 1:+.1%} after the cut"
    )


def cold(share: float, factor: float, rho: float, n: int, reps: int) -> str:
    """A first `share` of requests that are slower, by `factor` at the start, falling to 1."""
    rng = np.random.default_rng([n, int(100 * factor)])
    seen, before, after = [], [], []
    k = int(share * n)
    for _ in range(reps):
        _, ttft = run(rho, n, rng)
        ttft[:k] *= np.linspace(factor, 1, k)
        first = stats.warm_up(ttft)
        seen.append(first > 0)
        before.append(ttft.mean())
        after.append(ttft[first:].mean())
    truth = 1 / (1 - rho)
    return (
        f"cold start {factor:>4}x over {share:4.0%}, load {rho} {n:6d} requests: cut in {np.mean(seen):4.0%}; "
        f"mean off by {np.mean(before) / truth - 1:+.1%} before, {np.mean(after) / truth - 1:+.1%} after"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    for rho, n in ((0.5, 600), (0.5, 5_000), (0.8, 5_000), (0.9, 5_000), (0.9, 50_000)):
        print(verdicts(rho, n, asked.replicates, rng), flush=True)
    for rho, n in ((1.02, 10_000), (1.05, 2_000), (1.05, 10_000), (1.2, 1_000), (1.5, 300)):
        print(verdicts(rho, n, asked.replicates, rng), flush=True)
    for share, factor in ((0.02, 20), (0.03, 5), (0.1, 2), (0.2, 1.5)):
        for rho, n in ((0.5, 2_000), (0.8, 10_000)):
            print(cold(share, factor, rho, n, asked.replicates), flush=True)


if __name__ == "__main__":
    main()
