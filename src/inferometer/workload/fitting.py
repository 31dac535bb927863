"""A rate table and an operational CV for observed arrivals.

The table is counts in stretches of time; the CV is that of the gaps once the table's changes are taken out. Two things
are chosen so that the result is as bursty as the source at every window: how long the stretches are, and how far the
counts are drawn towards their mean. (Counts carry noise of their own, and what is drawn from them adds noise again;
unshrunk, a short-stretch table of a smooth source comes out too bursty.) Every choice is tried, by drawing from it.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec.structs import replace

from inferometer.clock import SECOND
from inferometer.workload.arrivals import Table
from inferometer.workload.burstiness import WINDOWS_S, Pace, gap_cv, idc
from inferometer.workload.draws import Floats, Stream

_STRETCHES_S = (10, 30, 60, 120, 300, 600, 1800, 3600)
_KEPT = (1.0, 0.9, 0.75, 0.5)
_CV_FACTORS = (1.0, 1.15, 0.85, 0.7)
_WIDE_FACTORS = (*_CV_FACTORS, 0.6, 0.5, 1.3)
_LEAST_TRIED = 1000
_MOST_ROWS = 400
_TRIED_BELOW = 300_000  # arrivals; beyond, counts are large and their noise small: only the CV is tried, on so many
_ROUNDS = 6


def fit_arrivals(
    times_s: Floats, *, span_s: float | None = None, most_rows: int = _MOST_ROWS
) -> Table:
    """The table, of at most so many rows, that is most like sorted arrival times [s].

    The source is taken to have been watched from 0 for `span_s`; without that, from its first arrival to its last.
    """
    start = float(times_s[0]) if span_s is None else 0.0
    times = np.asarray(times_s, dtype=np.float64) - start
    span = max(float(times[-1]), 1e-9) if span_s is None else span_s
    fitting = [s for s in _STRETCHES_S if 4 <= span / s <= most_rows]
    if not fitting:
        fitting = [_STRETCHES_S[-1]] if span > _STRETCHES_S[-1] else []
    if not fitting:  # too short for a table: one rate
        return Table(counts=(float(len(times)),), every_s=span, cv=_rounded(gap_cv(times)))
    if len(times) > _TRIED_BELOW:
        return _as_bursty(_table(times, span, fitting[0], 1.0), times[:_TRIED_BELOW])
    tried = [_table(times, span, stretch, kept) for stretch in fitting for kept in _KEPT]
    best = min(tried, key=lambda table: _distance(times, span, table).max())
    # Gaps of one family cannot have the source's CV and its dispersion, too, and the dispersion is what counts. But
    # few windows tell little: n of them know their dispersion to sqrt(2 / n), and are heard accordingly.
    trust = 1.0 / (0.1 + np.sqrt(2.0 * np.array(_windows(span)) / span))
    factors = [replace(best, cv=_rounded(best.cv * factor)) for factor in _CV_FACTORS]
    return min(factors, key=lambda table: (_distance(times, span, table) * trust).max(initial=0.0))


def _table(times: Floats, span: float, stretch: float, kept: float) -> Table:
    """Counts per stretch, drawn towards their mean; what is left of the last stretch counts as much as a whole one."""
    rows = max(1, math.ceil(span / stretch - 1e-9))
    place = np.minimum((times / stretch).astype(np.int64), rows - 1)
    counts = np.bincount(place, minlength=rows).astype(np.float64)
    last = span - (rows - 1) * stretch
    counts[-1] *= stretch / max(last, stretch / 10)
    counts = counts.mean() + kept * (counts - counts.mean())
    table = Table(counts=tuple(_short(counts)), every_s=stretch)
    unit = table.intensity().mass(times)
    return Table(counts=table.counts, every_s=stretch, cv=_rounded(gap_cv(unit)))


def fit_pace(pace: Pace, *, most_rows: int = _MOST_ROWS) -> Table:
    """The table of arrivals that were only counted: of many, so the shortest stretches that fit."""
    rate, span = pace.rate(), max(pace.span_s, 1e-9)
    fitting = [s for s in _STRETCHES_S if 4 <= span / s <= most_rows and s % rate.width_s == 0]
    if not fitting:
        return Table(counts=(float(pace.arrivals),), every_s=span, cv=_rounded(pace.cv))
    stretch = float(fitting[0])
    in_table = rate.coarser(fitting[0])
    counts = np.zeros(max(1, math.ceil(span / stretch - 1e-9)))
    place = np.minimum(in_table.place, len(counts) - 1)
    np.add.at(counts, place, in_table.arrivals)
    rates = counts / stretch  # a gap in operational time is as much longer as the rate is higher
    counts[-1] *= stretch / max(span - (len(counts) - 1) * stretch, stretch / 10)
    gaps = pace.arrivals - 1
    squares = float((in_table.squared_gaps * rates[place] ** 2).sum()) / gaps
    mean = float((rates * stretch).sum()) / gaps
    cv = math.sqrt(max(squares / mean**2 - 1.0, 0.0))
    table = Table(counts=tuple(_short(counts)), every_s=stretch, cv=_rounded(cv))
    return _as_bursty(table, pace.head_ns() / SECOND)


def _as_bursty(table: Table, times: Floats) -> Table:
    """`table` with the operational CV that gives the dispersion of its source's first `times`."""
    if len(times) < _LEAST_TRIED or not times[-1] > 0:
        return table
    span = float(times[-1])
    factors = [replace(table, cv=_rounded(table.cv * factor)) for factor in _WIDE_FACTORS]
    return min(factors, key=lambda one: _distance(times, span, one).max(initial=0.0))


def _short(counts: Floats) -> list[float]:
    """Counts to as many digits as they carry: whole ones where they are large."""
    digits = 0 if counts.mean() >= 8 else 2
    return [round(count, digits) for count in counts.tolist()]


def _rounded(cv: float) -> float:
    return round(min(max(cv, 0.05), 100.0), 3) if math.isfinite(cv) else 1.0


def _windows(span: float) -> list[int]:
    """The windows [s] of which the source has enough."""
    return [window for window in WINDOWS_S if span / window >= 8] or [WINDOWS_S[0]]


def _distance(times: Floats, span: float, table: Table) -> Floats:
    """How far, in logarithms, the dispersion drawn is from the source's, at each window."""
    windows = _windows(span)
    drawn = np.zeros(len(windows))
    for round_ in range(_ROUNDS):
        sample = table.draw(Stream(0, "try", round_), None, int(span * 1e9)) / 1e9
        drawn += [idc(sample, window, span) for window in windows]
    wanted = np.array([idc(times, window, span) for window in windows])
    return np.asarray(np.abs(np.log(drawn / _ROUNDS / wanted)))
