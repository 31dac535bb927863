"""The KV cache: how many blocks there are, and who has them.

`BlockPool` counts; it does not know requests. Its law is free + used = total, and it is checked at every move: what
would break it is a bug of a policy or of the engine, and stops the run.

How large a pool is follows from the model and the GPU alone, the same for every system (implementation fairness).
Two planners, both pure:
    `blocks`         what serving engines do: memory × utilisation − weights − activations, spread over one token's KV
    `vidur_blocks`   Vidur's: without embeddings and activations, in whole requests of the maximum length
                     (microsoft/vidur 7d47513, memory planner; `--compat vidur`)
"""

from __future__ import annotations

from typing import NamedTuple

from inferometer.errors import UserError
from inferometer.sim.devices import Device
from inferometer.sim.models import Model

UTILIZATION = 0.9
# What a profiling forward pass of an engine finds in use besides weights, in order of magnitude: with 1.5 GiB, a 24 GB
# card has 2,631 blocks left beside Llama-3.1-8B; vLLM 0.19 on an RTX 4090 reported 2,588.
ACTIVATIONS_BYTES = 3 << 29


class BlockPool:
    """`total` blocks of `block` tokens each."""

    __slots__ = ("block", "free", "total")

    def __init__(self, total: int, block: int) -> None:
        self.total, self.block, self.free = total, block, total

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
    """The pool of one replica on `tp` x `pp` devices; UserError where the model leaves no room for one request."""
    weights = model.weight_bytes / (tp * pp)
    room = device.memory_bytes * utilization - weights - ACTIVATIONS_BYTES
    per_block = block * model.kv_bytes_per_token(tp) / pp
    count = int(room // per_block) if room > 0 else 0
    needed = -(-max_tokens // block)
    if count < 1:
        raise UserError(
            f"{model.name} ({weights / 1e9:.0f} GB of weights per device) does not fit into "
            f"{utilization:.0%} of {device.name}'s {device.memory_bytes / 1e9:.0f} GB",
            remedy="raise --tp or --pp, or take a larger --device",
        )
    return Plan(count, count // needed)


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
