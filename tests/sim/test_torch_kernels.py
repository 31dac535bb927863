"""Measuring kernels: what can be said without PyTorch, which the tests do not have."""

from __future__ import annotations

import importlib.util

import pytest

from inferometer.errors import UserError
from inferometer.sim.models import model
from inferometer.sim.profiled import Profiled
from inferometer.sim.torch_kernels import Asked, Seen, Times, fitted, profile_kernels

MODEL = model("llama-3.2-1b")


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_without_pytorch_there_is_one_clear_line():
    """What is missing, and both ways out."""
    with pytest.raises(UserError, match=r"PyTorch is not installed.*engines.*profile URL"):
        profile_kernels(MODEL, Asked())


def test_a_profile_of_kernels_adds_up_to_all_layers():
    """16 layers of 1 ms + 0.1 ms of attention's own, a head of 0.5 ms, 2 us a pair and 3 us a cached token per layer."""
    layers = MODEL.layers
    prefills = [
        Seen(1, c, past, 1e-4 + 2e-6 * c * (past + c / 2)) for c, past in ((10, 0), (10, 90))
    ]
    decodes = [Seen(n, 1, past, 1e-4 + 3e-6 * n * past) for n, past in ((1, 100), (4, 100))]
    versions = {"device": "d", "threads": "1", "torch": "2"}
    asked = Asked(host_s=0.002)
    times = Times([(1, 1e-3), (101, 2e-3)], [(1, 5e-4), (3, 6e-4)], prefills, decodes)
    found = fitted(MODEL, asked, times, versions)
    cost = Profiled(found)
    lone = 2 + layers * (1 + 0.1) + 0.5 + layers * 3e-3 * 100
    assert cost.decode(1, 100) / 1e9 == pytest.approx(lone, rel=1e-3)
    prefill = 2 + layers * (2 + 0.1) + 0.5 + layers * 2e-3 * 101 * 50.5
    assert cost.step([(101, 0)], 0, 0)[0] / 1e9 == pytest.approx(prefill, rel=1e-3)
    assert (cost.decode(3, 0) - cost.decode(1, 0)) / 1e9 == pytest.approx(
        layers * 0.02 + 0.1, rel=1e-2
    )
