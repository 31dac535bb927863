"""Routers: which replica a request goes to. Each decides at arrival, from what a load balancer can know.

`outstanding` counts all requests of a replica that are not finished, running ones included. Vidur's own "least
outstanding" counts queued ones only, so that ties always go to replica 0: that is `least-queued` here, for comparison.
Random numbers come from a seeded generator of the router's own, so that a seed gives the same run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from inferometer.errors import UserError


class Loaded(Protocol):
    """What a router sees of a replica."""

    @property
    def outstanding(self) -> int:
        """Requests there that are not finished."""

    @property
    def queued(self) -> int:
        """Those of them that are not resident."""


Router = Callable[[Sequence[Loaded]], int]
"""The index of the replica that takes the next request."""


def _round_robin(_seed: int) -> Router:
    state = [-1]

    def route(replicas: Sequence[Loaded]) -> int:
        state[0] = (state[0] + 1) % len(replicas)
        return state[0]

    return route


def _random(seed: int) -> Router:
    draw = Random(seed)  # noqa: S311
    return lambda replicas: draw.randrange(len(replicas))


def _least(_seed: int) -> Router:
    return lambda replicas: min(range(len(replicas)), key=lambda i: replicas[i].outstanding)


def _least_queued(_seed: int) -> Router:
    return lambda replicas: min(range(len(replicas)), key=lambda i: replicas[i].queued)


def _two(seed: int) -> Router:
    """Mitzenmacher, "The power of two choices in randomized load balancing" (IEEE TPDS 2001)."""
    draw = Random(seed)  # noqa: S311

    def route(replicas: Sequence[Loaded]) -> int:
        one, other = draw.randrange(len(replicas)), draw.randrange(len(replicas))
        return other if replicas[other].outstanding < replicas[one].outstanding else one

    return route


ROUTERS: dict[str, Callable[[int], Router]] = {
    "round-robin": _round_robin,
    "random": _random,
    "least-outstanding": _least,
    "least-queued": _least_queued,
    "power-of-two": _two,
}


def router(name: str, seed: int) -> Router:
    """The router of a name."""
    if name not in ROUTERS:
        raise UserError(
            f"no such router: {name!r}",
            where="--router",
            remedy="take one of " + ", ".join(ROUTERS),
        )
    return ROUTERS[name](seed)
