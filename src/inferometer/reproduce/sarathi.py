"""Sarathi-Serve's capacities (OSDI 2024, figures 10 to 12): Orca, vLLM and Sarathi-Serve under its SLOs, simulated.

Capacity: the highest Poisson rate at which P99 TBT meets the SLO and the median scheduling delay is at most 2 s (section
5). Found by bisection on a grid of rates 2.5 % apart, the artifact's own resolution; arrivals and lengths are the same for
all systems and rates (common random numbers), and a rate that two searches ask for is simulated once.

What is compared: the order of the systems in every cell, and bands for the paper's headline ratios, not digits. Our times
are a roofline's with 10 ms of host time per iteration (engines of 2023 took 6 to 20), the same for all systems.
Lengths: openchat_sharegpt4 from quantiles of the artifact's processed file (median and P90 as the paper's table 2 has
them); arxiv_summarization from table 2's medians and deviations, as lognormals cut at 16,384 tokens: its full file is not public.
The paper's bars were measured off the figure's pixels (±0.02 requests/s). Falcon's two nodes are one here: no Ethernet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.clock import SECOND
from inferometer.metrics import latency, tokens
from inferometer.plan import Plan, build_plan
from inferometer.report.sections import Grid, number
from inferometer.reproduce.reproduction import Ask, Reproduction, Statement
from inferometer.run import Run
from inferometer.sim import Deployment, Limits, simulate

HOST_S = 10e-3
STEP = 1.025  # between two rates that are tried
LOWEST_PER_S = 0.02
DELAY_S = 2.0  # the most median scheduling delay
REQUESTS, QUICK = 1024, 320
SYSTEMS = ("orca", "vllm", "sarathi-serve")


class Setup(NamedTuple):
    """A model as the paper served it: table 3, and the artifact's limits."""

    model: str
    device: str
    tp: int
    pp: int
    strict_s: float
    relaxed_s: float
    orca_batch: int
    relaxed_chunk: int = 2048

    def slo_s(self, name: str) -> float:
        """Its P99 TBT, strict or relaxed."""
        return self.strict_s if name == "strict" else self.relaxed_s

    def chunk(self, name: str) -> int:
        """Sarathi-Serve's token budget under it."""
        return 512 if name == "strict" else self.relaxed_chunk


SETUPS = {
    "Mistral-7B": Setup("mistral-7b", "a100", 1, 1, 0.1, 0.5, 16),
    "Yi-34B": Setup("yi-34b", "a100", 2, 1, 0.2, 1.0, 16),
    "LLaMA2-70B": Setup("llama-2-70b", "a40", 4, 2, 1.0, 5.0, 8, 1536),
    "Falcon-180B": Setup("falcon-180b", "a100", 4, 2, 1.0, 5.0, 8),
}
# dataset -> tokens of the longest request, (shares, tokens) of prompts and outputs or their (median, sigma)
OPENCHAT = (
    ((0.0, 0.23, 0.31, 0.36, 0.46, 0.5, 0.9, 1.0), (4, 512, 800, 1000, 1500, 1730, 5696, 7100)),
    ((0.0, 0.5, 0.9, 1.0), (2, 415, 834, 1024)),
)
ARXIV = ((7059, 0.62), (208, 0.45))
LONGEST = {"openchat": 8192, "arxiv": 16384}
# Capacities that figures 10 and 11 show [requests/s]: model, data, SLO -> Orca, vLLM, Sarathi-Serve
PAPER = {
    ("Mistral-7B", "openchat", "strict"): (0.73, 0.78, 2.03),
    ("Mistral-7B", "openchat", "relaxed"): (1.06, 1.56, 2.28),
    ("Mistral-7B", "arxiv", "strict"): (0.34, 0.44, 0.62),
    ("Mistral-7B", "arxiv", "relaxed"): (0.39, 0.47, 0.77),
    ("Yi-34B", "openchat", "strict"): (0.27, 0.29, 1.08),
    ("Yi-34B", "openchat", "relaxed"): (0.50, 0.71, 1.22),
    ("Yi-34B", "arxiv", "strict"): (0.16, 0.20, 0.27),
    ("Yi-34B", "arxiv", "relaxed"): (0.18, 0.24, 0.35),
    ("LLaMA2-70B", "openchat", "strict"): (0.13, 0.19, 0.72),
    ("LLaMA2-70B", "openchat", "relaxed"): (0.13, 0.54, 0.82),
    ("LLaMA2-70B", "arxiv", "strict"): (0.05, 0.06, 0.23),
    ("LLaMA2-70B", "arxiv", "relaxed"): (0.09, 0.12, 0.27),
    ("Falcon-180B", "openchat", "strict"): (0.13, 0.17, 0.61),
    ("Falcon-180B", "openchat", "relaxed"): (0.13, 0.49, 0.73),
    ("Falcon-180B", "arxiv", "strict"): (0.05, 0.07, 0.21),
    ("Falcon-180B", "arxiv", "relaxed"): (0.08, 0.12, 0.22),
}
# Figure 12: P99 TBT that is allowed [s], and the capacities of vLLM and of Sarathi-Serve with budgets of 512 and 2,048
SWEEP = {
    "Mistral-7B": (
        (0.1, 0.2, 0.3, 0.4, 0.5),
        ((0.77, 1.05, 1.24, 1.39, 1.56), (2.0,) * 5, (0.5, 1.64, 2.3, 2.3, 2.3)),
    ),
    "Yi-34B": (
        (0.2, 0.4, 0.6, 0.8, 1.0),
        ((0.33, 0.46, 0.61, 0.69, 0.79), (1.14,) * 5, (0.2, 0.48, 1.28, 1.28, 1.28)),
    ),
}
ARMS = (("vllm", None), ("sarathi-serve", 512), ("sarathi-serve", 2048))

