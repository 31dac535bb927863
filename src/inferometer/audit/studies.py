"""A study directory becomes an evaluation: who was tuned how, what its author will publish, what was measured.

The study says what runs cannot: which arms are compared, which of them is an ablation of which, what was tried before, which
numbers are the headline, which sentences are claimed. Its runs say the rest, as any runs do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inferometer.audit.claims import Claim, parse
from inferometer.audit.evaluation import (
    Capacity,
    Evaluation,
    Progress,
    bounds_in,
    models_in,
    place_of,
    same_work,
    system_of,
    workloads_in,
)
from inferometer.audit.facts import Bound, Facts, Isolation, Number, Role, System, Tuning
from inferometer.audit.point import Point, point_of
from inferometer.errors import UserError
from inferometer.metrics.table import DISTRIBUTIONS, FIGURES
from inferometer.sim.models import MODELS

if TYPE_CHECKING:
    from inferometer.search.study import Study

SPLITS: tuple[Literal["tuning"], Literal["headline"]] = ("tuning", "headline")


def is_study(path: Path) -> bool:
    """Whether there is a study there."""
    return (path / "study.json").is_file()


def of_study(path: Path, progress: Progress | None = None) -> Evaluation:
    """The evaluation of a study directory, finished or not."""
    from inferometer.search.study import read_study

    study = read_study(path)
    headline = _points(study, progress)
    compared = [p for p in headline if p.place.ablation_of is None]
    sides = _sides(study)
    spec = study.spec
    facts = Facts(
        title=spec.title,
        source="study",
        year=max(model.year for model in MODELS.values()),
        memory_claim=_memory_claim(study),
        systems=tuple(_system(study, name, headline, sides) for name in spec.systems),
        models=models_in(compared),
        workloads=workloads_in(compared),
        numbers=_numbers(study, compared),
        bounds=_bounds(study),
        isolations=_isolations(study, headline),
        same_work=same_work(compared),
        claims=spec.claims,
    )
    objectives = {w: slo.text for w in spec.workloads if (slo := study.slo_of(w)) is not None}
    ended = {planned.id for planned, each in study.cells("headline") if each.status == "ok"}
    return Evaluation(
        facts,
        str(path),
        tuple(compared),
        capacities=tuple(_capacities(study)),
        objectives=objectives,
        declared=True,
        missing=tuple(c.id for c in study.planned if c.split == "headline" and c.id not in ended),
    )


def _points(study: Study, progress: Progress | None) -> list[Point]:
    """The headline's points; trials are not read, what they were is in the journal."""
    out = []
    for planned, ended in study.cells("headline"):
        if ended.run is None or ended.status != "ok" or planned.load.kind == "capacity":
            continue
        if progress is not None:
            progress(planned.id)
        run = study.run(planned.id)
        place = place_of(run, str(study.path / ended.run))
        out.append(point_of(run, place, study.slo_of(planned.workload)))
    return out


def _capacities(study: Study) -> list[Capacity]:
    out = []
    for planned, ended in study.cells("headline"):
        found = ended.capacity
        if planned.load.kind != "capacity" or not found or found.get("rate_per_s") is None:
            continue
        lo, hi = (
            math.nan if end is None else float(end) for end in found.get("interval") or (None, None)
        )
        where = f"{study.path / (ended.run or planned.id)}: capacity"
        out.append(
            Capacity(
                planned.system,
                planned.model,
                planned.workload,
                float(found["rate_per_s"]),
                (lo, hi),
                where,
            )
        )
    return out


# --- who is who -------------------------------------------------------------------------------------------------------


def _claims(study: Study) -> list[Claim]:
    out = []
    for text in study.spec.claims:
        try:
            out.append(parse(text))
        except UserError:  # in other words: told as "not parsed", and useless here
            continue
    return out


def _sides(study: Study) -> dict[str, Role]:
    """Which arm is proposed and which a baseline: as its author says, else by who is claimed to be ahead of whom."""
    claims = _claims(study)
    ahead = {claim.ahead for claim in claims}
    roles: dict[str, Role] = {c.behind: "baseline" for c in claims if c.behind not in ahead}
    roles |= dict.fromkeys(ahead, "proposed")
    told = {name: system.about.get("role") for name, system in study.spec.systems.items()}
    return roles | {name: role for name, role in told.items() if role in ("proposed", "baseline")}


def _system(
    study: Study,
    name: str,
    points: Sequence[Point],
    sides: dict[str, Role],
) -> System:
    mine = [p for p in points if p.place.arm == name]
    own = study.spec.systems[name]
    role = "ablation" if own.ablation_of else sides.get(name)
    return system_of(name, mine, _tuning(study, name), role=role, ablation_of=own.ablation_of)


