"""One population of requests, and what several metrics compute from it, once.

A `View` is what the table of metrics looks at: the requests of phase measure (or one class of them) in order of their
intended time, with the settings that some definitions need.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from inferometer.clock import MILLISECOND
from inferometer.metrics import fluidity, latency, rates, tokens
from inferometer.metrics.tokens import Bools, Floats, Ragged
from inferometer.slo import Attainment
from inferometer.timeline import Ints, Timeline


class Settings(NamedTuple):
    """What a definition leaves open [ns]; `first_deadline_ns` may be one per request of the view."""

    stall_threshold_ns: int = latency.STALL_NS
    first_deadline_ns: int | Ints = fluidity.FIRST_DEADLINE_NS
    token_deadline_ns: int = fluidity.TOKEN_DEADLINE_NS

    def told(self) -> dict[str, str]:
        """The settings as words for a definition."""
        first = self.first_deadline_ns
        return {
            "stall": _ms(self.stall_threshold_ns),
            "first": "a time of its own" if isinstance(first, np.ndarray) else _ms(first),
            "token": _ms(self.token_deadline_ns),
        }


class View:
    """The requests of one population [R]: rows by intended time, only chunks with tokens."""

    def __init__(
        self,
        timeline: Timeline,
        settings: Settings,
        promised: Ints | None = None,
        window: rates.Window | None = None,
    ) -> None:
        """`promised` [R]: planned output tokens; `window`: that of the whole run, where this is a class of it."""
        self.timeline, self.settings, self.promised = timeline, settings, promised
        self.window = rates.busy_window(timeline) if window is None else window
        self.ok: Bools = timeline.ok
        self.attainment: Attainment | None = None
        self.columns: dict[str, Floats] = {}  # by metric id, filled by `table.column_of`
        self._parts: dict[str, View] = {}

    def __len__(self) -> int:
        """R, the number of requests."""
        return len(self.timeline)

    def only(self, app: str) -> View:
        """The view of one class of requests, made once."""
        if app not in self._parts:
            self._parts[app] = self._only(app)
        return self._parts[app]

    def _only(self, app: str) -> View:
        rows = np.asarray(self.timeline.app == app, dtype=bool)
        first = self.settings.first_deadline_ns
        settings = self.settings._replace(
            first_deadline_ns=first[rows] if isinstance(first, np.ndarray) else first
        )
        promised = None if self.promised is None else self.promised[rows]
        part = View(self.timeline.take(rows), settings, promised, self.window)
        if self.attainment is not None:
            part.attainment = self.attainment.take(rows)
        return part

    @cached_property
    def fluidity(self) -> fluidity.FluidityColumns:
        """The fluidity of each request."""
        return fluidity.fluidity(
            self.timeline,
            first_deadline_ns=self.settings.first_deadline_ns,
            token_deadline_ns=self.settings.token_deadline_ns,
            promised=self.promised,
        )

    @cached_property
    def gaps(self) -> Ragged:
        """All gaps between tokens of the requests that completed."""
        return tokens.gaps_ns(self.timeline, self.ok)

    @cached_property
    def in_flight(self) -> rates.Steps:
        """How many requests were under way, over time."""
        return rates.in_flight(self.timeline)


def _ms(ns: int) -> str:
    return f"{ns / MILLISECOND:g} ms"
