"""Series with known truth, as fixtures that give the function; benchmarks/coverage.py has the larger family."""

from __future__ import annotations

import numpy as np
import pytest


def _mm1(rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """TTFT (wait + service of mean 1) of n requests to a stationary M/M/1 queue: exponential of mean 1/(1 - rho)."""
    service = rng.exponential(1, n)
    steps = np.r_[0, service[:-1] - rng.exponential(1 / rho, n - 1)]
    start = (rng.random() < rho) * rng.exponential(1 / (1 - rho))
    walk = np.cumsum(steps)
    return walk + np.maximum(start, -np.minimum.accumulate(walk)) + service


def _overloaded(rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """TTFT of n requests to a queue that starts empty and is offered rho > 1."""
    service = rng.exponential(1, n)
    walk = np.cumsum(np.r_[0, service[:-1] - rng.exponential(1 / rho, n - 1)])
    return walk - np.minimum.accumulate(walk) + service


def _ar1(phi: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian AR(1) of variance 1: its mean is known as well as by n (1 - phi)/(1 + phi) independent values."""
    noise = rng.normal(0, np.sqrt(1 - phi**2), n)
    x = np.empty(n)
    last = rng.normal()
    for i in range(n):
        last = x[i] = phi * last + noise[i]
    return x


@pytest.fixture(scope="session")
def mm1():
    """`mm1(rho, n, rng)`: TTFT in a stationary M/M/1 queue."""
    return _mm1


@pytest.fixture(scope="session")
def overloaded():
    """`overloaded(rho, n, rng)`: TTFT past saturation."""
    return _overloaded


@pytest.fixture(scope="session")
def ar1():
    """`ar1(phi, n, rng)`: a Gaussian AR(1)."""
    return _ar1
