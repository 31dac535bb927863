from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.stats import (
    batch_means,
    clustered_mean_ci,
    clustered_n,
    clustered_quantile_ci,
    effective_n,
    mean_ci,
    proportion_ci,
    quantile,
    quantile_ci,
    series_mean_ci,
    series_proportion_ci,
    series_quantile_ci,
    von_neumann_z,
)

modest = settings(deadline=None, max_examples=40)


def covers(interval, truth):
    return interval.lo <= truth <= interval.hi


@modest
@given(st.integers(1, 200), st.integers(1, 30))
def test_batch_means_use_every_value_once(n, batches):
    """Weighted by their sizes, batch means give back the mean; sizes differ by at most one."""
    x = np.arange(n, dtype=float) ** 2
    if batches > n:
        with pytest.raises(ValueError, match="batches of"):
            batch_means(x, batches)
        return
    sizes = np.diff(np.linspace(0, n, batches + 1).astype(int))
    assert np.ptp(sizes) <= 1
    assert float(batch_means(x, batches) @ sizes) == pytest.approx(x.sum())


def test_effective_n_of_known_processes(ar1):
    """An AR(1) of 0.8 is worth a ninth of its length, independent values all of it, four values cannot tell."""
    rng = np.random.default_rng(3)
    worths = [effective_n(ar1(0.8, 4000, rng)) for _ in range(30)]
    assert np.median(worths) == pytest.approx(4000 / 9, rel=0.2)
    assert effective_n(rng.normal(size=4000)) == pytest.approx(4000, rel=0.01)
    assert math.isnan(effective_n([1.0, 2.0, 3.0, 4.0]))


def test_slow_waves_under_much_noise_are_seen(ar1):
    """Neighbours hardly correlate, but batch means vary too much: the worth is a small part of the length."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=5000) * 3 + ar1(0.995, 5000, rng)
    assert effective_n(x) < 1500


def test_von_neumann_z_is_standard_normal_for_independent_values():
    """Mean 0 and standard deviation 1 over 500 series."""
    rng = np.random.default_rng(5)
    z = [von_neumann_z(rng.exponential(size=300)) for _ in range(500)]
    assert abs(np.mean(z)) < 0.2
    assert np.std(z) == pytest.approx(1, abs=0.1)


def test_intervals_cover_in_a_queue_where_iid_ones_do_not(mm1):
    """M/M/1 at half load, 5,000 requests: ours cover mean, p50 and p90 near 95 %, those of independent values about half."""
    rng = np.random.default_rng(6)
    truths = [2.0, 2 * math.log(2), 2 * math.log(10)]
    ours, iid = [], []
    for _ in range(100):
        x = mm1(0.5, 5000, rng)
        found = [series_mean_ci(x), *series_quantile_ci(x, [0.5, 0.9])]
        ours.append([covers(ci, t) for ci, t in zip(found, truths, strict=True)])
        plain = [mean_ci(x), quantile_ci(x, 0.5), quantile_ci(x, 0.9)]
        iid.append([covers(ci, t) for ci, t in zip(plain, truths, strict=True)])
    assert (np.mean(ours, axis=0) >= 0.9).all()
    assert (np.mean(iid, axis=0) <= 0.75).all()


def test_a_busy_queue_is_not_given_a_p99(mm1):
    """2,000 requests at load 0.9 are worth about ten independent ones: p99 is refused in every run."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        (p99,) = series_quantile_ci(mm1(0.9, 2000, rng), [0.99])
        assert math.isnan(p99.lo)
        assert math.isnan(p99.hi)


def test_independent_values_get_their_order_statistics():
    """Where no dependence shows, the interval is that of an independent sample, and p99 needs 368 of them."""
    rng = np.random.default_rng(8)
    same, given = [], []
    for _ in range(50):
        x = rng.exponential(size=368)
        found = [*series_quantile_ci(x, [0.5, 0.99]), *series_quantile_ci(x[:367], [0.99])]
        same.append(tuple(found[0]) == pytest.approx(tuple(quantile_ci(x, 0.5))))
        given.append([not math.isnan(ci.lo) for ci in found])
    assert np.mean(same) >= 0.85
    assert np.mean(given, axis=0)[:2] == pytest.approx([1, 0.85], abs=0.1)
    assert not np.any(given, axis=0)[2]


