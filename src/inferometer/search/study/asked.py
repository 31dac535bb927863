"""A study as a person asks for it: the specs behind the YAML file, and what must hold between its parts.

    systems x models x workloads x loads x repeats, a space to tune each system in, SLOs, claims, ablations.

A system is where requests go (a URL, `sim:...`, or a command that starts a server) and its configuration: flags by the
engine's own names. Placeholders in braces are filled in: `{model}`, whatever a model brings `with` it, any flag, and
`{port}`. A flag that has no placeholder is appended: `--flag value` to a command, `&flag=value` to a simulated system.
An ablation is the system that it is of, but for what it says itself.
"""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, Literal

import msgspec

from inferometer import slo as slos
from inferometer.errors import UserError
from inferometer.search.capacity import Search
from inferometer.sim.target import is_simulated
from inferometer.slo import Slo
from inferometer.spec import Spec
from inferometer.workload import WorkloadSpec

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, msgspec.Meta(pattern=NAME)]
Flag = bool | int | float | str | None
Config = dict[str, Flag]
Count = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NATURAL, CAPACITY = "natural", "capacity"
REPORTED = (
    *(f"{metric}.{q}" for metric in ("ttft", "tbt", "ttlt") for q in ("p50", "p90", "p99")),
    "scheduling_delay.p50",
    "request_rate",
)


class Range(Spec, frozen=True):
    """Values from `low` to `high`, both included, in `steps`: evenly, or by equal factors where `log`.

    Whole numbers stay whole.
    """

    low: int | float
    high: int | float
    steps: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 4
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 on a log scale")

    def values(self) -> tuple[Flag, ...]:
        """The values, ascending, each once."""
        parts = [k / (self.steps - 1) for k in range(self.steps)]
        if self.log:
            found = [self.low * (self.high / self.low) ** part for part in parts]
        else:
            found = [self.low + (self.high - self.low) * part for part in parts]
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return tuple(dict.fromkeys(round(x) if whole else float(f"{x:.12g}") for x in found))


Choices = Annotated[tuple[Flag, ...], msgspec.Meta(min_length=1)]


