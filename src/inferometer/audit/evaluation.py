"""An evaluation, as the rules see it: its facts, and the points that were measured, where there are any.

It is made from a run directory, several of them, folders of runs, a study directory, a record (YAML), or runs together with
a record that says what runs cannot tell. Facts from runs win over those of a record; a record fills what is null.

How runs that nobody grouped become arms: by what the manifest calls the system. Two configurations of one system are two
trials of one arm where both served the same plan, and two arms where there is no other system to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inferometer import slo as slos
from inferometer.audit import arms, shapes
from inferometer.audit.facts import (
    Bound,
    Facts,
    Isolation,
    Lengths,
    Model,
    Number,
    System,
    Tuning,
    Workload,
)
from inferometer.audit.point import Place, Point, point_of, with_place
from inferometer.errors import UserError
from inferometer.load.recovery import read_run
from inferometer.run import Run
from inferometer.sim.models import MODELS
from inferometer.slo import Slo

Progress = Callable[[str], None]
SHOWN = ("ttft", "tbt", "ttlt", "tpot", "normalized_latency", "max_gap", "stall_time", "ttst", "scheduling_delay")  # fmt: skip


class Capacity(NamedTuple):
    """The highest load that an arm sustains under the objective of a workload, with its interval, and where that stands."""

    arm: str
    model: str
    workload: str
    rate_per_s: float
    interval: tuple[float, float]
    where: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Facts, where they come from, and the points of the headline; trials of tuning are facts of their arms.

    declared: the numbers that will be published were named, and are not just all that can be computed. missing: what was
    planned for the headline and is not there. objectives: of workloads, as SLOs.
    """

    facts: Facts
    where: str
    points: tuple[Point, ...] = ()
    capacities: tuple[Capacity, ...] = ()
    objectives: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    declared: bool = False

    def at(self, path: str) -> str:
        """A pointer into the record of the facts."""
        return f"{self.where}: $.{path}"

    def arm(self, name: str) -> list[Point]:
        """The headline points of an arm."""
        return [point for point in self.points if point.place.arm == name]

    @property
    def sustained(self) -> tuple[Point, ...]:
        """The headline points but for those loads of a sweep that are past saturation: percentiles are of these."""
        below = {_arm_and_work(p) for p in self.points if not p.past_saturation}
        return tuple(
            p for p in self.points if not p.past_saturation or _arm_and_work(p) not in below
        )

    def conditions(self) -> dict[tuple[str, str, str], dict[str, list[Point]]]:
        """{(model, workload, load): {arm: its points}}."""
        out: dict[tuple[str, str, str], dict[str, list[Point]]] = {}
        for point in self.sustained:
            out.setdefault(point.place.condition, {}).setdefault(point.place.arm, []).append(point)
        return out


def _arm_and_work(point: Point) -> tuple[str, str, str]:
    return point.place.arm, point.place.model, point.place.workload


def evaluation_of(
    paths: Sequence[str | Path], record: Evaluation | None = None, progress: Progress | None = None
) -> Evaluation:
    """The evaluation that is in some paths: runs, folders of runs, or one study; filled from a record where one is given."""
    from inferometer.audit.studies import is_study, of_study

    folders = [Path(path) for path in paths]
    if len(folders) == 1 and is_study(folders[0]):
        found = of_study(folders[0], progress)
    else:
        points = [point for folder in folders for point in points_in(folder, progress)]
        found = of_points(points, title=", ".join(map(str, paths)))
    return found if record is None else filled(found, record)


def points_in(folder: Path, progress: Progress | None = None) -> list[Point]:
    """The point of a run directory, or those of the run directories in a folder, which then is the name of their arm."""
    if (folder / "manifest.json").is_file() or not folder.is_dir():
        return [_point(folder, progress)]
    inner = sorted(each.parent for each in folder.rglob("manifest.json"))
    if not inner:
        raise UserError("there is no run there", where=str(folder), remedy="name a run directory")
    points = [_point(each, progress) for each in inner]
    return [
        p if p.place.declared else with_place(p, arm=folder.name, declared=True) for p in points
    ]


