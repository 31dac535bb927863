"""Routers: which replica a request goes to. Each decides at arrival, from what a load balancer can know.

`outstanding` counts all requests of a replica that are not finished, running ones included. Vidur's own "least
outstanding" counts queued ones only, so that ties always go to replica 0: that is `least-queued` here, for comparison.
Random numbers come from a seeded generator of the router's own, so that a seed gives the same run again.

Two routers have affinity. `session-affinity` hashes the session, as consistent hashing does where no replica comes or
goes. `prefix-affinity` sends a prompt to where most of it has been before, by a record of its own: a prefix tree for each
replica, of the prompts that it was sent, as large as that replica's cache. It does so unless less than `MATCH` of the
prompt is known anywhere, or loads are out of balance (by more than `ABSOLUTE` requests and `RELATIVE` times); then the
least outstanding takes it. So do SGLang's and SMG's cache-aware policies, whose defaults these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, Protocol
from zlib import crc32

from inferometer.errors import UserError
from inferometer.sim.memory import BlockPool
from inferometer.sim.prefix import Node, PrefixPool, Text

MATCH, ABSOLUTE, RELATIVE = 0.3, 64, 1.5


class Loaded(Protocol):
    """What a router sees of a replica."""

    @property
    def outstanding(self) -> int:
        """Requests there that are not finished."""

    @property
    def queued(self) -> int:
        """Those of them that are not resident."""

    @property
    def pool(self) -> BlockPool:
        """Its memory, of which only the size is looked at."""


class Ask(NamedTuple):
    """What a router sees of a request: its number, its session, how long its prompt is, and what others share of it."""

    row: int
    session: str | None
    prompt: int
    text: Text | None


Router = Callable[[Sequence[Loaded], Ask], int]
"""The index of the replica that takes the next request."""


def _round_robin(_seed: int) -> Router:
    state = [-1]

    def route(replicas: Sequence[Loaded], _ask: Ask) -> int:
        state[0] = (state[0] + 1) % len(replicas)
        return state[0]

    return route


def _random(seed: int) -> Router:
    draw = Random(seed)  # noqa: S311
    return lambda replicas, _ask: draw.randrange(len(replicas))


def _least(_seed: int) -> Router:
    return lambda replicas, _ask: _least_outstanding(replicas)


def _least_outstanding(replicas: Sequence[Loaded]) -> int:
    loads = [replica.outstanding for replica in replicas]
    return loads.index(min(loads))


def _least_queued(_seed: int) -> Router:
    return lambda replicas, _ask: min(range(len(replicas)), key=lambda i: replicas[i].queued)


def _two(seed: int) -> Router:
    """Mitzenmacher, "The power of two choices in randomized load balancing" (IEEE TPDS 2001)."""
    draw = Random(seed)  # noqa: S311

    def route(replicas: Sequence[Loaded], _ask: Ask) -> int:
        one, other = draw.randrange(len(replicas)), draw.randrange(len(replicas))
        return other if replicas[other].outstanding < replicas[one].outstanding else one

    return route


def _session(seed: int) -> Router:
    """A request without a session is its own."""

    def route(replicas: Sequence[Loaded], ask: Ask) -> int:
        whose = f"s{ask.session}" if ask.session is not None else f"r{ask.row}"
        return crc32(f"{seed} {whose}".encode()) % len(replicas)

    return route


class Sent:
    """A prompt, as a router's own record of a replica's cache holds it."""

    __slots__ = ("blocks", "leaf", "prompt", "text")

    def __init__(self, ask: Ask) -> None:
        self.text: Text | None = ask.text
        self.leaf: Node | None = None
        self.prompt = ask.prompt
        self.blocks = 0


def _prefix(_seed: int) -> Router:
    caches: list[PrefixPool] = []

    def route(replicas: Sequence[Loaded], ask: Ask) -> int:
        if not caches:
            caches.extend(PrefixPool(each.pool.total, each.pool.block) for each in replicas)
        index = _cache_aware(caches, replicas, ask)
        if ask.text is not None:
            _record(caches[index], ask)
        return index

    return route


def _cache_aware(caches: list[PrefixPool], replicas: Sequence[Loaded], ask: Ask) -> int:
    loads = [replica.outstanding for replica in replicas]
    low, high = min(loads), max(loads)
    if ask.text is None or (high - low > ABSOLUTE and high > RELATIVE * low):
        return loads.index(low)
    known = [cache.look().hit(Sent(ask)).blocks for cache in caches]
    if max(known) * caches[0].block < MATCH * ask.prompt:
        return loads.index(low)
    best = max(known)
    return min((load, i) for i, load in enumerate(loads) if known[i] == best)[1]


def _record(cache: PrefixPool, ask: Ask) -> None:
    """Let a prompt pass through a replica's record, as if it came and went at once."""
    sent = Sent(ask)
    sent.blocks = cache.pin(sent)
    more = min(ask.prompt // cache.block, cache.total) - sent.blocks
    if 0 < more <= cache.free:
        cache.take(more)
        sent.blocks += more
        cache.learn(sent, sent.blocks * cache.block)
    cache.release(sent)


ROUTERS: dict[str, Callable[[int], Router]] = {
    "round-robin": _round_robin,
    "random": _random,
    "least-outstanding": _least,
    "least-queued": _least_queued,
    "power-of-two": _two,
    "session-affinity": _session,
    "prefix-affinity": _prefix,
}


BLIND = frozenset(("round-robin", "random", "session-affinity"))
"""Those that never look at a replica, so that who gets what is known before the run."""


def router(name: str, seed: int) -> Router:
    """The router of a name."""
    if name not in ROUTERS:
        raise UserError(
            f"no such router: {name!r}",
            where="--router",
            remedy="take one of " + ", ".join(ROUTERS),
        )
    return ROUTERS[name](seed)
