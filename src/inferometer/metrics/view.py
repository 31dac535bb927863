"""One population of requests, and what several metrics compute from it, once.

A `View` is what the table of metrics looks at: the requests of phase measure (or one class of them) in order of their
intended time, with the settings that some definitions need.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from inferometer.clock import MILLISECOND
from inferometer.errors import NotMeasurable
from inferometer.metrics import fluidity, latency, rates, tokens
from inferometer.metrics.prefill import SLACK_NS, PrefillCurve
from inferometer.metrics.tokens import Bools, Floats, Ragged
from inferometer.slo import Attainment
from inferometer.timeline import Ints, Timeline


class Settings(NamedTuple):
    """What a definition leaves open [ns]; `first_deadline_ns` may be one per request of the view.

    Where it is None, a first token is due by the prefill curve + `first_slack_ns`, if a curve is known.
    """

    stall_threshold_ns: int = latency.STALL_NS
    first_deadline_ns: int | Ints | None = None
    token_deadline_ns: int = fluidity.TOKEN_DEADLINE_NS
    first_slack_ns: int | None = None

    def told(self) -> dict[str, str]:
        """The settings as words for a definition."""
        first, slack = self.first_deadline_ns, self.first_slack_ns
        if slack is not None:
            said = f"its prefill curve + {_ms(slack)}"
        else:
            own = first is None or isinstance(first, np.ndarray)
            said = "a time of its own" if own else _ms(first)
        return {
            "stall": _ms(self.stall_threshold_ns),
            "first": said,
            "token": _ms(self.token_deadline_ns),
        }

    def resolved(self, timeline: Timeline, curve: PrefillCurve | None) -> Settings:
        """The settings with the first deadline in them; `first_slack_ns` stays only where it was used."""
        if self.first_deadline_ns is not None:
            return self._replace(first_slack_ns=None)
        if curve is None:
            if self.first_slack_ns is not None:
                raise NotMeasurable("first_slack needs a prefill curve: measure --prefill-curve")
            return self._replace(first_deadline_ns=fluidity.FIRST_DEADLINE_NS)
        slack = SLACK_NS if self.first_slack_ns is None else self.first_slack_ns
        due = curve.deadlines_ns(timeline.prompt_tokens, slack)
        return self._replace(first_deadline_ns=due, first_slack_ns=slack)


class View:
    """The requests of one population [R]: rows by intended time, only chunks with tokens."""

    def __init__(
        self,
        timeline: Timeline,
        settings: Settings,
        promised: Ints | None = None,
        window: rates.Window | None = None,
        *,
        curve: PrefillCurve | None = None,
        unknown: frozenset[str] = frozenset(),
    ) -> None:
        """`promised` [R]: planned output tokens; `window`: that of the whole run, where this is a class of it.

        `unknown`: ids of the metrics that this run cannot tell at all (`table.unknown`).
        """
        self.timeline, self.promised, self.curve = timeline, promised, curve
        self.settings = settings.resolved(timeline, curve)
        self.window = rates.busy_window(timeline) if window is None else window
        self.unknown = unknown
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
        kept = self.timeline.take(rows)
        part = View(kept, settings, promised, self.window, curve=self.curve, unknown=self.unknown)
        if self.attainment is not None:
            part.attainment = self.attainment.take(rows)
        return part

    @cached_property
    def zero_load_s(self) -> Floats:
        """What each TTFT would be if nobody else were there [R, s]; NaN without a prefill curve."""
        prompts = self.timeline.prompt_tokens
        return np.full(len(self), np.nan) if self.curve is None else self.curve.seconds(prompts)

    @cached_property
    def fluidity(self) -> fluidity.FluidityColumns:
        """The fluidity of each request."""
        return fluidity.fluidity(
            self.timeline,
            first_deadline_ns=self.first_deadline_ns,
            token_deadline_ns=self.settings.token_deadline_ns,
            promised=self.promised,
        )

    @property
    def first_deadline_ns(self) -> int | Ints:
        """When a first token is due after its intended time."""
        due = self.settings.first_deadline_ns
        assert due is not None  # `resolved` saw to it
        return due

    @cached_property
    def gaps(self) -> Ragged:
        """All gaps between tokens of the requests that completed."""
        return tokens.gaps_ns(self.timeline, self.ok)

    @cached_property
    def in_flight(self) -> rates.Steps:
        """How many requests were under way, over time."""
        return rates.in_flight(self.timeline)


def _ms(ns: Any) -> str:
    return f"{ns / MILLISECOND:g} ms"
