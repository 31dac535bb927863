"""The KV cache: how many blocks there are, and who has them.

`BlockPool` counts; it does not know requests. Its law is free + used = total, and it is checked at every move: what
would break it is a bug of a policy or of the engine, and stops the run. It remembers nothing: `prefix.PrefixPool` is
the pool that does, and this one answers its questions with "nothing is known".

How large a pool is follows from the model and the GPU alone, the same for every system (implementation fairness).
Two planners, both pure:
    `blocks`         what serving engines do: memory × utilisation − weights − activations, spread over one token's KV
    `vidur_blocks`   Vidur's: without embeddings and activations, in whole requests of the maximum length
                     (microsoft/vidur 7d47513, memory planner; `--compat vidur`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from inferometer.errors import UserError
from inferometer.sim.devices import Device
from inferometer.sim.kernel import to_ps
from inferometer.sim.models import Model

if TYPE_CHECKING:
    from inferometer.sim.prefix import Node, Text

UTILIZATION = 0.9
# What a profiling forward pass of an engine finds in use besides weights, in order of magnitude: with 1.5 GiB, a 24 GB
# card has 2,631 blocks left beside Llama-3.1-8B; vLLM 0.19 on an RTX 4090 reported 2,588.
ACTIVATIONS_BYTES = 3 << 29


class Hit(NamedTuple):
    """Blocks of a prompt that are known, and how many of those are nobody's now (and so are among the free)."""

    blocks: int
    idle: int


MISS = Hit(0, 0)


class Holder(Protocol):
    """A request, as a pool sees it: `blocks` held in all, of which the cache knows those up to `leaf`."""

    text: Text | None
    leaf: Node | None
    prompt: int
    blocks: int


class Look(Protocol):
    """Memory as a step that is being composed will find it. What is told here changes nothing in the pool itself."""

    def lose(self, seq: Holder, held: int) -> int:
        """How many blocks come free when a resident that holds so many makes room: not those that others use, too."""
        ...

    def hit(self, seq: Holder) -> Hit:
        """What a waiting request finds."""
        ...

    def take(self, blocks: int) -> None:
        """Somebody takes `blocks`."""
        ...

    def add(self, seq: Holder, cached: int, blocks: int, tokens: int) -> None:
        """A request holds `cached` blocks that it found, takes `blocks`, and then its first `tokens` are known."""
        ...


class Blank:
    """Memory that knows nothing of what it holds."""

    __slots__ = ()

    def lose(self, _seq: Holder, held: int) -> int:
        """All that it holds."""
        return held

    def hit(self, _seq: Holder) -> Hit:
        """Nothing."""
        return MISS

    def take(self, _blocks: int) -> None:
        """Nothing is forgotten by that."""

    def add(self, _seq: Holder, _cached: int, _blocks: int, _tokens: int) -> None:
        """It will not be known."""


BLANK = Blank()


class BlockPool:
    """`total` blocks of `block` tokens each; `cached` of the free ones and `pinned` of the used ones are known."""

    __slots__ = ("block", "cached", "free", "pinned", "total")

    def __init__(self, total: int, block: int) -> None:
        self.total, self.block, self.free = total, block, total
        self.cached = self.pinned = 0

    @property
    def used(self) -> int:
        """Blocks that somebody has."""
        return self.total - self.free

    def take(self, blocks: int) -> None:
        """Give `blocks` away; there must be that many."""
        self.free -= blocks
        if self.free < 0 or blocks < 0:
            raise AssertionError(f"{blocks} blocks were taken of {self.free + blocks}")

    def give(self, blocks: int) -> None:
        """Take `blocks` back; that many must be out."""
        self.free += blocks
        if self.free > self.total or blocks < 0:
            raise AssertionError(
                f"{blocks} blocks came back to {self.free - blocks} of {self.total}"
            )

    def look(self) -> Look:
        """What a step that begins now will find, for a policy to ask."""
        return BLANK

    def release(self, seq: Holder) -> None:
        """Take all blocks of a request back."""
        self.give(seq.blocks)

    def own(self, _seq: Holder, held: int) -> int:
        """How many of the `held` blocks are a request's alone."""
        return held

    def check(self) -> None:
        """The laws that are not checked at every move; raises AssertionError."""


class Host(NamedTuple):
    """Where preempted requests are swapped to: KV blocks of room, and what moving one of them takes [ps]."""

    blocks: int = 0
    block_ps: int = 0


WINDOWS = (
    256  # sequences for whose sliding-window layers there is room, as many as vLLM runs at most
)
SWAP_GIB = 4  # of the host's memory for each device: vLLM's `swap_space`


class Plan(NamedTuple):
    """A pool's size, and how many requests of the maximum length fit into it."""

    blocks: int
    requests: int


def blocks(
    model: Model,
    device: Device,
    *,
    tp: int,
    pp: int,
    block: int,
    max_tokens: int,
    utilization: float = UTILIZATION,
) -> Plan:
    """The pool of one replica on `tp` x `pp` devices; UserError where the model leaves no room for one request.

    Of a model some of whose layers have a sliding window, a block is that of the others (vLLM's hybrid KV cache manager
    frees what a window has left behind); one with windows in all layers is taken for one without.
    """
    weights = model.weight_bytes / (tp * pp)
    room = device.memory_bytes * utilization - weights - ACTIVATIONS_BYTES
    near = 1.0 - model.growing_layers / model.layers
    room -= WINDOWS * (model.window + block) * near * model.kv_bytes_per_token(tp) / pp
    count = int(room // _block_bytes(model, tp, pp, block)) if room > 0 else 0
    needed = -(-max_tokens // block)
    if count < 1:
        raise UserError(
            f"{model.name} ({weights / 1e9:.0f} GB of weights per device) does not fit into "
            f"{utilization:.0%} of {device.name}'s {device.memory_bytes / 1e9:.0f} GB",
            remedy="raise --tp or --pp, or take a larger --device",
        )
    return Plan(count, count // needed)


def _block_bytes(model: Model, tp: int, pp: int, block: int) -> float:
    """Bytes of a block on one device."""
    layers = model.growing_layers / model.layers
    return block * model.kv_bytes_per_token(tp) * layers / pp


def vidur_blocks(
    model: Model, device: Device, *, tp: int, pp: int, block: int, max_tokens: int
) -> Plan:
    """Vidur's pool: whole requests of `max_tokens`, times the pipeline's stages."""
    total = device.memory_bytes * UTILIZATION
    weights = 2 * model.layer_params * (model.layers // pp) / tp
    heads = -(-model.kv_heads // tp)
    per_request = 2 * 2 * model.head_dim * heads * max_tokens * model.layers
    slots = int((total - weights) // per_request)
    if slots < 1:
        raise UserError(
            f"{model.name} does not fit into {device.name} at tp {tp}, pp {pp}",
            remedy="raise --tp or --pp",
        )
    return Plan(slots * pp * (max_tokens // block), slots * pp)


def host(model: Model, device: Device, *, tp: int, pp: int, block: int) -> Host:
    """The host's room for swapped blocks. Every device moves its own part of a block, over its own link."""
    share = _block_bytes(model, tp, pp, block)
    return Host(int(SWAP_GIB * 2**30 // share), to_ps(share / device.host_bandwidth))
