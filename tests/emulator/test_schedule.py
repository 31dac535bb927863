"""The schedule: due times, lengths and faults as pure functions."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.emulator.schedule import (
    FOREVER,
    Asked,
    Schedule,
    Wire,
    fault_of,
    http_fault,
    steps,
)
from inferometer.errors import UserError
from inferometer.spec import parse

MS = 1_000_000


def test_steps_are_due_at_ttft_plus_a_whole_number_of_gaps():
    """Without jitter token i is due at ttft + i gaps, to the nanosecond."""
    schedule = Schedule(ttft_s=0.1, ttft_per_prompt_token_s=0.001, gap_s=0.01)
    asked = Asked(prompt_tokens=50, max_tokens=4)
    assert list(steps(schedule, asked)) == [
        (150 * MS, 1),
        (160 * MS, 1),
        (170 * MS, 1),
        (180 * MS, 1),
    ]


def test_a_step_of_several_tokens_may_be_one_event_or_several_at_the_same_instant():
    """A burst of 4 of 6 tokens is (4, 2) merged, and six single tokens at two instants when split."""
    merged = Schedule(ttft_s=0.0, gap_s=0.01, tokens_per_step=4)
    split = Schedule(ttft_s=0.0, gap_s=0.01, tokens_per_step=4, wire=Wire(burst="split"))
    asked = Asked(max_tokens=6)
    assert list(steps(merged, asked)) == [(0, 4), (10 * MS, 2)]
    assert list(steps(split, asked)) == [(0, 1)] * 4 + [(10 * MS, 1)] * 2


def test_every_kth_gap_is_a_stall():
    """`stall_every=2` lengthens the gaps 2, 4, ... by `stall_s`."""
    schedule = Schedule(ttft_s=0.0, gap_s=0.01, stall_s=0.5, stall_every=2)
    due_ms = [due / MS for due, _ in steps(schedule, Asked(max_tokens=6))]
    assert np.diff(due_ms).tolist() == pytest.approx([10, 510, 10, 510, 10])


def test_jitter_keeps_the_mean_and_stalls_have_their_share():
    """A lognormal factor has mean 1, and a stall of probability 0.1 meets a tenth of the gaps (5 sigma bounds)."""
    jitter = Schedule(ttft_s=0.0, gap_s=0.01, gap_sigma=0.3)
    due = np.array([due for due, _ in steps(jitter, Asked(max_tokens=10_001))])
    assert np.diff(due).mean() / MS == pytest.approx(10, abs=10 * 0.31 * 5 / 100)
    stalls = Schedule(ttft_s=0.0, gap_s=0.01, stall_s=1.0, stall_probability=0.1)
    due = np.array([due for due, _ in steps(stalls, Asked(max_tokens=10_001))])
    assert (np.diff(due) > 500 * MS).mean() == pytest.approx(0.1, abs=5 * 0.003)


@settings(deadline=None, max_examples=60)
@given(
    asked=st.integers(1, 200),
    size=st.integers(1, 9),
    sigma=st.floats(0, 2),
    burst=st.sampled_from(["merged", "split", "packed"]),
    request_id=st.text(max_size=8),
)
def test_steps_hold_all_tokens_in_order_of_time(asked, size, sigma, burst, request_id):
    """For any schedule the steps add up to what was asked for, never go back in time, and come out the same again."""
    schedule = Schedule(
        gap_sigma=sigma, ttft_sigma=sigma, tokens_per_step=size, wire=Wire(burst=burst)
    )
    request = Asked(max_tokens=asked, request_id=request_id)
    found = list(steps(schedule, request))
    assert sum(tokens for _, tokens in found) == asked
    assert all(1 <= tokens <= size for _, tokens in found)
    assert sorted(due for due, _ in found) == [due for due, _ in found]
    assert found == list(steps(schedule, request))


def test_the_length_is_what_is_asked_fixed_stopped_early_or_endless():
    """A fixed length only shortens, `ignore_eos` forbids an early stop, a missing number gets the default."""

    def length(schedule: Schedule, asked: Asked) -> int:
        return sum(tokens for _, tokens in steps(schedule, asked))

    assert length(Schedule(), Asked(max_tokens=7)) == 7
    assert length(Schedule(output_tokens=3), Asked(max_tokens=7)) == 3
    assert length(Schedule(output_tokens=9), Asked(max_tokens=7)) == 7
    assert length(Schedule(default_output_tokens=5), Asked()) == 5
    early = [
        length(Schedule(early_stop=1.0), Asked(max_tokens=100, request_id=str(i)))
        for i in range(50)
    ]
    assert 1 <= min(early) < 20
    assert 80 < max(early) <= 100
    assert length(Schedule(early_stop=1.0), Asked(max_tokens=100, ignore_eos=True)) == 100
    endless = steps(Schedule(output_tokens=3), Asked(max_tokens=FOREVER))
    assert len(list(islice(endless, 1000))) == 1000


def test_faults_meet_their_share_of_the_requests_whatever_the_order():
    """With rates 0.2 and 0.3 of 2,000 ids each fault meets its share (5 sigma), and each id always the same one."""
    schedule = Schedule(seed=3, faults={"http-429": 0.2, "stall": 0.3})
    met = [fault_of(schedule, f"r{i}") for i in range(2000)]
    assert met.count("http-429") / 2000 == pytest.approx(0.2, abs=0.045)
    assert met.count("stall") / 2000 == pytest.approx(0.3, abs=0.052)
    assert met[::-1] == [fault_of(schedule, f"r{i}") for i in reversed(range(2000))]
    assert fault_of(Schedule(), "r1") is None


def test_a_fault_that_does_not_exist_is_refused_by_name():
    """The message says which fault is unknown, and which there are."""
    with pytest.raises(UserError, match=r"no fault 'http-200'.*reset-mid"):
        Schedule(faults={"http-200": 0.1})
    with pytest.raises(UserError, match="more than 1"):
        Schedule(faults={"stall": 0.6, "html": 0.6})


def test_http_faults_are_read_from_their_names():
    """http-NNN comes with a body, http-NNN-empty without, and anything else is no HTTP fault."""
    assert http_fault("http-503") == (503, True)
    assert http_fault("http-404-empty") == (404, False)
    assert http_fault("stall") is None


def test_a_schedule_is_a_spec():
    """Plain data becomes a schedule, and a wrong value is refused with its path."""
    schedule = parse({"gap_s": 0.01, "wire": {"burst": "split"}}, Schedule)
    assert schedule == Schedule(gap_s=0.01, wire=Wire(burst="split"))
    with pytest.raises(UserError, match=r"\$\.gap_s"):
        parse({"gap_s": -1}, Schedule)
    with pytest.raises(UserError, match=r"\$\.wire\.burst"):
        parse({"wire": {"burst": "often"}}, Schedule)