def _point(folder: Path, progress: Progress | None) -> Point:
    if progress is not None:
        progress(str(folder))
    run = read_run(folder)
    return point_of(run, place_of(run, str(folder)))


def place_of(run: Run, path: str) -> Place:
    """Where a run says that it belongs; a run of a study says so."""
    study = run.manifest.spec.get("study")
    if isinstance(study, dict):
        load = study.get("load") or {}
        value = load.get("value")
        return Place(
            path=path,
            arm=str(study.get("system")),
            model=str(study.get("model") or ""),
            workload=str(study.get("workload") or ""),
            load=str(load.get("kind")) if value is None else f"{load.get('kind')} {value:g}",
            repeat=int(study.get("repeat") or 0),
            split=str(study.get("split") or "headline"),
            study=str(study.get("fingerprint")),
            ablation_of=study.get("ablation_of"),
            declared=True,
        )
    return Place(
        path=path,
        arm=arms.name_of(run.manifest) or Path(path).name,
        model=str(run.manifest.model.get("name") or ""),
        load=load_of(run),
    )


def load_of(run: Run) -> str:
    """The load of a run that no study named: "concurrency 8", or "rate", which `_by_load` makes complete."""
    if run.plan is not None and run.plan.concurrency is not None:
        return f"concurrency {run.plan.concurrency}"
    t = run.timeline
    starts = t.intended_ns[t.phase == "measure"]
    if len(starts) < 2 or starts.max() == starts.min():
        return "at once"
    return RATE


# --- runs become facts ------------------------------------------------------------------------------------------------


def of_points(points: Sequence[Point], title: str) -> Evaluation:
    """The evaluation of some runs that are no study."""
    named = _by_load(_by_workload(_by_arm(list(points))))
    headline = _headline(named)
    tried = {name: _configurations(name, named) for name in _names(headline)}
    facts = Facts(
        title=title,
        source="runs",
        year=max(each.year for each in MODELS.values()),  # of the newest model that is known here
        systems=tuple(
            system_of(name, [p for p in headline if p.place.arm == name], _tried(name, tried))
            for name in tried
        ),
        models=models_in(headline),
        workloads=workloads_in(headline),
        numbers=numbers_in(headline),
        isolations=microbenchmarks(headline),
        bounds=tuple(bound for p in headline if p.slo for bound in bounds_of(p)),
        same_work=same_work(headline),
    )
    return Evaluation(facts, title, tuple(headline))


def _names(points: Iterable[Point]) -> list[str]:
    return list(dict.fromkeys(point.place.arm for point in points))


def _by_arm(points: list[Point]) -> list[Point]:
    """Configurations of one system become arms of their own where there is no other system to compare with."""
    if len(_names(points)) != 1 or any(point.place.declared for point in points):
        return points
    kinds = list(dict.fromkeys(map(_configuration, points)))
    if len(kinds) == 1:
        return points
    return [with_place(p, arm=f"{p.place.arm} {_telling(p, points)}".strip()) for p in points]


def _configuration(point: Point) -> str:
    """What makes two runs runs of two systems, as one comparable text."""
    return repr((arms.settings_of(point.manifest), arms.version_of(point.manifest)))


def _telling(point: Point, points: list[Point]) -> str:
    """The settings by which a configuration differs from the others."""
    told = _flat(arms.settings_of(point.manifest) or {})
    others = [_flat(arms.settings_of(each.manifest) or {}) for each in points]
    differ = [k for k in told if len({str(o.get(k)) for o in others}) > 1]
    text = ", ".join(f"{k}={told[k]}" for k in differ[:3])
    versions = {arms.version_of(each.manifest) for each in points}
    return text or (str(arms.version_of(point.manifest)) if len(versions) > 1 else "")


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    inner = {
        k: v for group in settings.values() if isinstance(group, dict) for k, v in group.items()
    }
    return {k: v for k, v in settings.items() if not isinstance(v, dict)} | inner


