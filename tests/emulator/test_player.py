"""The schedule player: tokens in order of time, and a FIFO queue in front of the slots."""

from __future__ import annotations

from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.emulator.player import SchedulePlayer
from inferometer.emulator.schedule import Asked, Schedule

MS = 1_000_000
LATER = 10**15


def test_tokens_come_when_they_are_due_and_not_before():
    """Asked at a time before a token's due time the player says nothing, and tells when it will."""
    player = SchedulePlayer(Schedule(ttft_s=0.1, gap_s=0.01))
    player.arrive(0, Asked(max_tokens=2), 5 * MS)
    assert player.next_due_ns() == 105 * MS
    assert list(player.due(104 * MS)) == []
    assert list(player.due(105 * MS)) == [(105 * MS, 0, 1, False)]
    assert list(player.due(LATER)) == [(115 * MS, 0, 1, True)]
    assert player.next_due_ns() is None


def test_a_late_caller_does_not_move_the_due_times():
    """However late `due` is read, the times are those of the schedule."""
    player = SchedulePlayer(Schedule(ttft_s=0.1, gap_s=0.01))
    player.arrive(0, Asked(max_tokens=3), 0)
    assert [due // MS for due, *_ in player.due(LATER)] == [100, 110, 120]


def test_waiting_requests_start_when_a_slot_was_due_to_be_free():
    """With one slot of 100 ms, requests that come at 0, 10 and 300 ms end at 100, 200 and 400 ms."""
    player = SchedulePlayer(Schedule(ttft_s=0.1, slots=1))
    for key, at_ms in enumerate((0, 10)):
        player.arrive(key, Asked(max_tokens=1), at_ms * MS)
    assert (player.running, player.waiting) == (1, 1)
    ends = [due // MS for due, *_ in player.due(250 * MS)]
    player.arrive(2, Asked(max_tokens=1), 300 * MS)
    ends += [due // MS for due, *_ in player.due(LATER)]
    assert ends == [100, 200, 400]
    assert (player.running, player.waiting) == (0, 0)


@settings(deadline=None, max_examples=50)
@given(
    gaps=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    tokens=st.lists(st.integers(1, 5), min_size=30, max_size=30),
    slots=st.integers(1, 4),
)
def test_the_queue_is_fifo_and_loses_nothing(gaps, tokens, slots):
    """Starts follow Kiefer and Wolfowitz's recursion for a FIFO queue with c servers, exactly."""
    schedule = Schedule(ttft_s=0.01, gap_s=0.01, slots=slots)
    player, at_ms, free = SchedulePlayer(schedule), 0, [0] * slots
    expected = {}
    for key, gap in enumerate(gaps):
        at_ms += gap
        start = max(at_ms, min(free))
        free[free.index(min(free))] = expected[key] = start + 10 * tokens[key]
    ends, at_ms = {}, 0
    for key, gap in enumerate(gaps):
        at_ms += gap
        ends |= {k: due // MS for due, k, _, last in player.due(at_ms * MS) if last}
        player.arrive(key, Asked(max_tokens=tokens[key]), at_ms * MS)
        assert player.running <= slots
    ends |= {k: due // MS for due, k, _, last in player.due(LATER) if last}
    assert ends == expected


def test_a_request_that_leaves_frees_its_slot_and_says_no_more():
    """One that runs makes room for the next at once, one that waits is forgotten, an unknown one is no error."""
    player = SchedulePlayer(Schedule(ttft_s=0.1, gap_s=0.01, slots=1))
    for key in range(3):
        player.arrive(key, Asked(max_tokens=1), 0)
    player.leave(1, 10 * MS)
    player.leave(0, 20 * MS)
    player.leave(99, 20 * MS)
    assert list(player.due(LATER)) == [(120 * MS, 2, 1, True)]


def test_the_reader_may_stop_anywhere_and_change_things_meanwhile():
    """Reading two of the due tokens, and leaving in between, keeps the order of the rest."""
    player = SchedulePlayer(Schedule(ttft_s=0.0, gap_s=0.01))
    player.arrive(0, Asked(max_tokens=3), 0)
    player.arrive(1, Asked(max_tokens=3), 1)
    first = list(islice(player.due(LATER), 2))
    player.leave(0, 0)
    rest = list(player.due(LATER))
    assert [key for _, key, _, _ in first] == [0, 1]
    assert [(due, key) for due, key, _, _ in rest] == [(10 * MS + 1, 1), (20 * MS + 1, 1)]


def test_kv_usage_is_the_running_contexts_over_the_capacity():
    """Prompts and tokens of running requests count, and none where no capacity is declared."""
    player = SchedulePlayer(Schedule(ttft_s=0.0, gap_s=1.0, kv_tokens=100))
    player.arrive(0, Asked(prompt_tokens=9, max_tokens=5), 0)
    list(player.due(0))
    assert player.kv_usage == 0.1
    list(player.due(LATER))
    assert player.kv_usage == 0.0
    assert SchedulePlayer(Schedule()).kv_usage == 0.0
