"""Rates and load over a window of the run.

A rate is a count over a window, and the window is half of the answer. Two are offered:
    busy      from the first intended time to the last end. Everything that was done counts; ramp and drain dilute it.
    arriving  from the first to the last intended time. What came later is left out, at the stamp of each token.
For a long run they agree; where they do not, the drain was long beside the run.

In-flight is exact: a sweep over the send and end times, no sampling. Requests that were never sent are not in flight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inferometer.clock import SECOND
from inferometer.metrics import tokens
from inferometer.metrics.tokens import Bools
from inferometer.timeline import ABSENT, Ints, Timeline


class Window(NamedTuple):
    """An interval of the run, both ends included [ns since the epoch]."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """Its length; NaN where it has none."""
        length = (self.end_ns - self.start_ns) / SECOND
        return length if length > 0 else np.nan


class Steps(NamedTuple):
    """A step function: `level[k]` holds from `t_ns[k]` until `t_ns[k + 1]`; 0 before the first."""

    t_ns: Ints
    level: Ints


EMPTY = Window(0, 0)


def busy_window(timeline: Timeline) -> Window:
    """From the first intended time to the last end."""
    if not len(timeline):
        return EMPTY
    return Window(int(timeline.intended_ns.min()), int(timeline.ended_ns.max()))


def arriving_window(timeline: Timeline) -> Window:
    """From the first to the last intended time."""
    if not len(timeline):
        return EMPTY
    return Window(int(timeline.intended_ns.min()), int(timeline.intended_ns.max()))


def request_rate(timeline: Timeline, window: Window) -> float:
    """Requests that completed within the window, per second."""
    return int(np.sum(timeline.ok & (timeline.ended_ns <= window.end_ns))) / window.seconds


def token_rate(timeline: Timeline, window: Window) -> float:
    """Output tokens of requests that completed, each counted when it arrived, per second of the window."""
    timeline = tokens.token_chunks(timeline)
    whole = bool(len(timeline)) and timeline.ended_ns.max() <= window.end_ns
    if whole:
        return int(timeline.output_tokens[timeline.ok].sum(dtype=np.int64)) / window.seconds
    arrived = np.where(timeline.chunk_ns <= window.end_ns, timeline.chunk_tokens, 0)
    return int(tokens.sums(arrived, timeline.chunk_offset)[timeline.ok].sum()) / window.seconds


def total_token_rate(timeline: Timeline, window: Window) -> float:
    """Prompt and output tokens of requests that completed within the window, per second."""
    done = timeline.ok & (timeline.ended_ns <= window.end_ns)
    prompt = timeline.prompt_tokens[done].sum(dtype=np.int64)
    return int(prompt + timeline.output_tokens[done].sum(dtype=np.int64)) / window.seconds


def goodput(attained: Bools, window: Window) -> float:
    """Requests that met the SLO, per second of the window."""
    return int(np.sum(attained)) / window.seconds


def offered_rate(timeline: Timeline) -> float:
    """Arrivals per second as intended: n - 1 intervals between the first and the last; NaN for n < 2."""
    return _arrival_rate(timeline.intended_ns)


def sent_rate(timeline: Timeline) -> float:
    """Arrivals per second as achieved: the same of the send times."""
    return _arrival_rate(timeline.sent_ns[timeline.sent_ns != ABSENT])


def in_flight(timeline: Timeline) -> Steps:
    """How many requests were between being sent and their end, over time; exact."""
    sent = timeline.sent_ns != ABSENT
    moments = np.concatenate([timeline.sent_ns[sent], timeline.ended_ns[sent]])
    change = np.repeat([1, -1], int(sent.sum()))
    t_ns, place = np.unique(moments, return_inverse=True)
    net = np.bincount(place, weights=change, minlength=len(t_ns)).astype(np.int64)
    return Steps(t_ns, np.cumsum(net))


def mean_in_flight(steps: Steps, window: Window) -> float:
    """The time average of a step function over the window; NaN where there is no window."""
    t_ns = np.clip(np.append(steps.t_ns, window.end_ns), window.start_ns, window.end_ns)
    return float(np.sum(np.diff(t_ns) * steps.level)) / SECOND / window.seconds


def peak_in_flight(steps: Steps) -> int:
    """The most requests that were in flight at once."""
    return int(steps.level.max(initial=0))


def _arrival_rate(at_ns: Ints) -> float:
    if len(at_ns) < 2:
        return np.nan
    return (len(at_ns) - 1) / Window(int(at_ns.min()), int(at_ns.max())).seconds