def test_a_run_that_knows_little_says_so_by_width(mm1):
    """At load 0.8 a thousand requests are worth about twenty: every run has an interval, wide, and most hold the truth."""
    rng = np.random.default_rng(13)
    found = [series_mean_ci(mm1(0.8, 1000, rng)) for _ in range(120)]
    assert np.isfinite(found).all()
    assert np.mean([ci.lo <= 5 <= ci.hi for ci in found]) >= 0.85
    assert np.median([ci.hi - ci.lo for ci in found]) > 3


@modest
@given(st.lists(st.integers(0, 50), min_size=1, max_size=300), st.sampled_from([0.1, 0.5, 0.9]))
def test_an_interval_contains_its_quantile_and_scales(values, q):
    """Where an interval is given it holds the sample's quantile; units and offset change nothing else."""
    (ci,) = series_quantile_ci(values, [q])
    (scaled,) = series_quantile_ci(np.array(values) * 1000 + 7, [q])
    assert math.isnan(ci.lo) == math.isnan(ci.hi) == math.isnan(scaled.lo)
    if not math.isnan(ci.lo):
        assert ci.lo <= quantile(values, q) <= ci.hi
        assert tuple(scaled) == pytest.approx((ci.lo * 1000 + 7, ci.hi * 1000 + 7))


def test_clusters_of_one_are_a_series_and_copies_add_nothing():
    """Repeating each value fifty times as a cluster leaves the interval about as it was; counting tokens narrows it 7-fold."""
    x = np.random.default_rng(9).exponential(size=1000)
    alone = series_quantile_ci(x, [0.5])[0]
    copies = clustered_quantile_ci(np.repeat(x, 50), np.arange(1001) * 50, [0.5])[0]
    assert (copies.hi - copies.lo) == pytest.approx(alone.hi - alone.lo, rel=0.2)
    naive = quantile_ci(np.repeat(x, 50), 0.5)
    assert (naive.hi - naive.lo) < (copies.hi - copies.lo) / 4


def test_clustered_intervals_cover_where_requests_differ():
    """300 requests, each with its own gap level and its own length: p50 and p90 of the pooled gaps are covered."""
    rng = np.random.default_rng(10)

    def run(requests):
        sizes = rng.integers(2, 60, requests)
        level = rng.lognormal(0, 0.5, requests)
        values = np.repeat(level, sizes) * rng.uniform(0.9, 1.1, sizes.sum())
        return values, np.r_[0, np.cumsum(sizes)]

    truth = np.quantile(run(100_000)[0], [0.5, 0.9])
    ours, naive = [], []
    for _ in range(100):
        values, offsets = run(300)
        found = clustered_quantile_ci(values, offsets, [0.5, 0.9])
        ours.append([covers(ci, t) for ci, t in zip(found, truth, strict=True)])
        naive.append(
            [covers(quantile_ci(values, q), t) for q, t in zip((0.5, 0.9), truth, strict=True)]
        )
    assert (np.mean(ours, axis=0) >= 0.88).all()
    assert (np.mean(naive, axis=0) <= 0.6).all()


def test_the_mean_of_clustered_gaps_is_a_ratio():
    """Clusters of one are a series; requests with many slow gaps are covered where an interval over tokens is not."""
    rng = np.random.default_rng(15)
    x = rng.exponential(size=500)
    assert tuple(clustered_mean_ci(x, np.arange(501))) == pytest.approx(tuple(series_mean_ci(x)))
    hits, naive = [], []
    for _ in range(150):
        sizes = rng.integers(2, 60, 300)
        values = np.repeat(sizes * rng.uniform(0.5, 1.5, 300), sizes) + rng.normal(size=sizes.sum())
        truth = np.mean(np.arange(2, 60) ** 2) / np.mean(np.arange(2, 60))
        hits.append(covers(clustered_mean_ci(values, np.r_[0, np.cumsum(sizes)]), truth))
        naive.append(covers(mean_ci(values), truth))
    assert np.mean(hits) >= 0.9
    assert np.mean(naive) <= 0.6
    assert math.isnan(clustered_mean_ci(x[:19], np.arange(20)).lo)
    assert math.isnan(clustered_mean_ci(np.r_[x, math.inf], np.arange(502)).lo)


