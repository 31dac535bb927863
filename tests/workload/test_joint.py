"""Quantile tables and copulas keep what they are made from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from inferometer.workload.draws import Stream
from inferometer.workload.joint import LEVELS, Joint, fit_joint, quantile_table, read_table


def _clusters(n=30_000):
    """Prompts and outputs without rank correlation that depend strongly: short answers to both long and short prompts."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, n)
    prompt = np.choose(
        kind, [rng.integers(10, 90, n), rng.integers(900, 1100, n), rng.integers(5000, 9000, n)]
    )
    output = np.choose(
        kind, [rng.integers(5, 10, n), rng.integers(400, 900, n), rng.integers(5, 10, n)]
    )
    return prompt, output


def test_marginals_and_ratio_are_those_of_the_source():
    """KS below 0.02 for prompt and output, 0.03 for their ratio, with dependence that no rank correlation sees."""
    prompt, output = _clusters()
    pair = fit_joint(prompt, output).draw(Stream(0, "x"), 50_000)
    assert stats.ks_2samp(pair.prompt, prompt).statistic < 0.02
    assert stats.ks_2samp(pair.output, output).statistic < 0.02
    assert stats.ks_2samp(pair.prompt / pair.output, prompt / output).statistic < 0.03


def test_independent_draws_miss_the_ratio():
    """Without the copula the marginals hold and the ratio does not: why there is a copula."""
    prompt, output = _clusters()
    pair = fit_joint(prompt, output, independent=True).draw(Stream(0, "x"), 50_000)
    assert stats.ks_2samp(pair.output, output).statistic < 0.02
    assert stats.ks_2samp(pair.prompt / pair.output, prompt / output).statistic > 0.1


def test_the_copula_sums_to_ten_thousand_and_its_rows_are_even():
    """Whole weights, and as much in each twentieth of the prompts."""
    copula = np.array(fit_joint(*_clusters()).copula)
    assert copula.shape == (20, 20)
    assert copula.sum() == 10_000
    assert copula.sum(axis=1) == pytest.approx(np.full(20, 500), abs=12)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=300), st.integers(0, 5))
def test_draws_stay_within_the_source(values, seed):
    """No length beyond the observed range is invented, but that 0 becomes 1."""
    pair = fit_joint(values, values[::-1]).draw(Stream(seed, "x"), 100)
    assert pair.prompt.min() >= max(1, min(values))
    assert pair.prompt.max() <= max(1, *values)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=300))
def test_reading_a_table_at_its_levels_gives_its_values(values):
    """Reading is the inverse of making, at the levels."""
    table = quantile_table(values)
    assert read_table(table, LEVELS) == pytest.approx(np.array(table, dtype=float))


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": tuple(range(104))[::-1]},
        {"copula": ((1,),)},
        {"copula": tuple(tuple([0] * 20) for _ in range(20))},
        {"copula": tuple(tuple([-1] * 20) for _ in range(20))},
    ],
)
def test_a_broken_table_is_refused(change):
    """Falling quantiles and copulas that are no grid never get as far as a plan."""
    with pytest.raises(ValueError, match=r"quantile|copula"):
        Joint(**{"prompt": tuple(range(104)), "output": tuple(range(104))} | change)
