"""The table of systems: a name stands for a policy with its defaults, the memory it reserves, and nothing else.

Every system gets the same pool, the same cost model and the same plan; what differs is the policy. `Limits` are the
options that a person may set; None takes the system's own default. With `vidur` compatibility the defaults are Vidur's
and its quirks are followed where they change results (docs/fidelity.md lists them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from inferometer.errors import UserError
from inferometer.sim.policies.orca import Orca
from inferometer.sim.policies.sarathi import Sarathi
from inferometer.sim.policies.static import Static
from inferometer.sim.policies.vllm import Vllm
from inferometer.sim.policies.vllm_v1 import VllmV1
from inferometer.sim.step import Policy
from inferometer.spec import Spec

VIDUR_MAX_LEN = 4096


class Limits(Spec, frozen=True):
    """What may be set of a replica. Counts; `utilization` is the share of a device's memory that may be used.

    `preemption`: recompute or swap; `prefix_caching`: on or off. Both only where a system knows the other way.
    """

    num_blocks: int | None = None
    block_size: int = 16
    max_batch: int | None = None
    max_batched_tokens: int | None = None
    chunk: int | None = None
    max_len: int | None = None
    utilization: float = 0.9
    preemption: str | None = None
    prefix_caching: bool | None = None

    def __post_init__(self) -> None:
        for name in (
            "num_blocks",
            "block_size",
            "max_batch",
            "max_batched_tokens",
            "chunk",
            "max_len",
        ):
            if (getattr(self, name) or 1) < 1 or getattr(self, name) == 0:
                raise ValueError(f"{name} must be at least 1")
        if not 0.0 < self.utilization <= 1.0:
            raise ValueError("utilization is above 0 and at most 1")
        if self.preemption not in (None, "recompute", "swap"):
            raise ValueError("preemption is recompute, or swap")


@dataclass(frozen=True, slots=True)
class Situation:
    """What a policy is made for: how long requests may be, how many of those fit into memory, whose quirks apply."""

    max_len: int
    max_requests: int
    vidur: bool = False

    @property
    def quirks(self) -> tuple[int, bool]:
        """(spare, keeps_prompt): Vidur preempts without a spare block, and cuts prompts that it restarts midway."""
        return (1, False) if self.vidur else (0, True)


def _static(limits: Limits, at: Situation) -> Policy:
    return Static(max_batch=min(limits.max_batch or 16, at.max_requests), reserve=at.max_len)


def _orca(limits: Limits, at: Situation) -> Policy:
    default = 128 if at.vidur else 16
    return Orca(max_batch=min(limits.max_batch or default, at.max_requests), reserve=at.max_len)


def _vllm(limits: Limits, at: Situation) -> Policy:
    spare, keeps = at.quirks
    tokens = limits.max_batched_tokens or (4096 if at.vidur else max(2560, at.max_len))
    batch = limits.max_batch or (128 if at.vidur else 256)
    swap = limits.preemption == "swap"
    return Vllm(max_batch=batch, max_tokens=tokens, spare=spare, keeps_prompt=keeps, swap=swap)


def _sarathi(limits: Limits, at: Situation) -> Sarathi:
    spare, keeps = at.quirks
    batch, chunk = limits.max_batch or 128, limits.chunk or 512
    return Sarathi(batch, chunk, spare=spare, keeps_prompt=keeps)


def _hybrid_only(limits: Limits, at: Situation) -> Policy:
    return replace(_sarathi(limits, at), chunked=False, name="sarathi-serve-hybrid-only")


def _chunked_only(limits: Limits, at: Situation) -> Policy:
    return replace(_sarathi(limits, at), hybrid=False, name="sarathi-serve-chunked-only")


def _vllm_v1(limits: Limits, _at: Situation) -> Policy:
    tokens = limits.max_batched_tokens or limits.chunk or 2048
    batch = limits.max_batch or min(256, tokens)
    if batch > tokens:
        raise UserError(
            f"{tokens} tokens are fewer than the {batch} sequences of a batch, each of which decodes one",
            where="--max-batched-tokens",
            remedy="lower --max-batch",
        )
    return VllmV1(batch, tokens, caching=limits.prefix_caching is not False)


SYSTEMS: dict[str, Callable[[Limits, Situation], Policy]] = {
    "static": _static,
    "orca": _orca,
    "vllm": _vllm,
    "sarathi-serve": _sarathi,
    "sarathi-serve-chunked-only": _chunked_only,
    "sarathi-serve-hybrid-only": _hybrid_only,
    "vllm-v1": _vllm_v1,
}
_ALSO = {"sarathi": "sarathi-serve", "fastertransformer": "static", "vllm_v1": "vllm-v1"}


def policy(name: str, limits: Limits, at: Situation) -> Policy:
    """The policy of a system; a UserError where there is no such system, or it cannot do what `limits` ask of it."""
    made = system(name)(limits, at)
    if limits.preemption == "swap" and not getattr(made, "swap", False):
        raise UserError(f"{name} preempts by recompute only", where="--preemption", remedy=_SWAPS)
    if limits.prefix_caching and not made.caching:
        raise UserError(f"{name} has no prefix cache", where="--prefix-caching", remedy=_CACHES)
    return made


_SWAPS = "take --system vllm, or leave it out"
_CACHES = "take --system vllm-v1, or leave it out"


def system(name: str) -> Callable[[Limits, Situation], Policy]:
    """How the policy of a system is made; a UserError that lists the known ones."""
    known = SYSTEMS.get(_ALSO.get(name, name))
    if known is None:
        raise UserError(
            f"no such system: {name!r}",
            where="--system",
            remedy="take one of " + ", ".join(SYSTEMS),
        )
    return known
