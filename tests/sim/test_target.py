"""`sim:` targets: a simulated system written where a URL may stand."""

from __future__ import annotations

import pytest

from inferometer.errors import UserError
from inferometer.sim import Deployment, Limits
from inferometer.sim.target import is_simulated, read_target


def test_a_target_is_a_deployment() -> None:
    """Fields of the deployment and of its limits stand side by side, with either kind of dash."""
    target = (
        "sim:sarathi-serve?model=llama-3-8b&device=h100&tp=2&chunk=512&max-batch=64&host-time=2ms"
    )
    expected = Deployment(
        system="sarathi-serve",
        model="llama-3-8b",
        device="h100",
        tp=2,
        host_s=0.002,
        limits=Limits(chunk=512, max_batch=64),
    )
    assert expected == read_target(target)


def test_switches_are_written_as_words() -> None:
    """Prefix caching off, and swapping instead of recomputing."""
    limits = read_target("sim:vllm-v1?model=llama-3-8b&prefix-caching=false").limits
    assert limits.prefix_caching is False
    assert read_target("sim:vllm?model=llama-3-8b&preemption=swap").limits.preemption == "swap"


def test_a_url_is_not_simulated() -> None:
    """Only the prefix decides."""
    assert not is_simulated("http://127.0.0.1:8000")
    assert is_simulated("sim:orca?model=llama-3-8b")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("sim:orca", "no model"),
        ("sim:nothing?model=llama-3-8b", "no such system"),
        ("sim:orca?model=llama-3-8b&chunks=4", "no such option"),
        ("sim:orca?model=llama-3-8b&tp=two", "int"),
        ("sim:orca?model=llama-3-8b&tp=0", "at least 1"),
        ("sim:orca?model=llama-3-8b&max-batch=0", "max_batch must be at least 1"),
        ("sim:orca?model=llama-3-8b&utilization=2", "at most 1"),
        ("sim:vllm?model=llama-3-8b&preemption=hope", "recompute, or swap"),
        ("sim:vllm-v1?model=llama-3-8b&prefix-caching=maybe", "bool"),
    ],
)
def test_what_is_wrong_is_said(target: str, says: str) -> None:
    """One line, with what is wrong."""
    with pytest.raises(UserError, match=says):
        read_target(target)
