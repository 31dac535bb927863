from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from inferometer.stats import (
    block_bootstrap_ci,
    block_length,
    permutation_p,
    sign_flip_p,
)


def test_block_length_grows_with_dependence(ar1):
    """1 to a few for independent values; about the formula's value for an AR(1); at most a tenth of the series."""
    rng = np.random.default_rng(1)
    assert np.median([block_length(rng.normal(size=2000)) for _ in range(20)]) <= 6
    phi, n = 0.7, 4000
    slope, level = 2 * phi / (1 - phi) ** 2, (1 + phi) / (1 - phi)
    ideal = (2 * slope**2 / (2 * level**2)) ** (1 / 3) * n ** (1 / 3)
    assert np.median([block_length(ar1(phi, n, rng)) for _ in range(20)]) == pytest.approx(
        ideal, rel=0.35
    )
    assert block_length(np.arange(1000.0)) <= 100
    assert block_length(np.ones(100)) == 1


def test_block_bootstrap_covers_a_correlated_mean(ar1):
    """AR(1) of 0.6: the interval of the mean covers about 95 %; the same data and seed give the same interval."""
    rng = np.random.default_rng(2)
    runs = [ar1(0.6, 1500, rng) for _ in range(40)]
    found = [block_bootstrap_ci(x, np.mean, draws=199)[0] for x in runs]
    assert np.mean([ci.lo <= 0 <= ci.hi for ci in found]) >= 0.85
    assert found[0] == block_bootstrap_ci(runs[0], np.mean, draws=199)[0]
    theory = 2 * 1.96 * math.sqrt(4 / 1500)
    assert np.median([ci.hi - ci.lo for ci in found]) == pytest.approx(theory, rel=0.2)


def test_bootstrap_of_too_little_is_refused():
    """Fifteen rows are too few for any statistic, of which each gets its own NaN."""
    found = block_bootstrap_ci(np.arange(15.0), lambda x: [x.mean(), x.max()])
    assert len(found) == 2
    assert all(math.isnan(ci.lo) for ci in found)


def test_permutation_is_exact_for_few_blocks():
    """Three blocks against three that all lie higher: 2 of 20 arrangements are as far apart; as scipy's."""
    a, b = [1.0, 2.0, 3.0], [4.0, 5.0, 6.5]
    assert permutation_p(a, b) == pytest.approx(2 / 20)
    theirs = scipy_stats.permutation_test(
        (a, b), lambda x, y: abs(np.mean(x) - np.mean(y)), alternative="greater"
    )
    assert permutation_p(a, b) == pytest.approx(theirs.pvalue)


def test_permutation_by_drawing_agrees_with_a_t_test():
    """With twenty blocks a side the drawn p-value is near Student's, and a statistic may be chosen."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 20), rng.normal(0.6, 1, 20)
    assert permutation_p(a, b, draws=1999) == pytest.approx(
        scipy_stats.ttest_ind(a, b).pvalue, abs=0.03
    )
    assert permutation_p(a, a + 10, np.median, draws=199) == pytest.approx(1 / 200)


def test_sign_flips_are_exact_for_few_pairs():
    """Five pairs that all favour one side: 2 of 32 sign patterns are as far; no difference has p = 1."""
    assert sign_flip_p([1.0, 2.0, 0.5, 3.0, 1.5]) == pytest.approx(2 / 32)
    assert sign_flip_p([1.0, -1.0, 2.0, -2.0]) == 1


def test_sign_flips_by_drawing_agree_with_a_t_test():
    """Thirty pairs: near the paired t test."""
    d = np.random.default_rng(4).normal(0.4, 1, 30)
    assert sign_flip_p(d, draws=3999) == pytest.approx(
        scipy_stats.ttest_1samp(d, 0).pvalue, abs=0.02
    )


def test_permutation_is_uniform_under_no_difference():
    """Under the null at most about alpha of p-values are below alpha."""
    rng = np.random.default_rng(5)
    p = [permutation_p(rng.exponential(size=4), rng.exponential(size=4)) for _ in range(200)]
    assert np.mean(np.array(p) <= 0.1) <= 0.15