Capacities = dict[tuple[str, str, str], tuple[float, float, float]]


class Seen(NamedTuple):
    """What a rate came to: P99 TBT and median scheduling delay [s]."""

    tbt_s: float
    delay_s: float


def make(ask: Ask) -> Reproduction:
    """All cells of figures 10 and 11, the sweeps of figure 12, and what the paper says about them."""
    worlds = Worlds(ask)
    found = {cell: worlds.cell(*cell) for cell in _asked(ask)}
    sweeps = {model: worlds.sweep(model, SWEEP[model][0]) for model in _swept(ask)}
    return Reproduction(
        "sarathi",
        "Sarathi-Serve, figures 10 to 12: capacity under its SLOs",
        'Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", OSDI 2024. Ours: simulated, '
        f"{worlds.requests} requests a run, {HOST_S * 1e3:.0f} ms of host time per iteration; arxiv lengths are synthesised.",
        tuple(_statements(found, sweeps)),
        (_capacity_grid(found), *(_sweep_grid(model, sweep) for model, sweep in sweeps.items())),
        (),
        {
            "capacities": {" ".join(cell): _beside(cell, ours) for cell, ours in found.items()},
            "sweeps": {
                model: {"slo_s": SWEEP[model][0], "ours": sweep, "paper": SWEEP[model][1]}
                for model, sweep in sweeps.items()
            },
        },
    )


def _asked(ask: Ask) -> list[tuple[str, str, str]]:
    """Every cell; quickly, those on which the paper's headlines rest."""
    if not ask.quick:
        return list(PAPER)
    return [("Yi-34B", "openchat", "strict"), ("Falcon-180B", "openchat", "relaxed")]


def _swept(ask: Ask) -> list[str]:
    return ["Mistral-7B"] if ask.quick else list(SWEEP)


