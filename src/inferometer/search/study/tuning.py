"""What tuning found: how good each configuration that was tried is, which is chosen, and whether the space was wide enough.

Everything that was tried is kept and counted: a baseline that got one configuration beside eight of the proposal is not
tuned, and only the count shows it. A best value at the first or last of its choices says that better ones may lie outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from inferometer.metrics.scorecard import Scorecard, attainment_of, score, seen_in, view_of
from inferometer.metrics.summary import sample, statistic
from inferometer.metrics.table import DISTRIBUTIONS, column_of
from inferometer.metrics.view import View
from inferometer.run import Run
from inferometer.search.compare import HIGHER_IS_BETTER
from inferometer.search.study.asked import Config, Flag, StudySpec
from inferometer.slo import Condition, Each, Slo
from inferometer.spec import Spec

SLO_USE = "slo"
ALIKE = 0.01


class Trial(Spec, frozen=True):
    """A configuration that was tried; `objective` is lower for better ones, None where the run says nothing."""

    config: Config
    objective: float | None
    valid: bool | None
    cell: str


class Choice(Spec, frozen=True):
    """What tuning made of one system on one workload (and model): `best` is None where no trial could be used.

    edges: flags whose best value is the first or last of its choices. `inherited_from`: an ablation takes another's choice.
    """

    system: str
    model: str
    workload: str
    trials: tuple[Trial, ...]
    best: Config | None
    edges: tuple[str, ...]
    space: dict[str, tuple[Flag, ...]]
    budget: int
    inherited_from: str | None = None


def chosen(
    spec: StudySpec, system: str, model: str, workload: str, trials: Sequence[Trial]
) -> Choice:
    """The choice among trials: the lowest objective of those whose run is valid.

    Of those within `ALIKE` of it, the one that is furthest inside of the space: a flag that makes no difference would else
    stand at the end of its range, and look as if better values lay beyond.
    """
    space = spec.systems[system].space()
    usable = [t for t in trials if t.valid and t.objective is not None]
    least = min((t.objective or 0.0 for t in usable), default=0.0)
    near = [t for t in usable if (t.objective or 0.0) <= least + ALIKE * abs(least)]
    best = min(near, key=lambda t: (_edges(t, space), t.objective or 0.0), default=None)
    edges = (
        () if best is None else tuple(f for f, v in space.items() if _at_edge(best.config[f], v))
    )
    return Choice(
        system=system,
        model=model,
        workload=workload,
        trials=tuple(trials),
        best=None if best is None else best.config,
        edges=edges,
        space=space,
        budget=spec.tuning.budget,
    )


def inherited(spec: StudySpec, system: str, choice: Choice) -> Choice:
    """The choice of an ablation that is not tuned by itself: what its base tuned to, and its own flags over that."""
    base, own = spec.system(choice.system), spec.systems[system]
    best = None if choice.best is None else base.config | choice.best | own.config
    return Choice(
        system=system,
        model=choice.model,
        workload=choice.workload,
        trials=(),
        best=best,
        edges=(),
        space={},
        budget=0,
        inherited_from=choice.system,
    )


def _edges(trial: Trial, space: dict[str, tuple[Flag, ...]]) -> int:
    return sum(_at_edge(trial.config[flag], values) for flag, values in space.items())


def _at_edge(value: Flag, values: Sequence[Flag]) -> bool:
    """Whether a number is the least or the greatest of several; words and switches have no edge."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < 2 or not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return value in (min(numbers), max(numbers))


# --- how good a run is ------------------------------------------------------------------------------------------------


def objective(run: Run, card: Scorecard, name: str, slo: Slo | None) -> float | None:
    """How good a run is, lower being better: the use of its SLO, or a statistic; None where it has no such number."""
    if name == SLO_USE:
        assert slo is not None
        found = slo_use(run, card, slo)
    else:
        found = figure(run, card, name)
        found = -found if name.partition(".")[0] in HIGHER_IS_BETTER else found
    return None if math.isnan(found) else found


def figure(run: Run, card: Scorecard, name: str) -> float:
    """A number of the scorecard by its name ("ttft.p99", "request_rate"); NaN where the run does not carry it."""
    metric, _, statistic = name.partition(".")
    if not statistic:
        return next((v.value for v in card.values if v.id == metric), math.nan)
    known = card.row(metric).quantiles.get(statistic)
    if known is not None:
        return known
    asked = Condition(metric, statistic, "<=", 0.0, None, name)
    return seen_in(view_of(run, card.settings), asked, intervals=False).value


def slo_use(run: Run, card: Scorecard, slo: Slo) -> float:
    """How much of an SLO is used up: 1 is at its bound, 0.5 at half of it; the condition that is used most decides.

    It is a measure below saturation, where every configuration attains the SLO, and beyond it. Of what is asked of each
    request: the use that the share `attainment` asks for stays within. Latencies are silent about requests that failed, so
    a run in which a share of them did has used up 1 + that share at least: turning users away is no way to be fast.
    """
    assert card.slo is not None
    view = view_of(run, card.settings)
    view.attainment = attainment_of(view, slo)
    uses = [
        _use(verdict.condition, _seen(view, verdict.condition, verdict.seen.value))
        for verdict in card.slo.verdicts
        if verdict.condition.metric != "attainment" or not slo.each
    ]
    uses += [_each_use(view, each, _level(slo, each.app)) for each in slo.each]
    failed = float(np.mean(~view.ok)) if len(view) else 0.0
    uses += [1 + failed] if failed else []
    return max(uses, default=math.nan) if not any(map(math.isnan, uses)) else math.nan


def _seen(view: View, condition: Condition, value: float) -> float:
    """The value of a condition; a percentile also of a sample too small to publish it, since it need only tell an order."""
    if not math.isnan(value) or condition.statistic is None:
        return value
    part = view if condition.app is None else view.only(condition.app)
    return statistic(sample(part, DISTRIBUTIONS[condition.metric]), condition.statistic)


def _level(slo: Slo, app: str | None) -> float:
    """The share of requests that must attain."""
    asked = [c for c in slo.conditions if c.metric == "attainment"]
    return max((c.bound for c in asked if c.app in (None, app)), default=1.0)


def _each_use(view: View, each: Each, level: float) -> float:
    part = view if each.app is None else view.only(each.app)
    if not len(part):
        return math.nan
    worst = np.zeros(len(part))
    for condition in each.conditions:
        values = column_of(part, condition.metric)
        use = np.array([_use(condition, v) for v in values.tolist()])
        worst = np.maximum(worst, np.nan_to_num(use, nan=0.0, posinf=math.inf))
    worst[~part.ok] = math.inf
    return float(np.sort(worst)[max(math.ceil(level * len(worst)) - 1, 0)])


def _use(condition: Condition, value: float) -> float:
    """A value as a share of its bound; of a lower bound, the bound as a share of the value."""
    above, below = (
        (value, condition.bound) if condition.op in ("<=", "<") else (condition.bound, value)
    )
    if math.isnan(value):
        return math.nan
    if below == 0:
        return math.inf if above > 0 else 0.0
    return above / below


def scored(run: Run, slo: Slo | None) -> Scorecard:
    """The scorecard of a cell, without the intervals: a study's come from its repeats."""
    return score(run, slo, intervals=False)
