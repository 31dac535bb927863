"""How sure are we: pure functions from arrays to estimates, intervals and verdicts, each with its source.

    intervals    independent samples: order statistics, Student's t, Wilson, Clopper-Pearson
    series       values that share a queue, and values clustered by request: effective n, batch means, quantiles
    steady       warm-up and drain cut (MSER-5), trend (Mann-Kendall with Hamed-Rao), "no steady state"
    resampling   block bootstrap, permutation over blocks
    compare      shift function, ratio, Hodges-Lehmann, where CDFs cross, pairs by request id
    decisions    Holm, equivalence, gates, declared looks
    monotone     isotonic regression, the boundary of a noisy monotone curve
    planning     from a pilot to the length of a run

numpy in, plain values out; no I/O, no clocks, no other module of the package but errors. What an interval covers on
queues with known truth is measured by benchmarks/coverage.py, what the steady-state verdict errs by benchmarks/steady_state.py.
"""

from inferometer.stats.compare import (
    CURVE,
    DECILES,
    Crossing,
    Sample,
    Shift,
    alike,
    common,
    crossings,
    difference_ci,
    hodges_lehmann,
    ratio_ci,
    shift_function,
)
from inferometer.stats.decisions import (
    equivalence_p,
    gate,
    holm,
    look_levels,
    precise_enough,
    spent,
    t_p_value,
)
from inferometer.stats.intervals import (
    UNKNOWN,
    Components,
    Interval,
    mean_ci,
    needed_n,
    proportion_ci,
    quantile,
    quantile_ci,
    variance_components,
)
from inferometer.stats.monotone import Boundary, Probe, boundary, isotonic, sharpened, smoothed
from inferometer.stats.planning import RunLength, requests_for_mean, requests_for_quantile
from inferometer.stats.resampling import (
    block_bootstrap_ci,
    block_length,
    permutation_p,
    sign_flip_p,
)
from inferometer.stats.series import (
    batch_means,
    clustered_mean_ci,
    clustered_n,
    clustered_quantile_ci,
    effective_n,
    series_mean_ci,
    series_proportion_ci,
    series_quantile_ci,
    von_neumann_z,
)
from inferometer.stats.steady import (
    Movement,
    SteadyState,
    Trend,
    moving,
    mser5,
    steady_state,
    trend,
    warm_up,
)

__all__ = [
    "CURVE",
    "DECILES",
    "UNKNOWN",
    "Boundary",
    "Components",
    "Crossing",
    "Interval",
    "Movement",
    "Probe",
    "RunLength",
    "Sample",
    "Shift",
    "SteadyState",
    "Trend",
    "alike",
    "batch_means",
    "block_bootstrap_ci",
    "block_length",
    "boundary",
    "clustered_mean_ci",
    "clustered_n",
    "clustered_quantile_ci",
    "common",
    "crossings",
    "difference_ci",
    "effective_n",
    "equivalence_p",
    "gate",
    "hodges_lehmann",
    "holm",
    "isotonic",
    "look_levels",
    "mean_ci",
    "moving",
    "mser5",
    "needed_n",
    "permutation_p",
    "precise_enough",
    "proportion_ci",
    "quantile",
    "quantile_ci",
    "ratio_ci",
    "requests_for_mean",
    "requests_for_quantile",
    "series_mean_ci",
    "series_proportion_ci",
    "series_quantile_ci",
    "sharpened",
    "shift_function",
    "sign_flip_p",
    "smoothed",
    "spent",
    "steady_state",
    "t_p_value",
    "trend",
    "variance_components",
    "von_neumann_z",
    "warm_up",
]
