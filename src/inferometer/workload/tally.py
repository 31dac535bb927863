"""A trace too long to hold, counted batch by batch: what `describe` and profiles need, in memory that stays.

Lengths are whole numbers, so that how often each occurs tells every quantile exactly, and its bootstrap interval, too.
Ratios of them are counted in bins of 2^-13 of their size (as HdrHistogram and DDSketch do: Masson, Rim and Lee, VLDB
2019), so that a quantile is off by 1/16,000 of itself at most. How prompts and outputs go together is told by every k-th
row, k doubling so that a million at most are kept. Arrivals go into a `Pace`.

Times must come in order, but for those within one batch: a table that is less sorted than that must be read whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from inferometer.errors import UserError
from inferometer.timeline import Array, Ints
from inferometer.workload.burstiness import Pace
from inferometer.workload.draws import Floats, Stream
from inferometer.workload.traces import Problems, Trace, read_batches, read_trace, tick_of

_PARTS = 1 << 13  # bins between a power of two and the next
_EXPONENTS = 33  # ratios of tokens lie between 2^-31 and 2^31
_DENSE = 1 << 20  # tokens up to which counts are an array
_MOST_PAIRS = 1 << 20


class Uncountable(Exception):
    """Times fell from one batch to the next, or there are sessions or shared blocks: to be read whole."""


class Distribution(NamedTuple):
    """Ascending distinct values [K], and how often each occurs [K]."""

    values: Floats
    counts: Ints

    @classmethod
    def of(cls, values: Array) -> Self:
        """The distribution of single values."""
        distinct, counts = np.unique(values, return_counts=True)
        return cls(distinct.astype(np.float64), counts.astype(np.int64))

    def __len__(self) -> int:
        """How many values there are, each as often as it occurs."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return float((self.values * self.counts).sum() / self.counts.sum())

    @property
    def deviation(self) -> float:
        """The standard deviation of a sample (n - 1)."""
        off = self.values - self.mean
        return float(np.sqrt((off * off * self.counts).sum() / (self.counts.sum() - 1)))

    def ranked(self, rank: Ints) -> Floats:
        """The order statistics of these ranks, from 0."""
        return np.asarray(self.values[np.searchsorted(np.cumsum(self.counts), rank, side="right")])

    def quantile(self, levels: Floats) -> Floats:
        """Quantiles by linear interpolation between order statistics, numpy's default."""
        rank = np.asarray(levels) * (len(self) - 1)
        below = np.floor(rank).astype(np.int64)
        low, high = self.ranked(below), self.ranked(np.minimum(below + 1, len(self) - 1))
        return np.asarray(low + (high - low) * (rank - below))


@dataclass(frozen=True, slots=True)
class Tally:
    """A trace, counted. `pairs` are prompt and output of every `step`-th row [n, 2]; `pace` is None without times."""

    format: str
    source: str
    app: str
    rows: int
    prompt: Distribution
    output: Distribution
    ratio: Distribution  # of the rows with an output
    pairs: Ints
    step: int
    pace: Pace | None
    stamped: Pace | None  # before ticks were spread
    tick_ns: int | None
    problems: Problems
    notes: tuple[str, ...]


def tallied(batches: Iterable[Trace]) -> Tally:
    """Count a trace that comes in batches; raises `Uncountable`."""
    prompt, output, ratio, pairs = _Counts(), _Counts(), _Ratios(), _Pairs()
    times = _Times()
    problems, rows = Problems(), 0
    notes: list[str] = []
    batch = Trace("", "", np.zeros(0, np.int32), np.zeros(0, np.int32))
    for batch in batches:
        if batch.session is not None or batch.blocks is not None:
            raise Uncountable
        prompt.add(batch.prompt_tokens)
        output.add(batch.output_tokens)
        ratio.add(batch.prompt_tokens, batch.output_tokens)
        pairs.add(batch.prompt_tokens, batch.output_tokens)
        times.add(batch.arrival_ns)
        problems = problems.and_then(batch.problems)
        notes += batch.notes
        rows += len(batch)
    if not rows:
        what = f"no readable row; {problems.first[0]}" if problems.rows else "no rows"
        raise UserError(what, where=batch.source)
    pace, stamped = times.done()
    return Tally(
        format=batch.format,
        source=batch.source,
        app=batch.app,
        rows=rows,
        prompt=prompt.distribution(),
        output=output.distribution(),
        ratio=ratio.distribution(),
        pairs=pairs.kept(),
        step=pairs.step,
        pace=pace,
        stamped=stamped,
        tick_ns=times.tick_ns,
        problems=problems,
        notes=tuple(dict.fromkeys(notes)),
    )


LONG_BYTES = (
    64 << 20
)  # of a file; what is shorter is read whole, for then everything about it is exact