def _by_workload(points: list[Point]) -> list[Point]:
    """Names for workloads that nobody named: runs whose lengths are samples of one."""
    seen: list[tuple[tuple[str, ...], shapes.Shape, str]] = []
    out = []
    for point in points:
        if point.place.workload or point.shape is None:
            out.append(point)
            continue
        near = [
            name
            for app, shape, name in seen
            if app == point.app and shapes.distance(shape, point.shape) < shapes.ALIKE
        ]
        name = near[0] if near else f"{'+'.join(point.app)} {len(seen) + 1}"
        if not near:
            seen.append((point.app, point.shape, name))
        out.append(with_place(point, workload=name))
    return out


def _by_load(points: list[Point]) -> list[Point]:
    """One name for rates that nobody named and that differ by no more than Poisson arrivals of one rate do."""
    mine = sorted((p for p in points if p.place.load == RATE), key=_offered)
    name: dict[str, str] = {}
    first: Point | None = None
    for p in mine:
        if first is None or _offered(p) > _offered(first) * _apart(first, p):
            first = p
        name[p.place.path] = f"{RATE} {_offered(first):.2g}"
    return [with_place(p, load=name.get(p.place.path, p.place.load)) for p in points]


def _offered(point: Point) -> float:
    return point.figures["offered_rate"]


def _apart(a: Point, b: Point) -> float:
    """The ratio of two rates beyond which they are two: 2.5 standard errors."""
    return 1 + 2.5 * math.sqrt(2 / max(min(a.requests, b.requests), 2))


RATE = "rate"


def _headline(points: list[Point]) -> list[Point]:
    """All but trials: of configurations that one arm ran on the same plan, the one with most runs counts."""
    return [
        p
        for name in _names(points)
        for p in _counting([p for p in points if p.place.arm == name])
        if p.place.split == "headline"
    ]


def _counting(mine: list[Point]) -> list[Point]:
    """The runs of an arm without those of configurations that were tried beside the most frequent one."""
    if any(p.place.declared for p in mine):
        return mine
    plans: dict[str, set[str]] = {}
    for p in mine:
        plan = str(p.manifest.workload.get("fingerprint", ""))
        plans.setdefault(_configuration(p), set()).add(plan)
    most, *others = sorted(plans, key=lambda c: -sum(_configuration(p) == c for p in mine))
    tried = {c for c in others if plans[c] <= plans[most]}
    return [p for p in mine if _configuration(p) not in tried]


def _configurations(name: str, points: Sequence[Point]) -> int:
    return len({_configuration(p) for p in points if p.place.arm == name})


def _tried(name: str, tried: dict[str, int]) -> Tuning | None:
    """What runs show of the effort: nothing, where no arm was run at more than one configuration."""
    return Tuning(configurations=tried[name]) if max(tried.values()) > 1 else None


def bounds_of(point: Point, where: str | None = None) -> Iterator[Bound]:
    """The objective of a run as bounds on latencies, for its application."""
    asked = slos.parse(point.slo or "", where=where or point.manifest_at)
    app = point.app[0] if len(point.app) == 1 else None
    yield from bounds_in(asked, app, where or f"{point.manifest_at}: $.spec.slo")


def bounds_in(slo: Slo, app: str | None, where: str) -> Iterator[Bound]:
    """The latency bounds of an SLO."""
    each = [condition for clause in slo.each for condition in clause.conditions]
    for condition in (*slo.conditions, *each):
        if slos.METRICS[condition.metric].dimension == "time" and condition.op in ("<", "<="):
            yield Bound(
                metric=condition.metric.removesuffix("_with_failures").removesuffix("_from_sent"),
                statistic=condition.statistic or "p99",
                seconds=condition.bound,
                app=condition.app or app,
                evidence=where,
            )


