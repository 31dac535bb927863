"""Rate tables and operational CVs of known processes."""

import numpy as np
import pytest

from inferometer.clock import SECOND
from inferometer.workload.arrivals import Gamma, Poisson, Table
from inferometer.workload.burstiness import WINDOWS_S, gap_cv, idc
from inferometer.workload.draws import Stream
from inferometer.workload.fitting import fit_arrivals


def _times(process, seconds, seed=0):
    return process.draw(Stream(seed, "a"), None, seconds * SECOND) / SECOND


def test_a_poisson_process_has_an_idc_and_a_cv_of_one():
    """At every window, and for the gaps."""
    times = _times(Poisson(rate=20), 4000)
    assert gap_cv(times) == pytest.approx(1, rel=0.02)
    for window in (1, 10, 60):
        assert idc(times, window) == pytest.approx(1, abs=4 * np.sqrt(2 * window / 4000))


def test_too_little_has_no_burstiness():
    """Fewer than two windows, or fewer than three arrivals: undefined, never 0."""
    times = np.array([0.0, 1.0, 2.0])
    assert np.isnan(idc(times, 5))
    assert np.isnan(idc(np.zeros(0), 1))
    assert np.isnan(gap_cv(times[:2]))


@pytest.mark.parametrize(
    "process",
    [
        Poisson(rate=8),
        Gamma(rate=8, cv=2.5),
        Table(counts=(600, 60, 900, 300, 5, 400), every_s=120, cv=2.0),
    ],
    ids=["poisson", "gamma", "changing"],
)
def test_what_is_fitted_is_as_bursty_as_its_source(process):
    """Dispersion drawn is the source's at each window, to 25 % and what that many windows can know; and so is the rate."""
    source = _times(process, 1800)
    span = float(source[-1])
    table = fit_arrivals(source)
    drawn = [_times(table, round(span), seed) for seed in range(1, 7)]
    assert np.mean([len(times) for times in drawn]) == pytest.approx(len(source), rel=0.05)
    for window in WINDOWS_S[:3]:
        mean = np.mean([idc(times, window, span) for times in drawn])
        within = 0.25 + 3 * np.sqrt(2 * window / span)
        assert mean == pytest.approx(idc(source, window), rel=within), window


def test_a_source_too_short_for_a_table_has_one_rate():
    """Ten requests in a second: their rate and their CV."""
    table = fit_arrivals(np.arange(10) / 10)
    assert len(table.counts) == 1
    assert table.mean_rate == pytest.approx(10 / 0.9)


def test_a_source_watched_for_longer_keeps_its_idle_time():
    """Active in the first of six hours: the table covers all six."""
    table = fit_arrivals(_times(Poisson(rate=1), 3600), span_s=6 * 3600.0)
    assert len(table.counts) * table.every_s == pytest.approx(6 * 3600, rel=0.05)
    assert table.mean_rate == pytest.approx(1 / 6, rel=0.15)
