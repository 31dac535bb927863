"""A trace counted batch by batch says what the same trace says when it is read whole."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.workload import burstiness, describe, profile_of, read_trace, tallied
from inferometer.workload import tally as tallies
from inferometer.workload.burstiness import WINDOWS_S, Pace, gap_cv, idc
from inferometer.workload.tally import Distribution, Uncountable, read_or_tally
from inferometer.workload.traces import Trace, read_batches, tables


def _trace(times, prompt, output, **more):
    lengths = np.array(prompt, np.int32), np.array(output, np.int32)
    return Trace("azure", "x.csv", *lengths, np.array(times, np.int64), **more)


def _split(trace, cuts):
    edges = [0, *sorted(cuts), len(trace)]
    return [
        _trace(trace.arrival_ns[a:b], trace.prompt_tokens[a:b], trace.output_tokens[a:b])
        for a, b in pairwise(edges)
    ]


def _some(rows=5000, seed=0):
    rng = np.random.default_rng(seed)
    prompt, output = rng.lognormal(6, 1, rows).astype(int), rng.lognormal(3, 1, rows).astype(int)
    return _trace(np.cumsum(rng.exponential(SECOND / 3, rows)).astype(np.int64), prompt, output)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 3000), max_size=6), st.integers(0, 99))
def test_whatever_the_batches_are_the_pace_is_that_of_the_whole(cuts, seed):
    """CV and dispersion at every window, and the rate over time, do not depend on where batches end."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 900 * SECOND, 3000)) // 1000 * 1000
    pace = Pace()
    for part in np.split(times, sorted(cuts)):
        pace.add(part)
    seconds = (times - times[0]) / SECOND
    assert pace.cv == pytest.approx(gap_cv(seconds), rel=1e-9)
    for window in WINDOWS_S:
        assert pace.idc(window) == pytest.approx(idc(seconds, window), rel=1e-9)
    rate = pace.rate()
    assert rate.arrivals.sum() == 3000
    assert np.all(np.diff(rate.place) > 0)
    counts = np.bincount((seconds // 10).astype(int))
    assert rate.coarser(10).arrivals.tolist() == counts[counts > 0].tolist()
    assert rate.squared_gaps.sum() == pytest.approx((np.diff(seconds) ** 2).sum())


def test_the_rate_over_time_stays_small_however_long_it_is(monkeypatch):
    """Where windows would become many they become wider; the dispersion at one second is still known."""
    monkeypatch.setattr(burstiness, "_MOST_WINDOWS", 1000)
    pace, times = Pace(), np.arange(0, 20_000 * SECOND, 7 * SECOND)
    for part in np.array_split(times, 50):
        pace.add(part)
    assert len(pace.rate().place) <= 1000
    assert pace.rate().arrivals.sum() == len(times)
    assert pace.idc(1) == pytest.approx(idc(times / SECOND, 1))


def test_dispersion_does_not_hang_on_one_stamp_that_is_years_away():
    """Windows without arrivals take no memory: two stamps 50 years apart are counted at once."""
    assert idc(np.array([0.0, 1.0, 1.6e9]), 1) == pytest.approx(1.0, rel=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_from_counts_are_numpys(values, level):
    """Counting loses nothing: quantiles, mean and deviation of single values."""
    counted = Distribution.of(np.array(values))
    assert len(counted) == len(values)
    assert counted.quantile([level])[0] == pytest.approx(np.quantile(values, level))
    assert counted.mean == pytest.approx(np.mean(values))
    if len(values) > 1:
        assert counted.deviation == pytest.approx(np.std(values, ddof=1))


def test_a_counted_trace_is_described_like_the_whole(monkeypatch):
    """Lengths and arrivals to the last digit, ratios to a 16,000th, with the same keys."""
    monkeypatch.setattr(tallies, "_MOST_PAIRS", 1000)
    monkeypatch.setattr(tallies, "_DENSE", 1000)
    trace = _some()
    whole, counted = describe(trace), describe(tallied(_split(trace, [7, 7, 1200, 4321])))
    assert counted.keys() == whole.keys()
    for name in ("rows", "kind", "format", "without_output", "intervals"):
        assert counted[name] == whole[name]
    for name in ("prompt_tokens", "output_tokens"):
        assert counted[name]["p99"] == whole[name]["p99"]
        assert counted[name]["mean"] == pytest.approx(whole[name]["mean"])
        assert counted["curves"][name] == whole["curves"][name]
    for name in ("p25", "p50", "p75", "p90", "p99", "max"):
        assert counted["pd_ratio"][name] == pytest.approx(whole["pd_ratio"][name], rel=1 / 16_000)
    assert counted["pd_ratio"]["ci"]["p50"] == pytest.approx(
        whole["pd_ratio"]["ci"]["p50"], rel=0.02
    )
    assert counted["arrivals"]["idc"] == pytest.approx(whole["arrivals"]["idc"])
    assert counted["arrivals"]["cv"] == pytest.approx(whole["arrivals"]["cv"])
    assert counted["spearman"] == pytest.approx(whole["spearman"], abs=0.1)


def test_ticks_are_spread_as_in_the_whole():
    """A tick that is cut by the end of a batch is spread as if it were not."""
    times = np.repeat(np.arange(200) * 3 * SECOND, 15)
    trace = _trace(times, np.full(3000, 9), np.full(3000, 9))
    whole = describe(trace)["arrivals"]
    counted = describe(tallied(_split(trace, [1000, 1003, 2995, 2999])))["arrivals"]
    assert whole["tick_s"] == counted["tick_s"] == 3
    assert counted["cv"] == pytest.approx(whole["cv"])
    assert counted["cv_as_stamped"] == pytest.approx(whole["cv_as_stamped"])
    assert counted["idc"] == pytest.approx(whole["idc"])


def test_a_counted_trace_makes_a_profile_like_the_whole():
    """The same quantile tables, nearly the same copula, the same rate, a CV of the same process."""
    rng = np.random.default_rng(1)
    busy = np.cumsum(rng.exponential(SECOND / 100, 12_000))
    quiet = busy[-1] + np.cumsum(rng.exponential(SECOND / 20, 8_000))
    times = np.concatenate([busy, quiet]).astype(np.int64)
    prompt = rng.lognormal(6, 1, 20_000).astype(int) + 1
    trace = _trace(times, prompt, prompt // 7 + 1)
    counted = profile_of(tallied(_split(trace, [9, 14_444])), "x").clients[0]
    whole = profile_of(trace, "x").clients[0]
    assert counted.lengths.prompt == whole.lengths.prompt
    assert counted.lengths.output == whole.lengths.output
    assert counted.lengths.copula[19][19] == pytest.approx(whole.lengths.copula[19][19], rel=0.1)
    assert counted.arrivals.mean_rate == pytest.approx(whole.arrivals.mean_rate, rel=0.02)
    assert counted.arrivals.cv == pytest.approx(1.0, abs=0.05)
    untimed = Trace("etalon", "x", trace.prompt_tokens, trace.output_tokens)
    assert profile_of(tallied([untimed]), "x").clients[0].arrivals is None


def test_what_cannot_be_counted_is_read_whole(tmp_path, monkeypatch):
    """A long table is counted; one that falls back in time, or is short, is read; an empty one is refused."""
    monkeypatch.setattr(tables, "_BLOCK_BYTES", 400)
    head = "arrival_s,prompt_tokens,output_tokens\n"
    rows = [f"{k},{k + 1},2\n" for k in range(200)]
    ordered, fallen, empty = (tmp_path / name for name in ("a.csv", "b.csv", "c.csv"))
    ordered.write_text(head + "".join(rows))
    fallen.write_text(head + "".join(rows[100:] + rows[:100]))
    empty.write_text(head)
    assert isinstance(read_or_tally(ordered), Trace)
    monkeypatch.setattr(tallies, "LONG_BYTES", 1)
    assert not isinstance(read_or_tally(ordered), Trace)
    assert describe(read_or_tally(fallen)) == describe(read_trace(fallen))
    with pytest.raises(Uncountable):
        tallied(read_batches(fallen))
    with pytest.raises(UserError, match="no rows"):
        read_or_tally(empty)
