"""One measurement several times: in what order, when to stop, and what runs differ by.

A run's own interval knows what varies within it; what varies between runs (placement, clocks, neighbours, a cache that
was warm) only repeats show. So a result of repeats takes its interval from the runs' own results, by Student's t, and
both variances are told: where the one between runs is the larger, longer runs do not help, and more of them do.

Looking after each run whether it is enough, and stopping then, spoils an interval that does not know of it. The looks
are declared before (`Looks`), each with its share of the error (Lan & DeMets 1983), and all hold together.

Two systems take turns in random order within each block, so that a drift of the host or the hour touches both alike;
with the k-th block goes the k-th seed, and the plan that it makes, the same for all (common random numbers): pairs, for
`compare`.

Knows no server: what is repeated is an `Arm`, measured or simulated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inferometer import stats
from inferometer.errors import NotMeasurable, UserError
from inferometer.metrics import summary as summaries
from inferometer.metrics.scorecard import Scorecard, score
from inferometer.metrics.summary import plain
from inferometer.metrics.table import DISTRIBUTIONS, FIGURES, NEEDS_SLO
from inferometer.plan import Plan
from inferometer.run import Run
from inferometer.slo import Slo
from inferometer.stats import UNKNOWN, Interval
from inferometer.stats.intervals import t_interval

FIRST_LOOK = 3  # runs: with two, t is 12.7
MOST = 20
LEVEL = 0.95
SHOWN = ("ttft.p50", "ttft.p99", "tbt.p50", "tbt.p99", "ttlt.p50", "ttlt.p99", "request_rate", "token_rate")  # fmt: skip

Measure = Callable[[int], Run]  # the seed of a repeat -> its run
Arm = Callable[
    [Plan, int, Path], Run
]  # what serves: (a plan, a seed, a new folder) -> the run, kept in that folder


class Until(NamedTuple):
    """Repeat until the interval of `name` is within ±`relative` of it, and at most `most` times."""

    name: str
    relative: float
    most: int = MOST


class Repeated(NamedTuple):
    """A statistic over repeats: mean, interval, what runs differ by beyond what each believes, and what each believes."""

    name: str
    results: tuple[float, ...]
    mean: float
    interval: Interval
    between_sd: float
    within_sd: float

    @property
    def relative(self) -> float:
        """The interval's half width over the mean; NaN where there is none."""
        half = (self.interval.hi - self.interval.lo) / 2
        return half / abs(self.mean) if self.mean else math.nan


class Series(NamedTuple):
    """Repeats, what they say together, and whether they were enough (None: nobody asked for a precision).

    By run: `valid`, whether its instrument vouches for it; `steady`, its steady-state verdict; `met`, whether it met the
    SLO (None: not asked, or not to be said).
    """

    runs: tuple[Run, ...]
    rows: tuple[Repeated, ...]
    enough: bool | None
    valid: tuple[bool, ...]
    steady: tuple[str, ...]
    met: tuple[bool | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "repeats": len(self.runs),
            "enough": self.enough,
            "runs": [None if run.path is None else str(run.path) for run in self.runs],
            "valid": list(self.valid),
            "steady_state": list(self.steady),
            "slo_met": list(self.met),
            "metrics": {row.name: _row_dict(row) for row in self.rows},
        }


def parse_until(text: str, *, most: int = MOST) -> Until:
    """ "ttft.p99 ci<5%", or "ci<5%" for the median TTFT."""
    match = re.fullmatch(
        r"\s*(?:([a-z_]+(?:\.(?:p[\d.]+|mean))?)\s+)?ci\s*<\s*([\d.]+)\s*%\s*", text
    )
    if match is None or not 0 < float(match[2]) < 100:
        raise UserError(
            f"{text!r} is no precision", where="--until", remedy="write 'ttft.p99 ci<5%'"
        )
    name = match[1] or "ttft.p50"
    metric, _, statistic = name.partition(".")
    if metric not in (DISTRIBUTIONS if statistic else FIGURES):
        raise UserError(f"no statistic is called {name!r}", where="--until", remedy="ttft.p99, say")
    if statistic and statistic not in (shown := ("mean", *summaries.percentiles(metric))):
        raise UserError(
            f"a scorecard of {metric} has no {statistic}",
            where="--until",
            remedy="take " + ", ".join(shown),
        )
    if most < FIRST_LOOK:
        raise UserError(f"a precision needs {FIRST_LOOK} repeats or more", where="--repeats")
    return Until(name, float(match[2]) / 100, most)