class System(Spec, frozen=True):
    """A system under study. One of `target` and `command` says where it is; an ablation may inherit either.

    target: http://host:port, or sim:NAME?... A command is an argument list, or one line for a shell; the server it starts is
    asked at `url` + `health` until it answers, for `start_s` at most, and stopped with its whole process group, `stop_s`
    after it was told to; it runs in `folder`, by default that of the study file. `model`: the name to ask for, where the server has several. `config`: flags as they are; `tune`:
    flags and the values to try. `about`: what cannot be seen from outside (engine, version, dtype, parallelism, ...).
    """

    target: str | None = None
    command: str | tuple[str, ...] | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)
    folder: str | None = None
    url: str | None = None
    health: str | None = None
    start_s: Positive | None = None
    stop_s: NotNegative | None = None
    model: str | None = None
    dialect: str | None = None
    tokenizer: str | None = None
    api_key: str | None = None
    config: Config = msgspec.field(default_factory=dict)
    tune: dict[str, Choices | Range] = msgspec.field(default_factory=dict)
    ablation_of: str | None = None
    about: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether it is a simulated system."""
        return self.target is not None and is_simulated(self.target)

    def space(self) -> dict[str, tuple[Flag, ...]]:
        """The values to try of each flag."""
        return {k: v.values() if isinstance(v, Range) else v for k, v in self.tune.items()}

    def configurations(self) -> list[Config]:
        """All that tuning could try, the last flag changing fastest."""
        space = self.space()
        return [dict(zip(space, values, strict=True)) for values in product(*space.values())]


START_S, STOP_S = 300.0, 10.0


class At(Spec, frozen=True):
    """A load that is more than a number: requests/s, requests in flight, or a search for the capacity."""

    rate: Positive | None = None
    concurrency: Count | None = None
    capacity: Search | None = None

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.rate, self.concurrency, self.capacity)) != 1:
            raise ValueError("a load is one of rate, concurrency and capacity")


class Load(Spec, frozen=True):
    """A load, resolved. `value`: requests/s or requests in flight; None for `capacity` and `natural`."""

    kind: Literal["rate", "concurrency", "capacity", "natural"]
    value: float | None = None
    search: Search | None = None

    @property
    def label(self) -> str:
        """A word for it, fit for the name of a folder."""
        if self.kind == "rate":
            return f"{self.value:g}rps"
        if self.kind == "concurrency":
            return f"{self.value:g}inflight"
        return "capacity-inflight" if self.search is not None and self.search.whole else self.kind


Loads = Annotated[tuple[Positive | str | At, ...], msgspec.Meta(min_length=1)]


class Model(Spec, frozen=True, rename={"with_": "with"}):
    """A model that every system serves in turn: placeholders that come with it, and loads that fit it, by workload."""

    with_: dict[str, str | int | float] = msgspec.field(default_factory=dict)
    loads: dict[str, Loads] = msgspec.field(default_factory=dict)


class Workload(WorkloadSpec, frozen=True):
    """A workload of a study: a WorkloadSpec, with loads, an SLO and a warm-up of its own where it has them.

    `requests` and `duration_s` include the warm-up.
    """

    loads: Loads | None = None
    slo: str | None = None
    warmup_s: NotNegative | None = None


class Tuning(Spec, frozen=True):
    """How to tune: up to `budget` configurations per system, model and workload, on a part of the workload kept for it.

    objective: "slo" (how much of the SLO is used up, at the condition that is used most), or a statistic like "tbt.p99".
    load: that of a tuning run; by default the highest that the workload has. requests: of a tuning run.
    share: of a trace's time, from its beginning, that is for tuning; the rest is for the headline.
    """

    budget: Count = 8
    objective: str = "slo"
    load: Positive | str | At | None = None
    requests: Count | None = None
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.25


class StudySpec(Spec, frozen=True):
    """All of a study file. `slos` are by application; `report` names the numbers that its author will publish."""

    title: str
    systems: Annotated[dict[Name, System], msgspec.Meta(min_length=1)]
    workloads: Annotated[dict[Name, Workload], msgspec.Meta(min_length=1)]
    question: str = ""
    models: dict[Name, Model] = msgspec.field(default_factory=dict)
    loads: Loads | None = None
    repeats: Count = 1
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    warmup_s: NotNegative = 0.0
    slos: dict[str, str] = msgspec.field(default_factory=dict)
    report: tuple[str, ...] = REPORTED
    tuning: Tuning = Tuning()
    claims: tuple[str, ...] = ()
    about: dict[str, Any] = msgspec.field(default_factory=dict)

    def system(self, name: str) -> System:
        """A system, with what an ablation inherits filled in; `tune` is never inherited, the choice is."""
        own = self.systems[name]
        if own.ablation_of is None:
            return own
        base = self.system(own.ablation_of)
        kept = {
            field: getattr(base, field)
            for field in System.__struct_fields__
            if field not in ("tune", "ablation_of", "config", "env", "about")
            and getattr(own, field) is None
        }
        if own.target is not None or own.command is not None:  # it says itself where it is
            kept |= {"target": own.target, "command": own.command}
        merged = {
            name: getattr(base, name) | getattr(own, name) for name in ("config", "env", "about")
        }
        return msgspec.structs.replace(own, **kept, **merged)

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models; one without a name where the study has none."""
        return tuple(self.models) or ("",)

    @property
    def tuned(self) -> bool:
        """Whether any system is tuned."""
        return any(system.tune for system in self.systems.values())

    def loads_of(self, workload: str, model: str = "") -> tuple[Load, ...]:
        """The loads of a workload on a model: the model's own, the workload's own, or those of the study."""
        own = self.models[model].loads.get(workload) if model else None
        return tuple(
            map(load_of, own or self.workloads[workload].loads or self.loads or (NATURAL,))
        )

    def tuning_load(self, workload: str, model: str) -> Load:
        """The load of a tuning run: as asked, or the highest of the workload."""
        if self.tuning.load is not None:
            return load_of(self.tuning.load)
        fixed = [load for load in self.loads_of(workload, model) if load.kind != CAPACITY]
        if not fixed:
            raise UserError(
                "a search for capacity needs a load to tune at", remedy="give tuning.load"
            )
        return max(fixed, key=lambda load: load.value or 0.0)

    def app_of(self, workload: str) -> str:
        """The class of application of a workload; "mixed" where it has several."""
        return (
            apps_of(self.workloads[workload])[0]
            if len(apps_of(self.workloads[workload])) == 1
            else "mixed"
        )

    def slo_text(self, workload: str) -> str | None:
        """The SLO of a workload: its own, or that of its application."""
        return self.workloads[workload].slo or self.slos.get(self.app_of(workload))

    def slo_of(self, workload: str) -> Slo | None:
        """The same, parsed."""
        text = self.slo_text(workload)
        return None if text is None else slos.parse(text)

    def warmup_of(self, workload: str) -> float:
        """Seconds at the beginning of each run that are not scored."""
        own = self.workloads[workload].warmup_s
        return self.warmup_s if own is None else own


def load_of(item: float | str | At) -> Load:
    """A load from any of its spellings."""
    if isinstance(item, At):
        if item.capacity is not None:
            return Load(kind="capacity", search=item.capacity)
        if item.concurrency is not None:
            return Load(kind="concurrency", value=float(item.concurrency))
        return Load(kind="rate", value=item.rate)
    if isinstance(item, str):
        if item == CAPACITY:
            return Load(kind="capacity", search=Search())
        if item == NATURAL:
            return Load(kind="natural")
        raise UserError(
            f"{item!r} is no load",
            remedy="write requests/s, {concurrency: N}, capacity or natural",
        )
    return Load(kind="rate", value=float(item))


def apps_of(workload: WorkloadSpec) -> tuple[str, ...]:
    """The classes of application in a workload, as its requests will carry them."""
    from inferometer.workload import Profile, load_profile

    found: list[str] = []
    for part in workload.clients or (workload,):
        app = part.app or workload.app
        profile = part.profile or workload.profile
        if app is None and profile is not None:
            read = profile if isinstance(profile, Profile) else load_profile(profile)
            found += [client.app or read.app for client in read.clients]
        else:
            found.append(app or "chat")
    return tuple(dict.fromkeys(found))
