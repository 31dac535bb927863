"""The normal form of an evaluation: what was compared, on what, how it was reported. Plain data, whoever wrote it down.

A paper's evaluation written as YAML, a study directory, a few runs and an imported result all become `Facts`, and the
rules of the audit read nothing else but these and the runs' own data. So the same rule judges a paper and a run.

Rules: a record holds facts, never verdicts. Null means that nobody knows, or nobody said; it is not "no". An empty list
where null is possible means that there is none. `evidence` says where a fact stands: a section, a file, a field.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from inferometer.audit.finding import Attestation
from inferometer.spec import Spec

ITEMS = {
    "implementation_fairness": "Were the baselines implemented comparably, or gains of the engine told apart from those of the algorithm?",
    "parameter_tuning": "Are all performance-critical settings documented, and were the baselines' tuned for this evaluation?",
    "model_selection": "Do the models reflect the state of the art, and the architectures on which the technique's effect may differ?",
    "workload_diversity": "Are there diverse applications, with their characteristic lengths and ways of interaction?",
    "practical_latency": "Were the improvements achieved within latency bounds that suit the application, in absolute terms?",
    "metric_selection": "Are the metrics broadly used and understood, and is what is new explained by what users feel?",
    "performance_distribution": "Is the whole distribution presented, or at least P50, P90 and P99, with enough samples for each?",
    "no_obscuring_normalization": "Where metrics are normalised, are scheduling delays, stalls and other raw times shown beside them?",
}

RAW = (
    "ttft",
    "ttfat",
    "tbt",
    "ttst",
    "ttlt",
    "max_gap",
    "scheduling_delay",
)  # times that nothing divides
Known = Annotated[float, msgspec.Meta(ge=0)]
Attention = Literal["MHA", "GQA", "MQA", "MLA"]
Role = Literal["proposed", "baseline", "ablation"]
Aggregate = Literal[
    "per-request", "pooled", "ratio-of-sums", "mean-of-ratios", "mean-of-percentiles"
]


class Tuning(Spec, frozen=True):
    """How an arm's settings were chosen.

    configurations: how many were tried. space: the values tried of each parameter; best: what was chosen of them.
    edges: the parameters whose best value is the first or the last that was tried. as_proposed: by the same procedure as
    the proposed system's. strengthened: what its evaluators added to it so that it stands better on this workload.
    workloads: what it was tuned on, by name. held_out: whether the reported numbers are from other requests than the tuning's.
    """

    configurations: Annotated[int, msgspec.Meta(ge=0)] | None = None
    space: dict[str, tuple[Any, ...]] | None = None
    best: dict[str, Any] | None = None
    edges: tuple[str, ...] | None = None
    as_proposed: bool | None = None
    strengthened: str | None = None
    workloads: tuple[str, ...] | None = None
    held_out: bool | None = None
    evidence: str = ""


class System(Spec, frozen=True):
    """An arm: a system as it was evaluated.

    codebase: the engine that executes it, by name; two arms with one codebase differ in the algorithm. conditions: what
    must be equal between arms (model, precision, sampling, hardware, devices, ...). parameters: its settings.
    undocumented: performance-critical settings that are left unsaid. ablation_of: whose ablation this arm is.
    disaggregated: prefill and decode on different devices. bursty: several tokens may arrive at once.
    """

    name: str
    role: Role | None = None
    codebase: str | None = None
    version: str | None = None
    conditions: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    undocumented: tuple[str, ...] | None = None
    tuning: Tuning | None = None
    ablation_of: str | None = None
    disaggregated: bool | None = None
    bursty: bool | None = None
    evidence: str = ""


class Model(Spec, frozen=True):
    """A model. params_b: billions. altered: how its architecture was changed against its publisher's ("" for not at all).

    memory_share: its weights over the memory of the devices it was put on.
    """

    name: str
    attention: Attention | None = None
    experts: int | None = None
    params_b: Known | None = None
    year: int | None = None
    kv_bytes_per_token: Known | None = None
    altered: str | None = None
    memory_share: Known | None = None
    evidence: str = ""


class Lengths(Spec, frozen=True):
    """Tokens: whatever of the distribution is known."""

    mean: Known | None = None
    min: Known | None = None
    p50: Known | None = None
    p90: Known | None = None
    p99: Known | None = None
    max: Known | None = None


class Workload(Spec, frozen=True):
    """A workload. synthetic: lengths from a formula, not from users. fixed: one prompt length and one output length.

    swept: lengths varied on purpose, over prompt:output ratios. arrivals: poisson, gamma, trace, closed, constant, burst.
    like: the shipped production profile that its lengths are nearest to; apart: how far, in doublings of length.
    """

    name: str
    app: str | None = None
    dataset: str | None = None
    synthetic: bool | None = None
    fixed: bool | None = None
    swept: bool | None = None
    prompt: Lengths = Lengths()
    output: Lengths = Lengths()
    arrivals: str | None = None
    arrival_cv: Known | None = None
    multi_turn: bool | None = None
    requests: int | None = None
    like: str | None = None
    apart: Known | None = None
    evidence: str = ""


class Number(Spec, frozen=True):
    """A number that is reported. metric: an id of ours where it is one, else the evaluation's own word.

    statistics: mean, p50, p90, p99, ..., cdf, attainment@0.9. values: seconds (or 1/s) by statistic, at the point that the
    conclusion rests on; the worst of several. per: a normalised latency's denominator. aggregate: how requests become one
    number. definition: the formula in words. justified: for a metric of one's own, what it says about users ("" for not).
    relative: given only as a ratio to another system.
    """

    metric: str
    statistics: tuple[str, ...] | None = None
    definition: str | None = None
    aggregate: Aggregate | None = None
    per: Literal["output token", "input token", "token"] | None = None
    values: dict[str, float] | None = None
    relative: bool | None = None
    justified: str | None = None
    system: str | None = None
    workload: str | None = None
    evidence: str = ""

    def __post_init__(self) -> None:
        """Refuse a wait or a gap that is divided by tokens under its plain name."""
        if self.per is not None and self.metric in RAW:
            raise ValueError(
                f"{self.metric} per {self.per} is normalized_latency, or a metric of its own name"
            )


class Bound(Spec, frozen=True):
    """A latency objective. seconds, or times_unloaded: a multiple of a request's latency on an idle system."""

    metric: str
    statistic: str | None = None
    seconds: Known | None = None
    times_unloaded: Known | None = None
    app: str | None = None
    evidence: str = ""