def system_of(name: str, points: Sequence[Point], tuning: Tuning | None, **facts: Any) -> System:
    """The facts of an arm, from the first of its points; config drift within an arm is for `validity`."""
    if not points:
        return System(name=name, tuning=tuning, **facts)
    first = points[0]
    burst = [p.figures["tokens_per_chunk"] for p in points if p.has_gaps]
    return System(
        name=name,
        codebase=arms.codebase_of(first.manifest),
        version=arms.version_of(first.manifest),
        conditions=_conditions(points),
        parameters=arms.parameters_of(first),
        undocumented=arms.undocumented_of(first),
        tuning=tuning,
        disaggregated=arms.disaggregated_of(first.manifest),
        bursty=max(burst) > BURST if burst else None,
        evidence=first.manifest_at,
        **facts,
    )


def _conditions(points: Sequence[Point]) -> dict[str, Any]:
    """The conditions of an arm; where they differ between its runs (one model after the other), all of them."""
    seen: dict[str, dict[str, Any]] = {}
    for p in points:
        for key, value in arms.conditions_of(p.manifest).items():
            seen.setdefault(key, {})[repr(value)] = value
    return {k: next(iter(v.values())) if len(v) == 1 else sorted(v) for k, v in seen.items()}


BURST = 1.1  # tokens per chunk above which tokens come in bursts


def models_in(points: Sequence[Point]) -> tuple[Model, ...]:
    """The models of some points, each once."""
    found: dict[str, Model] = {}
    for point in points:
        read = arms.model_of(point)
        if read is not None and (read.name not in found or read.altered):
            found[read.name] = read
    return tuple(found.values())


