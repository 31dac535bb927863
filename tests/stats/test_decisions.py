from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from inferometer.stats import (
    Interval,
    equivalence_p,
    gate,
    holm,
    look_levels,
    precise_enough,
    spent,
    t_p_value,
)

modest = settings(deadline=None, max_examples=60)


def test_holm_of_a_textbook_case():
    """Step-down: 0.01·4, 0.02·3, 0.03·2 (not below the former), 0.04."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == []


@modest
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_lies_between_raw_and_bonferroni(p):
    """Adjusted values are never below the raw, never above Bonferroni's, and keep the order."""
    adjusted = np.array(holm(p))
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= np.minimum(np.array(p) * len(p), 1) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_holm_bounds_the_family_error():
    """Ten true nulls at once: at most about 5 % of 2,000 families see any rejected."""
    p = np.random.default_rng(1).uniform(size=(2000, 10))
    assert np.mean([min(holm(row)) < 0.05 for row in p]) == pytest.approx(0.05, abs=0.015)


@modest
@given(st.floats(-3, 3), st.floats(0.1, 2), st.integers(2, 60))
def test_equivalence_is_the_interval_inside_the_margin(difference, error, dof):
    """p < 5 % exactly where the 90 % interval lies inside the margin."""
    t = scipy_stats.t.ppf(0.95, dof)
    inside = difference - t * error > -2 and difference + t * error < 2
    p = equivalence_p(difference, error, dof, Interval(-2, 2))
    if abs(p - 0.05) > 1e-9:
        assert (p < 0.05) == inside


def test_equivalence_without_error_is_a_plain_comparison():
    """A difference known exactly is inside the margin or not."""
    assert equivalence_p(1, 0, 5, Interval(-2, 2)) == 0
    assert equivalence_p(3, 0, 5, Interval(-2, 2)) == 1


def test_gate_has_three_outcomes():
    """Beyond what is allowed, within it, or not shown; an interval that cannot be given shows nothing."""
    assert gate(Interval(0.06, 0.09), 0.05) == "regression"
    assert gate(Interval(-0.01, 0.04), 0.05) == "equivalent"
    assert gate(Interval(0.01, 0.09), 0.05) == "not shown"
    assert gate(Interval(math.nan, math.nan), 0.05) == "not shown"


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock", "even"])
def test_alpha_is_spent_once_and_in_order(spending):
    """Nothing at the start, all of it at the end, never less later."""
    at = [spent(f, 0.05, spending) for f in np.linspace(0, 1, 21)]
    assert at[0] == 0
    assert at[-1] == pytest.approx(0.05)
    assert (np.diff(at) >= 0).all()
    with pytest.raises(ValueError, match="fraction"):
        spent(1.2)


def test_obrien_fleming_is_stingy_early():
    """Half way it has spent 0.3 % of 5 % (Lan & DeMets 1983)."""
    assert spent(0.5, 0.05, "obrien-fleming") == pytest.approx(0.00557, abs=2e-5)


def test_looking_five_times_keeps_the_level():
    """Stopping at the first narrow or any other look, all five intervals of one growing sample cover together."""
    rng = np.random.default_rng(2)
    looks = [0.2, 0.4, 0.6, 0.8, 1.0]
    levels = look_levels(looks, 0.95)
    assert sum(1 - level for level in levels) == pytest.approx(0.05)
    sizes = [int(500 * f) for f in looks]
    means = np.cumsum(rng.normal(size=(4000, 500)), axis=1)[:, np.array(sizes) - 1] / sizes
    z = scipy_stats.norm.ppf((1 + np.array(levels)) / 2)
    together = (np.abs(means) * np.sqrt(sizes) <= z).all(axis=1).mean()
    peeking = (np.abs(means) * np.sqrt(sizes) <= 1.96).all(axis=1).mean()
    assert together >= 0.95
    assert peeking < 0.9


def test_looks_must_be_declared_in_order():
    """They rise to 1."""
    for looks in ([], [0.5], [0.5, 0.5, 1.0], [0.0, 1.0]):
        with pytest.raises(ValueError, match="looks rise"):
            look_levels(looks)


def test_precision_is_of_the_half_width():
    """±5 % of 100 is an interval of 10; an unknown interval is never precise."""
    assert precise_enough(100, Interval(95, 105), 0.05)
    assert not precise_enough(100, Interval(94, 105), 0.05)
    assert not precise_enough(100, Interval(math.nan, math.nan), 0.05)


def test_t_p_value_is_students():
    """Scipy's; and certain where there is no error."""
    assert t_p_value(1.5, 0.7, 9) == pytest.approx(2 * scipy_stats.t.sf(1.5 / 0.7, 9))
    assert t_p_value(1, 0, 9) == 0
    assert t_p_value(0, 0, 9) == 1
