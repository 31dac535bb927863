"""Who sends what."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.load.stripes import slots, stripe
from inferometer.plan import build_plan


@settings(deadline=None, max_examples=60)
@given(sessions=st.lists(st.integers(0, 6), max_size=40), workers=st.integers(1, 5))
def test_stripes_are_a_partition_that_keeps_sessions_whole(sessions, workers):
    """Every row has one worker, and the rows of a session have the same one."""
    names = [f"s{s}" if s else None for s in sessions]
    plan = build_plan(
        len(names),
        prompt_tokens=1,
        output_tokens=1,
        intended_ns=range(len(names)),
        session_id=names or None,
    )

    stripes = stripe(plan, workers)

    assert sorted(np.concatenate(stripes).tolist() if stripes else []) == list(range(len(names)))
    owners = {}
    for worker, rows in enumerate(stripes):
        for row in rows.tolist():
            if names[row]:
                assert owners.setdefault(names[row], worker) == worker


def test_independent_rows_are_dealt_in_turn():
    """So that each worker's load is a thinned copy of the whole."""
    plan = build_plan(5, prompt_tokens=1, output_tokens=1, intended_ns=range(5))

    assert [rows.tolist() for rows in stripe(plan, 2)] == [[0, 2, 4], [1, 3]]


@given(concurrency=st.integers(0, 1000), workers=st.integers(1, 16))
def test_slots_add_up(concurrency, workers):
    """No slot is lost or made."""
    assert sum(slots(concurrency, w, workers) for w in range(workers)) == concurrency