class Isolation(Spec, frozen=True):
    """What tells engine and algorithm apart. factors: total gain, and the gain of the algorithm alone on one engine."""

    kind: Literal["ablation", "microbenchmark"]
    total: Annotated[float, msgspec.Meta(gt=0)] | None = None
    algorithm: Annotated[float, msgspec.Meta(gt=0)] | None = None
    evidence: str = ""


class Facts(Spec, frozen=True):
    """An evaluation. memory_claim: whether it says to save, or to use better, the memory of the KV cache.

    same_work: whether all arms served the same requests and gave outputs of the same length; outputs_match: the share of
    greedy outputs that agree between the arms.
    """

    title: str
    source: str = ""
    year: int | None = None
    memory_claim: bool | None = None
    systems: tuple[System, ...] = ()
    models: tuple[Model, ...] = ()
    workloads: tuple[Workload, ...] = ()
    numbers: tuple[Number, ...] = ()
    bounds: tuple[Bound, ...] = ()
    isolations: tuple[Isolation, ...] = ()
    same_work: bool | None = None
    outputs_match: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    claims: tuple[str, ...] = ()
    attested: dict[str, Attestation] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an attestation of what is no item, and an ablation of what is no arm."""
        for name in self.attested:
            if name not in ITEMS:
                raise ValueError(f"no item is called {name!r}: {', '.join(ITEMS)}")
        names = [system.name for system in self.systems]
        if len(set(names)) != len(names):
            raise ValueError("two systems have one name")

    @property
    def arms(self) -> tuple[System, ...]:
        """The systems that are compared: all but ablations."""
        return tuple(s for s in self.systems if s.role != "ablation" and s.ablation_of is None)
