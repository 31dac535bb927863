"""The ideal cache against one that is simulated in full, and the sharing that is learned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.plan import build_plan
from inferometer.timeline import offsets
from inferometer.workload import WorkloadSpec, make_plan, sharing
from inferometer.workload.draws import Stream
from inferometer.workload.sharing import (
    Blocks,
    cached_share,
    cached_tokens,
    chained,
    cut,
    fit_sharing,
    goes_on_from,
    grown,
    inherited,
    shared,
    split,
)

ROWS = st.lists(
    st.tuples(st.lists(st.integers(0, 4), max_size=6), st.integers(1, 30)), min_size=1, max_size=14
)


def _blocks(lists, tokens):
    counts = np.array([len(ids) for ids in lists], dtype=np.int64)
    return Blocks(
        offsets(counts), np.array([i for ids in lists for i in ids], dtype=np.int64), tokens
    )


def _text(ids, size, length):
    """The tokens of a prompt, as (block position chain, place in block) pairs: equal iff the text is equal."""
    chain, out = (), []
    for block in ids:
        chain += (block,)
        out += [(chain, place) for place in range(size)]
    return out[:length]


def _simulated(rows, size):
    """The longest common prefix with any earlier prompt, token by token."""
    seen, known = [], []
    for ids, length in rows:
        text = _text(ids, size, length)
        best = 0
        for other in seen:
            common = 0
            while common < min(len(text), len(other)) and text[common] == other[common]:
                common += 1
            best = max(best, common)
        known.append(best)
        seen.append(text)
    return known


@settings(deadline=None, max_examples=150)
@given(ROWS, st.integers(1, 7))
def test_the_ideal_cache_is_the_one_that_is_simulated_token_by_token(rows, size):
    """Shared tokens are the longest common prefix with any earlier prompt, cut blocks and unchained ids included."""
    lists = [ids[: -(-length // size)] for ids, length in rows]
    prompt = np.array([length for _, length in rows], dtype=np.int32)
    expected = _simulated(list(zip(lists, prompt.tolist(), strict=True)), size)
    assert shared(_blocks(lists, size), prompt).tokens.tolist() == expected


@settings(deadline=None, max_examples=80)
@given(ROWS)
def test_chained_ids_are_equal_only_where_all_before_is_equal(rows):
    """Two entries have one id exactly if their rows agree up to and including them."""
    lists = [ids for ids, _ in rows]
    blocks = chained(_blocks(lists, 4))
    prefix_of, id_of = {}, {}
    for row, ids in enumerate(lists):
        for place in range(len(ids)):
            number = int(blocks.id[blocks.offset[row] + place])
            prefix = tuple(ids[: place + 1])
            assert prefix_of.setdefault(number, prefix) == prefix
            assert id_of.setdefault(prefix, number) == number


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_splitting_blocks_changes_no_sharing(rows):
    """Blocks of 12 in blocks of 4 or 3 share the same tokens."""
    prompt = np.array([length for _, length in rows], dtype=np.int32)
    blocks = cut(chained(_blocks([ids for ids, _ in rows], 12)), prompt)
    whole = shared(blocks, prompt).tokens
    for size in (4, 3):
        assert shared(cut(split(blocks, size), prompt), prompt).tokens.tolist() == whole.tolist()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 99)), min_size=1, max_size=20
    )
)
def test_inherited_ids_are_the_parents_and_the_rest_is_new(rows):
    """Each row has its parent's first blocks, and no other block of anybody's."""
    total = np.array([t for t, _, _ in rows])
    parent = np.array([p % i if i else -1 for i, (_, _, p) in enumerate(rows)])
    room = np.where(parent >= 0, np.minimum(total, total[parent]), 0)
    have = np.minimum([h for _, h, _ in rows], room)
    ids = inherited(parent, have, total)
    offset = offsets(total)
    fresh = set()
    for row in range(len(rows)):
        mine = ids[offset[row] : offset[row + 1]].tolist()
        if parent[row] >= 0:
            source = ids[offset[parent[row]] : offset[parent[row] + 1]].tolist()
            assert mine[: have[row]] == source[: have[row]]
        new = set(mine[have[row] :])
        assert len(new) == total[row] - have[row]
        assert not new & fresh
        fresh |= new


def test_growing_prompts_share_to_the_token():
    """Where a whole prompt is kept its chain goes on; where only a part is, sharing is exact to a block."""
    session = np.array([0, 0, 0, 1])
    prompt = np.array([100, 250, 300, 300], dtype=np.int32)
    kept = np.array([0, 100, 130, 0], dtype=np.int32)
    blocks = grown(session, prompt, kept, 64)
    assert shared(blocks, prompt).tokens.tolist() == [0, 100, 128, 0]


def test_the_cached_share_of_a_plan_counts_tokens():
    """Three prompts, two of which begin alike: the share is of tokens, not of requests."""
    plan = build_plan(
        3,
        prompt_tokens=[100, 100, 200],
        output_tokens=1,
        intended_ns=0,
        block_offset=[0, 2, 4, 6],
        block_id=[1, 2, 1, 3, 1, 2],
        block_tokens=50,
    )
    assert cached_tokens(plan).tolist() == [0, 50, 100]
    assert cached_share(plan) == 150 / 400
    alone = build_plan(2, prompt_tokens=5, output_tokens=1, intended_ns=0)
    assert cached_share(alone) == 0.0


def test_learned_sharing_shares_as_much_as_its_source():
    """Made from rows of which a third goes on from an earlier one, it gives nearly the same share of tokens."""
    rng = np.random.default_rng(1)
    rows = 4000
    prompt = rng.integers(600, 6000, rows).astype(np.int32)
    total = -(-prompt.astype(np.int64) // 64)
    parent = np.maximum(np.arange(rows) - rng.integers(1, 50, rows), 0)
    have = np.where(rng.random(rows) < 0.33, np.minimum(total, prompt[parent] // 64), 0)
    have[0] = 0
    source = Blocks(offsets(total), inherited(parent, have, total), 64)
    learned = fit_sharing(source, prompt)
    drawn = learned.draw(Stream(0, "x"), prompt)
    pair = [shared(blocks, prompt).tokens.sum() / prompt.sum() for blocks in (source, drawn)]
    assert pair[1] == pytest.approx(pair[0], rel=0.06)


def test_a_source_that_shares_nothing_teaches_nothing():
    """No blocks, or none in common: no sharing is learned."""
    prompt = np.array([10, 10], dtype=np.int32)
    assert fit_sharing(_blocks([[], []], 0), prompt) is None
    assert fit_sharing(_blocks([[1], [2]], 16), prompt) is None


def test_who_goes_on_from_whom_is_found_in_parts_as_at_once(monkeypatch):
    """A turn goes on from the one that it waits for where all of that one's blocks begin its own; never otherwise."""
    plan = make_plan(
        WorkloadSpec(profile="claude-code-agent", arrivals="poisson:rate=1", requests=400)
    )
    whole = goes_on_from(plan)
    monkeypatch.setattr(sharing, "_COMPARED", 50)
    assert goes_on_from(plan).tolist() == whole.tolist()
    assert np.count_nonzero(whole >= 0) > 200
    for row in range(len(plan)):
        waits = plan.parent_row[plan.parent_offset[row] : plan.parent_offset[row + 1]]
        if whole[row] < 0:
            continue
        assert whole[row] == waits[0]
        mine, theirs = (
            plan.block_id[plan.block_offset[r] : plan.block_offset[r + 1]].tolist()
            for r in (row, whole[row])
        )
        assert mine[: len(theirs)] == theirs
