"""How bursty arrivals are: the CV of gaps, and the index of dispersion at several windows.

IDC(w) is the variance of the number of arrivals in a window of w seconds over its mean; 1 at every w for a Poisson
process. One CV cannot describe a bursty trace: Azure's code trace has a CV of 13, and with gamma gaps of that CV an IDC
of 77 at one second, where the trace has 13. (Cox and Lewis, The Statistical Analysis of Series of Events, 1966, 4.5.)

`Pace` gathers the same from batches of arrivals, and a rate over time, in memory that neither the number of arrivals
nor their span decides: only windows that hold an arrival are kept, and coarser ones where there are many.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from inferometer.clock import SECOND
from inferometer.timeline import Ints
from inferometer.workload.draws import Floats

WINDOWS_S = (1, 10, 60, 300)
_WIDTHS_S = (1, 10, 60, 600, 3600)  # of the windows of a rate over time; each divides the next
_MOST_WINDOWS = 1 << 19
_HEAD = 1 << 18


def gap_cv(times_s: Floats) -> float:
    """Standard deviation over mean of the gaps between sorted times [s]; NaN for fewer than 3 arrivals."""
    gaps = np.diff(times_s)
    mean = float(gaps.mean()) if len(gaps) > 1 else 0.0
    return float(gaps.std()) / mean if mean > 0 else math.nan


def idc(times_s: Floats, window_s: float, end_s: float | None = None) -> float:
    """Variance over mean of the counts in the whole windows within [first arrival, `end_s`]; NaN below two windows."""
    if not len(times_s):
        return math.nan
    start = float(times_s[0])
    end = float(times_s[-1]) if end_s is None else end_s
    windows = int((end - start) / window_s)
    place = ((times_s - start) / window_s).astype(np.int64)
    return _dispersion(_runs(place[: np.searchsorted(place, windows)])[1], windows)


def _dispersion(counts: Ints, windows: int) -> float:
    """Variance over mean of the counts in so many windows, of which only those are given that hold anything."""
    if windows < 2 or not len(counts):
        return math.nan
    mean = float(counts.sum()) / windows
    return (float((counts * counts).sum()) / windows - mean * mean) / mean


def _runs(place: Ints) -> tuple[Ints, Ints]:
    """The distinct values of sorted `place`, and how often each occurs."""
    first = np.flatnonzero(np.diff(place, prepend=place[:1] - 1))
    return place[first], np.diff(first, append=len(place))


class Rate(NamedTuple):
    """Windows of `width_s` that hold an arrival [K]: the how-manieth since the first, arrivals, summed squared gaps [s²].

    A gap belongs to the window in which it ends.
    """

    width_s: int
    place: Ints
    arrivals: Ints
    squared_gaps: Floats

    def coarser(self, width_s: int) -> Rate:
        """The same in windows of `width_s`, a multiple of the present width."""
        place, size = _runs(self.place // (width_s // self.width_s))
        first = np.cumsum(size) - size
        if not len(place):
            return self._replace(width_s=width_s)
        sums = np.add.reduceat(self.arrivals, first), np.add.reduceat(self.squared_gaps, first)
        return Rate(width_s, place, *sums)


class _Windows:
    """Sums over the windows of one width while arrivals come in; the last window is still open."""

    def __init__(self, width_s: int) -> None:
        self._width_ns = width_s * SECOND
        self._open, self._in_open = -1, 0
        self._squares = self._closed = 0
        self.most = 0

    def add(self, since_ns: Ints) -> None:
        place, count = _runs(since_ns // self._width_ns)
        if place[0] == self._open:
            count[0] += self._in_open
        else:
            self._close(np.array([self._in_open]))
        self._close(count[:-1])
        self._open, self._in_open = int(place[-1]), int(count[-1])
        self.most = max(self.most, int(count.max()))

    def _close(self, counts: Ints) -> None:
        self._squares += int((counts * counts).sum())
        self._closed += int(counts.sum())

    def dispersion(self, span_ns: int) -> float:
        """IDC over the whole windows within the span: all but the one that is open."""
        windows = span_ns // self._width_ns
        if windows < 2 or not self._closed:
            return math.nan
        mean = self._closed / windows
        return (self._squares / windows - mean * mean) / mean


class Pace:
    """Arrivals, batch by batch; mutable."""

    def __init__(self) -> None:
        self.arrivals = 0
        self._first = self._last = 0
        self._gaps, self._mean_s, self._off = (
            0,
            0.0,
            0.0,
        )  # Welford's sums, joined as Chan et al. do
        self._windows = {width: _Windows(width) for width in WINDOWS_S}
        empty = np.zeros(0, dtype=np.int64)
        self._rate = Rate(1, empty, empty, np.zeros(0))
        self._fresh: list[Rate] = []
        self._head: list[Ints] = []

    def add(self, times_ns: Ints) -> None:
        """Take sorted times [n], none before those that were added before."""
        if not len(times_ns):
            return
        if not self.arrivals:
            self._first = self._last = int(times_ns[0])
        gaps = np.diff(times_ns, prepend=self._last) / SECOND
        self._take_gaps(gaps[0 if self.arrivals else 1 :])
        since = times_ns - self._first
        for windows in self._windows.values():
            windows.add(since)
        self._take_rate(since, gaps)
        if self.arrivals < _HEAD:
            self._head.append(since[: _HEAD - self.arrivals])
        self.arrivals += len(times_ns)
        self._last = int(times_ns[-1])

    @property
    def span_s(self) -> float:
        """From the first arrival to the last [s]."""
        return (self._last - self._first) / SECOND

    @property
    def cv(self) -> float:
        """As `gap_cv`."""
        if self._gaps < 2 or not self._mean_s > 0:
            return math.nan
        return math.sqrt(self._off / self._gaps) / self._mean_s

    def idc(self, window_s: int) -> float:
        """As `idc`, for one of WINDOWS_S."""
        return self._windows[window_s].dispersion(self._last - self._first)

    def most_within(self, window_s: int) -> int:
        """The most arrivals in a window of one of WINDOWS_S."""
        return self._windows[window_s].most

    def head_ns(self) -> Ints:
        """When the first arrivals came, one by one, up to 2^18 of them; since the first."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *self._head])

    def rate(self) -> Rate:
        """The arrivals over time, as finely as they are known."""
        parts = [self._rate, *self._fresh]
        joined = Rate(
            self._rate.width_s,
            np.concatenate([part.place for part in parts]),
            np.concatenate([part.arrivals for part in parts]),
            np.concatenate([part.squared_gaps for part in parts]),
        )
        self._rate, self._fresh = joined.coarser(joined.width_s), []
        while len(self._rate.place) > _MOST_WINDOWS and self._rate.width_s < _WIDTHS_S[-1]:
            wider = _WIDTHS_S[_WIDTHS_S.index(self._rate.width_s) + 1]
            self._rate = self._rate.coarser(wider)
        return self._rate

    def _take_gaps(self, gaps: Floats) -> None:
        if not len(gaps):
            return
        mean, count = float(gaps.mean()), len(gaps)
        apart, together = mean - self._mean_s, self._gaps + count
        self._off += float(((gaps - mean) ** 2).sum())
        self._off += apart * apart * self._gaps * count / together
        self._mean_s += apart * count / together
        self._gaps = together

    def _take_rate(self, since: Ints, gaps: Floats) -> None:
        width = self._rate.width_s
        place, count = _runs(since // (width * SECOND))
        squares = np.add.reduceat(gaps * gaps, np.cumsum(count) - count)
        self._fresh.append(Rate(width, place, count, squares))
        if sum(len(part.place) for part in self._fresh) > _MOST_WINDOWS:
            self.rate()
