"""When requests start: frozen specs, each of which draws int64 nanoseconds since the epoch of the run.

Every process is stationary from t = 0 (in operational time, where the rate changes): the first gap is drawn from the
residual life of the gap distribution, so that the expected number of arrivals is the integral of the rate whatever the
CV is. (Starting with a whole gap, as load generators do, sends (cv^2 - 1) / 2 requests too many: 12 at a CV of 5.)
Nothing is truncated, rescaled or made to fit: a Poisson process over a duration has a Poisson count.

A limit is a number of requests, a horizon, or the first of both. Rates are in requests per second, `cv` is the
coefficient of variation of the gaps. Closed loops have no times: the driver starts a request when a slot is free.
With sessions, these are the times at which sessions start.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np

from inferometer.clock import SECOND
from inferometer.spec import Spec, parse, short_form
from inferometer.timeline import ABSENT, Ints
from inferometer.workload.draws import Stream
from inferometer.workload.intensity import Intensity, gamma_gaps, steady, weibull_gaps
from inferometer.workload.replay import Replay

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Constant(Spec, frozen=True, tag="constant", tag_field="kind"):
    """One request every 1/rate seconds, the first at 0."""

    rate: Positive

    def draw(
        self, _stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """Arrival times [ns]; exact multiples, rounded once each."""
        count = math.ceil((horizon_ns or 0) * self.rate / SECOND)
        if requests is not None:
            count = requests if horizon_ns is None else min(count, requests)
        times = np.rint(np.arange(count) * (SECOND / self.rate)).astype(np.int64)
        end = count if horizon_ns is None else int(np.searchsorted(times, horizon_ns))
        return np.asarray(times[:end])


class Poisson(Spec, frozen=True, tag="poisson", tag_field="kind"):
    """Independent exponential gaps (CV 1), untruncated."""

    rate: Positive

    def draw(
        self, stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """Arrival times [ns]."""
        return steady(self.rate).draw(*gamma_gaps(stream, 1.0), requests, horizon_ns)


class Gamma(Spec, frozen=True, tag="gamma", tag_field="kind"):
    """Independent gamma gaps."""

    rate: Positive
    cv: Positive = 1.0

    def draw(
        self, stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """Arrival times [ns]."""
        return steady(self.rate).draw(*gamma_gaps(stream, self.cv), requests, horizon_ns)


class Weibull(Spec, frozen=True, tag="weibull", tag_field="kind"):
    """Independent Weibull gaps."""

    rate: Positive
    cv: Annotated[float, msgspec.Meta(ge=0.02, le=200)] = 1.0

    def draw(
        self, stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """Arrival times [ns]."""
        return steady(self.rate).draw(*weibull_gaps(stream, self.cv), requests, horizon_ns)


class Table(Spec, frozen=True, tag="table", tag_field="kind"):
    """A rate table: `counts[k]` requests are expected in the k-th stretch of `every_s` seconds; then it starts again.

    `rate`, where given, scales the table to that mean rate. `cv` is the operational CV: that of the gaps once the
    changes of the rate are taken out.
    """

    counts: Annotated[tuple[NotNegative, ...], msgspec.Meta(min_length=1)]
    every_s: Positive
    cv: Positive = 1.0
    rate: Positive | None = None

    def intensity(self) -> Intensity:
        """The rate over time."""
        per_s = np.array(self.counts, dtype=np.float64) / self.every_s
        if self.rate is not None:
            per_s = per_s * (self.rate / self.mean_rate)
        return Intensity(np.full(len(per_s), self.every_s), per_s, per_s, cyclic=True)

    @property
    def mean_rate(self) -> float:
        """The mean rate of the table as it stands, before `rate` scales it [requests/s]."""
        return math.fsum(self.counts) / (len(self.counts) * self.every_s)

    def draw(
        self, stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """Arrival times [ns]."""
        return self.intensity().draw(*gamma_gaps(stream, self.cv), requests, horizon_ns)


class Ramp(Spec, frozen=True, tag="ramp", tag_field="kind"):
    """A rate that goes from `start` to `end` evenly during `over_s` seconds, and stays there."""

    start: NotNegative
    end: NotNegative
    over_s: Positive
    cv: Positive = 1.0

    def draw(
        self, stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """Arrival times [ns]."""
        shape = Intensity([self.over_s], [self.start], [self.end], cyclic=False)
        return shape.draw(*gamma_gaps(stream, self.cv), requests, horizon_ns)


class Steps(Spec, frozen=True, tag="steps", tag_field="kind"):
    """A staircase of `steps` equal steps from the rate `start` to the rate `end`, each for `each_s` seconds."""

    start: NotNegative
    end: NotNegative
    steps: Annotated[int, msgspec.Meta(ge=2, le=100_000)]
    each_s: Positive
    cv: Positive = 1.0

    def draw(
        self, stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """Arrival times [ns]."""
        part = np.arange(self.steps) / (self.steps - 1)
        rates = self.start + (self.end - self.start) * part
        shape = Intensity(np.full(self.steps, self.each_s), rates, rates, cyclic=False)
        return shape.draw(*gamma_gaps(stream, self.cv), requests, horizon_ns)


class Sine(Spec, frozen=True, tag="sine", tag_field="kind"):
    """rate x (1 + amplitude x sin(2 pi t / period_s)): a day in the life of a service, with a period of 86,400 s.

    `phase` (0..1) is where in the period t = 0 lies. Drawn as 96 straight pieces per period: a quarter of an hour each.
    """

    rate: Positive
    amplitude: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    period_s: Positive = 86_400.0
    phase: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    cv: Positive = 1.0

    def draw(
        self, stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """Arrival times [ns]."""
        # Rounded, so that the last bit of a libm's sine cannot reach a plan.
        knots = [round(math.sin(2 * math.pi * (k / 96 + self.phase)), 12) for k in range(97)]
        rates = self.rate * (1.0 + self.amplitude * np.array(knots))
        shape = Intensity(np.full(96, self.period_s / 96), rates[:-1], rates[1:], cyclic=True)
        return shape.draw(*gamma_gaps(stream, self.cv), requests, horizon_ns)


class Spikes(Spec, frozen=True, tag="spikes", tag_field="kind"):
    """A base `rate` with a spike to `peak` for `length_s` seconds at the end of every `every_s` seconds."""

    rate: NotNegative
    peak: Positive
    every_s: Positive
    length_s: Positive
    cv: Positive = 1.0

    def __post_init__(self) -> None:
        """Refuse spikes that touch each other."""
        if self.length_s >= self.every_s:
            raise ValueError("length_s must be below every_s")

    def draw(
        self, stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """Arrival times [ns]."""
        rates = [self.rate, self.peak]
        shape = Intensity([self.every_s - self.length_s, self.length_s], rates, rates, cyclic=True)
        return shape.draw(*gamma_gaps(stream, self.cv), requests, horizon_ns)


class Natural(Spec, frozen=True, tag="natural", tag_field="kind"):
    """The arrivals of the profile or trace itself, at its own mean rate or scaled to `rate`."""

    rate: Positive | None = None


class Closed(Spec, frozen=True, tag="closed", tag_field="kind"):
    """A closed loop: `concurrency` requests (or sessions) in flight, each replaced when it ends."""

    concurrency: Count

    def draw(
        self, _stream: Stream, requests: int | None = None, horizon_ns: int | None = None
    ) -> Ints:
        """ABSENT for each row: a closed loop has no intended times.

        With a duration the number of rows is an upper bound (see `rows_within`), because how many will be sent is
        the server's choice.
        """
        rows = requests if requests is not None else 0
        if horizon_ns is not None:
            bound = self.rows_within(horizon_ns / SECOND)
            rows = bound if requests is None else min(bound, requests)
        return np.full(rows, ABSENT, dtype=np.int64)

    def rows_within(self, seconds: float) -> int:
        """How many rows to plan for `seconds`, whose end nobody knows.

        20 per slot and second (a reply in 50 ms) up to 50,000 rows; beyond that 4 per slot and second; never fewer than
        4 per slot, nor more than 200,000.
        """
        fast, slow = self.concurrency * 20 * seconds, self.concurrency * max(4, 4 * seconds)
        return min(math.ceil(max(slow, min(fast, 50_000))), 200_000)


Drawn = Constant | Poisson | Gamma | Weibull | Table | Ramp | Steps | Sine | Spikes | Closed
Arrivals = Drawn | Natural | Replay


def arrivals(value: Arrivals | str | dict[str, object], *, where: str = "$.arrivals") -> Arrivals:
    """Any spelling of arrivals (spec, mapping, `gamma:rate=4,cv=2`) as a spec."""
    if isinstance(value, Spec):
        return value
    plain = short_form(value, where=where) if isinstance(value, str) else value
    parsed: Arrivals = parse(plain, Arrivals, where=where)
    return parsed
