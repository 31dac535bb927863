"""The prefix cache: what is known, what is evicted first, and what a plan's rows share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.plan import build_plan
from inferometer.sim.memory import Hit
from inferometer.sim.prefix import PrefixPool, Text, texts
from inferometer.sim.seqs import Seq
from inferometer.timeline import ABSENT, offsets

BLOCK = 2


class Naive:
    """The same rules block by block: a queue of free blocks, oldest first, and what each block holds."""

    def __init__(self, total):
        self.queue = list(range(total))
        self.holds = {}  # block -> content: the whole prefix up to its end
        self.where = {}  # content -> block
        self.users = dict.fromkeys(range(total), 0)

    def hit(self, contents):
        """(blocks known at the front, how many of them are free)."""
        known = []
        for content in contents:
            if content not in self.where:
                break
            known.append(self.where[content])
        return len(known), sum(not self.users[block] for block in known)

    def pin(self, contents, upto):
        blocks = [self.where[content] for content in contents[:upto]]
        for block in blocks:
            if not self.users[block]:
                self.queue.remove(block)
            self.users[block] += 1
        return blocks

    def take(self, count):
        taken, self.queue = self.queue[:count], self.queue[count:]
        for block in taken:
            self.users[block] = 1
            if block in self.holds:
                del self.where[self.holds.pop(block)]
        return taken

    def learn(self, held, contents, upto):
        for place in range(upto):
            block, content = held[place], contents[place]
            if content not in self.where:
                self.where[content], self.holds[block] = block, content
            elif self.where[content] != block:  # known twice: the new copy is given back
                self.users[block] = 0
                self.queue.append(block)
                held[place : place + 1] = self.pin([content], 1)

    def free(self, held):
        for block in reversed(held):
            self.users[block] -= 1
            if not self.users[block]:
                self.queue.append(block)

    @property
    def cached(self):
        return sum(block in self.holds for block in self.queue)


def contents(seq, size, count):
    """What each of the first `count` blocks of a request holds, together with all before it."""
    tokens = [
        (seq.text.ids[at // size], at % size) if at < seq.text.limit else ("own", seq.row, at)
        for at in range(count * BLOCK)
    ]
    return [tuple(tokens[: (place + 1) * BLOCK]) for place in range(count)]


request = st.tuples(
    st.lists(st.integers(0, 2), max_size=4),  # block ids
    st.integers(1, 14),  # prompt
    st.integers(0, 6),  # tokens beyond it before it leaves
    st.booleans(),  # preempted and back, rather than finished
)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(request, st.integers(0, 3)), max_size=25),
    st.integers(1, 5),
    st.integers(10, 24),
)
def test_runs_of_blocks_stand_for_blocks(script, size, total):
    """Hits, evictions and counts of the tree are those of a cache that keeps every block apart, whatever is asked."""
    pool, naive = PrefixPool(total, BLOCK), Naive(total)
    live: list[tuple[Seq, list[int], int]] = []  # request, its blocks, its tokens when it leaves
    for row, ((ids, prompt, more, again), leaves) in enumerate(script):
        if live and leaves:
            seq, held, tokens = live.pop(leaves % len(live))
            leave(pool, naive, seq, held=held, tokens=tokens, size=size, again=again)
        seq = Seq(row, 0, prompt, 1, Text(row, ids, size, min(prompt + more, len(ids) * size)))
        if not admit(pool, naive, seq, size=size, tokens=prompt + more, live=live):
            continue
        pool.check()
        assert (pool.cached, pool.free) == (naive.cached, len(naive.queue))
    for seq, held, tokens in live:
        leave(pool, naive, seq, held=held, tokens=tokens, size=size, again=False)
    pool.check()
    assert (pool.cached, pool.free) == (naive.cached, total)


def admit(pool, naive, seq, *, size, tokens, live):
    most = (seq.prompt - 1) // BLOCK
    wanted = contents(seq, size, most)
    hit = pool.look().hit(seq)
    assert tuple(hit) == naive.hit(wanted)
    fresh = -(-tokens // BLOCK) - hit.blocks
    if fresh + hit.idle > pool.free:
        return False
    seq.blocks = pool.pin(seq)
    assert seq.blocks == hit.blocks
    held = naive.pin(wanted, hit.blocks)
    pool.take(fresh)
    held += naive.take(fresh)
    seq.blocks += fresh
    whole = min(seq.prompt, seq.text.limit) // BLOCK
    pool.learn(seq, seq.prompt)
    naive.learn(held, contents(seq, size, whole), whole)
    live.append((seq, held, tokens))
    return True


def leave(pool, naive, seq, *, held, tokens, size, again):
    upto = (tokens if again else min(tokens, seq.text.limit)) // BLOCK
    pool.learn(seq, tokens, own=again)
    naive.learn(held, contents(seq, size, upto), upto)
    pool.release(seq)
    naive.free(held)


def known(pool, ids, prompt, size=4):
    return pool.look().hit(Seq(99, 0, prompt, 1, Text(99, ids, size, prompt)))


def serve(pool, row, ids, prompt, size=4):
    """Let one request come and go."""
    seq = Seq(row, 0, prompt, 1, Text(row, ids, size, prompt))
    seq.blocks = pool.pin(seq)
    pool.take(-(-prompt // BLOCK) - seq.blocks)
    seq.blocks = -(-prompt // BLOCK)
    pool.learn(seq, prompt)
    pool.release(seq)


def test_a_prompt_is_never_known_to_its_last_token():
    """8 tokens that are all cached: 3 of 4 blocks are a hit, so that the last token is computed."""
    pool = PrefixPool(10, BLOCK)
    serve(pool, 0, [7, 8], 8)
    assert known(pool, [7, 8], 8) == Hit(3, 3)
    assert known(pool, [7, 8, 9], 12) == Hit(4, 4)
    assert known(pool, [7, 9], 8) == Hit(2, 2)
    assert known(pool, [9, 8], 8) == Hit(0, 0)


def test_the_end_of_what_was_longest_unused_goes_first():
    """Blank blocks first, then the older prompt from its end, then the newer one."""
    pool = PrefixPool(8, BLOCK)
    serve(pool, 0, [1], 4)
    serve(pool, 1, [2], 4)
    assert (pool.cached, pool.free) == (4, 8)
    pool.take(4)
    assert pool.cached == 4
    pool.take(1)
    assert known(pool, [1, 1], 8) == Hit(1, 1)
    pool.take(2)
    assert known(pool, [1, 1], 8) == Hit(0, 0)
    assert known(pool, [2, 1], 8) == Hit(1, 1)


def test_what_a_step_computes_is_known_to_its_later_requests():
    """Three requests with one prefix in one step: the first computes it, and its blocks are counted as free once."""
    pool = PrefixPool(20, BLOCK)
    serve(pool, 9, [1], 4)
    look = pool.look()
    first, second = (Seq(row, 0, 12, 1, Text(row, [1, 2, 3], 4, 12)) for row in range(2))
    assert look.hit(first) == Hit(2, 2)
    look.add(first, 2, 4, 12)
    assert look.hit(second) == Hit(5, 0)


def a_plan(rows, **columns):
    """Rows of (prompt, output, block ids)."""
    prompts, outputs, ids = zip(*rows, strict=True)
    return build_plan(
        len(rows),
        prompt_tokens=prompts,
        output_tokens=outputs,
        block_offset=offsets(np.array([len(each) for each in ids])),
        block_id=[one for each in ids for one in each],
        block_tokens=4,
        **columns,
    )


def test_a_later_turn_says_what_was_replied():
    """Turn 2 goes on behind turn 1's output, so that this output's text is turn 2's; a fork and a stranger do not."""
    plan = a_plan(
        [(6, 3, [1, 2]), (12, 3, [1, 2, 3]), (8, 2, [1, 2]), (12, 2, [5, 6, 7])],
        intended_ns=[0, ABSENT, ABSENT, ABSENT],
        parent_offset=[0, 0, 1, 2, 3],
        parent_row=[0, 0, 0],
    )
    made = texts(plan)
    assert made is not None
    first = made.of(0)
    assert (first.ids, first.limit) == ([1, 2, 3], 9)
    assert (made.of(1).limit, made.of(2).limit) == (12, 8)
    assert first.common(made.of(1), 0, 6, BLOCK) == 4
    assert first.common(made.of(2), 0, 6, BLOCK) == 4
    assert first.common(made.of(3), 0, 6, BLOCK) == 0


def test_a_plan_that_shares_nothing_has_no_texts():
    """So that it costs nothing."""
    assert (
        texts(build_plan(2, intended_ns=[0, 1], prompt_tokens=[5, 5], output_tokens=[1, 1])) is None
    )


def test_the_laws_of_the_tree_are_checked():
    """A block that is counted wrong stops the run."""
    pool = PrefixPool(8, BLOCK)
    serve(pool, 0, [1], 4)
    pool.cached += 1
    with pytest.raises(AssertionError, match="not as counted"):
        pool.check()
