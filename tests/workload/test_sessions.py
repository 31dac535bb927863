"""Sessions: history, pauses, limits, sub-agents, and what is learned from a trace."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from inferometer.clock import SECOND
from inferometer.timeline import offsets
from inferometer.workload.draws import Stream
from inferometer.workload.joint import fit_joint
from inferometer.workload.lengths import Fixed, Uniform
from inferometer.workload.sessions import Forks, Sessions, fit_learned
from inferometer.workload.sharing import grown
from inferometer.workload.traces import Trace
from inferometer.workload.traces.links import in_turn


def _streams(seed=0):
    return lambda purpose: Stream(seed, purpose)


def _parents(rows, row):
    return rows.parent[rows.offset[row] : rows.offset[row + 1]].tolist()


def test_a_prompt_is_all_that_was_said_before_and_something_new():
    """With history, turn t brings 10 tokens to t earlier questions of 10 and answers of 5."""
    rows = Sessions(turns=4).draw(_streams(), 3, Fixed(tokens=10), Fixed(tokens=5))
    assert rows.unit_rows.tolist() == [4, 4, 4]
    assert rows.turn.tolist() == [0, 1, 2, 3] * 3
    assert rows.prompt_tokens.tolist() == [10, 25, 40, 55] * 3
    assert [_parents(rows, r) for r in range(5)] == [[], [0], [1], [2], []]
    assert rows.chain[:5].tolist() == [0, 0, 0, 0, 1]


def test_without_history_every_turn_is_new_and_on_its_own_chain():
    """Turns still wait for each other, and share nothing."""
    rows = Sessions(turns=3, history=False).draw(_streams(), 2, Fixed(tokens=10), Fixed(tokens=5))
    assert rows.prompt_tokens.tolist() == [10] * 6
    assert len(set(rows.chain.tolist())) == 6


def test_a_session_ends_before_it_passes_its_limit():
    """No prompt and output beyond max_tokens, but that every session has a first turn."""
    spec = Sessions(turns=50, max_tokens=100)
    rows = spec.draw(_streams(), 20, Uniform(low=5, high=20), Fixed(tokens=5))
    assert (rows.prompt_tokens + rows.output_tokens).max() <= 100
    assert rows.unit_rows.min() >= 3
    assert rows.unit_rows.sum() == len(rows.turn)
    longer = spec.draw(_streams(), 2, Fixed(tokens=500), Fixed(tokens=5))
    assert longer.unit_rows.tolist() == [1, 1]


def test_pauses_have_the_mean_and_the_cv_that_were_asked():
    """Gamma pauses; none before a first turn; constant ones where the CV is 0."""
    draw = Sessions(turns=200, think_s=3, think_cv=0.5).draw
    rows = draw(_streams(), 100, Fixed(tokens=1), Fixed(tokens=1))
    pauses = rows.think_ns[rows.turn > 0] / SECOND
    assert pauses.mean() == pytest.approx(3, rel=0.03)
    assert pauses.std() / pauses.mean() == pytest.approx(0.5, rel=0.05)
    assert set(rows.think_ns[rows.turn == 0].tolist()) == {0}
    fixed = Sessions(turns=3, think_s=2, think_cv=0).draw(
        _streams(), 1, Fixed(tokens=1), Fixed(tokens=1)
    )
    assert fixed.think_ns.tolist() == [0, 2 * SECOND, 2 * SECOND]


def test_sub_agents_start_after_a_turn_and_are_awaited_by_the_next():
    """One fork of two sub-agents of two turns behind the first of two turns: a diamond."""
    spec = Sessions(turns=2, forks=Forks(chance=1.0, branches=2, turns=2))
    rows = spec.draw(_streams(), 1, Fixed(tokens=10), Fixed(tokens=5))
    assert rows.turn.tolist() == [0, 0, 1, 0, 1, 1]
    assert [_parents(rows, r) for r in range(6)] == [[], [0], [1], [0], [3], [0, 2, 4]]
    assert rows.prompt_tokens.tolist() == [10, 10, 25, 10, 25, 25]
    assert len(set(rows.chain.tolist())) == 3


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 8), st.integers(1, 12), st.floats(0, 1), st.integers(1, 4), st.integers(0, 9))
def test_every_session_is_a_graph_in_order(turns, sessions, chance, branches, seed):
    """Parents stand before their children in the same session, and only first turns have none."""
    spec = Sessions(
        turns=f"uniform:low=1,high={turns}",
        forks=Forks(chance=chance, branches=branches, turns="uniform:low=1,high=3"),
    )
    rows = spec.draw(_streams(seed), sessions, Uniform(low=1, high=9), Fixed(tokens=2))
    session = np.repeat(np.arange(sessions), rows.unit_rows)
    child = np.repeat(np.arange(len(rows.turn)), np.diff(rows.offset))
    assert np.all(rows.parent < child)
    assert np.all(session[rows.parent] == session[child])
    alone = np.flatnonzero(np.diff(rows.offset) == 0)
    assert alone.tolist() == offsets(rows.unit_rows)[:-1].tolist()


def _agents(sessions=400):
    rng = np.random.default_rng(3)
    parts, session = [], []
    for index in range(sessions):
        turns = int(rng.integers(5, 60))
        start = rng.integers(3000, 20_000)
        parts.append(start + np.cumsum(rng.lognormal(6, 1, turns)))
        session += [index] * turns
    prompt = np.concatenate(parts).astype(np.int32)
    output = rng.integers(20, 900, len(prompt)).astype(np.int32)
    session = np.array(session)
    think = (rng.exponential(4, len(prompt)) * SECOND).astype(np.int64)
    return Trace(
        "made",
        "up",
        prompt_tokens=prompt,
        output_tokens=output,
        session=session,
        links=in_turn(session, think),
        blocks=grown(session, prompt, prompt, 256),
    )


def test_learned_sessions_are_like_their_source():
    """Prompts, outputs, lengths of sessions and pauses are distributed as in the trace, and prompts grow."""
    trace = _agents()
    learned = fit_learned(trace)
    joint = fit_joint(trace.prompt_tokens, trace.output_tokens)
    rows = learned.draw(_streams(), 4000, joint)
    counts = np.bincount(trace.session)
    waits = np.diff(trace.links.offset) > 0
    for drawn, source in (
        (rows.prompt_tokens, trace.prompt_tokens),
        (rows.output_tokens, trace.output_tokens),
        (rows.unit_rows, counts),
        (rows.think_ns[rows.turn > 0], trace.links.think_ns[waits]),
    ):
        assert stats.ks_2samp(drawn, source).statistic < 0.03
    grows = np.diff(rows.prompt_tokens)[rows.turn[1:] > 0]
    assert np.mean(grows >= 0) > 0.999
    assert learned.breaks == 0


def test_breaks_are_learned_where_a_context_is_thrown_away():
    """Every tenth turn that starts again at 3,000 tokens shows up as a share of breaks, and in new chains."""
    turns = 50
    prompt = np.tile(3000 + 400 * (np.arange(turns) % 10), 40).astype(np.int32)
    session = np.repeat(np.arange(40), turns)
    trace = Trace(
        "made",
        "up",
        prompt_tokens=prompt,
        output_tokens=np.full(len(prompt), 9, dtype=np.int32),
        session=session,
        links=in_turn(session, np.zeros(len(prompt), dtype=np.int64)),
    )
    learned = fit_learned(trace)
    assert learned.breaks == pytest.approx(10_000 * 4 / 49, abs=1)
    rows = learned.draw(_streams(), 300, fit_joint(prompt, trace.output_tokens))
    assert len(set(rows.chain.tolist())) == pytest.approx(300 * 5, rel=0.1)
