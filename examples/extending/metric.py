"""A metric of one's own: the time to the tenth token. In the package it would be a function of metrics/latency.py.

A metric is a pure function of a timeline to one value per request [R], NaN where it is undefined (never 0), and a row of
`metrics/table.py` that gives it an id, a unit, a definition and a population. The row is all that the scorecard, its
intervals, `compare` and the exports need; a line in `slo.METRICS` makes it a word of the SLO language.
"""

from __future__ import annotations

import numpy as np

from inferometer.clock import SECOND
from inferometer.metrics import tokens
from inferometer.metrics.table import Distribution
from inferometer.metrics.tokens import Floats
from inferometer.timeline import Timeline

TENTH = 10


def time_to_tenth(timeline: Timeline) -> Floats:
    """Time to the tenth token since the intended time [s]; undefined for requests of fewer tokens [R]."""
    stamps = tokens.token_ns(timeline)
    has = np.diff(stamps.offset) >= TENTH
    out = np.full(len(timeline), np.nan)
    tenth = stamps.values[stamps.offset[:-1][has] + TENTH - 1]
    out[has] = (tenth - timeline.intended_ns[has]) / SECOND
    return out


ROW = Distribution(
    "tt10",
    "s",
    "tenth token - intended; undefined for n < 10",
    lambda view: time_to_tenth(view.timeline),
)
