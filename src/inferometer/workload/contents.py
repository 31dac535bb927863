"""What may be asked of a workload: the specs behind a YAML file, a command line or a call.

Frozen plain data; `plan.py` decides what they mean.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from inferometer.spec import Spec
from inferometer.workload.arrivals import Arrivals, Poisson
from inferometer.workload.lengths import Lengths
from inferometer.workload.profiles import Profile
from inferometer.workload.replay import Replay
from inferometer.workload.sessions import Sessions

DEFAULT_ARRIVALS = Poisson(rate=1)
DEFAULT_PROMPT_TOKENS = 512
DEFAULT_OUTPUT_TOKENS = 128

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Weights = dict[str, NotNegative]


class SharedPrefix(Spec, frozen=True):
    """A system prompt of `tokens` before every prompt, in addition to it: one of `groups`, popular by a Zipf law."""

    tokens: Count
    groups: Count = 1
    zipf: NotNegative = 0.0


class Adapters(Spec, frozen=True):
    """LoRA adapters: `count` of them, popular by a Zipf law, and a share of requests that use none.

    Names are `prefix` and a number from 0, the most popular first.
    """

    count: Count
    zipf: NotNegative = 1.0
    none_share: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    prefix: str = "adapter-"


class Content(Spec, frozen=True):
    """What requests are like. A profile or a trace says all of it; what is given beside them takes their place.

    `prompt_tokens` and `output_tokens` take a spec, a mapping or a short form; with `sessions` they are what each turn
    brings and gets. `max_context` cuts prompt + output to a served context. `cache_bust` makes every prompt unique from
    its first token, whatever was shared. `model`, `tenant` and `priority` are one value or weights.
    """

    profile: str | Profile | None = None
    trace: str | Replay | None = None
    arrivals: str | Arrivals | None = None
    prompt_tokens: int | str | Lengths | None = None
    output_tokens: int | str | Lengths | None = None
    sessions: Sessions | None = None
    shared_prefix: SharedPrefix | None = None
    cache_bust: bool = False
    max_context: Annotated[int, msgspec.Meta(ge=2)] | None = None
    app: str | None = None
    model: str | Weights | None = None
    adapter: str | Adapters | None = None
    tenant: str | Weights | None = None
    priority: int | Weights = 0


class Mixed(Content, frozen=True):
    """One client of a mixture. `weight` counts where the arrivals are the mixture's, not the client's own."""

    weight: Positive = 1.0


class WorkloadSpec(Content, frozen=True):
    """What is asked for. `requests` and `duration_s` both limit; the first to be reached ends the plan.

    With `clients` it is a mixture: each with arrivals of its own, or all with those that are given here. What else is
    given here is what clients have in common; each may say otherwise.
    A trace needs no limit.
    `replies`: what stands for earlier replies in the history of later turns: "planned" text of the planned length, the
    same for every server, or the model's "real" words.
    """

    clients: tuple[Mixed, ...] = ()
    requests: Count | None = None
    duration_s: Positive | None = None
    replies: Literal["planned", "real"] = "planned"
    seed: int = 0
