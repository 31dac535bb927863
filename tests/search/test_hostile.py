"""Capacity searches in worlds that break promises: noisy, stateful, dying, and with an instrument that fails at times."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from inferometer.errors import EXIT_UNREACHABLE, TargetError
from inferometer.search.capacity import Ask, Header, Search, capacity, judge, open_journal
from inferometer.search.queueing import Batch, Queue, erlang_capacity
from inferometer.slo import parse

SLO = "each: ttft <= 1s; attainment >= 0.9"
TRUTH = erlang_capacity(8, 1.0, 0.9)
SMALL = Search(requests=150, most_requests=3_000, precision=0.1, hysteresis=False)
HEADER = Header(slo=SLO, target="queue", workload="w", whole=False)


def with_status(run, failed, status="http_error"):
    """The run with some requests turned into failures (bool[R])."""
    column = run.timeline.status.copy()
    column[failed] = status
    return replace(run, timeline=run.timeline.with_columns(status=column))


def invalid(run, reason="requests were sent late"):
    """The run, not to be believed."""
    record = {"valid": False, "invalid_reasons": [reason]}
    return replace(run, manifest=msgspec.structs.replace(run.manifest, instrument=record))


def shedding(beyond, share=0.7):
    """A queue that answers a share of the requests with an error as soon as the load is beyond a limit."""
    queue = Queue(8)

    def world(ask):
        run = queue(ask)
        if ask.load <= beyond:
            return run
        return with_status(run, np.random.default_rng(ask.seed).random(len(run.timeline)) < share)

    return world


class Metastable:
    """A queue that an overload leaves four times slower, until it has rested for `recovers_s`."""

    def __init__(self, recovers_s, overload=9.0):
        self.recovers_s, self.overload, self.bad = recovers_s, overload, False
        self.fresh = Queue(8)
        self.slow = Queue(8, lambda rng, n: 4 * rng.exponential(1.0, n))

    def __call__(self, ask):
        if ask.rest_s >= self.recovers_s:
            self.bad = False
        run = (self.slow if self.bad else self.fresh)(ask)
        self.bad = self.bad or ask.load > self.overload
        return run


@pytest.mark.parametrize("seed", [0, 100, 200])
def test_a_noisy_cliff(seed):
    """A server that sheds beyond 5 requests/s, well below its queue's capacity, is found to, and it is called a cliff."""
    found = capacity(shedding(5.0), SLO, msgspec.structs.replace(SMALL, seed=seed))
    assert found.verdict == "cliff"
    assert found.interval.lo <= 5 * 1.01
    assert found.interval.hi >= 5 * 0.99
    assert found.load == pytest.approx(5, rel=0.1)


def test_a_noisy_server_without_an_end_in_sight():
    """Nothing is said beyond the highest load that may be tried, although its neighbourhood is noisy."""
    found = capacity(Queue(8), SLO, msgspec.structs.replace(SMALL, highest=4.5))
    assert found.verdict == "unbounded"
    assert math.isnan(found.load)
    assert max(p.ask.load for p in found.probes) == 4.5


@pytest.mark.parametrize("lowest", [0.05, 0.5])
def test_a_promise_that_no_load_keeps(lowest):
    """Service alone takes longer than the SLO allows for a third of the requests."""
    search = msgspec.structs.replace(SMALL, lowest=lowest, longest_s=1e5)
    found = capacity(Queue(8), "each: ttlt <= 1s; attainment >= 0.9", search)
    assert found.verdict == "infeasible"
    assert found.interval.hi == pytest.approx(lowest)