class Worlds:
    """Simulations of one reproduction: each deployment's rates are tried once, whoever asks."""

    def __init__(self, ask: Ask) -> None:
        self._ask, self.requests = ask, QUICK if ask.quick else REQUESTS
        self._plans: dict[str, Shape] = {}
        self._seen: dict[tuple[str, str, str, int | None, int], Seen] = {}

    def cell(self, model: str, data: str, slo: str) -> tuple[float, float, float]:
        """The capacities of the three systems under one SLO."""
        setup = SETUPS[model]
        chunks = (None, None, setup.chunk(slo))
        rates = []
        for system, chunk in zip(SYSTEMS, chunks, strict=True):
            self._ask.tell(f"{model}, {data}, {slo}: {system}")
            rates.append(self._capacity(model, data, system, chunk, setup.slo_s(slo)))
        return rates[0], rates[1], rates[2]

    def sweep(self, model: str, slos_s: tuple[float, ...]) -> list[list[float]]:
        """Capacity on openchat under each SLO, of each arm of figure 12."""
        self._ask.tell(f"{model}, openchat: a sweep of SLOs")
        return [
            [self._capacity(model, "openchat", system, chunk, slo_s) for slo_s in slos_s]
            for system, chunk in ARMS
        ]

    def _capacity(
        self, model: str, data: str, system: str, chunk: int | None, slo_s: float
    ) -> float:
        def met(step: int) -> bool:
            seen = self._at(model, data, system, chunk, step)
            return seen.tbt_s <= slo_s and seen.delay_s <= DELAY_S

        return _rate(bisect(met))

    def _at(self, model: str, data: str, system: str, chunk: int | None, step: int) -> Seen:
        key = (model, data, system, chunk, step)
        if key not in self._seen:
            plan = self._shape(data).at(_rate(step))
            self._seen[key] = _judged(simulate(plan, deployed(model, data, system, chunk)))
        return self._seen[key]

    def _shape(self, data: str) -> Shape:
        if data not in self._plans:
            self._plans[data] = draw(data, self.requests, self._ask.seed)
        return self._plans[data]


def bisect(met: Callable[[int], bool]) -> int:
    """The largest step of the grid at which `met` holds, were it monotone; 0 where even the first does not."""
    high = 64
    while met(high):
        high += 64
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if met(middle):
            low = middle
        else:
            high = middle
    return low


def _rate(step: int) -> float:
    return float(LOWEST_PER_S * STEP**step)


def deployed(model: str, data: str, system: str, chunk: int | None) -> Deployment:
    """The paper's deployment: 85 % of the memory, 128 sequences; Orca as many in all micro-batches as its artifact sets."""
    setup, longest = SETUPS[model], LONGEST[data]
    limits = Limits(
        max_batch=setup.orca_batch // setup.pp if system == "orca" else 128,
        max_batched_tokens=longest if system == "vllm" else None,
        chunk=chunk,
        max_len=longest,
        utilization=0.85,
    )
    return Deployment(
        system=system,
        model=setup.model,
        device=setup.device,
        tp=setup.tp,
        pp=setup.pp,
        host_s=HOST_S,
        context=longest,
        limits=limits,
    )


class Shape(NamedTuple):
    """A workload without its rate: the gaps between arrivals in units of their mean, and the lengths [R]."""

    gaps: npt.NDArray[np.float64]
    prompts: npt.NDArray[np.int64]
    outputs: npt.NDArray[np.int64]

    def at(self, rate_per_s: float) -> Plan:
        """The plan at a rate."""
        at_s = np.cumsum(self.gaps) / rate_per_s
        return build_plan(
            len(at_s),
            intended_ns=np.rint(at_s * SECOND).astype(np.int64),
            prompt_tokens=self.prompts,
            output_tokens=self.outputs,
        )


def draw(data: str, requests: int, seed: int) -> Shape:
    """Poisson arrivals and the data set's lengths, none longer than it allows."""
    rng = np.random.default_rng([seed, 12])
    gaps = rng.exponential(size=requests)
    if data == "openchat":
        lengths = [np.interp(rng.random(requests), *table) for table in OPENCHAT]
    else:
        lengths = [rng.lognormal(np.log(median), sigma, requests) for median, sigma in ARXIV]
    outputs = np.clip(np.rint(lengths[1]).astype(np.int64), 1, 1024)
    prompts = np.clip(np.rint(lengths[0]).astype(np.int64), 4, LONGEST[data] - outputs)
    return Shape(gaps, prompts, outputs)


def _judged(run: Run) -> Seen:
    gaps = tokens.gaps_ns(run.timeline).values / SECOND
    delay = latency.scheduling_delay(run.timeline)
    return Seen(float(np.percentile(gaps, 99)), float(np.median(delay)))