def repeat(
    measure: Measure,
    *,
    times: int | None = None,
    until: Until | None = None,
    seed: int = 0,
    slo: Slo | None = None,
) -> Series:
    """Run `measure` `times` times, or `until` it is precise enough; the k-th repeat has the seed `seed` + k.

    A run that a person interrupted is the last, and does not count.
    """
    most = until.most if until is not None else times
    if most is None or most < 1:
        raise UserError("how many repeats?", where="--repeats")
    if until is not None and until.name in NEEDS_SLO and slo is None:
        raise UserError(f"{until.name} needs an SLO", where="--until", remedy="give --slo")
    looks = looks_of(until) if until is not None else {}
    runs: list[Run] = []
    cards: list[Scorecard] = []  # each run is scored once, however often it is looked at
    enough: bool | None = None
    while len(runs) < most and not enough:
        run = measure(seed + len(runs))
        if not run.manifest.complete:
            break
        runs.append(run)
        cards.append(score(run, slo))
        if until is not None and math.isnan(_seen(cards[0], until.name)[0]):
            raise NotMeasurable(_missing(cards[0], until.name))
        if until is not None and len(runs) in looks:
            seen = _repeated(until.name, cards, looks[len(runs)])
            enough = stats.precise_enough(seen.mean, seen.interval, until.relative)
    if not runs:
        raise KeyboardInterrupt
    return _series(runs, cards, until, enough)


def together(runs: Sequence[Run], slo: Slo | None = None) -> Series:
    """What runs that are there already say together, as repeats of one thing."""
    return _series(runs, [score(run, slo) for run in runs], None, None)


def _series(
    runs: Sequence[Run], cards: Sequence[Scorecard], until: Until | None, enough: bool | None
) -> Series:
    level = LEVEL if until is None else looks_of(until).get(len(runs), LEVEL)
    return Series(
        tuple(runs),
        _rows(cards, until, level),
        enough,
        tuple(card.valid for card in cards),
        tuple(card.steady_state.verdict for card in cards),
        tuple(None if card.slo is None else card.slo.met for card in cards),
    )


def looks_of(until: Until) -> dict[int, float]:
    """{number of runs: the level of the interval looked at then}: after every run from the third on."""
    counts = list(range(min(FIRST_LOOK, until.most), until.most + 1))
    return dict(
        zip(counts, stats.look_levels([n / until.most for n in counts], LEVEL), strict=True)
    )


def repeated(
    name: str, runs: Sequence[Run], level: float = LEVEL, slo: Slo | None = None
) -> Repeated:
    """One statistic over repeats; NaN where a run has none, with the interval UNKNOWN."""
    return _repeated(name, [score(run, slo) for run in runs], level)


def _rows(cards: Sequence[Scorecard], until: Until | None, level: float) -> tuple[Repeated, ...]:
    """The statistics shown; that of `until` at the level of the look it ended at, the others at the usual one."""
    names = [*SHOWN, *(("attainment", "goodput") if cards[0].slo is not None else ())]
    if until is not None and until.name not in names:
        names.insert(0, until.name)
    levels = {until.name: level} if until is not None else {}
    return tuple(_repeated(name, cards, levels.get(name, LEVEL)) for name in names)


