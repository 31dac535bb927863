"""Each policy against a schedule worked out by hand."""

from __future__ import annotations

from itertools import accumulate

import pytest

from inferometer.sim.memory import Host
from inferometer.sim.policies.orca import Orca
from inferometer.sim.policies.sarathi import Sarathi
from inferometer.sim.policies.static import Static
from inferometer.sim.policies.vllm import Vllm
from inferometer.sim.policies.vllm_v1 import VllmV1
from inferometer.timeline import ABSENT

# Two requests of 10 prompt tokens: r1 at 0 s makes 3 tokens, r2 at 1.05 s makes 2.
# Every iteration takes 0.1 s and 0.1 s per prefilled token.
ROWS = [(0.0, 10, 3), (1.05, 10, 2)]


def played(world, policy, rows=None, **how):
    outcome, replicas = world.play(policy, world.plan(rows or ROWS), world.seconds(0.1, 0.1), **how)
    return [pytest.approx(tokens) for tokens in world.tokens(outcome)], outcome, replicas


def test_vllm_lets_a_prompt_stall_the_decoders(world):
    """Prefill r1 until 1.1, when r2 has come: its prefill goes first, until 2.2; then both decode together."""
    tokens, _, _ = played(world, Vllm())
    assert tokens == [[1.1, 2.3, 2.4], [2.2, 2.3]]


def test_orca_decodes_beside_whole_prompts(world):
    """r2's prompt joins r1's second decode: one iteration of 1.1 s from 1.1 gives both a token (r2 came at 1.05)."""
    tokens, _, _ = played(world, Orca(max_batch=4, reserve=160))
    assert tokens == [[1.1, 2.2, 2.3], [2.2, 2.3]]


def test_sarathi_takes_prompts_in_chunks(world):
    """Chunk 6: r1 prefills 6 then 4 tokens; r2 gets 5 beside r1's decode, then the other 5 beside its last one."""
    tokens, _, _ = played(world, Sarathi(chunk=6))
    assert tokens == [[0.7 + 0.5, 1.2 + 0.6, 1.8 + 0.6], [2.4, 2.5]]


def test_vllm_v1_shares_one_budget(world):
    """Budget 8: r1 prefills 8 + 2; r2 gets 7 beside r1's decode, 3 beside its last one."""
    tokens, _, _ = played(world, VllmV1(max_tokens=8))
    assert tokens == [[0.9 + 0.3, 1.2 + 0.8, 2.0 + 0.4], [2.4, 2.5]]


def test_static_serves_one_batch_after_the_other(world):
    """r2 waits until r1's batch is empty at 1.3."""
    tokens, _, _ = played(world, Static(max_batch=4, reserve=160))
    assert tokens == [[1.1, 1.2, 1.3], [2.4, 2.5]]


def test_scheduled_is_when_a_request_is_first_in_a_batch(world):
    """r2 comes at 1.05 and is first run at 1.1, when r1's prefill has ended."""
    _, outcome, _ = played(world, Vllm())
    assert [t / 1e12 for t in outcome.scheduled] == pytest.approx([0.0, 1.1])


