"""Prefix caching: which blocks of the KV cache hold the beginning of which prompts, and which of them go first.

A `Text` says what a request's tokens are as far as others may have the same: the plan's block ids, then its own. The
cache is a radix tree: a node is a run of whole KV blocks that follow one another, reached by what comes before it. Nodes
in use are counted; nodes that nobody uses stay as *cached* until their room is needed. The rules are those of vLLM's
`BlockPool` and `KVCacheManager` (v1, vllm-project/vllm docs "Automatic Prefix Caching"):
    a hit is the longest run of whole blocks known, and never all of a prompt: its last token must be computed
    a block is known from the beginning of the iteration that computes its last token
    freed blocks queue up, the last of a request first; whoever needs room takes from the queue's head, be it cached or blank
So what is evicted is always a leaf's end, least recently used first, and a run stands for its blocks exactly.

Law: blank + cached + used = total, where blank + cached = `free`. A deviation from vLLM: a block that two requests
compute at once is held once (vLLM holds both).

Blank blocks have no nodes: each node in the queue carries how many stand `before` it. So a plan without shared prompts
costs nothing, and one with them a few operations per run of blocks, not per block.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from inferometer.plan import Plan
from inferometer.sim.memory import MISS, BlockPool, Hit, Holder
from inferometer.timeline import Ints
from inferometer.workload.sharing import awaited, goes_on_from


class Text:
    """What a request's tokens are: `ids` of blocks of `size` tokens for the first `limit` tokens, its own (`row`) beyond."""

    __slots__ = ("ids", "limit", "row", "size")

    def __init__(self, row: int, ids: Sequence[int] = (), size: int = 1, limit: int = 0) -> None:
        self.row, self.ids, self.size = row, ids, size
        self.limit = min(limit, len(ids) * size)

    def key(self, at: int, block: int) -> Hashable:
        """What its KV block number `at` is, to whoever has the same blocks before it."""
        begin, end = at * block, (at + 1) * block
        if end > self.limit:
            return self.row
        return tuple(self.ids[begin // self.size : -(-end // self.size)])

    def common(self, other: Text, begin: int, end: int, block: int) -> int:
        """How many of the KV blocks [begin, end) are the same in both, from `begin` on; all before `begin` are."""
        if self.row == other.row:
            return max(end - begin, 0)
        end = min(end, self.limit // block, other.limit // block)
        if end <= begin:
            return 0
        first, last = begin * block // self.size, -(-end * block // self.size)
        if self.ids[first:last] == other.ids[first:last]:
            return end - begin
        same = first
        while self.ids[same] == other.ids[same]:
            same += 1
        return max(same * self.size // block - begin, 0)


class Texts:
    """The texts of a plan's rows.

    Where a later turn's prompt is all that was said before it (it begins with all blocks of the turn before, and is longer
    than that one's prompt and output), it says what that output will have been.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._next = _continued(plan)

    def of(self, row: int) -> Text | None:
        """The text of a row; None where nobody else can have any of it."""
        plan, later = self._plan, int(self._next[row])
        tokens = int(plan.prompt_tokens[row])
        if later >= 0:
            tokens += int(plan.output_tokens[row])
        owner = later if later >= 0 else row
        ids = plan.block_id[plan.block_offset[owner] : plan.block_offset[owner + 1]].tolist()
        return Text(row, ids, plan.block_tokens, tokens) if ids else None


def texts(plan: Plan) -> Texts | None:
    """The texts of a plan; None where it shares nothing."""
    return Texts(plan) if len(plan.block_id) and plan.block_tokens else None


def _continued(plan: Plan) -> Ints:
    """For each row the first one whose prompt goes on where this row's output ends; -1: none [R]."""
    out = np.full(len(plan), -1, dtype=np.int64)
    goes_on = goes_on_from(plan, _before(plan))
    later = np.flatnonzero(goes_on >= 0)[::-1]
    out[goes_on[later]] = later  # the first is written last
    return out


def _before(plan: Plan) -> Ints:
    """The turn before each row [R]: the first that it waits for, else the one before it in its session; -1: none."""
    out = awaited(plan)
    last: dict[str, int] = {}
    for row, session in enumerate(plan.session_id.tolist()):
        if session is not None:
            out[row] = out[row] if out[row] >= 0 else last.get(session, -1)
            last[session] = row
    return out


class Node:
    """Blocks [begin, end) of a text. `refs`: requests that use them. In the queue: `before` blank blocks, then these."""

    __slots__ = (
        "before",
        "begin",
        "children",
        "end",
        "key",
        "next",
        "parent",
        "prev",
        "refs",
        "text",
    )

    def __init__(
        self, text: Text, begin: int, end: int, parent: Node | None, key: Hashable
    ) -> None:
        self.text, self.begin, self.end, self.parent, self.key = text, begin, end, parent, key
        self.refs = self.before = 0
        self.children: dict[Hashable, Node] = {}
        self.prev: Node = self
        self.next: Node = self


class PrefixPool(BlockPool):
    """A pool that remembers what was in its blocks. `cached` of the free ones hold something that may be asked for."""

    __slots__ = ("_queued", "_root")

    def __init__(self, total: int, block: int) -> None:
        super().__init__(total, block)
        self._root = Node(Text(-1), 0, 0, None, None)
        self._queued = 0  # blank blocks that stand before some cached one

    def take(self, blocks: int) -> None:
        """Give `blocks` away, the longest free first: blank ones as they are, cached ones are forgotten."""
        self.free -= blocks
        if self.free < 0 or blocks < 0:
            raise AssertionError(f"{blocks} blocks were taken of {self.free + blocks}")
        if self.cached:
            self._evict(blocks)

    def look(self) -> Overlay:
        """What a step that begins now will find, for a policy to ask."""
        return Overlay(self)

    def pin(self, seq: Holder) -> int:
        """Give a request all that is known of its prompt; how many blocks that is."""
        if seq.text is None:
            return 0
        at, node = self._begun(seq)
        most = (seq.prompt - 1) // self.block
        while at < most:
            child = node.children.get(seq.text.key(at, self.block))
            if child is None:
                break
            node, at = self._use(child, seq.text, at, most)
        seq.leaf = None if node is self._root else node
        return at

    def learn(self, seq: Holder, tokens: int, *, own: bool = False) -> int:
        """Know the whole blocks of a request's first `tokens`, which it holds; how many of them were known already.

        Those are given back. `own`: also what nobody else can ask for (a preempted request will, itself).
        """
        if seq.text is None:
            return 0
        upto = tokens if own else min(tokens, seq.text.limit)
        upto //= self.block
        (at, node), twice = self._begun(seq), 0
        while at < upto:
            key = seq.text.key(at, self.block)
            child = node.children.get(key)
            if child is None:
                node.children[key] = child = Node(seq.text, at, upto, node, key)
                child.refs, at = 1, upto
                self.pinned += child.end - child.begin
                node = child
            else:
                before = at
                node, at = self._use(child, seq.text, at, upto)
                twice += at - before
        self.give(twice)
        seq.leaf = None if node is self._root else node
        return twice

    def release(self, seq: Holder) -> None:
        """Take all blocks of a request back; the known ones of them stay cached, the first of them for longest."""
        self.give(self.own(seq, seq.blocks))
        node, seq.leaf = seq.leaf, None
        while node is not None and node is not self._root:
            node.refs -= 1
            if not node.refs:
                self._enqueue(node)
            node = node.parent

    def own(self, seq: Holder, held: int) -> int:
        """How many of the `held` blocks are the request's alone, in that the tree does not know them."""
        return held - seq.leaf.end if seq.leaf is not None else held

    def check(self) -> None:
        """The laws of tree and queue (O(nodes)); raises AssertionError."""
        super().check()
        nodes = list(self._nodes())
        queue = list(self._queue())
        if {id(node) for node in nodes if not node.refs} != {id(node) for node in queue}:
            raise AssertionError("what nobody uses is not what is queued")
        found = (
            sum(node.end - node.begin for node in queue),
            sum(node.end - node.begin for node in nodes if node.refs),
            sum(node.before for node in queue),
        )
        if found != (self.cached, self.pinned, self._queued) or self.cached > self.free:
            raise AssertionError(f"(cached, pinned, queued) are {found}, not as counted")
        for node in nodes:
            assert node.parent is not None
            if node.end <= node.begin or node.begin != node.parent.end:
                raise AssertionError("a run of blocks does not follow the one before it")
            if node.parent is not self._root and node.parent.refs < node.refs:
                raise AssertionError("a run of blocks is in use without what comes before it")

    # --- the tree -----------------------------------------------------------------------------------------------------

    def _begun(self, seq: Holder) -> tuple[int, Node]:
        """Where a request's known blocks end so far."""
        return (0, self._root) if seq.leaf is None else (seq.leaf.end, seq.leaf)

    def _use(self, child: Node, text: Text, at: int, most: int) -> tuple[Node, int]:
        """Use what `child` shares with a text (one block or more), split off if that is not all; it, and where it ends."""
        upto = at + text.common(child.text, at, min(child.end, most), self.block)
        if upto < child.end:
            child = self._split(child, upto)
        if not child.refs:
            self._dequeue(child)
        child.refs += 1
        return child, upto

    def _split(self, lower: Node, at: int) -> Node:
        """Cut a node in two; the new upper one, which has all that use the lower."""
        parent = lower.parent
        assert parent is not None
        upper = Node(lower.text, lower.begin, at, parent, lower.key)
        upper.refs = lower.refs
        parent.children[upper.key] = upper
        lower.begin, lower.parent, lower.key = at, upper, lower.text.key(at, self.block)
        upper.children[lower.key] = lower
        if not upper.refs:
            _link(upper, lower, lower.next)
        return upper

    def _nodes(self) -> Iterator[Node]:
        open_ = [self._root]
        while open_:
            for child in open_.pop().children.values():
                yield child
                open_.append(child)

    # --- the queue, oldest first --------------------------------------------------------------------------------------

    def _queue(self) -> Iterator[Node]:
        node = self._root.next
        while node is not self._root:
            yield node
            node = node.next

    def _enqueue(self, node: Node) -> None:
        """Behind all that is free now."""
        size = node.end - node.begin
        node.before = self.free - self.cached - self._queued
        self._queued += node.before
        self.cached += size
        self.pinned -= size
        self.free += size
        _link(node, self._root.prev, self._root)

    def _dequeue(self, node: Node) -> None:
        """In use again: the blank ones before it are now before the next, or simply last."""
        size = node.end - node.begin
        self.cached -= size
        self.pinned += size
        self.free -= size
        self._leave_queue(node)

    def _leave_queue(self, node: Node) -> None:
        if node.next is self._root:
            self._queued -= node.before
        else:
            node.next.before += node.before
        node.before = 0
        node.prev.next, node.next.prev = node.next, node.prev

    def _evict(self, blocks: int) -> None:
        """Let the queue's head go: `blocks` in all, blank or cached."""
        node = self._root.next
        while blocks and node is not self._root:
            blank = min(node.before, blocks)
            node.before -= blank
            self._queued -= blank
            blocks -= blank
            gone = min(node.end - node.begin, blocks)
            node.end -= gone
            self.cached -= gone
            blocks -= gone
            following = node.next
            if node.end == node.begin:
                assert node.parent is not None
                assert not node.children
                del node.parent.children[node.key]
                self._leave_queue(node)
            node = following


def _link(node: Node, prev: Node, following: Node) -> None:
    node.prev, node.next = prev, following
    prev.next = following.prev = node


class Overlay:
    """Memory as a step will find it that is being composed: the pool, and what the step has done to it so far.

    It mirrors what the pool will do when the step is applied, in the same order: victims leave (`lose`), decoders take
    their blocks (`take`), then one request after the other holds its hit, takes its blocks, and is known (`add`).
    """

    __slots__ = ("_added", "_at", "_gone", "_held", "_lost", "_pool", "_skipped")

    def __init__(self, pool: PrefixPool) -> None:
        self._pool = pool
        self._added: list[tuple[Text, int]] = []  # what the step computes: so many blocks of a text
        self._held: dict[Node, int] = {}  # up to where the step itself uses a node
        self._lost: dict[Node, int] = {}  # users of a node that the step preempts
        self._gone: dict[Node, int] = {}  # blocks of a queued node that the step evicts
        self._at = pool._root  # noqa: SLF001  (how far it has eaten into the queue ...
        self._skipped = 0  # ... and into the blank blocks before the next node there)

    def lose(self, seq: Holder, held: int) -> int:
        """How many blocks come free when a resident that holds so many makes room."""
        free, node = self._pool.own(seq, held), seq.leaf
        while node is not None and node.parent is not None:
            lost = self._lost[node] = self._lost.get(node, 0) + 1
            free += node.end - node.begin if lost == node.refs else 0
            node = node.parent
        return free

    def take(self, blocks: int) -> None:
        """Somebody takes `blocks`: what is longest free goes first."""
        if not self._pool.cached:
            return
        root = self._pool._root  # noqa: SLF001
        while blocks and self._at.next is not root:
            node = self._at.next
            blank = min(node.before - self._skipped, blocks)
            self._skipped += blank
            blocks -= blank
            kept = max(self._held.get(node, node.begin), node.begin)
            gone = self._gone.get(node, 0)
            more = min(node.end - gone - kept, blocks)
            self._gone[node] = gone + more
            blocks -= more
            if blocks:
                self._at, self._skipped = node, 0

    def hit(self, seq: Holder) -> Hit:
        """What a waiting request finds."""
        text = seq.text
        if text is None:
            return MISS
        block, most = self._pool.block, (seq.prompt - 1) // self._pool.block
        at = idle = 0
        for node, upto in self._walk(text, most):
            if not node.refs:
                idle += max(upto - max(at, self._held.get(node, 0)), 0)
            at = upto
        for other, end in self._added:
            at = max(at, text.common(other, 0, min(end, most), block))
        return Hit(at, idle)

    def add(self, seq: Holder, cached: int, blocks: int, tokens: int) -> None:
        """A request holds `cached` blocks that it found, takes `blocks`, and then its first `tokens` are known."""
        text = seq.text
        if text is None:
            self.take(blocks)
            return
        self._hold(text, cached)
        self.take(blocks)
        whole = min(tokens, text.limit) // self._pool.block
        self._hold(text, whole)
        self._added.append((text, whole))

    def _hold(self, text: Text, blocks: int) -> None:
        for node, upto in self._walk(text, blocks):
            self._held[node] = max(upto, self._held.get(node, 0))

    def _walk(self, text: Text, most: int) -> Iterator[tuple[Node, int]]:
        """The nodes that hold a text's first `most` blocks, each with where what it shares ends."""
        block, node, at = self._pool.block, self._pool._root, 0  # noqa: SLF001
        while at < most:
            child = node.children.get(text.key(at, block))
            if child is None:
                return
            end = child.end - self._gone.get(child, 0)
            if end <= at:
                return
            at += text.common(child.text, at, min(end, most), block)
            yield child, at
            if at < child.end:
                return
            node = child