def workloads_in(points: Sequence[Point]) -> tuple[Workload, ...]:
    """The workloads of some points; one with several applications is one for each of them."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.place.workload, []).append(point)
    return tuple(
        _workload(name, app, group)
        for name, group in groups.items()
        for app in group[0].app or ("",)
    )


def _workload(name: str, app: str, group: list[Point]) -> Workload:
    first = group[0]
    rows = first.rows_of(app)
    prompt, output = first.prompt_tokens[rows], first.output_tokens[rows]
    shape = shapes.shape_of(prompt, output)
    like, apart = (None, None) if shape is None else shapes.nearest(shape)
    plan = first.planned
    return Workload(
        name=name if len(first.app) < 2 else f"{name} ({app})",
        app=app or None,
        synthetic=False if apart is not None and apart < USERS else None,
        fixed=bool(len(prompt) and np.ptp(prompt) == 0 and np.ptp(output[output > 0]) == 0)
        if len(prompt) > 1 and np.any(output > 0)
        else None,
        prompt=lengths(prompt),
        output=lengths(output[output > 0]),
        arrivals=None if plan is None else _arrivals(plan.cv, closed=plan.closed),
        arrival_cv=None if plan is None or not plan.cv >= 0 else round(plan.cv, 3),
        multi_turn=None if plan is None else plan.sessions,
        requests=sum(point.requests for point in group),
        like=like,
        apart=None if apart is None else round(apart, 3),
        evidence=first.timeline_at,
    )


USERS = 1.5  # doublings from a production trace, within which lengths may pass for those of users


def _arrivals(cv: float, *, closed: bool) -> str | None:
    if closed:
        return "closed"
    if not cv >= 0:
        return "burst"
    return "constant" if cv < 0.1 else "poisson" if 0.8 < cv < 1.25 else f"cv {cv:.1f}"


def lengths(tokens: Any) -> Lengths:
    """The summary of lengths [R]."""
    if not len(tokens):
        return Lengths()
    p50, p90, p99 = (float(x) for x in np.quantile(tokens, [0.5, 0.9, 0.99]))
    lo, mean, hi = float(tokens.min()), float(tokens.mean()), float(tokens.max())
    return Lengths(mean=mean, min=lo, p50=p50, p90=p90, p99=p99, max=hi)


def numbers_in(points: Sequence[Point]) -> tuple[Number, ...]:
    """What a scorecard shows of runs: every latency with its distribution, as far as the runs can give it."""
    from inferometer.metrics.table import DISTRIBUTIONS

    out = []
    for metric in SHOWN:
        has = [p for p in points if len(p.sample(metric).values)]
        if not has:
            continue
        out.append(
            Number(
                metric=metric,
                statistics=("mean", "p50", "p90", "p99", "cdf"),
                definition=DISTRIBUTIONS[metric].definition.split("; ")[0],
                aggregate="pooled" if metric == "tbt" else "per-request",
                relative=False,
                evidence=has[0].timeline_at,
            )
        )
    return tuple(out)


def microbenchmarks(points: Sequence[Point]) -> tuple[Isolation, ...]:
    """One request at a time on every arm: what engines cost by themselves."""
    alone = {p.place.arm for p in points if p.place.load == "concurrency 1"}
    if len(alone) < 2 or alone != set(_names(points)):
        return ()
    first = next(p for p in points if p.place.load == "concurrency 1")
    return (
        Isolation(
            kind="microbenchmark", evidence=f"{first.place.path} and others: one request in flight"
        ),
    )


def same_work(points: Sequence[Point]) -> bool | None:
    """Whether the arms served the same plans, with outputs equally long (to 2 %) for the requests that both completed.

    None where there is one arm, where arms had plans of their own of one workload, or where a run does not tell its plan;
    False where they had other workloads.
    """
    by_plan: dict[str, dict[str, Point]] = {}
    places: dict[tuple[str, str, str], set[str]] = {}
    for p in points:
        places.setdefault(p.place.condition, set()).add(p.place.arm)
        if plan := p.manifest.workload.get("fingerprint"):
            by_plan.setdefault(str(plan), {}).setdefault(p.place.arm, p)
    if len(_names(points)) < 2 or not by_plan:
        return None
    shared = [list(by_arm.values()) for by_arm in by_plan.values() if len(by_arm) > 1]
    if not shared:
        return None if any(len(arms) > 1 for arms in places.values()) else False
    alike = all(_as_long(group[0], p) for group in shared for p in group[1:])
    told = all(p.manifest.workload.get("fingerprint") for p in points)
    return alike if told or not alike else None


def _as_long(a: Point, b: Point) -> bool:
    """Whether two runs gave as many tokens for the requests that both completed."""
    _, of_a, of_b = np.intersect1d(a.ids[a.ok], b.ids[b.ok], return_indices=True)
    one, two = a.output_tokens[a.ok][of_a].sum(), b.output_tokens[b.ok][of_b].sum()
    return bool(abs(int(one) - int(two)) <= 0.02 * max(int(one), int(two), 1))


# --- a record fills what runs cannot tell -----------------------------------------------------------------------------


def of_record(facts: Facts, where: str) -> Evaluation:
    """The evaluation of a record."""
    return Evaluation(facts, where, declared=True)


def filled(found: Evaluation, record: Evaluation) -> Evaluation:
    """`found` with what is null in it taken from a record; its systems, models and workloads go by name."""
    facts = _merged(found.facts, record.facts)
    declared = found.declared or bool(record.facts.numbers)
    if record.facts.numbers and not found.declared:
        facts = msgspec.structs.replace(facts, numbers=record.facts.numbers)
    return replace(
        found, facts=facts, where=f"{found.where} with {record.where}", declared=declared
    )


def _merged(own: Any, other: Any) -> Any:
    if own is None or (own in ("", (), {}) and other is not None):
        return other
    if isinstance(own, msgspec.Struct) and type(own) is type(other):
        changes = {
            name: _merged(getattr(own, name), getattr(other, name))
            for name in own.__struct_fields__
        }
        return msgspec.structs.replace(own, **changes)
    if isinstance(own, dict) and isinstance(other, dict):
        return other | own
    if isinstance(own, tuple) and own and hasattr(own[0], "name"):
        known = {each.name: each for each in other}
        return tuple(_merged(each, known.get(each.name)) if each.name in known else each for each in own)  # fmt: skip
    return own