@pytest.mark.parametrize("budget_s", [100, 400, 1_200, 4_000])
def test_a_budget_is_kept(budget_s):
    """Probes and rests together fit into it, and what was learnt by then is given."""
    search = msgspec.structs.replace(SMALL, precision=0.01, budget_s=budget_s)
    found = capacity(Queue(8), SLO, search)
    planned = sum((p.ask.requests + p.ask.warmup) / p.ask.load + p.ask.rest_s for p in found.probes)
    assert found.verdict == "unresolved"
    assert "budget" in found.reason
    assert (
        planned <= budget_s * 1.3
    )  # a probe ends when its last request does, and arrivals are random
    assert found.interval.lo <= TRUTH <= found.interval.hi


def test_an_unresolved_search_says_what_it_lacks():
    """The order of magnitude of what a search without a budget then takes."""
    search = msgspec.structs.replace(SMALL, precision=0.05, budget_s=1_500)
    cut = capacity(Queue(8), SLO, search)
    whole = capacity(Queue(8), SLO, msgspec.structs.replace(search, budget_s=math.inf))
    more = sum(p.requests for p in whole.probes) - sum(p.requests for p in cut.probes)
    assert cut.missing is not None
    assert more / 10 < cut.missing < more * 10
    assert whole.missing is None


def test_a_server_that_is_worse_at_a_lower_load():
    """A resonance between 2 and 3 requests/s: the search ends, and says that its one assumption does not hold."""
    queue = Queue(8)

    def world(ask):
        run = queue(ask)
        bad = 2 <= ask.load <= 3
        rng = np.random.default_rng(ask.seed)
        return with_status(run, rng.random(len(run.timeline)) < 0.5) if bad else run

    found = capacity(world, SLO, msgspec.structs.replace(SMALL, start=2.5))
    above = judge(world(Ask(load=4, seed=1, requests=400, warmup=0)), Ask(load=4, seed=1, requests=400, warmup=0), parse(SLO))  # fmt: skip
    assert found.load < 2.5 or found.verdict == "infeasible"
    assert above.met
    later = capacity(world, SLO, msgspec.structs.replace(SMALL, start=2.5), known=(*found.probes, above))  # fmt: skip
    assert later.uneven is not None
    assert 2 <= later.uneven.load <= 3
    assert later.to_dict()["uneven"]["higher_load"] == 4


def test_a_healthy_queue_is_not_called_uneven():
    """Noise alone does not contradict the assumption."""
    assert all(
        capacity(Queue(8), SLO, msgspec.structs.replace(SMALL, seed=k)).uneven is None
        for k in (0, 100, 200)
    )


def test_a_server_that_recovers_by_resting():
    """An overload spoils the next minute; after a probe that crowded, the search rests for as long as a backlog takes."""
    search = msgspec.structs.replace(SMALL, start=5.0, rest_s=2.0)
    found = capacity(Metastable(recovers_s=2.0), SLO, search)
    assert found.load == pytest.approx(TRUTH, rel=0.12)


def test_a_server_that_never_recovers():
    """The loads that it kept before its first overload and broke after it contradict each other, and that is told."""
    found = capacity(
        Metastable(recovers_s=math.inf), SLO, msgspec.structs.replace(SMALL, start=3.0)
    )
    assert found.load < 3
    assert found.uneven is not None


def test_a_rest_after_a_crowd_is_as_long_as_its_backlog():
    """So many requests in flight, at the highest rate that was served: nothing is left when the next probe begins."""
    search = msgspec.structs.replace(SMALL, start=7.0, requests=3_000)
    found = capacity(Queue(8), "each: ttft <= 5s; attainment >= 0.5", search)
    after = [b for a, b in zip(found.probes, found.probes[1:], strict=False) if a.stopped]
    assert after
    assert all(p.ask.rest_s > 5 for p in after)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_instrument_that_fails_now_and_then(seed):
    """A third of the probes are invalid, at any load: they are repeated, the same arrivals, and the answer stands."""
    rng, queue = np.random.default_rng(seed), Queue(8)

    def world(ask):
        run = queue(ask)
        return invalid(run) if rng.random() < 0.33 else run

    found = capacity(world, SLO, msgspec.structs.replace(SMALL, seed=seed))
    calm = capacity(Queue(8), SLO, msgspec.structs.replace(SMALL, seed=seed))
    assert found.verdict in ("resolved", "cliff")
    assert found.load == calm.load


