from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from inferometer.errors import UserError
from inferometer.run import Manifest, Run
from inferometer.search.capacity import (
    Ask,
    End,
    Header,
    Search,
    capacity,
    decide,
    judge,
    open_journal,
)
from inferometer.search.queueing import Queue, erlang_c, erlang_capacity
from inferometer.slo import parse
from inferometer.timeline import build

SLO = "each: ttft <= 1s; attainment >= 0.9"
TRUTH = erlang_capacity(8, 1.0, 0.9)
SMALL = Search(requests=150, most_requests=3000, precision=0.1, hysteresis=False)


def law(load_to_ttft_s, *, valid=True, growing=None):
    """A world without chance in which every request at a load has one TTFT; `growing(load)`: it piles up instead."""

    def world(ask):
        n = ask.requests + ask.warmup
        intended = np.rint((1 + np.arange(n)) / ask.load * 1e9).astype(np.int64)
        ttft = np.full(n, load_to_ttft_s(ask.load))
        if growing is not None and growing(ask.load):
            ttft = ttft + np.arange(n) / ask.load  # each waits for all before it
        first = intended + np.rint(ttft * 1e9).astype(np.int64)
        timeline = build(
            n,
            request_id=[f"r{i}" for i in range(n)],
            intended_ns=intended,
            sent_ns=intended,
            ended_ns=first,
            status="ok",
            phase=np.where(np.arange(n) < ask.warmup, "warmup", "measure").astype(object),
            output_tokens=1,
            chunk_offset=np.arange(n + 1),
            chunk_ns=first,
            chunk_tokens=1,
            chunk_channel=0,
        )
        instrument = {} if valid is True or valid(ask.load) else {"valid": False}
        instrument |= {"invalid_reasons": ["too fast for one worker"]} if instrument else {}
        return Run(timeline, Manifest(world="simulated", complete=True, instrument=instrument))

    return world


def test_erlang_by_hand():
    """C(1, a) = a, C(2, a) = a^2 / (2 + a); the capacity solves its own equation."""
    assert erlang_c(1, 0.5) == pytest.approx(0.5)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(8, TRUTH) * math.exp(-(8 - TRUTH)) == pytest.approx(0.1, rel=1e-5)


def test_the_queue_waits_as_erlang_says():
    """The share that waits at most 1 s, at the capacity for 90 %, is 90 %."""
    probe = judge(Queue(8)(Ask(load=TRUTH, seed=1, requests=60_000, warmup=2_000)), ASK, parse(SLO))
    assert probe.attainment == pytest.approx(0.9, abs=0.015)


ASK = Ask(load=TRUTH, seed=1, requests=60_000, warmup=2_000)


def test_a_search_finds_the_capacity_of_a_queue():
    """The interval holds Erlang's capacity for most seeds, and the estimate is near it for all."""
    found = [
        capacity(Queue(8), SLO, msgspec.structs.replace(SMALL, seed=100 * k)) for k in range(5)
    ]
    assert all(c.load == pytest.approx(TRUTH, rel=0.15) for c in found)
    assert sum(c.interval.lo <= TRUTH <= c.interval.hi for c in found) >= 4
    assert {c.verdict for c in found} <= {"resolved", "cliff"}


def test_a_percentile_says_what_its_attainment_says():
    """ttft.p90 <= 1s and 90 % within 1 s are one criterion, so the search takes the same steps."""
    by_share = capacity(Queue(8), SLO, SMALL)
    by_percentile = capacity(Queue(8), "ttft.p90 <= 1s", SMALL)
    assert by_percentile.load == by_share.load
    assert by_percentile.binding == "ttft.p90 <= 1s"


def test_a_mean_is_searched_by_its_distance_in_standard_errors():
    """E[wait] in M/M/1 is rho/(1 - rho): at most 1 s up to rho = 1/2."""
    search = msgspec.structs.replace(SMALL, start=0.1, longest_s=1e5)
    found = capacity(Queue(1), "ttft.mean <= 1s", search)
    assert found.load == pytest.approx(0.5, rel=0.2)


def test_a_cliff():
    """Where all is well at 10 and nothing is beyond, the search says that it is an edge, not a slope."""
    found = capacity(law(lambda rate: 0.1 if rate <= 10 else 5.0), SLO, SMALL)
    assert found.verdict == "cliff"
    assert found.interval.lo <= 10 <= found.interval.hi


def test_a_server_that_is_never_slow_is_unbounded():
    """Met at the highest load allowed: no number is given for what was not seen."""
    found = capacity(law(lambda _: 0.1), SLO, msgspec.structs.replace(SMALL, highest=30))
    assert found.verdict == "unbounded"
    assert math.isnan(found.load)
    assert found.to_dict()["rate_per_s"] is None
    assert found.interval.lo == 30


def test_a_server_that_is_always_slow_is_infeasible():
    """Not met even at the lowest load."""
    found = capacity(law(lambda _: 2.0), SLO, msgspec.structs.replace(SMALL, lowest=0.2))
    assert found.verdict == "infeasible"
    assert min(p.ask.load for p in found.probes) == pytest.approx(0.2)


def test_an_invalid_probe_is_no_fact_about_the_server():
    """Where the instrument fails before the server does, the search ends unresolved, and says at which load."""
    found = capacity(law(lambda _: 0.1, valid=lambda rate: rate < 20), SLO, SMALL)
    assert found.verdict == "unresolved"
    assert "instrument" in found.reason
    assert 17 < found.interval.lo < 20