def _tuning(study: Study, name: str) -> Tuning:
    """What the study tried of a system; a system without a space was left as it is."""
    choices = [c for c in study.choices if c.system == name and c.inherited_from is None]
    where = f"{study.path / 'cells.jsonl'}"
    if not choices:
        return Tuning(configurations=1, evidence=where)
    tuned, judged = (
        {ended.plan for _, ended in study.cells(split, system=name) if ended.plan}
        for split in SPLITS
    )
    return Tuning(
        configurations=min(len(c.trials) for c in choices),
        space={flag: tuple(values) for c in choices for flag, values in c.space.items()},
        best={
            f"{c.workload}: {flag}": value
            for c in choices
            for flag, value in (c.best or {}).items()
        },
        edges=tuple(dict.fromkeys(flag for c in choices for flag in c.edges)),
        workloads=tuple(dict.fromkeys(c.workload for c in choices)),
        held_out=not tuned & judged if tuned and judged else None,
        evidence=where,
    )


# --- what will be published -------------------------------------------------------------------------------------------


def _numbers(study: Study, points: Sequence[Point]) -> tuple[Number, ...]:
    """The headline numbers: those that the author names, and those that are claimed."""
    names = [*study.spec.report, *(c.metric for c in _claims(study))]
    by_metric: dict[str, list[str]] = {}
    for name in names:
        metric, _, statistic = name.partition(".")
        found = by_metric.setdefault(metric, [])
        if statistic and statistic not in found:
            found.append(statistic)
    where = f"{study.path / 'study.json'}: $.spec.report"
    return tuple(
        Number(
            metric=metric,
            statistics=tuple(found) or None,
            definition=_definition(metric),
            aggregate="pooled"
            if metric == "tbt"
            else "per-request"
            if metric in DISTRIBUTIONS
            else None,
            per="output token" if metric in ("normalized_latency", "tpot") else None,
            relative=False,
            evidence=where,
        )
        for metric, found in by_metric.items()
        if _measurable(metric, points)
    )


def _definition(metric: str) -> str:
    row: Any = DISTRIBUTIONS.get(metric) or FIGURES[metric]
    return str(row.definition)


def _measurable(metric: str, points: Sequence[Point]) -> bool:
    """What no run can give is not published, whatever was asked for (a scheduling delay that no server tells)."""
    return metric != "scheduling_delay" or any(len(p.sample(metric).values) for p in points)


def _bounds(study: Study) -> tuple[Bound, ...]:
    where = study.path / "study.json"
    return tuple(
        bound
        for workload in study.spec.workloads
        if (slo := study.slo_of(workload)) is not None
        for bound in bounds_in(
            slo, study.spec.app_of(workload), f"{where}: objective of {workload}"
        )
    )


def _memory_claim(study: Study) -> bool | None:
    """What the study's author says of memory, under `about`; without a claim in words of one's own, none is about it."""
    about = study.spec.about
    if "memory_claim" in about:
        return bool(about["memory_claim"])
    told = " ".join([study.spec.title, study.spec.question, *study.spec.claims]).lower()
    return True if "memory" in told or "kv cache" in told else None


# --- engine and algorithm ---------------------------------------------------------------------------------------------


def _isolations(study: Study, points: Sequence[Point]) -> tuple[Isolation, ...]:
    """For each ablation: the total gain over each baseline, and the gain over the ablation, at the highest shared load."""
    out = []
    for name, own in study.spec.systems.items():
        of = own.ablation_of
        if of is None:
            continue
        others = [s for s, sys in study.spec.systems.items() if sys.ablation_of is None and s != of]
        algorithm = _gain(study, points, of, name)
        out += [
            Isolation(
                kind="ablation",
                total=_gain(study, points, of, other),
                algorithm=algorithm,
                evidence=f"{study.path}: {of} over {other}, and over its ablation {name}",
            )
            for other in others
        ]
    return tuple(out)


def _gain(study: Study, points: Sequence[Point], ahead: str, behind: str) -> float | None:
    """The gain of one arm over another: of the capacities where they were searched, else of the claimed or token rate.

    A geometric mean over the conditions that both were measured under; of a latency, how many times lower it is.
    """
    ratios = _capacity_ratios(study, ahead, behind)
    if not ratios:
        metric = next((c.metric for c in _claims(study) if c.kind != "rate"), "token_rate")
        values: dict[tuple[str, str, str], dict[str, float]] = {}
        for p in points:
            values.setdefault(p.place.condition, {})[p.place.arm] = p.value(metric)
        pairs = [(v[ahead], v[behind]) for v in values.values() if ahead in v and behind in v]
        falls = "." in metric and not DISTRIBUTIONS[metric.partition(".")[0]].higher_is_better
        ratios = [(b / a if falls else a / b) for a, b in pairs if a > 0 and b > 0]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def _capacity_ratios(study: Study, ahead: str, behind: str) -> list[float]:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for c in _capacities(study):
        found.setdefault((c.model, c.workload), {})[c.arm] = c.rate_per_s
    return [v[ahead] / v[behind] for v in found.values() if ahead in v and v.get(behind, 0) > 0]
