"""The same run as other tools would score it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inferometer.clock import MILLISECOND
from inferometer.metrics import conventions
from inferometer.metrics.conventions import TOOLS
from inferometer.run import Manifest, Run

MS = MILLISECOND
# Intended at 0, connected from 20 to 50, sent at 50; 1 token at 150, 3 at 250, 1 at 450, usage at 460, end at 470 ms.
BURST = {
    "sent": 50 * MS,
    "connect_ns": 30 * MS,
    "chunks": [(100 * MS, 0), (150 * MS, 1), (250 * MS, 3), (450 * MS, 1), (460 * MS, 0)],
    "ended": 470 * MS,
}
FAILED = {"intended": 10 * MS, "status": "timeout", "ended": 970 * MS}


@pytest.fixture(scope="session")
def scored(timeline_of):
    """`scored(*requests)`: the conventions of a run of these requests."""
    return lambda *requests: conventions(Run(timeline_of(*requests), Manifest()))


EXPECTED = {
    ("vllm bench", "ttft"): 0.130,
    ("vllm bench", "tpot"): 0.300 / 4,
    ("vllm bench", "itl"): 0.150,
    ("vllm bench", "e2el"): 0.430,
    ("sglang", "ttft"): 0.130,
    ("sglang", "tpot"): 0.320 / 4,
    ("sglang", "itl"): 0.150,
    ("sglang", "itl_native"): 0.300 / 4,
    ("sglang", "e2e"): 0.450,
    ("aiperf", "ttft"): 0.130,
    ("aiperf", "itl"): 0.300 / 4,
    ("aiperf", "icl"): 0.150,
    ("aiperf", "request_latency"): 0.430,
    ("guidellm", "ttft"): 0.100,
    ("guidellm", "tpot"): 0.400 / 5,
    ("guidellm", "itl"): 0.300 / 4,
    ("guidellm", "request_latency"): 0.420,
    ("inference-perf", "ttft"): 0.130,
    ("inference-perf", "tpot"): 0.300 / 4,
    ("inference-perf", "ntpot"): 0.450 / 5,
    ("inference-perf", "itl"): 0.300 / 4,
    ("inference-perf", "request_latency"): 0.450,
}


@pytest.mark.parametrize(("tool", "number"), EXPECTED)
def test_closed_forms(scored, tool, number):
    """The mean of each tool's number on one bursty reply; a failed request beside it changes none."""
    assert scored(BURST, FAILED)[tool][number]["mean"] == pytest.approx(EXPECTED[tool, number])


def test_every_number_is_expected_above_or_a_rate():
    """No convention goes untested."""
    rates = {"request_rate", "output_token_rate"}
    assert {(t, n) for t, (_, numbers) in TOOLS.items() for n in numbers if n not in rates} == set(
        EXPECTED
    )


def test_the_same_word_for_the_same_burst(scored):
    """ "ITL" is 150 ms, 75 ms a request, or a median of 0, depending on who says it."""
    found = scored(BURST)
    assert found["vllm bench"]["itl"]["n"] == 2
    assert found["sglang"]["itl_native"]["max"] == pytest.approx(0.2)
    assert found["guidellm"]["itl"]["n"] == 1
    assert found["inference-perf"]["itl"]["p50"] == pytest.approx(0.05)
    assert found["inference-perf"]["itl"]["n"] == 4


def test_rates_run_from_first_send_to_last_end(scored):
    """Five tokens in 960 ms: the failed request has no token, but its time is in the window."""
    found = scored(BURST, FAILED)
    for tool in TOOLS:
        assert found[tool]["output_token_rate"]["value"] == pytest.approx(5 / 0.96)
        assert found[tool]["request_rate"]["value"] == pytest.approx(1 / 0.96)


def test_guidellm_weighs_and_does_not_interpolate(scored):
    """A mean over tokens, and percentiles that are values of the sample."""
    slow = {"chunks": [(0, 1), (100 * MS, 1)]}
    quick = {"chunks": [(i * 10 * MS, 1) for i in range(4)]}
    found = scored(slow, quick)["guidellm"]["itl"]
    assert found["mean"] == pytest.approx((100 + 3 * 10) / 4 / 1000)
    assert found["p50"] == pytest.approx(0.010)
    assert found["p90"] == pytest.approx(0.100)
    assert scored(slow, quick)["vllm bench"]["tpot"]["p50"] == pytest.approx(np.median([0.1, 0.01]))


def test_each_number_says_how_it_differs(scored):
    """One sentence each, and plain JSON."""
    found = scored(BURST)
    assert all(number["differs"] for numbers in found.values() for number in numbers.values())
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_nothing_is_undefined_not_zero(scored):
    """No completed request: null."""
    found = scored(FAILED | {"status": "dropped", "sent": None})
    assert found["vllm bench"]["ttft"]["n"] == 0
    assert found["vllm bench"]["ttft"]["p99"] is None
    assert found["guidellm"]["output_token_rate"]["value"] is None