def test_one_invalid_probe_is_a_disturbance():
    """A probe that failed once, below loads that worked, is repeated, and the search goes on to its end."""
    world, calls = law(lambda rate: 0.1 if rate <= 10 else 5.0), []
    broken = law(lambda _: 0.1, valid=lambda _: False)

    def disturbed(ask):
        calls.append(ask)
        return (broken if len(calls) in (2, 6) else world)(ask)

    found = capacity(disturbed, SLO, SMALL)
    assert found.verdict == "cliff"
    assert sum(bool(p.invalid) for p in found.probes) == 2


def test_a_backlog_that_grows_is_not_met():
    """An SLO on gaps alone is kept by a server that falls ever further behind; the search does not believe it."""
    world = law(lambda _: 0.1, growing=lambda rate: rate > 10)
    found = capacity(world, "ttft.p50 <= 1000s", SMALL)
    assert found.binding == "stable"
    assert 8 <= found.load <= 12


def test_a_budget_ends_a_search():
    """What was learnt by then is given, as unresolved."""
    found = capacity(Queue(8), SLO, msgspec.structs.replace(SMALL, budget_s=300))
    assert found.verdict == "unresolved"
    assert "budget" in found.reason
    assert found.interval.lo < TRUTH


def test_a_search_goes_on_where_it_was_interrupted(tmp_path):
    """Cut after any probe and resumed from its journal, a search asks and finds what it would have without the cut."""
    header = Header(slo=SLO, target="queue", workload="w", whole=False)
    whole = capacity(Queue(8), SLO, SMALL)
    for cut in (1, 4, len(whole.probes) - 1):
        _, keep = open_journal(tmp_path / str(cut), header)
        for probe in whole.probes[:cut]:
            keep(probe)
        with (tmp_path / str(cut) / "probes.jsonl").open("ab") as file:
            file.write(b'{"ask": {"load"')  # the crash
        known, keep = open_journal(tmp_path / str(cut), header)
        assert len(known) == cut
        again = capacity(Queue(8), SLO, SMALL, known=known, keep=keep)
        assert again.to_dict() == whole.to_dict()
        assert len(open_journal(tmp_path / str(cut), header)[0]) == len(whole.probes)


def test_a_journal_belongs_to_one_search(tmp_path):
    """Probes made for another SLO must not be pooled with these."""
    open_journal(tmp_path, Header(slo="a", target="t", workload="w", whole=False))
    with pytest.raises(UserError):
        open_journal(tmp_path, Header(slo="b", target="t", workload="w", whole=False))


def test_bracketing_probes_share_a_seed_and_refining_ones_do_not():
    """Common random numbers where they help, independent errors where the likelihood needs them."""
    found = capacity(Queue(8), SLO, SMALL)
    seeds = {role: [p.ask.seed for p in found.probes if p.ask.role == role] for role in ROLES}
    assert set(seeds["bracket"]) == {0}
    assert len(set(seeds["refine"])) == len(seeds["refine"])


ROLES = ("bracket", "refine")


def test_a_hopeless_probe_stops_itself():
    """Far beyond capacity the queue is left as soon as it is several times what Little's law allows, and saves requests."""
    search = msgspec.structs.replace(SMALL, start=7.0, requests=3_000)
    found = capacity(Queue(8), "each: ttft <= 5s; attainment >= 0.5", search)
    stopped = [p for p in found.probes if p.stopped]
    assert stopped
    assert all(p.requests < p.ask.requests for p in stopped)
    assert found.load < 9


class Moody:
    """A server that serves well until it was overloaded once."""

    def __init__(self):
        self.world = law(lambda rate: 0.1 if rate <= 10 else 5.0)
        self.tired = law(lambda rate: 0.1 if rate <= 3 else 5.0)
        self.overloaded = False

    def __call__(self, ask):
        run = (self.tired if self.overloaded and not ask.rest_s else self.world)(ask)
        self.overloaded = ask.role == "overload"
        return run


def test_hysteresis_is_found():
    """A load that was fine and is not, right after an overload, is told; where nothing changes, nothing is."""
    search = msgspec.structs.replace(SMALL, hysteresis=True)
    moody = capacity(Moody(), SLO, search)
    assert moody.hysteresis is not None
    assert moody.hysteresis.shown
    steady = capacity(law(lambda rate: 0.1 if rate <= 10 else 5.0), SLO, search)
    assert steady.hysteresis is not None
    assert not steady.hysteresis.shown


def test_concurrency_is_a_whole_number():
    """Asked for requests in flight, the search tries whole numbers, and tells those that it may be."""
    search = Search(whole=True, start=4, hysteresis=False)

    def world(ask):
        assert ask.load == int(ask.load)
        return law(lambda users: 0.1 if users <= 37 else 5.0)(ask)

    found = capacity(world, SLO, search)
    assert found.load == pytest.approx(37, abs=2)
    assert found.interval.lo <= 37 <= found.interval.hi <= found.interval.lo + 4
    assert found.to_dict()["concurrency"] == found.load


def test_a_small_concurrency_is_found_exactly():
    """Where the precision asked for is less than one request, nothing is left open."""
    search = Search(whole=True, start=1, hysteresis=False)
    found = capacity(law(lambda users: 0.1 if users <= 5 else 5.0), SLO, search)
    assert found.load == 5
    assert found.interval == (5, 5)


def test_what_rises_with_the_load_has_no_capacity():
    """A goodput is met from some load on: there is no highest one to search."""
    with pytest.raises(UserError, match="goodput"):
        capacity(Queue(8), "each: ttft <= 1s; goodput >= 3", SMALL)


def test_the_first_step_is_the_start():
    """Nothing known: the start, with the search's own seed."""
    step = decide([], Search(start=2, seed=5))
    assert not isinstance(step, End)
    assert (step.load, step.seed, step.rest_s) == (2, 5, 0)
