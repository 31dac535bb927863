"""The cluster plays a plan by the agenda that the load driver has, too."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.agenda import Agenda
from inferometer.plan import build_plan
from inferometer.sim.cluster import Cluster
from inferometer.sim.cost import Affine
from inferometer.sim.engine import Replica
from inferometer.sim.kernel import PS_PER_NS
from inferometer.sim.memory import BlockPool
from inferometer.sim.policies.vllm_v1 import VllmV1
from inferometer.sim.routers import router
from inferometer.timeline import ABSENT

Row = tuple[int, int, bool, bool]
"""(gap to the row before [ns], think time [ns], waits for the row before, is refused at the door)"""


def plan_of(rows: list[Row], slots: int | None):
    """A plan of sessions, timed or in a closed loop. A row's prompt has as many tokens as its number, plus 1."""
    parents = [[row - 1] if row and waits else [] for row, (_, _, waits, _) in enumerate(rows)]
    at, times = 0, []
    for (gap, _, _, _), waits_for in zip(rows, parents, strict=True):
        at += gap
        times.append(ABSENT if slots or waits_for else at)
    offset = [0]
    for waits_for in parents:
        offset.append(offset[-1] + len(waits_for))
    return build_plan(
        len(rows),
        prompt_tokens=range(1, len(rows) + 1),
        output_tokens=[1 + row % 3 for row in range(len(rows))],
        intended_ns=times,
        think_ns=[think if waits else 0 for (_, think, waits, _) in rows],
        parent_offset=offset,
        parent_row=[parent for waits_for in parents for parent in waits_for],
        concurrency=slots,
    )


def simulated(plan, refused: set[int], until_ps: int):
    """(the rows in the order of their release, with its time, what came of them)."""
    released = []

    def door(prompt: int, _output: int) -> str | None:
        released.append(prompt - 1)
        return "no" if prompt - 1 in refused else None

    replica = Replica(VllmV1(4, 64), Affine(70_000, 1_000), BlockPool(1000, 16))
    cluster = Cluster([replica], router("round-robin", 0), door, plan, until_ps=until_ps)
    outcome = cluster.play()
    return [(row, outcome.intended[row]) for row in released], outcome


def driven(plan, ended: list[int], refused: set[int], until_ps: int):
    """The same as a driver sees it: send what is due, wait, hear the ends, send what is due."""
    agenda = Agenda(plan, until=until_ps, per_ns=PS_PER_NS)
    released, flying, dropped = [], [], []

    def send(now: int) -> None:
        while starts := agenda.due(now):
            for row, intended in starts:
                released.append((row, intended))
                if row in refused:
                    agenda.ended(row, now, ok=False)
                else:
                    flying.append((ended[row], row))
        dropped.extend(start.row for start, _ in agenda.take_dropped())

    while True:
        flying.sort()
        times = [t for t in (agenda.next_time(), flying[0][0] if flying else None) if t is not None]
        if not times:
            return released, dropped
        send(min(times))
        while flying and flying[0][0] == min(times):
            t, row = flying.pop(0)
            agenda.ended(row, t, ok=True)


@settings(deadline=None, max_examples=80)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 500), st.integers(0, 300), st.booleans(), st.booleans()),
        min_size=1,
        max_size=25,
    ),
    slots=st.none() | st.integers(1, 4),
    until=st.just(1 << 62) | st.integers(1, 3_000).map(lambda ns: ns * PS_PER_NS),
)
def test_both_worlds_release_the_same_rows_in_the_same_order(rows, slots, until):
    """Given the ends of a simulation, a driver sends what the simulation released, when it did, and drops the same."""
    refused = {row for row, (_, _, _, no) in enumerate(rows) if no}
    plan = plan_of(rows, slots)
    released, outcome = simulated(plan, refused, until)
    sent, dropped = driven(plan, outcome.ended, refused, until)
    assert sent == released
    assert set(dropped) == set(outcome.reason) - {row for row, _ in released}
    assert all(outcome.ended[row] >= 0 for row, _ in released)
