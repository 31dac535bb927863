"""Measured times as a cost model: the formula, the file, and what is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import UserError
from inferometer.plan import build_plan
from inferometer.sim import Deployment, simulate
from inferometer.sim.profiled import Curve, Profile, Profiled, read_profile, write_profile

PROFILE = Profile(
    kind="engine",
    model="m",
    device="d",
    tokens=((1, 0.001), (11, 0.002), (21, 0.004)),
    sequences=((1, 0.0), (3, 0.002)),
    pair_s=1e-6,
    context_s=1e-5,
    host_s=0.0005,
    front_s=0.25,
)


def ms(ps: int) -> float:
    return ps / 1e9


def test_an_iteration_is_the_sum_of_its_parts():
    """11 tokens (10 of a chunk behind 5, one decode at 100): host 0.5, tokens 2, sequence 0, pairs 0.1, context 1 ms."""
    cost = Profiled(PROFILE)
    assert ms(cost.step([(10, 5)], 1, 100)[0]) == pytest.approx(0.5 + 2 + 0.1 + 1)
    assert ms(cost.decode(3, 0)) == pytest.approx(0.5 + 1.2 + 2)


def test_times_are_linear_between_knots_and_beyond_them():
    """Half way is the mean; beyond the last knot its slope goes on; one knot is a constant, none is nothing."""
    curve = Curve(PROFILE.tokens)
    assert curve(6) == pytest.approx(0.0015)
    assert curve(31) == pytest.approx(0.006)
    assert Curve(((4, 2.0),))(100) == 2.0
    assert Curve(())(100) == 0.0


def test_no_iteration_is_without_time():
    """A noisy profile whose lines go below 0 still lets time pass."""
    odd = Profile(kind="engine", model="m", device="d", tokens=((10, 0.0), (20, 1.0)))
    assert Profiled(odd).decode(1, 0) == 1_000_000


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 500), st.integers(1, 60))
def test_a_run_of_decodes_is_its_steps_to_the_bit(decoders, mean, count):
    """The law that fast-forwarding rests on."""
    cost = Profiled(PROFILE)
    context = decoders * mean
    run = cost.decode_run(decoders, context, count)
    assert run.tolist() == [cost.decode(decoders, context + decoders * j) for j in range(count)]
    assert cost.step([], decoders, context) == (run[0],)


def test_a_profile_comes_back_from_its_file_and_serves(tmp_path):
    """Written, read, and used by name: a lone request's first token comes after the front end and its iteration."""
    path = write_profile(PROFILE, tmp_path / "p.json")
    assert read_profile(path) == PROFILE
    plan = build_plan(1, intended_ns=[0], prompt_tokens=[11], output_tokens=[2])
    run = simulate(plan, Deployment("vllm-v1", "llama-3.2-1b", cost=f"profile:{path}"))
    first, second = run.timeline.chunk_ns.tolist()
    assert first == pytest.approx((0.25 + 0.0005 + 0.002 + 0.5 * 121 * 1e-6) * 1e9)
    assert second - first == pytest.approx((0.0005 + 0.001 + 12 * 1e-5) * 1e9)
    assert run.manifest.target["cost"]["kind"] == "profile of engine"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", "missing required field"),
        ("no json", "not a profile"),
        (msgspec.json.encode(PROFILE).decode().replace("profile/1", "profile/9"), "format"),
        (msgspec.json.encode(PROFILE).decode().replace("[11,", "[0,"), "not in order"),
    ],
)
def test_what_is_no_profile_is_refused(tmp_path, text, complaint):
    """One line that says what is wrong."""
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_profile(tmp_path / "p.json")


def test_a_profile_is_of_the_devices_it_was_measured_on(tmp_path):
    """Tensor parallelism over a profile is refused; so is a file that is not there."""
    path = write_profile(PROFILE, tmp_path / "p.json")
    plan = build_plan(1, intended_ns=[0], prompt_tokens=[11], output_tokens=[2])
    with pytest.raises(UserError, match="--tp"):
        simulate(plan, Deployment("vllm-v1", "llama-3-8b", tp=2, cost=f"profile:{path}"))
    with pytest.raises(UserError, match="not readable"):
        simulate(plan, Deployment("vllm-v1", "llama-3-8b", cost="profile:nowhere.json"))
