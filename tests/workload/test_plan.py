"""Specs become plans: limits, streams, fingerprints, notes."""

import numpy as np
import pytest

from inferometer.errors import UserError
from inferometer.spec import parse
from inferometer.timeline import ABSENT
from inferometer.workload import WorkloadSpec, make_plan


def test_the_same_spec_and_seed_give_the_same_fingerprint_for_ever():
    """Written down: a change here means another generator version."""
    spec = WorkloadSpec(
        arrivals="gamma:rate=5,cv=2",
        prompt_tokens="lognormal:median=300,sigma=1",
        output_tokens="zipf:exponent=1.2,high=900",
        requests=1000,
        seed=11,
    )
    plan = make_plan(spec)
    assert plan.fingerprint == make_plan(spec, seed=11).fingerprint
    assert plan.fingerprint != make_plan(spec, seed=12).fingerprint
    assert plan.fingerprint == "987b5161f5045ff9122fcedf6ebd81c25670b938555b100ba1b71d94f652fad3"


def test_one_aspect_changes_without_the_others():
    """Other output lengths leave the arrivals and the prompts where they were (common random numbers)."""
    base = {"arrivals": "poisson:rate=5", "prompt_tokens": "uniform:low=1,high=99", "requests": 50}
    one = make_plan(WorkloadSpec(**base, output_tokens=5))
    other = make_plan(WorkloadSpec(**base, output_tokens="uniform:low=1,high=9"))
    assert one.intended_ns.tolist() == other.intended_ns.tolist()
    assert one.prompt_tokens.tolist() == other.prompt_tokens.tolist()
    assert one.fingerprint != other.fingerprint


def test_a_closed_loop_for_a_time_says_that_its_rows_are_a_bound():
    """The plan has the concurrency, no intended times, and a note."""
    plan = make_plan(WorkloadSpec(arrivals="closed:concurrency=4", duration_s=3))
    assert plan.concurrency == 4
    assert len(plan) == 240
    assert set(plan.intended_ns.tolist()) == {ABSENT}
    assert "upper bound" in plan.notes[0]


def test_a_plan_needs_a_limit():
    """Neither requests nor a duration: one line that says what to give."""
    with pytest.raises(UserError, match="requests, duration_s or both"):
        make_plan(WorkloadSpec(arrivals="poisson:rate=1"))


def test_plain_data_becomes_a_workload():
    """What YAML gives, in any spelling, is a WorkloadSpec; a wrong length is refused with its path."""
    plain = {"arrivals": {"kind": "constant", "rate": 2}, "prompt_tokens": 7, "requests": 3}
    plan = make_plan(parse(plain, WorkloadSpec))
    assert plan.intended_ns.tolist() == [0, 500_000_000, 1_000_000_000]
    assert plan.prompt_tokens.tolist() == [7, 7, 7]
    with pytest.raises(UserError, match=r"\$\.output_tokens"):
        make_plan(parse({"requests": 1, "output_tokens": "0"}, WorkloadSpec))


@pytest.mark.traces
def test_mooncake_is_replayed_with_its_blocks_and_without_its_ticks(traces):
    """Stamps are spread inside their 3 s ticks, blocks keep their sharing, lengths their row."""
    file = str(traces / "original_format" / "mooncake_fast25_conversation_trace.jsonl")
    plan = make_plan(WorkloadSpec(trace=file))
    assert len(plan) == 12_031
    assert plan.block_tokens == 512
    assert any("ticks" in note for note in plan.notes)
    assert len(np.unique(plan.intended_ns)) > 12_000
    per_tick = np.bincount(plan.intended_ns // 3_000_000_000)
    assert per_tick[:3].tolist() == [
        len(plan.take(plan.intended_ns // 3_000_000_000 == t)) for t in range(3)
    ]
    assert int(np.median(plan.prompt_tokens)) == 6909
