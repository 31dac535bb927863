"""A cluster that is fed from outside does what the same cluster does with a plan."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.plan import build_plan
from inferometer.sim import SYSTEMS, Deployment, Limits, simulate
from inferometer.sim.kernel import PS_PER_NS
from inferometer.sim.live import Live, live

MS = 1_000_000
TIGHT = Limits(num_blocks=24, max_len=256)

rows_of = st.lists(
    st.tuples(st.integers(0, 40 * MS), st.integers(1, 150), st.integers(1, 40)),
    min_size=1,
    max_size=12,
)


def drained(cluster: Live) -> dict[int, list[int]]:
    """The token times [ps] of each key, of all that is still to happen."""
    times = defaultdict(list)
    while cluster.peek() is not None:
        step = cluster.step()
        for key in step.emitted:
            times[key].append(step.t_ps)
        assert step.over <= set(step.emitted)
        assert not step.refused
    return times


@settings(deadline=None, max_examples=40)
@given(
    rows=rows_of,
    name=st.sampled_from(sorted(SYSTEMS)),
    replicas=st.integers(1, 2),
    late=st.booleans(),
)
def test_what_comes_from_outside_is_served_as_a_plan_is(rows, name, replicas, late):
    """Token by token, preemptions included, whether requests are handed in ahead or only when their time has come."""
    times = np.cumsum([gap for gap, _, _ in rows])
    plan = build_plan(
        len(rows),
        intended_ns=times,
        prompt_tokens=[prompt for _, prompt, _ in rows],
        output_tokens=[output for _, _, output in rows],
    )
    asked = Deployment(system=name, model="llama-3-8b", replicas=replicas, limits=TIGHT)
    run = simulate(plan, asked)
    cluster, said = live(asked), {}
    for row, (t_ns, (_, prompt, output)) in enumerate(zip(times.tolist(), rows, strict=True)):
        while late and cluster.peek() is not None and cluster.peek() < t_ns * PS_PER_NS:
            step = cluster.step()
            for key in step.emitted:
                said.setdefault(key, []).append(step.t_ps)
        cluster.arrive(row, prompt, output, t_ns * PS_PER_NS)
    for key, more in drained(cluster).items():
        said.setdefault(key, []).extend(more)
    stamps = [(t_ps + 500) // 1000 for row in range(len(rows)) for t_ps in said[row]]
    assert stamps == run.timeline.chunk_ns.tolist()
    assert cluster.preemptions == run.manifest.target["preemptions"]
    assert (cluster.running, cluster.waiting, cluster.kv_usage) == (0, 0, 0.0)


@settings(deadline=None, max_examples=40)
@given(rows=rows_of, name=st.sampled_from(sorted(SYSTEMS)), data=st.data())
def test_who_hangs_up_gives_everything_back(rows, name, data):
    """Cancelled at any instant, at most once or after its end: the others get all their tokens, and memory is whole."""
    cluster, t_ps = live(Deployment(system=name, model="llama-3-8b", limits=TIGHT)), 0
    gone = data.draw(st.dictionaries(st.integers(0, len(rows) - 1), st.integers(0, 400 * MS)))
    for key, (gap, prompt, output) in enumerate(rows):
        t_ps += gap * PS_PER_NS
        cluster.arrive(key, prompt, output, t_ps)
        if key in gone:
            cluster.cancel(key, t_ps + gone[key] * PS_PER_NS)
    said = drained(cluster)
    for key, (_, _, output) in enumerate(rows):
        assert len(said[key]) == output or (key in gone and len(said[key]) < output)
    assert (cluster.running, cluster.waiting, cluster.kv_usage) == (0, 0, 0.0)


def test_what_is_handed_in_late_comes_after_what_has_happened():
    """An arrival in the past is one of now: time never runs backwards."""
    cluster = live(Deployment(system="vllm", model="llama-3-8b"))
    cluster.arrive(0, 10, 2, 5000)
    cluster.step()
    cluster.arrive(1, 10, 2, 1000)
    assert cluster.peek() == 5000


def test_pipelines_are_stepped_too():
    """With two stages, two iterations are in flight, and every token is said once."""
    cluster = live(Deployment(system="sarathi-serve", model="llama-2-70b", tp=2, pp=2))
    for key in range(8):
        cluster.arrive(key, 100, 20, 0)
    assert {len(times) for times in drained(cluster).values()} == {20}


def test_the_door_is_that_of_the_deployment():
    """Longer than the longest request, or than the pool: said before it arrives."""
    cluster = live(Deployment(system="vllm", model="llama-3-8b", limits=TIGHT))
    assert cluster.door(100, 50) is None
    assert "more than the longest request, 256" in (cluster.door(250, 50) or "")


@pytest.mark.parametrize("replicas", [1, 3])
def test_gauges_add_up_over_replicas(replicas):
    """All that came in is running or waiting; memory is a share of all pools."""
    limits = Limits(num_blocks=100, max_batch=1)
    asked = Deployment(system="vllm", model="llama-3-8b", replicas=replicas, limits=limits)
    cluster = live(asked)
    for key in range(6):
        cluster.arrive(key, 100, 20, 0)
    while cluster.peek() == 0:
        cluster.step()
    assert (cluster.running, cluster.waiting) == (replicas, 6 - replicas)
    assert 0.06 <= cluster.kv_usage <= 0.08
