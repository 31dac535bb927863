"""The laws of the engine: fast-forwarding changes nothing, memory and tokens are conserved, no time is lost."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.plan import build_plan
from inferometer.sim.cluster import Cluster
from inferometer.sim.cost import Affine
from inferometer.sim.devices import device
from inferometer.sim.engine import Replica
from inferometer.sim.iterations import IterationLog
from inferometer.sim.lanes import Lanes
from inferometer.sim.memory import BlockPool, Host
from inferometer.sim.models import model
from inferometer.sim.policies.orca import Orca
from inferometer.sim.policies.sarathi import Sarathi
from inferometer.sim.policies.static import Static
from inferometer.sim.policies.vllm import Vllm
from inferometer.sim.policies.vllm_v1 import VllmV1
from inferometer.sim.prefix import PrefixPool, Text, texts
from inferometer.sim.roofline import Roofline
from inferometer.sim.routers import BLIND, ROUTERS, router
from inferometer.sim.seqs import Cohort, Seq
from inferometer.timeline import offsets

MAX_LEN = 80
BLOCK = 4
POLICIES = (
    Vllm(max_batch=5, max_tokens=100),
    Vllm(max_batch=64, max_tokens=100, spare=1, keeps_prompt=False, watermark=0.0),
    Sarathi(max_batch=6, chunk=8),
    Sarathi(max_batch=64, chunk=5, spare=1, keeps_prompt=False),
    Orca(max_batch=4, reserve=MAX_LEN),
    Static(max_batch=3, reserve=MAX_LEN),
    VllmV1(max_batch=5, max_tokens=12),
    VllmV1(max_batch=64, max_tokens=64),
    VllmV1(max_batch=6, max_tokens=16, caching=False),
    Vllm(max_batch=8, max_tokens=100, swap=True),
    Vllm(max_batch=64, max_tokens=100, watermark=0.0, swap=True),
    Sarathi(max_batch=6, chunk=8, hybrid=False),
    Sarathi(max_batch=6, chunk=8, chunked=False),
)
HOST = Host(30, 900)
COSTS = (
    Affine(7_000, 1_000, 300, 11),
    Affine(1, 0, 0, 0),
    Roofline(model("llama-3.2-1b"), device("l4")),
    Roofline(model("gpt-oss-20b"), device("h100")),
)
# arrival, prompt, output; the prompt's beginning as block ids, of 6 tokens each
request = st.tuples(
    st.integers(0, 300),
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.integers(0, 1), max_size=6),
)


def replica_of(policy, cost, blocks, **how):
    pool = (PrefixPool if policy.caching else BlockPool)(blocks, BLOCK)
    return Replica(policy, cost, pool, host=HOST, **how)


def play(policy, cost, rows, blocks, *, route="least-outstanding", replicas=1, kind=Cluster, **how):
    """The outcome of rows of (arrival, prompt, output[, block ids]), and the replicas."""
    rows = sorted(rows)
    ids = [row[3] if len(row) > 3 else [] for row in rows]
    rows = [row[:3] for row in rows]
    unit = 1 if isinstance(cost, Affine) else 1_000_000
    plan = build_plan(
        len(rows),
        intended_ns=[at * unit for at, _, _ in rows],
        prompt_tokens=[prompt for _, prompt, _ in rows],
        output_tokens=[output for _, _, output in rows],
        session_id=[f"s{row % 3}" for row in range(len(rows))],
        block_offset=offsets(np.array([len(each) for each in ids])),
        block_id=[one for each in ids for one in each],
        block_tokens=6,
    )
    made = [replica_of(policy, cost, blocks, index=index, **how) for index in range(replicas)]
    cluster = kind(made, router(route, 0), lambda _p, _o: None, plan, texts=texts(plan))
    return cluster.play(), made


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(POLICIES),
    st.sampled_from(COSTS),
    st.lists(request, min_size=1, max_size=25),
    st.integers(21, 80),
    st.tuples(st.sampled_from(sorted(ROUTERS)), st.integers(1, 3)),
)
def test_fast_forwarding_is_bit_identical_to_stepping(policy, cost, rows, blocks, routed):
    """Every token has the same stamp and every iteration the same row, whatever the policy, router and memory pressure.

    So it is, too, where replicas that have nothing to do with one another are played one by one.
    """
    ways = [(Cluster, True), (Cluster, False)]
    ways += [(Lanes, True)] if routed[0] in BLIND or routed[1] == 1 else []
    played = []
    for kind, stretch in ways:
        parts = []
        log = IterationLog(parts.append)
        how = {"route": routed[0], "replicas": routed[1], "stretch": stretch, "kind": kind}
        outcome, made = play(policy, cost, rows, blocks, **how, log=log)
        log.flush()
        played.append((outcome, by_replica(parts)))
        assert sum(replica.iterations for replica in made) == len(played[-1][1]["stage"])
    for (fast, fast_log), (slow, slow_log) in pairwise(played):
        assert fast == slow
        assert fast_log == slow_log


def crowded(seed):
    """A world under pressure: a policy, a cost, 5 to 25 requests that share prompts, and too few blocks for them."""
    draw = Random(seed)
    rows = [
        (
            draw.randrange(300),
            draw.randint(1, 40),
            draw.randint(1, 40),
            [draw.randrange(2) for _ in range(draw.randrange(7))],
        )
        for _ in range(draw.randint(5, 25))
    ]
    return draw.choice(POLICIES), draw.choice(COSTS), rows, draw.randint(21, 60)


def test_fast_forwarding_is_bit_identical_under_pressure():
    """The same for 120 crowded worlds, in which there are hits, swaps, preemptions, and preemptions with a cache."""
    hits = swaps = preempted = cached = 0
    for seed in range(120):
        policy, cost, rows, blocks = crowded(seed)
        (fast, (replica,)), (slow, _) = (
            play(policy, cost, rows, blocks, stretch=stretch) for stretch in (True, False)
        )
        assert fast == slow
        hits += max(fast.cached) > 0
        swaps += replica.swaps > 0
        preempted += replica.preemptions > 0
        cached += replica.preemptions > 0 and policy.caching
    assert min(hits, swaps, preempted, cached) > 5


def by_replica(parts):
    """The log's columns, replica by replica: in which order two replicas' rows stand is not promised."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["replica"], kind="stable")
    return {name: column[order].tolist() for name, column in columns.items()}


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(POLICIES),
    st.lists(request, min_size=1, max_size=25),
    st.integers(21, 80),
    st.sampled_from([1, 2, 3]),
)
def test_what_goes_in_comes_out(policy, rows, blocks, stages):
    """Every request gets its tokens, in order, after it arrived; all memory comes back; the laws hold at the end."""
    cost = Affine(7_000, 1_000, 300, 11, stages=stages)
    outcome, (replica,) = play(policy, cost, rows, blocks, stages=stages)
    assert not outcome.reason
    for row, (_, _, output, _) in enumerate(sorted(rows)):
        stamps = np.frombuffer(outcome.stamps[row], dtype="<i8")
        assert len(stamps) == output or (not policy.keeps_prompt and len(stamps) > output)
        assert (np.diff(stamps) > 0).all()
        assert outcome.intended[row] <= outcome.scheduled[row] < stamps[0]
        assert stamps[-1] == outcome.ended[row]
    assert (replica.pool.used, replica.host_free) == (0, HOST.blocks)
    assert replica.outstanding == 0


