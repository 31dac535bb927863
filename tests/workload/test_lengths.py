"""Laws of the length distributions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import UserError
from inferometer.workload.draws import Stream
from inferometer.workload.lengths import (
    Empirical,
    Fixed,
    Lognormal,
    Uniform,
    Zipf,
    lengths,
)

N = 50_000


@settings(deadline=None, max_examples=30)
@given(
    st.one_of(
        st.builds(Fixed, tokens=st.integers(1, 10**6)),
        st.integers(1, 1000).flatmap(
            lambda low: st.builds(Uniform, low=st.just(low), high=st.integers(low, 5000))
        ),
        st.builds(Lognormal, median=st.floats(0.1, 1e5), sigma=st.floats(0, 3)),
        st.builds(Zipf, exponent=st.floats(0.3, 3), low=st.just(5), high=st.integers(5, 900)),
        st.builds(Empirical, values=st.lists(st.integers(1, 99), min_size=1).map(tuple)),
    ),
    st.integers(0, 9),
)
def test_every_length_is_whole_and_at_least_one(law, seed):
    """Draws are int32 of at least 1, and a function of the seed."""
    drawn = law.draw(Stream(seed, "x"), 300)
    assert drawn.dtype == np.int32
    assert drawn.shape == (300,)
    assert drawn.min() >= 1
    assert drawn.tolist() == law.draw(Stream(seed, "x"), 300).tolist()


def test_uniform_reaches_both_ends_evenly():
    """Both ends are included, as often as the middle."""
    counts = np.bincount(Uniform(low=3, high=6).draw(Stream(0, "x"), N), minlength=7)
    assert counts[:3].sum() == 0
    assert counts[3:] == pytest.approx(np.full(4, N / 4), rel=0.05)


def test_a_lognormal_has_the_median_and_the_p99_that_were_asked():
    """Given by median and p99, both come out."""
    drawn = Lognormal(median=500, p99=8000).draw(Stream(0, "x"), N)
    assert np.median(drawn) == pytest.approx(500, rel=0.03)
    assert np.percentile(drawn, 99) == pytest.approx(8000, rel=0.07)


def test_a_lognormal_has_the_mean_that_was_asked():
    """Given by mean and sigma, the mean comes out."""
    drawn = Lognormal(mean=500, sigma=0.8).draw(Stream(0, "x"), N)
    assert drawn.mean() == pytest.approx(500, rel=0.02)


def test_a_cap_gathers_what_lies_beyond_it():
    """As at a served context length, the capped share stands at the cap."""
    drawn = Lognormal(median=100, sigma=1, high=100).draw(Stream(0, "x"), N)
    assert np.mean(drawn == 100) == pytest.approx(0.5, abs=0.02)


def test_zipf_frequencies_fall_as_the_power_law_says():
    """The first length is 2^exponent as frequent as the second."""
    drawn = Zipf(exponent=1.5, low=10, high=5000).draw(Stream(0, "x"), N)
    counts = np.bincount(drawn)
    assert counts[10] / counts[11] == pytest.approx(2**1.5, rel=0.06)
    assert drawn.max() <= 5000


def test_empirical_weights_are_frequencies():
    """A value of three times the weight comes three times as often."""
    drawn = Empirical(values=(5, 9), weights=(3, 1)).draw(Stream(0, "x"), N)
    assert np.mean(drawn == 5) == pytest.approx(0.75, abs=0.01)


def test_an_empirical_file_has_one_number_a_line(tmp_path):
    """Values come from the file; a line that is no number is named."""
    file = tmp_path / "lengths.txt"
    file.write_text("7\n\n9\n")
    assert set(lengths(f"empirical:file={file}").draw(Stream(0, "x"), 50).tolist()) == {7, 9}
    file.write_text("7\nseven\n")
    with pytest.raises(UserError, match=r"lengths\.txt:2"):
        lengths(f"empirical:file={file}").draw(Stream(0, "x"), 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (256, Fixed(tokens=256)),
        ("256", Fixed(tokens=256)),
        ("uniform:low=10,high=20", Uniform(low=10, high=20)),
        ("lognormal:median=512,sigma=1", Lognormal(median=512, sigma=1)),
        ({"kind": "zipf", "exponent": 1, "high": 9}, Zipf(exponent=1, high=9)),
    ],
)
def test_every_spelling_leads_to_the_same_spec(text, expected):
    """Numbers, short forms, mappings and specs are one thing."""
    assert lengths(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "uniform:low=9,high=3",
        "lognormal:median=5",
        "lognormal:median=5,mean=5,sigma=1",
        "lognormal:mean=9,p99=5",
        "empirical",
        "about:median=3",
    ],
)
def test_a_wrong_length_is_refused_with_its_path(text):
    """A complaint names where in the input it is."""
    with pytest.raises(UserError, match=r"\$\.prompt"):
        lengths(text, where="$.prompt")
