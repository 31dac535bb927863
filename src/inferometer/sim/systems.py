"""The table of systems: a name stands for a policy with its defaults, the memory it reserves, and nothing else.

Every system gets the same pool, the same cost model and the same plan; what differs is the policy. `Limits` are the
options that a person may set; None takes the system's own default. With `vidur` compatibility the defaults are Vidur's
and its quirks are followed where they change results (docs/fidelity.md lists them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inferometer.errors import UserError
from inferometer.sim.engine import Policy
from inferometer.sim.policies.orca import Orca
from inferometer.sim.policies.sarathi import Sarathi
from inferometer.sim.policies.static import Static
from inferometer.sim.policies.vllm import Vllm
from inferometer.sim.policies.vllm_v1 import VllmV1
from inferometer.spec import Spec

VIDUR_MAX_LEN = 4096


class Limits(Spec, frozen=True):
    """What may be set of a replica. Counts; `utilization` is the share of a device's memory that may be used."""

    num_blocks: int | None = None
    block_size: int = 16
    max_batch: int | None = None
    max_batched_tokens: int | None = None
    chunk: int | None = None
    max_len: int | None = None
    utilization: float = 0.9


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
    return Vllm(max_batch=batch, max_tokens=tokens, spare=spare, keeps_prompt=keeps)


def _sarathi(limits: Limits, at: Situation) -> Policy:
    spare, keeps = at.quirks
    return Sarathi(limits.max_batch or 128, limits.chunk or 512, spare=spare, keeps_prompt=keeps)


def _vllm_v1(limits: Limits, _at: Situation) -> Policy:
    return VllmV1(limits.max_batch or 256, limits.max_batched_tokens or limits.chunk or 2048)


SYSTEMS: dict[str, Callable[[Limits, Situation], Policy]] = {
    "static": _static,
    "orca": _orca,
    "vllm": _vllm,
    "sarathi-serve": _sarathi,
    "vllm-v1": _vllm_v1,
}
_ALSO = {"sarathi": "sarathi-serve", "fastertransformer": "static", "vllm_v1": "vllm-v1"}


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