@pytest.mark.parametrize("policy", [Vllm(watermark=0.0), Sarathi(watermark=0.0), VllmV1()])
def test_the_last_resident_recomputes_when_blocks_run_out(world, policy):
    """Two requests of 2 + 5 tokens in 3 blocks of 2: the second loses its block, and starts again once it can."""
    rows = [(0.0, 2, 5), (0.0, 2, 5)]
    _, outcome, replicas = played(world, policy, rows, blocks=3, block=2)
    assert replicas[0].preemptions >= 1
    assert [len(stamps) // 8 for stamps in outcome.stamps] == [5, 5]
    first = world.tokens(outcome)[0]
    assert first[1:] == pytest.approx([first[0] + 0.1 * k for k in range(1, 5)])
    assert replicas[0].pool.used == 0


def test_orca_holds_back_what_has_no_reservation(world):
    """A pool of one reservation serves one request at a time, in order of arrival."""
    tokens, _, _ = played(world, Orca(max_batch=4, reserve=160), blocks=10)
    assert tokens == [[1.1, 1.2, 1.3], [2.4, 2.5]]


def test_sarathi_starves_prefills_behind_as_many_decodes_as_the_budget(world):
    """With chunk 1 and one decoder, the second prompt waits until the first request is over."""
    rows = [(0.0, 1, 4), (0.05, 2, 1)]
    tokens, _, _ = played(world, Sarathi(chunk=1), rows)
    assert tokens == [[0.2, 0.3, 0.4, 0.5], [0.9]]


def test_a_prompt_that_vidur_would_cut_is_kept(world):
    """A victim amid its prefill starts again with its whole prompt, and makes as many tokens as it was to make."""
    rows = [(0.0, 2, 6), (0.0, 6, 3)]
    for keeps in (True, False):
        policy = Sarathi(chunk=3, watermark=0.0, keeps_prompt=keeps)
        _, outcome, replicas = played(world, policy, rows, blocks=4, block=2)
        made = [len(stamps) // 8 for stamps in outcome.stamps]
        assert replicas[0].preemptions > 0
        assert made[0] == 6
        assert (made[1] == 3) == keeps


SECOND = 10**12


def test_sarathi_without_hybrid_batches_lets_chunks_and_decodes_take_turns(world):
    """Chunk 6: r1 prefills 6 then 4, decodes once, waits for r2's 6, decodes its last, and then r2 gets its other 4."""
    tokens, _, _ = played(world, Sarathi(chunk=6, hybrid=False))
    assert tokens == [[1.2, 1.3, 2.1], [2.6, 2.7]]


def test_sarathi_without_chunks_is_orca_on_paged_memory(world):
    """The same times as Orca; in a pool where Orca's reservations hold r2 back, it is not held back."""
    tokens, _, _ = played(world, Sarathi(chunked=False, watermark=0.0), blocks=10)
    assert tokens == [[1.1, 2.2, 2.3], [2.2, 2.3]]


def test_vllm_swaps_over_the_hosts_link(world):
    """Two requests of 2 + 5 tokens in 3 blocks of 2, and half a second to move a block.

    Both prefill until 0.5; then there is a block for r1 alone, and r2's one block moves out before r1 decodes: 0.6 s.
    When r1 is over, at 1.4, it moves back in: 0.6 s again, and not a token is computed twice.
    """
    rows = [(0.0, 2, 5), (0.0, 2, 5)]
    policy = Vllm(watermark=0.0, swap=True)
    tokens, _, (replica,) = played(
        world, policy, rows, blocks=3, block=2, host=Host(1, SECOND // 2)
    )
    assert tokens == [[0.5, 1.1, 1.2, 1.3, 1.4], [0.5, 2.0, 2.1, 2.2, 2.3]]
    assert (replica.preemptions, replica.swaps, replica.host_free) == (1, 1, 1)


def test_vllm_recomputes_where_the_host_is_full(world):
    """The same without room on the host: r2 prefills its 3 known tokens again, and gets its second one by that."""
    rows = [(0.0, 2, 5), (0.0, 2, 5)]
    policy = Vllm(watermark=0.0, swap=True)
    tokens, _, (replica,) = played(world, policy, rows, blocks=3, block=2)
    assert tokens == [[0.5, 0.6, 0.7, 0.8, 0.9], [0.5, 1.3, 1.4, 1.5, 1.6]]
    assert (replica.preemptions, replica.swaps) == (1, 0)


def test_nobody_is_admitted_while_somebody_is_swapped_out(world):
    """r3 comes when r2 is on the host, and fits; it waits until r2 is back, and prefills then."""
    rows = [(0.0, 2, 5), (0.0, 2, 5), (0.6, 1, 1)]
    policy = Vllm(watermark=0.0, swap=True)
    tokens, _, _ = played(world, policy, rows, blocks=3, block=2, host=Host(1, SECOND // 2))
    assert tokens == [[0.5, 1.1, 1.2, 1.3, 1.4], [0.5, 2.0, 2.3, 2.4, 2.5], [2.2]]


# Blocks of 2 tokens; prompts described in blocks of 4.
def shared(world, rows, ids, **columns):
    offset = [0, *accumulate(len(each) for each in ids)]
    flat = [one for each in ids for one in each]
    return world.plan(rows, block_tokens=4, block_offset=offset, block_id=flat, **columns)


@pytest.mark.parametrize(
    ("caching", "second", "cached"), [(True, [2.3, 2.4], [0, 8]), (False, [3.2, 3.3], [-1, -1])]
)
def test_vllm_v1_does_not_compute_what_it_has_cached(world, caching, second, cached):
    """r2's prompt begins with the 8 tokens that r1's began with: 2 of 10 are left, 0.3 s instead of 0.9 + 0.3."""
    plan = shared(world, [(0.0, 10, 3), (2.0, 10, 2)], [[1, 2], [1, 2]])
    policy = VllmV1(max_tokens=8, caching=caching)
    outcome, _ = world.play(policy, plan, world.seconds(0.1, 0.1), block=2)
    assert world.tokens(outcome)[1] == pytest.approx(second)
    assert list(outcome.cached) == cached


def test_a_sessions_own_replies_are_cached(world):
    """Turn 1 ends at 0.8 with 7 of its 8 tokens computed: 3 whole blocks. Turn 2 says them again, and computes 4 of 10."""
    plan = shared(
        world,
        [(0.0, 4, 4), (0.0, 10, 1)],
        [[1], [1, 2, 3]],
        intended_ns=[0, ABSENT],
        parent_offset=[0, 0, 1],
        parent_row=[0],
    )
    outcome, _ = world.play(VllmV1(), plan, world.seconds(0.1, 0.1), block=2)
    assert world.tokens(outcome) == [pytest.approx([0.5, 0.6, 0.7, 0.8]), pytest.approx([1.3])]
    assert list(outcome.cached) == [0, 6]


@pytest.mark.parametrize(("caching", "rest"), [(True, [1.8, 1.9, 2.0]), (False, [2.2, 2.3, 2.4])])
def test_who_is_preempted_finds_its_own_blocks_again(world, caching, rest):
    """Two of 4 + 6 tokens in 7 blocks of 2: at 1.1 r2 makes room, with 3 blocks of 6 computed tokens.

    r1 takes a blank block, and later the last of those 3. It ends at 1.4; r2 computes 3 of its 7 known tokens, not 7.
    """
    rows = [(0.0, 4, 6), (0.0, 4, 6)]
    tokens, _, (replica,) = played(world, VllmV1(caching=caching), rows, blocks=7, block=2)
    assert tokens == [[0.9, 1.0, 1.1, 1.2, 1.3, 1.4], [0.9, 1.0, 1.1, *rest]]
    assert replica.preemptions == 1
