"""Prompt and output lengths drawn together, from two quantile tables and a checkerboard copula.

Each length has a table of 104 quantiles. How they go together is a grid of 20 x 20 cells over their ranks: how much of
the joint distribution each cell holds. Inside a cell the ranks are independent. (Checkerboard approximation of a
copula: Mikusinski and Taylor, Metrika 72, 2010.)

The grid is what marginals and a rank correlation cannot replace: production prompts and outputs are hardly correlated
by rank, yet drawn apart they miss the median prompt:output ratio of Azure's conversations by 41 %.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferometer.spec import Spec
from inferometer.workload.draws import Floats, Stream
from inferometer.workload.lengths import Counts, whole

LEVELS = np.array([*range(100), 99.5, 99.9, 99.99, 100]) / 100.0
CELLS = 20
_TOTAL = 10_000  # the weights of a copula are whole numbers of this sum

Table = Annotated[tuple[int, ...], msgspec.Meta(min_length=len(LEVELS), max_length=len(LEVELS))]


class Pair(NamedTuple):
    """Prompt and output tokens [n] each."""

    prompt: Counts
    output: Counts


class Joint(Spec, frozen=True):
    """`prompt` and `output`: tokens at LEVELS; `copula[i][j]`: the weight of prompt ranks i/20.. and output ranks j/20...

    Without a copula the two are independent.
    """

    prompt: Table
    output: Table
    copula: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        """Refuse tables that fall, and copulas that are no grid."""
        if np.any(np.diff(self.prompt) < 0) or np.any(np.diff(self.output) < 0):
            raise ValueError("quantile tables must not fall")
        if self.copula is not None:
            grid = np.array([len(row) for row in self.copula])
            if len(grid) != CELLS or np.any(grid != CELLS) or min(map(min, self.copula)) < 0:
                raise ValueError(f"a copula is a grid of {CELLS} x {CELLS} weights")
            if min(map(sum, self.copula)) == 0:
                raise ValueError("a row of a copula must not be empty")

    def draw(self, stream: Stream, n: int) -> Pair:
        """`n` pairs of lengths."""
        if self.copula is None:
            return self.given(stream.uniform(n), stream)
        row = stream.pick([sum(row) for row in self.copula], n)
        return self.given((row + stream.uniform(n)) / CELLS, stream)

    def given(self, prompt_rank: Floats, stream: Stream) -> Pair:
        """The lengths at given ranks of the prompt [n] in (0, 1); the output's ranks follow from the copula."""
        n = len(prompt_rank)
        output_rank = stream.uniform(n)
        if self.copula is not None:
            row = np.minimum((prompt_rank * CELLS).astype(np.int64), CELLS - 1)
            # All rows' cumulative weights on one line, row r between r and r + 1, make one search for all n.
            line = np.concatenate([r + np.cumsum(w) / sum(w) for r, w in enumerate(self.copula)])
            cell = np.searchsorted(line, row + output_rank, side="right") - row * CELLS
            output_rank = (np.minimum(cell, CELLS - 1) + stream.uniform(n)) / CELLS
        return Pair(
            whole(read_table(self.prompt, prompt_rank)), whole(read_table(self.output, output_rank))
        )


def fit_joint(prompt: Any, output: Any, *, independent: bool = False) -> Joint:
    """The tables and the copula of observed lengths [n] each."""
    grid = None if independent or len(prompt) < CELLS else _copula(prompt, output)
    return Joint(prompt=quantile_table(prompt), output=quantile_table(output), copula=grid)


def joint_of(prompt: Any, output: Any, pairs: Any) -> Joint:
    """The same of lengths that were counted (`tally.Distribution`s), and of pairs [n, 2] taken from them evenly."""
    tables = [np.rint(each.quantile(LEVELS)).astype(np.int64).tolist() for each in (prompt, output)]
    grid = None if len(pairs) < CELLS else _copula(pairs[:, 0], pairs[:, 1])
    return Joint(prompt=tuple(tables[0]), output=tuple(tables[1]), copula=grid)


def quantile_table(values: Any, levels: Any = LEVELS) -> tuple[int, ...]:
    """The quantiles of `values` at `levels`, rounded."""
    return tuple(np.rint(np.quantile(np.asarray(values), levels)).astype(np.int64).tolist())


def read_table(table: Any, rank: Floats, levels: Any = LEVELS) -> Floats:
    """The quantile at each `rank` in [0, 1], linear between the levels; only exactly rounded arithmetic."""
    values = np.asarray(table, dtype=np.float64)
    k = np.clip(np.searchsorted(levels, rank, side="right") - 1, 0, len(values) - 2)
    part = (rank - levels[k]) / (levels[k + 1] - levels[k])
    return np.asarray(values[k] + (values[k + 1] - values[k]) * part)


def _copula(prompt: Any, output: Any) -> tuple[tuple[int, ...], ...]:
    rows, columns = _cells(prompt, "prompt"), _cells(output, "output")
    counts = np.bincount(rows * CELLS + columns, minlength=CELLS * CELLS)
    exact = counts * (_TOTAL / counts.sum())
    weights = np.floor(exact).astype(np.int64)
    short = _TOTAL - int(weights.sum())  # the largest remainders make up for the rounding
    weights[np.argsort(weights - exact, kind="stable")[:short]] += 1
    return tuple(tuple(row) for row in weights.reshape(CELLS, CELLS).tolist())


def _cells(values: Any, purpose: str) -> NDArray[np.int64]:
    """The cell of each value's rank; equal values are ranked at random, or else ties would fill cells at will."""
    order = np.lexsort((Stream(0, "ties", purpose).uniform(len(values)), values))
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values))
    return rank * CELLS // len(values)
