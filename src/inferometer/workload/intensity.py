"""A rate that changes with time, and arrival processes driven by it.

The rate is piecewise linear. Its integral maps real time to *operational* time, in which the process is stationary with
one arrival per unit: gaps are drawn there (gamma, of some CV) and mapped back. So a rate table and a burstiness are two
separate things, and a trace is described by both (Gerhardt and Nelson, "Transforming renewal processes for simulation of
nonstationary arrival processes", INFORMS J. Computing 21(4), 2009).

Inside a piece the integral is a parabola, inverted in closed form with a square root: no iteration, no libm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.timeline import Ints
from inferometer.workload.draws import Floats, Stream, power

Sampler = Callable[[int], Floats]


class Intensity:
    """A rate over time: from `first[k]` to `last[k]` requests/s during piece k of `length_s[k]` seconds.

    After the last piece it starts again (`cyclic`), or stays at the last rate.
    """

    def __init__(self, length_s: Any, first: Any, last: Any, *, cyclic: bool) -> None:
        self._length, self._first, self._last = (
            np.asarray(part, dtype=np.float64) for part in (length_s, first, last)
        )
        self._cyclic = cyclic
        self._edge = np.concatenate([[0.0], np.cumsum(self._length)])
        area = (self._first + self._last) * 0.5 * self._length
        self._mass = np.concatenate([[0.0], np.cumsum(area)])
        if not self._mass[-1] > 0.0:
            raise UserError("the rate is 0 throughout", where="$.arrivals")

    @property
    def mean_rate(self) -> float:
        """The mean rate over one round [requests/s]."""
        return float(self._mass[-1] / self._edge[-1])

    def mass(self, seconds: Any) -> Floats:
        """How many requests are expected by `seconds` [same shape]."""
        t = np.asarray(seconds, dtype=np.float64)
        span, total = self._edge[-1], self._mass[-1]
        if self._cyclic:
            rounds = np.floor(t / span)
            beyond = rounds * total
            t = t - rounds * span
        else:
            beyond = np.maximum(t - span, 0.0) * self._last[-1]
            t = np.minimum(t, span)
        k = np.clip(np.searchsorted(self._edge, t, side="right") - 1, 0, len(self._length) - 1)
        dt = t - self._edge[k]
        slope = (self._last[k] - self._first[k]) / self._length[k]
        return np.asarray(beyond + self._mass[k] + dt * (self._first[k] + 0.5 * slope * dt))

    def when(self, mass: Floats) -> Floats:
        """The time [s] by which `mass` requests are expected: the inverse of `mass`; inf where it is never reached."""
        total = self._mass[-1]
        if self._cyclic:
            rounds = np.floor(mass / total)
            inside = mass - rounds * total
            return np.asarray(rounds * self._edge[-1] + self._inside(inside))
        within = self._inside(np.minimum(mass, total))
        rest = np.maximum(mass - total, 0.0)
        if self._last[-1] > 0.0:
            return np.asarray(within + rest / self._last[-1])
        return np.where(rest > 0.0, math.inf, within)

    def _inside(self, mass: Floats) -> Floats:
        k = np.clip(np.searchsorted(self._mass, mass, side="left") - 1, 0, len(self._length) - 1)
        left = np.maximum(mass - self._mass[k], 0.0)
        rate = self._first[k]
        slope = (self._last[k] - rate) / self._length[k]
        root = rate + np.sqrt(np.maximum(rate * rate + 2.0 * slope * left, 0.0))
        dt = np.where(root > 0.0, 2.0 * left / np.where(root > 0.0, root, 1.0), 0.0)
        return np.asarray(self._edge[k] + np.minimum(dt, self._length[k]))

    def draw(
        self, gaps: Sampler, first: Sampler, requests: int | None, horizon_ns: int | None
    ) -> Ints:
        """Arrival times [ns] from samplers of unit-mean gaps, and of the first gap of a stationary process."""
        end = None if horizon_ns is None else float(self.mass(horizon_ns / SECOND))
        unit = _unit_process(gaps, first, requests, end)
        times = self.when(unit)
        if not np.all(np.isfinite(times)):
            times = times[np.isfinite(times)]
        whole = np.rint(np.minimum(times * SECOND, 2.0**62)).astype(np.int64)
        return whole if horizon_ns is None else whole[: np.searchsorted(whole, horizon_ns)]


def gamma_gaps(stream: Stream, cv: float) -> tuple[Sampler, Sampler]:
    """Samplers of gamma gaps of mean 1, and of the residual life that a stationary process begins with.

    The length-biased gamma(a) is gamma(a + 1), and the residual is a uniform part of it.
    """
    if cv == 1.0:
        return stream.exponential, stream.exponential
    shape = 1.0 / (cv * cv)

    def first(n: int) -> Floats:
        return stream.uniform(n) * stream.gamma(shape + 1.0, n) / shape

    return lambda n: stream.gamma(shape, n) / shape, first


def weibull_gaps(stream: Stream, cv: float) -> tuple[Sampler, Sampler]:
    """Samplers of Weibull gaps of mean 1, and of the residual life that a stationary process begins with.

    In the length-biased Weibull, (x / scale)^shape is gamma(1 + 1 / shape).
    """
    shape = weibull_shape(cv)
    mean = round(math.gamma(1.0 + 1.0 / shape), 9)

    def first(n: int) -> Floats:
        return stream.uniform(n) * power(stream.gamma(1.0 + 1.0 / shape, n), 1.0 / shape) / mean

    return lambda n: stream.weibull(shape, n) / mean, first


def weibull_shape(cv: float) -> float:
    """The shape of a Weibull distribution of that CV, to 9 decimals (so that every libm agrees on it)."""
    low, high = 0.05, 100.0

    def cv_of(shape: float) -> float:
        log_ratio = math.lgamma(1 + 2 / shape) - 2 * math.lgamma(1 + 1 / shape)
        return math.sqrt(math.expm1(min(log_ratio, 700.0)))

    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if cv_of(middle) > cv else (low, middle)
    return round((low + high) / 2, 9)


def steady(rate: float) -> Intensity:
    """A constant rate [requests/s]."""
    return Intensity([1.0], [rate], [rate], cyclic=False)


def _unit_process(gaps: Sampler, first: Sampler, requests: int | None, end: float | None) -> Floats:
    """Arrivals of a stationary process of rate 1: `requests` of them, or those before `end`, or the fewer of both."""
    if requests is None and end is None:
        raise UserError("how much load?", where="$", remedy="give requests, duration_s or both")
    want = requests
    if end is not None:
        expected = int(end + 6.0 * math.sqrt(end)) + 16
        want = expected if requests is None else min(expected, requests)
    assert want is not None
    times = np.cumsum(np.concatenate([first(1), gaps(max(want - 1, 0))]))[:want]
    while end is not None and (requests is None or len(times) < requests) and times[-1] < end:
        more = gaps(max(len(times) // 4, 16))
        times = np.concatenate([times, times[-1] + np.cumsum(more)])
    return times if requests is None else times[:requests]