def test_rests_grow_while_the_instrument_fails():
    """8, 32, 60 s between the tries of one load; then it is given up, with the reason."""
    found = capacity(lambda ask: invalid(Queue(8)(ask)), SLO, msgspec.structs.replace(SMALL, lowest=1.0))  # fmt: skip
    assert found.verdict == "unresolved"
    assert "sent late" in found.reason
    assert [p.ask.rest_s for p in found.probes] == [0, 8, 32, 60, 60]
    assert {p.ask.load for p in found.probes} == {1.0}


def test_a_disturbance_that_lasts_ends_the_search_and_not_its_resumption(tmp_path):
    """Invalid below loads that worked, again and again: unresolved. Resumed later, the same search comes to its end."""
    queue, calls = Queue(8), []

    def disturbed(ask):
        calls.append(ask)
        return invalid(queue(ask)) if len(calls) > 6 else queue(ask)

    _, keep = open_journal(tmp_path, HEADER)
    first = capacity(disturbed, SLO, SMALL, keep=keep)
    assert first.verdict == "unresolved"
    assert "in a row" in first.reason
    known, keep = open_journal(tmp_path, HEADER)
    assert not any(p.invalid for p in known)
    assert capacity(queue, SLO, SMALL, known=known, keep=keep).load == capacity(queue, SLO, SMALL).load  # fmt: skip


def test_a_server_that_dies_in_mid_search(tmp_path):
    """The error leaves with exit code 4, what was measured is kept, and the same search goes on to the same answer."""
    queue, calls = Queue(8), []

    def mortal(ask):
        calls.append(ask)
        if len(calls) == 6:
            raise TargetError("the server died")
        return queue(ask)

    _, keep = open_journal(tmp_path, HEADER)
    with pytest.raises(TargetError) as died:
        capacity(mortal, SLO, SMALL, keep=keep)
    assert died.value.exit_code == EXIT_UNREACHABLE
    known, keep = open_journal(tmp_path, HEADER)
    assert len(known) == 5
    resumed = capacity(queue, SLO, SMALL, known=known, keep=keep)
    assert resumed.to_dict() == capacity(queue, SLO, SMALL).to_dict()


def test_no_two_probes_send_the_same_prompts():
    """A cache of prefixes must not answer a probe from the one before; repeats of an invalid probe included."""
    rng, queue = np.random.default_rng(5), Queue(8)
    seen = []

    def world(ask):
        seen.append(ask.texts)
        return invalid(queue(ask)) if rng.random() < 0.3 else queue(ask)

    capacity(world, SLO, msgspec.structs.replace(SMALL, hysteresis=True))
    assert None not in seen
    assert len(set(seen)) == len(seen)


def test_a_batch_server():
    """A server of batches: the search's answer is where p99 of long runs crosses the bound (34.8, benchmarks/capacity.py)."""
    search = msgspec.structs.replace(SMALL, start=8.0, requests=200, most_requests=8_000)
    found = capacity(Batch(32, 0.2, 0.02), "ttft.p99 <= 1s", search)
    assert found.load == pytest.approx(34.8, rel=0.1)


def test_two_bounds_bind_where_the_nearer_does():
    """Of two conditions the one that breaks first decides, whichever way round they stand."""
    search = msgspec.structs.replace(SMALL, start=2.0)
    loose, tight = "ttft.p90 <= 3s", "ttft.p90 <= 1s"
    alone = capacity(Queue(8), tight, search)
    for text in (f"{loose} and {tight}", f"{tight} and {loose}"):
        both = capacity(Queue(8), text, search)
        assert both.binding == tight
        assert both.load == pytest.approx(alone.load, rel=0.1)
