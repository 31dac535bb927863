"""The simulator as a queue whose waits are known: means and distributions of closed forms, inside their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from inferometer import stats
from inferometer.plan import build_plan
from inferometer.sim.cost import Affine
from inferometer.sim.kernel import PS_PER_S
from inferometer.sim.policies.static import Static

REQUESTS = 20_000
SERVICE_S = 0.1
ONE = Static(max_batch=1, reserve=16)


def waits_s(world, policy, rate_per_s, prompts, *, fixed_s, per_token_s=0.0, replicas=1):
    """Time until each request is scheduled [R], behind Poisson arrivals; one token each, so that it is one iteration."""
    rng = np.random.default_rng(2)
    at_s = np.cumsum(rng.exponential(1 / rate_per_s, len(prompts)))
    plan = build_plan(
        len(prompts),
        intended_ns=np.rint(at_s * 1e9).astype(np.int64),
        prompt_tokens=prompts,
        output_tokens=1,
    )
    cost = Affine(round(fixed_s * PS_PER_S), round(per_token_s * PS_PER_S))
    outcome, _ = world.play(policy, plan, cost, blocks=100_000, replicas=replicas)
    return (np.array(outcome.scheduled) - np.array(outcome.intended)) / PS_PER_S


def holds(values, expected):
    """Whether the mean's 99 % interval holds `expected`, and says something (it is narrower than half of that)."""
    low, high = stats.series_mean_ci(values, 0.99)[:2]
    return low <= expected <= high and high - low < expected / 2


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_m_d_1(world, load):
    """Constant service: W = rho S / (2 (1 - rho)) (Pollaczek 1930)."""
    found = waits_s(world, ONE, load / SERVICE_S, np.ones(REQUESTS, int), fixed_s=SERVICE_S)
    assert holds(found, load * SERVICE_S / (2 * (1 - load)))


def test_m_g_1(world):
    """Service by prompt length, uniform: W = lambda E[S^2] / (2 (1 - rho)) (Pollaczek and Khinchine)."""
    prompts = np.random.default_rng(3).integers(1, 200, REQUESTS)
    per_token_s = 1e-3
    service = prompts * per_token_s
    rate = 0.6 / service.mean()
    found = waits_s(world, ONE, rate, prompts, fixed_s=0.0, per_token_s=per_token_s)
    assert holds(found, rate * (service**2).mean() / (2 * (1 - 0.6)))


def test_bulk_service(world):
    """All that wait are served at once, in constant time D (Bailey 1954, no limit).

    The server is busy for a share D / (D + exp(-lambda D) / lambda) of the time; who finds it so waits uniformly up to D.
    """
    rate = 15.0
    everybody = Static(max_batch=10_000, reserve=16)
    found = waits_s(world, everybody, rate, np.ones(REQUESTS, int), fixed_s=SERVICE_S)
    busy = SERVICE_S / (SERVICE_S + np.exp(-rate * SERVICE_S) / rate)
    assert holds(found, busy * SERVICE_S / 2)
    assert (found > 0).mean() == pytest.approx(busy, abs=0.02)
    late = found[found > 0]
    assert np.percentile(late, [25, 50, 75]) == pytest.approx([0.025, 0.05, 0.075], abs=0.003)


def test_poisson_split_in_turn(world):
    """Round robin over two replicas: Erlang-2 arrivals at each, so less waiting than two M/D/1, and more than none."""
    load = 0.6
    found = waits_s(
        world, ONE, 2 * load / SERVICE_S, np.ones(REQUESTS, int), fixed_s=SERVICE_S, replicas=2
    )
    alone = load * SERVICE_S / (2 * (1 - load))
    assert 0.25 * alone < found.mean() < 0.75 * alone
