"""How bursty arrivals are: the CV of gaps, and the index of dispersion at several windows.

IDC(w) is the variance of the number of arrivals in a window of w seconds over its mean; 1 at every w for a Poisson
process. One CV cannot describe a bursty trace: Azure's code trace has a CV of 13, and with gamma gaps of that CV an IDC
of 77 at one second, where the trace has 13. (Cox and Lewis, The Statistical Analysis of Series of Events, 1966, 4.5.)
"""

from __future__ import annotations

import math

import numpy as np

from inferometer.workload.draws import Floats

WINDOWS_S = (1, 10, 60, 300)


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
    if windows < 2:
        return math.nan
    place = ((times_s - start) / window_s).astype(np.int64)
    counts = np.bincount(place[place < windows], minlength=windows)
    return float(counts.var() / counts.mean()) if counts.any() else math.nan