@settings(deadline=None, max_examples=300)
@given(st.lists(request, min_size=1, max_size=20), st.integers(1, 3))
def test_a_pipeline_of_equal_stages_is_no_faster_per_request_than_its_stages(rows, stages):
    """With p stages of one duration, a first token takes at least p of them."""
    outcome, _ = play(Sarathi(chunk=16), Affine(7_000, stages=stages), rows, 200, stages=stages)
    for row in range(len(rows)):
        first = np.frombuffer(outcome.stamps[row], dtype="<i8")[0]
        assert first - outcome.intended[row] >= 7_000 * stages


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 30)), min_size=1, max_size=12))
def test_a_cohorts_aggregates_are_those_of_its_members(members):
    """Context sum, blocks needed and the next end agree with what a walk over the members says, at every step."""
    cohort = Cohort(BLOCK)
    for order, (prompt, left) in enumerate(members):
        cohort.join(Seq(order, order, prompt, left), prompt + 1, left)
    t = 0
    while cohort:
        contexts = [seq.base + cohort.step for seq in cohort]
        assert cohort.context == sum(contexts)
        assert cohort.needs() == sum(c % BLOCK == 1 for c in contexts)
        assert cohort.needs() == sum(map(cohort.needs_block, cohort))
        assert cohort.demand(9) == sum(
            sum((c + j) % BLOCK == 1 for c in contexts) for j in range(9)
        )
        t += 1
        for seq in cohort.advance([t]):
            cohort.leave(seq)
    assert max(left for _, left in members) == t


def test_an_arrival_cuts_a_stretch_at_the_first_end_not_before_it(world):
    """A request that comes while 100 decodes are fast-forwarded is admitted after the iteration that is running."""
    cost = Affine(10_000)
    rows = [(0, 1, 100), (125, 1, 1)]
    outcome, _ = play(Vllm(), cost, rows, 200)
    assert outcome.scheduled[1] == 130_000
    assert np.frombuffer(outcome.stamps[1], dtype="<i8").tolist() == [140_000]
    assert np.frombuffer(outcome.stamps[0], dtype="<i8")[-1] == 1_010_000


