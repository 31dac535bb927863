"""What is said of traces, profiles and plans, and how sure of it."""

import json

import numpy as np
import pytest

from inferometer.workload import WorkloadSpec, describe, load_profile, make_plan, read_trace
from inferometer.workload.describe import quantiles
from inferometer.workload.sessions import Sessions

Q = {"mean", "p25", "p50", "p75", "p90", "p99", "max", "iqr", "ci"}


def _check_shape(told):
    for name in ("prompt_tokens", "output_tokens", "pd_ratio"):
        assert set(told[name]) == Q
        assert set(told[name]["ci"]) == Q - {"max", "ci"}
    assert set(told["arrivals"]) >= {"rate_per_s", "cv", "idc"}
    assert set(told["arrivals"]["idc"]) == {"1", "10", "60", "300"}
    json.dumps(told, allow_nan=False)


def test_the_shape_is_the_one_that_stays(tmp_path):
    """Trace, profile and plan have the keys of DESIGN 4.10, and are plain JSON."""
    path = tmp_path / "trace.csv"
    rows = "".join(f"{k * 0.5},{k + 1},{k % 7}\n" for k in range(2000))
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + rows)
    told = describe(read_trace(path))
    _check_shape(told)
    assert told["rows"] == 2000
    assert told["without_output"] == 286
    assert told["arrivals"]["rate_per_s"] == pytest.approx(2, rel=0.01)
    _check_shape(describe(load_profile("azure-code-2023")))
    _check_shape(describe(make_plan(WorkloadSpec(requests=900, arrivals="poisson:rate=2"))))


def test_quantiles_are_linear_and_intervals_hold_them():
    """numpy's quantiles, and intervals around them."""
    values = np.random.default_rng(0).lognormal(5, 1, 5000)
    told = quantiles(values, np.random.default_rng(1))
    for q in (25, 50, 75, 90, 99):
        low, high = told["ci"][f"p{q}"]
        assert told[f"p{q}"] == pytest.approx(np.percentile(values, q))
        assert low < told[f"p{q}"] < high
    assert told["iqr"] == pytest.approx(told["p75"] - told["p25"])


def test_the_direct_bootstrap_is_the_bootstrap():
    """Drawing order statistics gives the same intervals as resampling the values one by one."""
    rng = np.random.default_rng(2)
    values = rng.lognormal(3, 1.2, 300)
    told = quantiles(values, np.random.default_rng(3))["ci"]
    samples = np.quantile(rng.choice(values, (4000, 300)), [0.25, 0.5, 0.75, 0.99], axis=1)
    for name, column in (("p25", samples[0]), ("p50", samples[1]), ("p99", samples[3])):
        assert told[name] == pytest.approx(np.quantile(column, [0.025, 0.975]), rel=0.12)
    spread = np.quantile(samples[2] - samples[0], [0.025, 0.975])
    assert told["iqr"] == pytest.approx(spread, rel=0.12)


def test_intervals_take_sessions_together():
    """Requests of a session resemble each other: 50 sessions of 40 equal values are as 50, not as 2,000."""
    rng = np.random.default_rng(0)
    session = np.repeat(np.arange(50), 40)
    values = rng.normal(100, 10, 50)[session]
    apart = quantiles(values, np.random.default_rng(1))["ci"]["p50"]
    together = quantiles(values, np.random.default_rng(1), session)["ci"]["p50"]
    assert together[1] - together[0] > 2.5 * (apart[1] - apart[0])


def test_nothing_is_described_as_nothing():
    """No values: None for each, never 0."""
    told = quantiles(np.zeros(0), np.random.default_rng(0))
    assert told["p50"] is None
    assert told["ci"]["p50"] is None


def test_sessions_and_prefixes_are_told_where_they_are():
    """How many sessions, their turns and pauses, and the ratio by what a cache would not have held."""
    plan = make_plan(
        WorkloadSpec(
            prompt_tokens=100,
            output_tokens=10,
            sessions=Sessions(turns=5, think_cv=0),
            requests=100,
        )
    )
    told = describe(plan)
    assert told["sessions"]["count"] == 20
    assert told["sessions"]["requests"]["p50"] == 5
    assert told["sessions"]["think_s"]["p99"] == 10
    assert told["prefix"]["cached_share"] == pytest.approx(4 * 265 / (5 * 320), rel=0.01)
    assert told["prefix"]["pd_ratio_uncached"]["p50"] == pytest.approx(11)
    assert told["intervals"] == "bootstrap over sessions"
    alone = describe(make_plan(WorkloadSpec(requests=9)))
    assert alone["prefix"] is None
    assert alone["sessions"] is None


def test_arrivals_that_a_profile_does_not_have_are_not_made_up():
    """Lengths only: no rate and no CV are told, though a plan from it would have some."""
    assert describe(load_profile("bwb"))["arrivals"] is None


def test_a_week_has_a_diurnal_shape():
    """Rates by hour of the day, which add up to the mean rate."""
    plan = make_plan(WorkloadSpec(arrivals="sine:rate=0.05,amplitude=0.9", duration_s=7 * 86_400))
    arrivals = describe(plan)["arrivals"]
    assert len(arrivals["by_hour"]) == 24
    assert np.mean(arrivals["by_hour"]) == pytest.approx(arrivals["rate_per_s"], rel=0.02)
    assert arrivals["by_hour"][6] > 3 * arrivals["by_hour"][18]


@pytest.mark.traces
@pytest.mark.parametrize(
    ("name", "rate", "cv", "dispersion"),
    [
        ("azure2023_code", 2.57, 13.2, (13, 72, 164, 138)),
        ("azure2023_conv", 5.53, 1.09, (1.4, 3.9, 16, 56)),
        ("mooncake_arxiv", 6.56, 1.03, (1.2, 2.1, 3.8, 10)),
        ("mooncake_fast25_conversation", 3.40, 1.01, (1.0, 1.5, 2.9, 7.3)),
    ],
)
def test_burstiness_is_what_was_measured_before(traces, name, rate, cv, dispersion):
    """Rate, CV and index of dispersion of the public traces, ticks spread, to the digits that are known."""
    arrivals = describe(read_trace(traces / f"{name}.parquet"))["arrivals"]
    assert arrivals["rate_per_s"] == pytest.approx(rate, rel=0.003)
    assert arrivals["cv"] == pytest.approx(cv, rel=0.03)
    assert list(arrivals["idc"].values()) == pytest.approx(dispersion, rel=0.06)
    if name == "mooncake_arxiv":
        assert arrivals["cv_as_stamped"] == pytest.approx(4.36, rel=0.01)
        assert arrivals["tick_s"] == pytest.approx(3.053)


@pytest.mark.traces
def test_the_ratio_by_uncached_tokens_is_what_was_measured_before(agent_sessions):
    """Agent sessions: a median of 405 by prompt length, 2.9 by what a cache would not have held."""
    told = describe(agent_sessions)
    assert told["pd_ratio"]["p50"] == pytest.approx(405, rel=0.01)
    assert told["prefix"]["pd_ratio_uncached"]["p50"] == pytest.approx(2.9, rel=0.06)
