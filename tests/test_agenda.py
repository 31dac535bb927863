"""The agenda: which row starts next, and when."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.agenda import SLOT_NS, Agenda, Start
from inferometer.plan import build_plan


def open_plan(times, **more):
    return build_plan(len(times), prompt_tokens=1, output_tokens=1, intended_ns=times, **more)


def closed_plan(rows, slots):
    return build_plan(rows, prompt_tokens=1, output_tokens=1, concurrency=slots)


def chain(think_ns, rows=3):
    """One session: each turn waits for the one before."""
    return build_plan(
        rows,
        prompt_tokens=1,
        output_tokens=1,
        session_id="s",
        turn=range(rows),
        intended_ns=[5, *[np.iinfo(np.int64).min] * (rows - 1)],
        think_ns=[0, *[think_ns] * (rows - 1)],
        parent_offset=[0, *range(rows)],
        parent_row=range(rows - 1),
    )


def test_open_loop_starts_are_due_at_their_times_whatever_is_in_flight():
    """No end is reported, and every row still comes due."""
    agenda = Agenda(open_plan([0, 10, 20]))

    assert agenda.due(9) == [Start(0, 0)]
    assert agenda.next_time() == 10
    assert agenda.due(25) == [Start(1, 10), Start(2, 20)]
    assert agenda.next_time() is None


def test_late_load_keeps_its_intended_time():
    """What is asked for late is handed out with the time at which it should have been sent."""
    agenda = Agenda(open_plan([3, 4]))

    assert agenda.due(1_000_000) == [Start(0, 3), Start(1, 4)]


def test_a_closed_loop_starts_a_row_when_a_slot_is_free():
    """The next row is intended at the moment that its slot became free."""
    agenda = Agenda(closed_plan(4, slots=2))

    assert agenda.due(0) == [Start(0, 0)]
    assert agenda.next_time() == SLOT_NS
    assert agenda.due(SLOT_NS) == [Start(1, SLOT_NS)]
    assert agenda.next_time() is None
    later = SLOT_NS + 70
    agenda.ended(1, later, ok=True)
    assert agenda.next_time() == later
    assert agenda.due(later + 9) == [Start(2, later)]


def test_a_slot_that_is_free_again_does_not_wait_for_one_that_opens_later():
    """A request that ends within the 0.1 ms makes room before the second slot opens."""
    agenda = Agenda(closed_plan(3, slots=2))
    agenda.due(0)
    agenda.ended(0, 70, ok=True)

    assert agenda.next_time() == 70
    assert agenda.due(SLOT_NS) == [Start(1, 70), Start(2, SLOT_NS)]


def test_a_failed_request_gives_its_slot_back():
    """A closed loop does not shrink with failures."""
    agenda = Agenda(closed_plan(2, slots=1))
    agenda.due(0)
    agenda.ended(0, 5, ok=False)

    assert agenda.due(5) == [Start(1, 5)]


def test_nothing_starts_at_or_after_the_stop():
    """The stop is exclusive, for timed rows and for slots."""
    agenda = Agenda(open_plan([0, 10]), until=10)

    assert agenda.due(50) == [Start(0, 0)]
    assert agenda.next_time() is None

    slots = Agenda(closed_plan(3, slots=1), until=10)
    slots.due(0)
    slots.ended(0, 10, ok=True)
    assert slots.next_time() is None
    assert slots.due(99) == []


def test_a_turn_follows_the_last_of_its_parents_after_its_think_time():
    """The intended time is fixed by the end that came last, not by the one that was reported last."""
    plan = build_plan(
        3,
        prompt_tokens=1,
        output_tokens=1,
        intended_ns=[0, 0, np.iinfo(np.int64).min],
        think_ns=[0, 0, 7],
        parent_offset=[0, 0, 0, 2],
        parent_row=[0, 1],
    )
    agenda = Agenda(plan)
    agenda.due(0)
    agenda.ended(0, 40, ok=True)
    agenda.ended(1, 30, ok=True)

    assert agenda.next_time() == 47
    assert agenda.due(47) == [Start(2, 47)]


def test_a_failed_turn_ends_its_session_and_says_so():
    """All later turns are dropped, once each, with the reason."""
    agenda = Agenda(chain(think_ns=1))
    agenda.due(5)
    agenda.ended(0, 9, ok=False)

    dropped = agenda.take_dropped()

    assert [start.row for start, _ in dropped] == [1, 2]
    assert all("earlier turn failed" in why for _, why in dropped)
    assert agenda.take_dropped() == []
    assert agenda.next_time() is None


def test_a_long_session_is_dropped_as_a_whole():
    """However many turns wait for the one that failed."""
    agenda = Agenda(chain(think_ns=1, rows=5000))
    agenda.due(5)
    assert agenda.ended(0, 9, ok=False)

    assert len(agenda.take_dropped()) == 4999


def test_an_end_that_releases_nothing_says_so():
    """In an open loop without sessions nobody need look at the agenda again."""
    agenda = Agenda(open_plan([0, 10]))
    agenda.due(0)

    assert not agenda.ended(0, 5, ok=True)


def test_times_may_be_finer_than_plans():
    """With 1,000 units per ns, all times of the plan, slots and pauses included, are a thousandfold."""
    agenda = Agenda(chain(think_ns=7), per_ns=1000)
    assert agenda.due(5000) == [Start(0, 5000)]
    agenda.ended(0, 6001, ok=True)
    assert agenda.next_time() == 13_001

    slots = Agenda(closed_plan(2, slots=2), per_ns=1000)
    slots.due(0)
    assert slots.next_time() == SLOT_NS * 1000


def test_a_session_keeps_its_slot_until_its_last_turn_is_over():
    """A closed loop of sessions has as many sessions in flight as it has slots."""
    absent = np.iinfo(np.int64).min
    plan = build_plan(
        3,
        prompt_tokens=1,
        output_tokens=1,
        concurrency=1,
        session_id=["a", "a", "b"],
        intended_ns=absent,
        think_ns=[0, 5, 0],
        parent_offset=[0, 0, 1, 1],
        parent_row=[0],
    )
    agenda = Agenda(plan)
    assert agenda.due(0) == [Start(0, 0)]
    agenda.ended(0, 10, ok=True)
    assert agenda.due(12) == []
    assert agenda.due(15) == [Start(1, 15)]
    agenda.ended(1, 20, ok=True)
    assert agenda.due(20) == [Start(2, 20)]

    failing = Agenda(plan)
    failing.due(0)
    failing.ended(0, 10, ok=False)
    assert failing.due(10) == [Start(2, 10)]


def test_exhausted_means_a_free_slot_and_no_row():
    """A closed loop that ran out of plan says so."""
    agenda = Agenda(closed_plan(1, slots=1))
    agenda.due(0)
    assert not agenda.exhausted()
    agenda.ended(0, 1, ok=True)

    assert agenda.exhausted()


@settings(deadline=None, max_examples=60)
@given(
    slots=st.integers(1, 5),
    rows=st.integers(1, 30),
    durations=st.lists(st.integers(0, 50), min_size=30, max_size=30),
)
def test_a_closed_loop_starts_every_row_once_and_never_more_than_its_slots(slots, rows, durations):
    """Driven by any service times, in flight stays within the slots and the plan is used up."""
    agenda = Agenda(closed_plan(rows, slots))
    flying: list[tuple[int, int]] = []
    started = []
    now = slots * SLOT_NS
    while True:
        for start in agenda.due(now):
            assert start.intended <= now
            started.append(start.row)
            flying.append((now + durations[start.row], start.row))
        assert len(flying) <= slots
        if not flying:
            break
        flying.sort()
        now, row = flying.pop(0)
        agenda.ended(row, now, ok=True)

    assert sorted(started) == list(range(rows))
