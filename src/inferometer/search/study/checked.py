"""A study file is read, and checked in itself: every complaint carries its line, and comes before anything is started."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from inferometer import slo as slos
from inferometer.errors import UserError
from inferometer.metrics.table import DISTRIBUTIONS, FIGURES
from inferometer.search.study.asked import (
    CAPACITY,
    Config,
    StudySpec,
    System,
    Workload,
    apps_of,
)
from inferometer.search.study.places import launch_of, target_of
from inferometer.sim.target import PREFIX, is_simulated, read_target
from inferometer.spec import Document, read_document
from inferometer.workload import Replay


@dataclass(frozen=True, slots=True)
class Asked:
    """A study file that has been read: the spec, the document for its lines, and the folder that paths in it start from."""

    spec: StudySpec
    document: Document

    @property
    def folder(self) -> Path:
        """Where relative paths of the file start."""
        return Path(self.document.path).parent


def read_asked(path: str | Path) -> Asked:
    """A study file, checked in itself; every complaint carries its line."""
    document = read_document(path)
    asked = Asked(document.parse(StudySpec), document)
    _check_systems(asked)
    _check_models(asked)
    _check_workloads(asked)
    _check_report(asked)
    return Asked(_rooted(asked), document)


def _rooted(asked: Asked) -> StudySpec:
    """The spec with its paths as seen from here: traces, and where commands run."""

    def moved(part: Any) -> Any:
        trace = part.trace
        if isinstance(trace, str) and (asked.folder / trace).is_file():
            trace = str(asked.folder / trace)
        elif isinstance(trace, Replay) and (asked.folder / trace.file).is_file():
            trace = msgspec.structs.replace(trace, file=str(asked.folder / trace.file))
        changes: dict[str, Any] = {"trace": trace}
        if isinstance(part, Workload):
            changes["clients"] = tuple(map(moved, part.clients))
        return msgspec.structs.replace(part, **changes)

    def placed(name: str, system: System) -> System:
        if system.tokenizer is not None:
            system = msgspec.structs.replace(
                system, tokenizer=os.path.expandvars(Path(system.tokenizer).expanduser())
            )
        if system.command is None:
            return system
        folder = asked.folder / (system.folder or "")
        if not folder.is_dir():
            where = asked.document.where("systems", name, "folder")
            raise UserError("no such folder", where=where)
        return msgspec.structs.replace(system, folder=str(folder))

    spec = asked.spec
    return msgspec.structs.replace(
        spec,
        workloads={name: moved(workload) for name, workload in spec.workloads.items()},
        systems={name: placed(name, system) for name, system in spec.systems.items()},
    )


def _check_systems(asked: Asked) -> None:
    spec = asked.spec
    for name, own in spec.systems.items():
        at = ("systems", name)
        if own.ablation_of is not None:
            base = spec.systems.get(own.ablation_of)
            if base is None or base.ablation_of is not None:
                what = "is no system" if base is None else "is itself an ablation"
                where = asked.document.where(*at, "ablation_of")
                raise UserError(f"{own.ablation_of!r} {what}", where=where)
        system = spec.system(name)
        if (system.target is None) == (system.command is None):
            where = asked.document.where(*at)
            raise UserError("a system has a target or a command, one of them", where=where)
        if own.tune and system.target is not None and not system.simulated:
            raise UserError(
                "a server that is up already cannot be tuned from here",
                where=asked.document.where(*at, "tune"),
                remedy="give a command that starts it",
            )
        both = sorted(set(own.tune) & set(system.config))
        if both:
            where = asked.document.where(*at, "tune", both[0])
            raise UserError(f"{both[0]} is fixed in config", where=where, remedy="leave one out")
        for model in spec.model_names:
            for config in _corners(system):
                _located(asked, at, lambda n=name, m=model, c=config: _try(spec, n, m, c))


def _corners(system: System) -> list[Config]:
    """Configurations that have every value of every flag at least once."""
    space = system.space()
    most = max(map(len, space.values()), default=1)
    return [
        system.config | {flag: values[min(k, len(values) - 1)] for flag, values in space.items()}
        for k in range(most)
    ]


def _try(spec: StudySpec, name: str, model: str, config: Config) -> None:
    """Complain of what cannot be filled in or read."""
    system = spec.system(name)
    if system.command is not None:
        launch_of(spec, name, model, config, 1)
        return
    target = target_of(spec, name, model, config)
    if is_simulated(target):
        read_target(target)


def _check_models(asked: Asked) -> None:
    for name, model in asked.spec.models.items():
        for workload in model.loads:
            if workload not in asked.spec.workloads:
                where = asked.document.where("models", name, "loads", workload)
                raise UserError(f"{workload!r} is no workload", where=where)


def _check_workloads(asked: Asked) -> None:
    spec = asked.spec
    for app in spec.slos:
        _located(asked, ("slos", app), lambda a=app: slos.parse(spec.slos[a]))
    for name in spec.workloads:
        at = ("workloads", name)
        _located(asked, at, lambda n=name: apps_of(spec.workloads[n]))
        slo = _located(asked, (*at, "slo"), lambda n=name: spec.slo_of(n))
        for model in spec.model_names:
            whose = _loads_at(spec, name, model)
            loads = _located(asked, whose, lambda n=name, m=model: spec.loads_of(n, m))
            if len({load.label for load in loads}) < len(loads):
                raise UserError("a load stands here twice", where=asked.document.where(*whose))
            if slo is None and any(load.kind == CAPACITY for load in loads):
                where = asked.document.where(*at)
                raise UserError("capacity is searched under an SLO", where=where, remedy="give slo")
            if spec.tuned:
                _located(asked, at, lambda n=name, m=model: spec.tuning_load(n, m))
        if spec.tuned and slo is None and spec.tuning.objective == "slo":
            where = asked.document.where(*at)
            remedy = "give it one, or tuning.objective a statistic"
            raise UserError("tuning for the SLO, and it has none", where=where, remedy=remedy)


def _loads_at(spec: StudySpec, workload: str, model: str) -> tuple[str, ...]:
    """Where the file says the loads of a workload on a model."""
    if model and workload in spec.models[model].loads:
        return ("models", model, "loads", workload)
    own = spec.workloads[workload].loads is not None
    return ("workloads", workload, "loads") if own else ("loads",)


def _check_report(asked: Asked) -> None:
    for k, name in enumerate(asked.spec.report):
        if not known(name):
            where = asked.document.where("report", k)
            raise UserError(f"{name!r} is no statistic", where=where, remedy="write ttft.p99, say")
    objective = asked.spec.tuning.objective
    if objective != "slo" and not known(objective):
        where = asked.document.where("tuning", "objective")
        raise UserError(
            f"{objective!r} is no statistic", where=where, remedy="write slo or tbt.p99"
        )


def known(name: str) -> bool:
    """Whether a scorecard has this number: `ttft.p99`, `ttft.mean`, `request_rate`."""
    metric, _, statistic = name.partition(".")
    if statistic:
        return metric in DISTRIBUTIONS and _STATISTIC.fullmatch(statistic) is not None
    return metric in FIGURES


_STATISTIC = re.compile(r"mean|min|max|p[1-9]\d?(\.\d+)?")


def _located(asked: Asked, at: tuple[str | int, ...], check: Any) -> Any:
    """What `check` returns; its complaint with the line of the part it is about."""
    try:
        return check()
    except UserError as error:
        where = asked.document.where(*at)
        inner = error.where if error.where.startswith((PREFIX, "SLO", "--")) else ""
        what = f"{inner}: {error.what}" if inner else error.what
        raise UserError(what, where=where, remedy=error.remedy) from None