def test_few_or_lopsided_clusters_are_refused():
    """19 requests tell nothing about requests, nor do 1,000 of which one has most of the tokens."""
    x = np.random.default_rng(11).exponential(size=19_000)
    assert math.isnan(clustered_quantile_ci(x, np.arange(20) * 1000, [0.5])[0].lo)
    lopsided = np.r_[np.arange(1000), 19_000]
    assert math.isnan(clustered_quantile_ci(x, lopsided, [0.5])[0].lo)


def test_empty_clusters_change_nothing():
    """A request without a gap has no say in the gaps."""
    x = np.random.default_rng(12).exponential(size=3000)
    offsets = np.arange(0, 3001, 10)
    holed = np.sort(np.r_[offsets, offsets[::3]])
    assert clustered_quantile_ci(x, offsets, [0.9]) == clustered_quantile_ci(x, holed, [0.9])


def test_offsets_that_do_not_cut_the_values_are_refused():
    """Offsets start at 0, end at the number of values, and do not fall."""
    for offsets in ([], [1, 3], [0, 2], [0, 2, 1, 3]):
        with pytest.raises(ValueError, match="do not cut 3 values"):
            clustered_quantile_ci([1.0, 2.0, 3.0], offsets, [0.5])


def test_no_values_and_failures():
    """Nothing has no interval; failures as +inf make the upper end infinite, and leave no mean."""
    assert math.isnan(series_quantile_ci([], [0.5])[0].lo)
    values = np.random.default_rng(13).exponential(size=1000)
    values[::9] = math.inf
    (p50, p89) = series_quantile_ci(values, [0.5, 0.88])
    assert p50.hi < math.inf == p89.hi
    assert p89.lo < math.inf
    assert math.isnan(series_mean_ci(values).lo)
    assert math.isnan(effective_n(values))


def test_constant_values_have_a_point_for_an_interval():
    """A server that always takes 20 ms has every statistic at 20 ms."""
    x = np.full(1000, 20)
    assert series_mean_ci(x) == (20, 20)
    assert series_quantile_ci(x, [0.5, 0.99]) == [(20, 20), (20, 20)]


def test_attainment_of_correlated_requests_is_less_sure(mm1):
    """Hits that come in streaks give a wider Wilson interval than as many independent ones; a cap is obeyed."""
    x = mm1(0.8, 5000, np.random.default_rng(14))
    hits = x < 10
    wide, plain = series_proportion_ci(hits), proportion_ci(hits.sum(), hits.size)
    assert wide.hi - wide.lo > 3 * (plain.hi - plain.lo)
    every = np.ones(1000, bool)
    assert tuple(series_proportion_ci(every)) == pytest.approx(tuple(proportion_ci(1000, 1000)))
    capped = series_proportion_ci(every, at_most=40)
    assert tuple(capped) == pytest.approx(tuple(proportion_ci(40, 40)))
    assert math.isnan(series_proportion_ci(every, at_most=math.nan).lo)


def test_effective_n_of_clusters_needs_a_quantile():
    """Pooled values have no single worth."""
    with pytest.raises(ValueError, match="give q"):
        effective_n([1.0, 2.0], offsets=[0, 2])


def test_clusters_that_are_alike_within_are_worth_one_each():
    """Identical values in each cluster: as many as there are clusters; independent ones: as many as there are values."""
    rng = np.random.default_rng(11)
    offsets = np.arange(301) * 20
    alike = np.repeat(rng.exponential(size=300), 20)
    assert clustered_n(alike, offsets, 0.9) == pytest.approx(300, rel=0.02)
    apart = rng.exponential(size=6000)
    assert clustered_n(apart, offsets, 0.9) == pytest.approx(6000, rel=0.2)
    assert clustered_n(apart, np.arange(6001), 0.9) == pytest.approx(6000, rel=0.02)


def test_few_or_uneven_clusters_are_worth_no_more_than_their_number():
    """Kish's count: ten equal ones are ten, one that holds nearly everything is about one, none are none."""
    x = np.random.default_rng(12).exponential(size=1000)
    assert clustered_n(x, np.arange(11) * 100, 0.5) == pytest.approx(10)
    assert clustered_n(x, np.r_[0, np.arange(970, 1001)], 0.5) == pytest.approx(1.06, abs=0.02)
    assert clustered_n(x[:0], np.zeros(1, int), 0.5) == 0