def _repeated(name: str, cards: Sequence[Scorecard], level: float) -> Repeated:
    seen = [_seen(card, name) for card in cards]
    values = np.array([value for value, _ in seen])
    errors = np.array([error for _, error in seen])
    if not np.isfinite(values).all():
        return Repeated(name, tuple(values.tolist()), math.nan, UNKNOWN, math.nan, math.nan)
    mean, n = float(values.mean()), values.size
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    interval = t_interval(mean, error, n - 1, level) if n > 1 else UNKNOWN
    parts = stats.variance_components(values, errors)
    return Repeated(
        name,
        tuple(values.tolist()),
        mean,
        interval,
        math.sqrt(parts.between) if parts.between >= 0 else math.nan,
        math.sqrt(parts.within) if parts.within >= 0 else math.nan,
    )


def _seen(card: Scorecard, name: str) -> tuple[float, float]:
    """(value, the standard error that the run itself believes); NaN where unknown."""
    metric, _, statistic = name.partition(".")
    if not statistic:
        figure = card.value(metric)
        return figure.value, _half(figure.ci)
    row = card.row(metric)
    value = row.mean if statistic == "mean" else row.quantiles.get(statistic, math.nan)
    return value, _half(row.ci.get(statistic, UNKNOWN))


def _missing(card: Scorecard, name: str) -> str:
    """Why the first run has no such number, before nineteen more are made that have none either."""
    metric, _, statistic = name.partition(".")
    if not statistic or statistic not in card.row(metric).too_few:
        return f"{name} was not measured in the first run"
    row = card.row(metric)
    return f"{name} needs {row.too_few[statistic]:,} values in a run, and the first has {row.n:,}; make runs longer"


def _half(ci: Interval) -> float:
    z = stats.intervals.normal_quantile((1 + summaries.LEVEL) / 2)
    return (ci.hi - ci.lo) / (2 * z)


class Turn(NamedTuple):
    """One run of an interleaved plan: in which block, of which arm, with which seed."""

    block: int
    arm: str
    seed: int


def blocks(arms: Sequence[str], repeats: int, seed: int = 0) -> Iterator[Turn]:
    """Every arm once per block, in random order within it; a block's arms share its seed."""
    if len(set(arms)) != len(arms) or not arms:
        raise UserError("arms need names of their own", where="arms")
    rng = np.random.default_rng(seed)
    for block in range(repeats):
        for k in rng.permutation(len(arms)):
            yield Turn(block, arms[int(k)], seed + block)


def interleave(
    arms: Mapping[str, Arm],
    plan: Callable[[int], Plan],
    folder: Path,
    *,
    repeats: int,
    seed: int = 0,
    told: Callable[[Turn], None] | None = None,
) -> dict[str, list[Run]]:
    """Run every arm `repeats` times in randomized blocks: {arm: its runs, by block}, ready for `compare`.

    `plan(seed)` makes a block's plan, once for all arms. Runs lie in `folder`/ARM/BLOCK; `told` hears of each turn before
    it. An incomplete run (a person interrupted it) ends everything with KeyboardInterrupt.
    """
    out: dict[str, list[Run]] = {arm: [] for arm in arms}
    plans: dict[int, Plan] = {}
    for turn in blocks(tuple(arms), repeats, seed):
        if turn.seed not in plans:
            plans = {turn.seed: plan(turn.seed)}
        if told is not None:
            told(turn)
        run = arms[turn.arm](plans[turn.seed], turn.seed, folder / turn.arm / f"{turn.block:03d}")
        if not run.manifest.complete:
            raise KeyboardInterrupt
        out[turn.arm].append(run)
    return out


def _row_dict(row: Repeated) -> dict[str, Any]:
    return {
        "mean": plain(row.mean),
        "ci": [plain(row.interval.lo), plain(row.interval.hi)],
        "results": [plain(value) for value in row.results],
        "between_sd": plain(row.between_sd),
        "within_sd": plain(row.within_sd),
    }
