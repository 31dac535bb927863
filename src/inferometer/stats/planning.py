"""How long must a run be? From a pilot to the number of requests for a stated precision.

Knows a pilot's values in order (or clusters). The interval of a quantile has the half width z √(q(1 - q)/n_eff) / f(x_q)
(Bahadur 1966; Woodruff 1952), so what is needed of a pilot is its effective n per request and the density at the quantile.
In the tail the density comes from the mean excess over p75 to p90, whichever lies below the quantile (exponential tail;
Pickands 1975), as a pilot is too short to show it directly. A pilot of a busy queue knows its efficiency within a factor
of two, and a heavier tail needs more than is said here: plan again after the first real run.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from inferometer.stats.intervals import (
    at_rank,
    needed_n,
    normal_quantile,
    sorted_values,
    t_quantile,
)
from inferometer.stats.series import BATCHES, FEWEST, effective_n


class RunLength(NamedTuple):
    """Requests needed, the effective n they give, and whether precision asks for them or the interval's existence."""

    requests: int
    effective_n: int
    because: Literal["precision", "existence"]


def requests_for_quantile(
    pilot: npt.ArrayLike,
    q: float,
    precision: float,
    level: float = 0.95,
    offsets: npt.ArrayLike | None = None,
) -> RunLength | None:
    """Requests for an interval of quantile `q` within ±`precision` of its value; None if the pilot cannot tell.

    pilot: values in the order sent (with `offsets`, pooled from requests). The efficiency is taken where the pilot knows
    it: at `q`, or at p90 (p10) for a quantile further out.
    """
    values = np.asarray(pilot)
    requests = values.size if offsets is None else np.size(offsets) - 1
    worth = effective_n(values, min(max(q, 0.1), 0.9), offsets)
    if not worth > 0:
        return None
    ordered = sorted_values(values)
    at, sparsity = _quantile_and_sparsity(ordered, q)
    if not (at > 0 and math.isfinite(sparsity)):
        return None
    dependent = worth < ordered.size
    plain = normal_quantile((1 + level) / 2)
    z = t_quantile((1 + level) / 2, BATCHES - 1) if dependent else plain
    precise = q * (1 - q) * (z * sparsity / (precision * at)) ** 2
    return _length(precise, needed_n(q, level) * (z / plain) ** 2, requests / worth)


def requests_for_mean(
    pilot: npt.ArrayLike, precision: float, level: float = 0.95
) -> RunLength | None:
    """Requests for an interval of the mean within ±`precision` of its value; None if the pilot cannot tell."""
    x = np.asarray(pilot, float)
    worth, mean = effective_n(x), float(x.mean()) if x.size else math.nan
    if not (worth > 0 and mean != 0):
        return None
    z = t_quantile((1 + level) / 2, BATCHES - 1)
    return _length(
        float(x.var()) * (z / (precision * mean)) ** 2, FEWEST * worth / x.size, x.size / worth
    )


def _length(precise: float, exists: float, requests_per_effective: float) -> RunLength:
    need = max(precise, exists)
    because: Literal["precision", "existence"] = "precision" if precise > exists else "existence"
    requests = max(math.ceil(need * requests_per_effective), FEWEST)
    return RunLength(requests, math.ceil(need), because)


def _quantile_and_sparsity(ordered: npt.NDArray[Any], q: float) -> tuple[float, float]:
    """The quantile, and dx/dq there: by a symmetric difference inside the sample, by mean excess in its upper tail."""
    n = ordered.size
    if q <= 0.9:
        h = min(q, 1 - q, max(n ** (-1 / 3), 2 / n)) / 2
        lo, at, hi = (float(v) for v in at_rank(ordered, np.array([q - h, q, q + h]) * (n - 1)))
        return at, (hi - lo) / (2 * h)
    base = 0.9 if n >= 200 else 0.75
    over = float(at_rank(ordered, base * (n - 1)))
    excess = ordered[ordered > over].astype(float) - over
    scale = float(excess.mean()) if excess.size else 0.0
    return over + scale * math.log((1 - base) / (1 - q)), scale / (1 - q)
