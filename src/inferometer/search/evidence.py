"""What one probe says about an SLO, in the form that a capacity search can pool: shares with an effective n.

Every condition becomes a *criterion*: "at least `level` of the requests are good", of which a probe saw a `share`, worth
`effective_n` independent requests. Three kinds of condition fit exactly:
    attainment >= 0.9            the share that attains
    ttft.p99 <= 0.5s             the share at or below 0.5 s, level 0.99; of gaps, clustered by request
    fluid_token_rate >= 6/s      the share that keeps its deadlines at 1/6 s, level 0.99 (that is its definition)
A mean or another figure x has no share of its own. Against its bound it has one: bound / (bound + x) is 1/2 where they are
equal, falls smoothly as x grows, and its binomial n is the one that gives it the standard error that x has.

Two criteria stand beside what the SLO says, because a shed or a postponed request must not make a server look good:
    completed   at the strictest level of the SLO's percentiles, where it says nothing of attainment or errors
    stable      in an open loop: the server does not fall behind: requests in flight do not grow by more than their mean
                and 5 % of what arrived (Mann-Kendall, Hamed-Rao). Less is a wave, or a load within 5 % of saturation.

Failed requests count against every percentile here (as +inf), while a scorecard's percentiles are over those that completed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer import stats
from inferometer.clock import SECOND
from inferometer.errors import NotMeasurable, UserError
from inferometer.metrics import fluidity, rates, tokens
from inferometer.metrics.scorecard import attainment_of, seen_in, view_of
from inferometer.metrics.table import DISTRIBUTIONS, column_of
from inferometer.metrics.view import Settings, View
from inferometer.run import Run
from inferometer.slo import METRICS, Condition, Slo
from inferometer.spec import Spec
from inferometer.timeline import ABSENT

Bools = npt.NDArray[np.bool_]

FLUID_SHARE = 0.99  # by the definition of fluid_token_rate
RISING = ("goodput", "request_rate", "token_rate", "total_token_rate")
SURE_MISSES = 20  # misses (or hits) from which a share shows its own dependence
STABLE = "stable"
BINS = 40  # of the in-flight series
BEHIND = 0.05  # of the requests that arrived in the window
SHOWN_P = 0.01
ALIKE = 0.01  # of the mean: TTFTs that vary by less have not queued
SURE_N = 10.0  # the most that a verdict on stability is worth
NO_INTERVAL_N = 1.0  # what a figure without an interval is worth


_ENDS = {"min": 0.0, "max": 1.0}


class Criterion(Spec, frozen=True):
    """One condition as one probe saw it: the share of `n` requests that are good, what it is worth, the level it must reach.

    `n` is 0 where there is no share of requests behind it (stability, a figure without an interval).
    """

    text: str
    level: float
    share: float
    effective_n: float
    n: int = 0

    @property
    def met(self) -> bool:
        """Whether the share, as seen, reaches the level."""
        return self.share >= self.level


class _Share(NamedTuple):
    share: float
    effective_n: float
    n: int = 0


def criteria(run: Run, slo: Slo) -> tuple[Criterion, ...]:
    """Every criterion of an SLO on a run; raises NotMeasurable where a condition cannot be judged."""
    settings = Settings(**{f"{name}_ns": ns for name, ns in slo.settings_ns.items()})
    view = view_of(run, settings)
    if not len(view):
        raise NotMeasurable("no request of the probe lies in its measured phase")
    view.attainment = attainment_of(view, slo)
    if view.attainment.unknown.any():
        raise NotMeasurable(
            f"{int(view.attainment.unknown.sum())} requests cannot be judged by {slo.text!r}: "
            "what it asks for was not measured (a scheduling delay needs a prefill curve)"
        )
    found = [_criterion(view, condition) for condition in slo.conditions]
    found += [_completed(view, found)] if not _speaks_of_failure(slo) else []
    closed = run.plan is not None and run.plan.concurrency is not None
    return tuple(found if closed else [*found, _stable(view, run)])


def check_searchable(slo: Slo) -> None:
    """Refuse an SLO that does not get harder as the load rises: it has no capacity."""
    for condition in slo.conditions:
        if condition.metric in RISING:
            raise UserError(
                f"{condition.metric} rises with the load, so that no load is the highest that meets it",
                where="--slo",
                remedy="ask for latencies, attainment or errors",
            )


def _speaks_of_failure(slo: Slo) -> bool:
    return any(c.metric in ("attainment", "error_rate") for c in slo.conditions)


def _criterion(view: View, condition: Condition) -> Criterion:
    part = view if condition.app is None else view.only(condition.app)
    text = f"[app={condition.app}] {condition.text}" if condition.app else condition.text
    if not len(part):
        raise NotMeasurable(f"no request with app={condition.app} in the probe")
    level, found = _level_and_share(part, condition)
    return Criterion(text=text, level=level, **found._asdict())


def _level_and_share(view: View, condition: Condition) -> tuple[float, _Share]:
    name, statistic = condition.metric, condition.statistic or ""
    if name == "attainment":
        assert view.attainment is not None
        return condition.bound, _share(view, view.attainment.attained)
    if name == "error_rate":
        return 1 - condition.bound, _share(view, view.ok)
    if name == "fluid_token_rate":
        least = fluidity.min_token_deadline_ns(view.timeline)
        good = (least != ABSENT) & (least <= SECOND / condition.bound)
        counted = ~(view.ok & (view.timeline.output_tokens == 1))
        return FLUID_SHARE, _share(view, good[counted])
    if statistic in _ENDS or statistic.startswith("p"):
        q = _ENDS[statistic] if statistic in _ENDS else float(statistic[1:]) / 100
        level = q if condition.op.startswith("<") else 1 - q
        gaps = DISTRIBUTIONS[name].population == "gaps"
        return level, _gap_share(view, condition) if gaps else _value_share(view, condition)
    return 0.5, _odds(view, condition)


def _value_share(view: View, condition: Condition) -> _Share:
    """The share of requests whose value keeps the bound; one that failed does not, one without gaps does not count."""
    values = column_of(view, condition.metric)
    undefined = np.isnan(values)
    kind = METRICS[condition.metric]
    if kind.external and (undefined & view.ok).any():
        raise NotMeasurable(f"{condition.metric} was not measured: give a prefill curve")
    counted = ~(undefined & view.ok)
    return _share(view, np.asarray(condition.holds(values))[counted])


def _gap_share(view: View, condition: Condition) -> _Share:
    """The share of gaps that keep the bound, worth what their requests are: a ratio estimator (Cochran 1977, 6)."""
    gaps = view.gaps
    offset = np.unique(gaps.offset)
    if not len(gaps.values):
        return _Share(0.0 if not view.ok.any() else 1.0, NO_INTERVAL_N)
    good = np.asarray(condition.holds(gaps.values / SECOND))
    share, sizes = float(good.mean()), np.diff(offset)
    pull = (tokens.sums(good, offset) - share * sizes) * (len(sizes) / len(good))
    spread = float(pull.var())
    if spread == 0:
        return _Share(share, _worth(view, len(sizes)), len(sizes))
    error = spread / _known(stats.effective_n(pull), len(sizes))
    return _Share(share, min(share * (1 - share) / error, float(len(good))), len(sizes))


def _odds(view: View, condition: Condition) -> _Share:
    """A condition without a share: the figure against its bound, worth what its interval says."""
    # `seen_in` takes the class by itself; here the view is that class already.
    seen = seen_in(view, condition._replace(app=None), intervals=True)
    if math.isnan(seen.value):
        raise NotMeasurable(f"{condition.text}: {seen.note}")
    parts = (seen.value, condition.bound)
    good = parts[0 if condition.op.startswith(">") else 1]
    share = 1.0 if not sum(parts) else 0.0 if math.isinf(seen.value) else good / sum(parts)
    if math.isnan(seen.lo) or not 0 < seen.lo < seen.hi < math.inf:
        return _Share(share, NO_INTERVAL_N)
    error = math.log(seen.hi / seen.lo) / (2 * 1.96)  # of the figure's logarithm
    return _Share(share, 1 / (share * (1 - share) * error**2), len(view))


def _completed(view: View, found: list[Criterion]) -> Criterion:
    level = max([c.level for c in found if c.level != 0.5], default=FLUID_SHARE)
    seen = _share(view, view.ok)
    return Criterion(text="completed", level=level, **seen._asdict())


def _stable(view: View, run: Run) -> Criterion:
    """Whether requests in flight (the warm-up's too) grow through the probe: past saturation they do until it ends.

    What either answer is worth is how far the growth is from the least that counts, in its own standard errors.
    """
    growing, n = False, NO_INTERVAL_N
    window = rates.arriving_window(view.timeline)
    if len(view) >= BINS and window.end_ns > window.start_ns:
        series = _in_flight(rates.in_flight(run.timeline), window)
        moved = stats.trend(series)
        large = max(float(series.mean()), BEHIND * len(view))
        shown = _z_of_p(moved.p_value)
        growing = moved.rise > large and moved.p_value < SHOWN_P
        z = shown if growing else (large / abs(moved.rise) - 1) * shown if moved.rise else math.inf
        n = min(max(_n_of_z(max(z, 0.0)), NO_INTERVAL_N), SURE_N)
    return Criterion(text=STABLE, level=0.5, share=float(not growing), effective_n=n)


def _in_flight(steps: rates.Steps, window: rates.Window) -> npt.NDArray[np.float64]:
    """Requests in flight at the middles of `BINS` equal parts of a window."""
    at = window.start_ns + (np.arange(BINS) + 0.5) * (window.end_ns - window.start_ns) / BINS
    index = np.searchsorted(steps.t_ns, at, side="right") - 1
    return np.where(index >= 0, steps.level[np.maximum(index, 0)], 0).astype(float)


def _share(view: View, good: Bools) -> _Share:
    """A share of requests in the order sent. Few misses show no dependence of their own: then that of TTFT bounds it."""
    n = len(good)
    if not n:
        return _Share(1.0, NO_INTERVAL_N)
    own = _known(stats.effective_n(good), n)
    rare = min(int(good.sum()), n - int(good.sum())) < SURE_MISSES
    return _Share(float(good.mean()), min(own, _worth(view, n)) if rare else own, n)


def _worth(view: View, n: int) -> float:
    """What n requests are worth by the dependence of their TTFTs; all, where these do not differ."""
    ttft = column_of(view, "ttft")
    ttft = ttft[np.isfinite(ttft)]
    if not len(ttft) or ttft.std() <= ALIKE * ttft.mean():
        return float(n)
    return _known(stats.effective_n(ttft), len(ttft)) / len(ttft) * n


def _known(effective_n: float, n: int) -> float:
    """A quarter of the requests where the effective n cannot be told."""
    return max(n / 4, 1.0) if math.isnan(effective_n) else effective_n


def _n_of_z(z: float) -> float:
    return z * z / (2 * math.log(2))


def _z_of_p(p: float) -> float:
    from scipy import special

    return float(-special.ndtri(max(p, 1e-16) / 2))


def latencies(run: Run) -> dict[str, Any]:
    """What the curves of a search show of a probe: TTFT and TBT, median and p99 [s]; None where there is none."""
    view = view_of(run)
    ttft = column_of(view, "ttft")
    ttft = ttft[np.isfinite(ttft)]
    out: dict[str, Any] = {}
    for name, values in (("ttft", ttft), ("tbt", view.gaps.values / SECOND)):
        for q in (50, 99):
            out[f"{name}_p{q}_s"] = float(np.quantile(values, q / 100)) if len(values) else None
    return out