def read_or_tally(
    path: str | Path, form: str | None = None, *, strict: bool = False
) -> Trace | Tally:
    """The trace in a file of that format (else detected); of a long table, its tally."""
    file = Path(path)
    if not file.is_file() or file.stat().st_size < LONG_BYTES:
        return read_trace(path, form, strict=strict)
    try:
        return tallied(read_batches(path, form, strict=strict))
    except Uncountable:
        return read_trace(path, form, strict=strict)


class _Counts:
    """How often each whole number occurs."""

    def __init__(self) -> None:
        self._dense = np.zeros(0, dtype=np.int64)
        self._rest: list[Array] = []  # the few that are larger, one by one

    def add(self, values: NDArray[np.int32]) -> None:
        large = values >= _DENSE
        if large.any():
            self._rest.append(values[large])
            values = values[~large]
        fresh = np.bincount(values, minlength=len(self._dense))
        fresh[: len(self._dense)] += self._dense
        self._dense = fresh

    def distribution(self) -> Distribution:
        some = np.flatnonzero(self._dense)
        rest = Distribution.of(np.concatenate([np.zeros(0, dtype=np.int32), *self._rest]))
        return Distribution(
            np.concatenate([some.astype(np.float64), rest.values]),
            np.concatenate([self._dense[some], rest.counts]),
        )


class _Ratios:
    """How often each ratio occurs, in bins of equal relative width."""

    def __init__(self) -> None:
        self._bins = np.zeros(2 * _EXPONENTS * _PARTS, dtype=np.int64)
        self._zeros = 0
        self._most = 0.0

    def add(self, prompt: NDArray[np.int32], output: NDArray[np.int32]) -> None:
        answered = output > 0
        ratio = prompt[answered] / output[answered]
        self._most = max(self._most, float(ratio.max(initial=0.0)))
        self._zeros += int(np.count_nonzero(ratio == 0))
        mantissa, exponent = np.frexp(ratio[ratio > 0])
        part = ((mantissa - 0.5) * (2 * _PARTS)).astype(np.int64)
        place = (exponent.astype(np.int64) + _EXPONENTS) * _PARTS + part
        self._bins += np.bincount(place, minlength=len(self._bins))

    def distribution(self) -> Distribution:
        some = np.flatnonzero(self._bins)
        middle = 0.5 + (some % _PARTS + 0.5) / (2 * _PARTS)
        values = np.minimum(np.ldexp(middle, some // _PARTS - _EXPONENTS), self._most)
        if len(values):
            values[-1] = self._most
        zero = np.zeros(min(self._zeros, 1))
        return Distribution(
            np.concatenate([zero, values]),
            np.concatenate([np.full(len(zero), self._zeros), self._bins[some]]).astype(np.int64),
        )


class _Pairs:
    """Every `step`-th row, the first included."""

    def __init__(self) -> None:
        self.step = 1
        self._seen = self._held = 0
        self._parts: list[Ints] = []

    def add(self, prompt: NDArray[np.int32], output: NDArray[np.int32]) -> None:
        first = -self._seen % self.step
        self._seen += len(prompt)
        self._parts.append(np.stack([prompt[first :: self.step], output[first :: self.step]], 1))
        self._held += len(self._parts[-1])
        while self._held > _MOST_PAIRS:
            self._parts, self.step = [self.kept()[::2].copy()], 2 * self.step
            self._held = len(self._parts[0])

    def kept(self) -> Ints:
        return np.concatenate([np.zeros((0, 2), dtype=np.int32), *self._parts])


class _Times:
    """Two paces: of the stamps, and of the stamps spread inside their ticks, where the first batch shows ticks.

    The last tick of a batch may go on in the next, so its rows are held back until it is over.
    """

    def __init__(self) -> None:
        self.tick_ns: int | None = None
        self._stamped, self._spread = Pace(), Pace()
        self._stream = Stream(0, "detick")
        self._last: int | None = None
        self._held = np.zeros(0, dtype=np.int64)

    def add(self, times: Ints | None) -> None:
        if times is None or not len(times):
            return
        if self._last is None:
            self.tick_ns = tick_of(times)
        elif int(times.min()) < self._last:
            raise Uncountable
        inside: Ints | int = 0
        if self.tick_ns is not None:
            inside = np.floor(self._stream.uniform(len(times)) * self.tick_ns).astype(np.int64)
        ordered = np.sort(times)
        self._stamped.add(ordered)
        self._last = int(ordered[-1])
        if self.tick_ns is None:
            return
        ready = np.sort(np.concatenate([self._held, times + inside]))
        end = int(np.searchsorted(ready, self._last))
        self._spread.add(ready[:end])
        self._held = ready[end:]

    def done(self) -> tuple[Pace | None, Pace | None]:
        if self._last is None:
            return None, None
        if self.tick_ns is None:
            return self._stamped, self._stamped
        self._spread.add(self._held)
        return self._spread, self._stamped
