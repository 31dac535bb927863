"""How much a figure hangs on the service times: 1 without a queue, far more with one."""

from __future__ import annotations

import numpy as np
import pytest

from inferometer.errors import UserError
from inferometer.plan import build_plan
from inferometer.sim import Deployment, simulate
from inferometer.sim.sensitivity import sensitivity, steepest
from inferometer.spec import parse

DEPLOYMENT = Deployment("vllm", "llama-3-8b", device="a100")


def plan(rate_per_s: float):
    at_s = np.cumsum(np.random.default_rng(1).exponential(1 / rate_per_s, 150))
    return build_plan(
        150, intended_ns=np.rint(at_s * 1e9).astype(np.int64), prompt_tokens=2000, output_tokens=20
    )


def test_a_lone_request_hangs_on_its_service_time_and_on_nothing_else():
    """At a request per 100 s every latency grows as the service times do; too few for a p99 is None."""
    slopes = sensitivity(plan(0.01), DEPLOYMENT)
    for metric in ("ttft", "tpot", "ttlt", "normalized_latency"):
        assert slopes[metric]["p50"] == pytest.approx(1.0, abs=0.01)
    assert slopes["ttft"]["p99"] is None


def test_a_queue_amplifies():
    """Near saturation 1 % of service time is more of the mean wait, and the steepest figure is named."""
    slopes = sensitivity(plan(5.5), DEPLOYMENT)
    assert slopes["ttft"]["mean"] > 1.5
    name, slope = steepest(slopes)
    assert slope >= slopes["ttft"]["mean"]
    assert "." in name


def test_slowdown_multiplies_every_time():
    """Twice the service times: a lone request's tokens come exactly twice as late, to the rounding of a ps."""
    one = plan(0.01).take(np.array([0]))
    doubled = Deployment("vllm", "llama-3-8b", device="a100", slowdown=2.0)
    first = one.intended_ns[0]
    plain, slow = (simulate(one, d).timeline.chunk_ns - first for d in (DEPLOYMENT, doubled))
    assert np.abs(slow - 2 * plain).max() <= 1


def test_a_slowdown_of_nothing_is_refused():
    """It must be above 0."""
    with pytest.raises(UserError, match="slowdown"):
        parse({"system": "vllm", "model": "m", "slowdown": 0}, Deployment, where="$")
