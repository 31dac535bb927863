from __future__ import annotations

import msgspec
import numpy as np
import pytest

from inferometer.clock import VirtualClock
from inferometer.emulator import Schedule, serve_child
from inferometer.errors import TargetError, UserError
from inferometer.load.options import Drive
from inferometer.load.preflight import find
from inferometer.search import arms, prefill
from inferometer.search.capacity import Ask, judge
from inferometer.search.evidence import criteria
from inferometer.search.measured import Measured, at_load, plan_of
from inferometer.slo import parse
from inferometer.workload import WorkloadSpec
from inferometer.workload.arrivals import Closed, Gamma, Ramp
from inferometer.workload.prompts import Prompts
from inferometer.workload.tokenizer import load as tokenizer

WORKLOAD = WorkloadSpec(arrivals=Gamma(rate=1, cv=2), prompt_tokens=16, output_tokens=4)
ASK = Ask(load=50, seed=3, requests=40, warmup=10)


def test_an_ask_sets_rate_length_and_seed_and_nothing_else():
    """The shape of the arrivals stays; 40 requests come after the warm-up, at the rate asked for."""
    plan, warmup_s = plan_of(WORKLOAD, ASK)
    assert len(plan) == 50
    assert (plan.intended_ns >= warmup_s * 1e9 - 1).sum() == 40
    assert at_load(WORKLOAD, ASK).arrivals == Gamma(rate=50, cv=2)


def test_common_random_numbers():
    """The same seed at twice the rate is the same plan in half the time."""
    slow, _ = plan_of(WORKLOAD, ASK)
    fast, _ = plan_of(WORKLOAD, Ask(load=100, seed=3, requests=40, warmup=10))
    assert np.abs(slow.intended_ns - 2 * fast.intended_ns).max() <= 2
    assert (slow.prompt_tokens == fast.prompt_tokens).all()


def test_arrivals_without_a_rate_are_refused():
    """A ramp has no one rate to search."""
    ramp = WorkloadSpec(arrivals=Ramp(start=1, end=9, over_s=5))
    with pytest.raises(UserError):
        at_load(ramp, ASK)


def test_probes_of_a_server(tmp_path):
    """Two probes of an emulated server: open loop, and one that stops itself in a crowd; each leaves its run."""
    schedule = Schedule(models=("m",), ttft_s=0.3, gap_s=0.002, slots=30)
    with serve_child(schedule) as url:
        found = find([url])
        world = Measured(found, WORKLOAD, Drive(), tmp_path, clock=VirtualClock(), telemetry=False)
        fine = world(ASK)
        crowd = Ask(load=2000, seed=0, requests=1_500, warmup=0, most_in_flight=100)
        stopped = judge(world(crowd), crowd, parse("each: ttft <= 2s"))
    assert criteria(fine, parse("each: ttft <= 2s"))[0].share == 1
    assert len(fine.timeline) == 50
    assert stopped.stopped
    assert not stopped.met
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["probe-000-50", "probe-001-2000"]


def test_a_dead_server_is_no_slow_server(tmp_path):
    """A probe that meets only refused connections is an error with exit code 4, and says how to go on."""
    with serve_child(Schedule(models=("m",), ttft_s=0.002, gap_s=0.001)) as url:
        found = find([url])
    world = Measured(found, WORKLOAD, Drive(), tmp_path, telemetry=False)
    with pytest.raises(TargetError, match="died at a load of 50") as error:
        world(ASK)
    assert error.value.exit_code == 4
    assert "the same command goes on" in str(error.value)


def test_prompts_are_new_and_nothing_else():
    """Another seed for the texts leaves arrivals and lengths as they are."""
    one, _ = plan_of(WORKLOAD, ASK)
    two, _ = plan_of(WORKLOAD, msgspec.structs.replace(ASK, texts=99))
    assert (one.intended_ns == two.intended_ns).all()
    assert (one.prompt_tokens == two.prompt_tokens).all()
    texts = [Prompts(plan, tokenizer(None)).text(0) for plan in (one, two)]
    assert texts[0] != texts[1]


def test_a_closed_loop_is_warmed_by_its_first_requests(tmp_path):
    """Concurrency is the load; the first two rounds are no measurement."""
    with serve_child(Schedule(models=("m",), ttft_s=0.002, gap_s=0.001)) as url:
        closed = WorkloadSpec(arrivals=Closed(concurrency=1), prompt_tokens=16, output_tokens=2)
        world = Measured(find([url]), closed, Drive(), tmp_path, telemetry=False)
        run = world(Ask(load=4, seed=0, requests=20, warmup=8))
    assert run.plan.concurrency == 4
    assert (run.timeline.phase == "measure").sum() == 20


def test_the_prefill_curve_of_a_server(tmp_path):
    """An emulated server of 10 ms + 20 us a token is found to be one, and the curve lies beside the run."""
    schedule = Schedule(models=("m",), ttft_s=0.01, ttft_per_prompt_token_s=20e-6)
    with serve_child(schedule) as url:
        found = find([url])
        curve = prefill.probe(
            arms.measured(found, Drive()), tmp_path / "p", lengths=(16, 500, 2000), repeats=3
        )
    assert curve.seconds(1000) == pytest.approx(0.03, rel=0.35)
    assert prefill.read_curve(tmp_path / "p") == curve
