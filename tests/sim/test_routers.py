"""Where a request goes: by turns, by chance, by load, by session, by what was there before."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest

from inferometer.errors import UserError
from inferometer.sim.memory import BlockPool
from inferometer.sim.prefix import Text
from inferometer.sim.routers import BLIND, ROUTERS, Ask, router

BLOCK = 16


class Fake(NamedTuple):
    """A replica as a router sees it."""

    outstanding: int = 0
    queued: int = 0
    pool: BlockPool = BlockPool(1000, BLOCK)


def ask(row, session=None, ids=(), prompt=64):
    text = Text(row, list(ids), BLOCK, prompt) if ids else None
    return Ask(row, session, prompt, text)


def homes(name, replicas, asks, seed=0):
    route = router(name, seed)
    return [route(replicas, each) for each in asks]


def test_round_robin_takes_turns():
    """0, 1, 2, 0, ..."""
    assert homes("round-robin", [Fake()] * 3, map(ask, range(5))) == [0, 1, 2, 0, 1]


def test_the_least_loaded_is_the_first_of_them():
    """By all that is there, or by what waits."""
    replicas = [Fake(5, 0), Fake(2, 2), Fake(2, 1)]
    assert homes("least-outstanding", replicas, [ask(0)]) == [1]
    assert homes("least-queued", replicas, [ask(0)]) == [0]


def test_power_of_two_never_takes_the_worse_of_its_two():
    """With two replicas, the busier one gets only what was drawn twice: a quarter."""
    found = Counter(homes("power-of-two", [Fake(9), Fake(1)], map(ask, range(4000))))
    assert found[0] / 4000 == pytest.approx(0.25, abs=0.03)


def test_a_session_stays_where_it_is():
    """All turns of a session have one home; sessions, and requests without one, are spread evenly."""
    asks = [ask(row, f"s{row % 400}") for row in range(4000)]
    found = homes("session-affinity", [Fake()] * 4, asks)
    assert all(len({found[row] for row in range(s, 4000, 400)}) == 1 for s in range(400))
    for spread in (found, homes("session-affinity", [Fake()] * 4, map(ask, range(4000)))):
        assert min(Counter(spread).values()) > 800


def test_a_prompt_goes_where_its_beginning_has_been():
    """The first goes to the least loaded; one that shares 3 of 4 blocks follows it, one that shares 1 does not."""
    replicas = [Fake(3), Fake(2)]
    asks = [ask(0, ids=[1, 2, 3, 4]), ask(1, ids=[1, 2, 3, 9]), ask(2, ids=[1, 7, 8, 9])]
    route = router("prefix-affinity", 0)
    assert [route(replicas, each) for each in asks[:2]] == [1, 1]
    assert route([Fake(0), Fake(2)], asks[1]) == 1
    assert route([Fake(0), Fake(2)], asks[2]) == 0


def test_a_prefix_is_left_alone_where_loads_are_out_of_balance():
    """More than 64 requests and 1.5 times apart: the least loaded takes what its neighbour knows."""
    route = router("prefix-affinity", 0)
    assert route([Fake(1), Fake(0)], ask(0, ids=[1, 2, 3, 4])) == 1
    assert route([Fake(0), Fake(64)], ask(1, ids=[1, 2, 3, 4])) == 1
    assert route([Fake(0), Fake(65)], ask(2, ids=[1, 2, 3, 4])) == 0
    assert route([Fake(200), Fake(265)], ask(3, ids=[1, 2, 3, 4])) in {0, 1}


def test_a_prefix_is_forgotten_as_its_replica_forgets_it():
    """The router's record is as large as the cache: 8 blocks hold two prompts of 4, and a third one drives out the first."""
    small = [Fake(0, 0, BlockPool(8, BLOCK)), Fake(1, 0, BlockPool(8, BLOCK))]
    route = router("prefix-affinity", 0)
    for row, first in enumerate((10, 20, 30)):
        assert route(small, ask(row, ids=range(first, first + 4))) == 0
    busier = [small[1], small[0]._replace(outstanding=0)]
    assert route(busier, ask(9, ids=range(30, 34))) == 0
    assert route(busier, ask(9, ids=range(10, 14))) == 1


@pytest.mark.parametrize("name", sorted(BLIND))
def test_a_blind_router_looks_at_nothing(name):
    """Whatever the loads, the same homes: so they are known before the run."""
    asks = [ask(row, f"s{row % 7}") for row in range(50)]
    idle, busy = [Fake()] * 3, [Fake(90, 80), Fake(1, 0), Fake(50, 50)]
    assert homes(name, idle, asks) == homes(name, busy, asks)


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_every_router_gives_an_index(name):
    """Within bounds, and the same for the same seed."""
    asks = [ask(row, f"s{row % 5}", [row % 3, 1, 2]) for row in range(40)]
    first, second = (homes(name, [Fake(4), Fake(2), Fake(3)], asks, seed=3) for _ in range(2))
    assert first == second
    assert set(first) <= {0, 1, 2}


def test_an_unknown_router_is_one_line():
    """With the known ones."""
    with pytest.raises(UserError, match=r"no such router.*session-affinity"):
        router("psychic", 0)
