"""From estimates to decisions: several tests at once, equivalence, and looking more than once.

Knows p-values, intervals and margins; never what they measure.
Rule: "not shown" is an outcome of its own. The absence of a difference is shown by an interval inside a margin that was
declared before, never by a large p-value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from inferometer.stats.intervals import Interval, normal_quantile

Verdict = Literal["regression", "equivalent", "not shown"]
Spending = Literal["obrien-fleming", "pocock", "even"]


def holm(p_values: npt.ArrayLike) -> list[float]:
    """p-values adjusted so that testing all of them at alpha errs at most once with chance alpha (Holm 1979)."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (p.size - np.arange(p.size)))
    adjusted = np.empty(p.size)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(v) for v in adjusted]


def equivalence_p(difference: float, standard_error: float, dof: float, margin: Interval) -> float:
    """p-value of "the true difference lies outside `margin`": two one-sided t tests (Schuirmann 1987, TOST)."""
    from scipy import special

    if standard_error == 0:
        return 0.0 if margin.lo < difference < margin.hi else 1.0
    below = special.stdtr(dof, -(difference - margin.lo) / standard_error)
    above = special.stdtr(dof, -(margin.hi - difference) / standard_error)
    return float(max(below, above))


def gate(change: Interval, allowed: float) -> Verdict:
    """Whether a change for the worse beyond `allowed` is shown, excluded, or neither.

    change: a two-sided interval of level 1 - 2 alpha (90 % for alpha = 5 %) of how much worse it is, in the unit of
    `allowed`; its ends are then one-sided tests of size alpha each (the interval form of TOST, for one side).
    """
    if change.lo > allowed:
        return "regression"
    if change.hi <= allowed:
        return "equivalent"
    return "not shown"


def spent(fraction: float, alpha: float = 0.05, spending: Spending = "obrien-fleming") -> float:
    """How much of `alpha` may be spent once `fraction` of the information is in (Lan & DeMets 1983, Biometrika 70)."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"a fraction of the planned information, not {fraction}")
    if spending == "even":
        return alpha * fraction
    if spending == "pocock":
        return alpha * math.log(1 + (math.e - 1) * fraction)
    if fraction == 0:
        return 0.0
    z = normal_quantile(1 - alpha / 2) / math.sqrt(fraction)
    return 2 * (1 - _normal_cdf(z))


def look_levels(
    fractions: Sequence[float], level: float = 0.95, spending: Spending = "pocock"
) -> list[float]:
    """The level at which to compute the interval at each declared look, so that all of them hold together at `level`.

    fractions: the planned looks as shares of the largest sample, rising, the last one 1. Each look gets what the
    spending function frees (a union bound): safe for any statistic and any dependence between looks, and wider by a
    few per cent than boundaries that assume normal increments. The default spends evenly in the logarithm, as a run
    that stops once its interval is narrow may stop anywhere.
    """
    if not fractions or fractions[-1] != 1 or any(np.diff([0.0, *fractions]) <= 0):
        raise ValueError(f"looks rise from above 0 to 1, not {list(fractions)}")
    alpha = 1 - level
    so_far = [0.0, *(spent(f, alpha, spending) for f in fractions)]
    return [1 - float(freed) for freed in np.diff(so_far)]


def precise_enough(estimate: float, interval: Interval, relative: float) -> bool:
    """Whether the interval's half width is within `relative` of the estimate; False where it cannot be given."""
    half = (interval.hi - interval.lo) / 2
    return half <= relative * abs(estimate)


def t_p_value(difference: float, standard_error: float, dof: float) -> float:
    """Two-sided p-value of "no difference" by Student's t."""
    from scipy import special

    if standard_error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * special.stdtr(dof, -abs(difference) / standard_error))


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))