def test_a_pool_never_gives_what_it_does_not_have():
    """Taking too much, or giving back what is not out, is a bug and stops the run."""
    pool = BlockPool(2, 16)
    with pytest.raises(AssertionError, match="3 blocks were taken of 2"):
        pool.take(3)
    with pytest.raises(AssertionError, match="came back"):
        BlockPool(2, 16).give(1)


def test_the_full_check_finds_a_lost_block():
    """A block that nobody holds and nobody gave back breaks the law, loudly."""
    _, (replica,) = play(Vllm(), Affine(10), [(0, 5, 2)], 50)
    replica.pool.take(1)
    with pytest.raises(AssertionError, match="0 blocks are held, 1 are in use"):
        replica.check()


def test_a_deterministic_queue_has_the_waits_of_lindleys_recursion():
    """One request at a time, constant service: W[n+1] = max(0, W[n] + S - A[n]) (Lindley 1952), to the picosecond."""
    rng = np.random.default_rng(5)
    arrivals = np.cumsum(rng.integers(1, 200, 300))
    service = 90_000
    outcome, _ = play(
        Static(max_batch=1, reserve=MAX_LEN),
        Affine(service),
        [(int(a), 1, 1) for a in arrivals],
        100,
    )
    wait, expected = 0, [0]
    for gap in np.diff(arrivals) * 1_000:
        wait = max(0, wait + service - int(gap))
        expected.append(wait)
    found = np.array(outcome.scheduled) - np.array(outcome.intended)
    assert found.tolist() == expected


def play_live(replica, rows, cancels):
    """Play (arrival, prompt, output, ids) rows to one replica; `cancels` are (time, row). The stamps, by row."""
    seqs = [
        Seq(row, at, prompt, output, Text(row, ids, 6, prompt) if ids else None)
        for row, (at, prompt, output, ids) in enumerate(rows)
    ]
    events = sorted(
        [(row[0], 0, place) for place, row in enumerate(rows)]
        + [(at, 1, row) for at, row in cancels]
    )
    here: set[int] = set()
    for t_ps, kind, row in [*events, (None, 2, None)]:
        while (end := replica.peek()) is not None and (t_ps is None or end < t_ps):
            here -= {seq.row for seq in replica.advance()}
            replica.launch(end)
        if kind == 0:
            here.add(row)
            replica.arrive(seqs[row], t_ps)
        elif kind == 1 and row in here:
            here.remove(row)
            replica.cancel(seqs[row], t_ps)
        if replica.idle and t_ps is not None and replica.peek() is None:
            replica.launch(t_ps)
    assert not here
    return [seq.stamps() for seq in seqs]


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(POLICIES),
    st.lists(request, min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(0, 19)), max_size=15),
    st.integers(21, 80),
)
def test_requests_that_are_cancelled_leave_nothing_behind(policy, rows, cancels, blocks):
    """Waiting, prefilling, decoding or in flight: memory comes back, and stretching changes no stamp of anybody."""
    cost = Affine(7_000, 1_000, 300, 11)
    rows = sorted((at * 1_000, *rest) for at, *rest in rows)
    cancels = [(max(at, rows[row][0]), row) for at, row in cancels if row < len(rows)]
    played = []
    for stretch in (True, False):
        replica = replica_of(policy, cost, blocks, stretch=stretch)
        played.append(play_live(replica, rows, cancels))
        replica.check()
        assert (replica.pool.used, replica.outstanding, replica.peek()) == (0, 0, None)
        assert replica.host_free == HOST.blocks
    assert played[0] == played[1]


def test_who_emits_is_known_while_the_iteration_runs():
    """A prefill that completes and everybody who decodes; not a chunk amid a prompt, nor who was cancelled."""
    replica = Replica(Sarathi(chunk=4), Affine(10), BlockPool(50, BLOCK), stretch=False)
    one, two = Seq(0, 0, 4, 3), Seq(1, 0, 6, 3)
    assert replica.emitting() == []
    replica.arrive(one, 0)
    replica.arrive(two, 0)
    replica.launch(0)
    assert replica.emitting() == [one]
    replica.advance()
    replica.launch(10)
    assert replica.emitting() == [one]  # two has 3 of 6 tokens beside one's decode
    replica.advance()
    replica.launch(20)
    assert replica.emitting() == [one, two]
    replica.cancel(two, 25)
    assert replica.emitting() == [one]