# --- what the paper says, beside ours ---------------------------------------------------------------------------------


def _statements(found: Capacities, sweeps: dict[str, list[list[float]]]) -> Iterator[Statement]:
    yield _order(found)
    yield _ratio(found, ("Yi-34B", "openchat", "strict"), 1, (2.2, 4.5), "3.7x vLLM")
    yield _ratio(found, ("Falcon-180B", "openchat", "relaxed"), 0, (4.0, 7.0), "5.6x Orca")
    yield _ratio(found, ("Falcon-180B", "openchat", "relaxed"), 1, (1.0, 2.0), "1.5x vLLM")
    for model, sweep in sweeps.items():
        yield _shapes(model, sweep)


def _order(found: Capacities) -> Statement:
    """Orca below vLLM below Sarathi-Serve; equal within a step of the grid counts."""
    off = [
        " ".join(cell)
        for cell, (orca, vllm, ours) in found.items()
        if not (orca <= vllm * STEP and vllm <= ours * STEP)
    ]
    said = f"so in {len(found) - len(off)} of {len(found)} cells"
    why = f"not in: {', '.join(off)}" if off else ""
    return Statement("Orca < vLLM < Sarathi-Serve in every cell", said, not off, why)


def _ratio(
    found: Capacities, cell: tuple[str, str, str], base: int, band: tuple[float, float], paper: str
) -> Statement:
    ratio = found[cell][2] / found[cell][base]
    low, high = band
    stated = (
        f"{cell[0]}, {cell[1]}, {cell[2]}: Sarathi-Serve serves {paper} (band {low:g} to {high:g})"
    )
    return Statement(stated, f"{ratio:.2f}x", low <= ratio <= high)


def _shapes(model: str, sweep: list[list[float]]) -> Statement:
    """Figure 12: vLLM rises with the SLO; 512 is flat; 2,048 is worse than 512 at the strictest and better at the loosest."""
    vllm, small, large = (np.array(one) for one in sweep)
    checks = {
        "vLLM rises": bool((np.diff(vllm) >= 0).all() and vllm[-1] > 1.2 * vllm[0]),
        "512 is flat": bool(small.max() <= 1.15 * small.min()),
        "2,048 is below 512 at the strictest": bool(large[0] < small[0]),
        "and not below it at the loosest": bool(large[-1] >= small[-1] / STEP),
    }
    off = [name for name, holds in checks.items() if not holds]
    stated = f"{model}, figure 12: vLLM's capacity rises with the SLO; a budget of 512 is flat, 2,048 crosses it"
    return Statement(stated, ", ".join(checks), not off, f"not so: {', '.join(off)}" if off else "")


def _beside(cell: tuple[str, str, str], ours: tuple[float, float, float]) -> dict[str, Any]:
    return {
        "ours": dict(zip(SYSTEMS, ours, strict=True)),
        "paper": dict(zip(SYSTEMS, PAPER[cell], strict=True)),
    }


def _capacity_grid(found: Capacities) -> Grid:
    rows = []
    for cell, ours in found.items():
        pairs = [f"{number(a)} / {number(b)}" for a, b in zip(ours, PAPER[cell], strict=True)]
        ratio = f"{ours[2] / ours[1]:.1f} / {PAPER[cell][2] / PAPER[cell][1]:.1f}"
        rows.append([" ".join(cell), *pairs, ratio])
    head = ("requests/s, ours / paper", "Orca", "vLLM", "Sarathi-Serve", "Sarathi/vLLM")
    return Grid("Capacity under the SLO", head, rows)


def _sweep_grid(model: str, sweep: list[list[float]]) -> Grid:
    slos, paper = SWEEP[model]
    rows = []
    for i, slo_s in enumerate(slos):
        pairs = [f"{number(a[i])} / {number(b[i])}" for a, b in zip(sweep, paper, strict=True)]
        rows.append([f"{slo_s:g} s", *pairs])
    head = ("P99 TBT, ours / paper", "vLLM", "512", "2,048")
    return Grid(f"{model}: capacity over the SLO (figure 12)", head, rows)
