"""Item 2, parameter tuning: are the performance-critical settings known, and did the baselines get the effort they deserve?

Anti-pattern 2 of the seed paper (section 3.1): a tuned system against defaults. What is asked:
    documented   no performance-critical setting of any arm is left unsaid (`arms.CRITICAL` lists them by engine)
    effort       no arm was left at one configuration while another tried several. A baseline counts as tuned, too, where it
                 went through the proposed system's procedure; one that was strengthened counts with a reservation
    edges        an optimum at the end of the range that was tried may lie beyond it
    held out     tuned on the family of workloads that is evaluated, and judged on other requests than it was tuned on
UNEQUAL: from four times as many trials on, effort is unequal enough to be named.
"""

from __future__ import annotations

from inferometer.audit.arms import missing_settings
from inferometer.audit.evaluation import Evaluation
from inferometer.audit.facts import System, Tuning
from inferometer.audit.finding import (
    Evidence,
    Finding,
    failed,
    passed,
    pointer,
    unjudged,
    warned,
)

ITEM = "parameter_tuning"
QUESTION = (
    "How were the settings of each baseline chosen for this evaluation, and what else was tried?"
)
UNEQUAL = 4


def judge(evaluation: Evaluation) -> list[Finding]:
    """The parts of the item."""
    parts = [documented(evaluation), effort(evaluation)]
    searched = [arm for arm in evaluation.facts.arms if _searched(arm)]
    return (
        [*parts, edges(evaluation, searched), held_out(evaluation, searched)] if searched else parts
    )


def documented(evaluation: Evaluation) -> Finding:
    """No performance-critical setting is left unsaid."""
    item, arms = f"{ITEM}.documented", evaluation.facts.arms
    if not arms:
        return unjudged(item, "no system is named")
    unsaid = {arm.name: list(arm.undocumented) for arm in arms if arm.undocumented}
    seen = [
        _at(evaluation, arm, "undocumented", list(arm.undocumented))
        for arm in arms
        if arm.undocumented
    ]
    if unsaid:
        told = "; ".join(f"{name}: {', '.join(names)}" for name, names in unsaid.items())
        return failed(
            item,
            f"performance-critical settings are left unsaid ({told})",
            *seen,
            remedy="state them, whatever their values",
        )
    unknown = [arm.name for arm in arms if arm.undocumented is None]
    if unknown:
        return unjudged(
            item,
            f"whether all settings of {', '.join(unknown)} are stated is not known",
            remedy=_to_state(arms),
        )
    told_of = (
        _at(evaluation, arm, "parameters", arm.parameters or f"all of {arm.name}'s are stated")
        for arm in arms
    )
    return passed(item, "the performance-critical settings of every arm are stated", *told_of)


def _to_state(arms: tuple[System, ...]) -> str:
    found = {name: None for a in arms for name in missing_settings(a.codebase, a.parameters) or ()}
    names = f" ({', '.join(found)})" if found else ""
    return f"state the settings of every arm{names}: config, or the command that starts it"


def effort(evaluation: Evaluation) -> Finding:
    """Baselines were tuned as much as what they are compared with."""
    item, arms = f"{ITEM}.effort", evaluation.facts.arms
    if len(arms) < 2:
        return unjudged(item, "one system: there is no baseline to tune")
    judged = [arm for arm in arms if arm.role != "proposed"] or list(arms)
    tried = {arm.name: _tried(arm.tuning) for arm in arms}
    seen = [
        _at(evaluation, arm, "tuning", _told(arm.tuning)) for arm in arms if arm.tuning is not None
    ]
    most = max((n for n in tried.values() if n is not None), default=None)
    left = [arm.name for arm in judged if tried[arm.name] == 1 and not _cared(arm.tuning)]
    if left and most is not None and most > 1:
        return failed(
            item,
            f"{', '.join(left)} ran at one configuration, while {most} were tried of another",
            *seen,
            remedy="tune the baselines with the same budget, on the same workloads",
        )
    if left and all(tried[arm.name] == 1 for arm in judged):
        return warned(
            item,
            "one configuration of each system was tried: none was tuned for this evaluation",
            *seen,
            remedy="tune every system with the same budget",
        )
    unknown = [arm.name for arm in judged if tried[arm.name] is None and not _cared(arm.tuning)]
    if unknown or left:
        return unjudged(
            item,
            f"how the settings of {', '.join(unknown or left)} were chosen is not known",
            *seen,
            remedy="say what was tried of each baseline",
        )
    return _even(item, judged, tried, seen)


def _even(
    item: str, judged: list[System], tried: dict[str, int | None], seen: list[Evidence]
) -> Finding:
    most = max((n for n in tried.values() if n is not None), default=0)
    few = [arm.name for arm in judged if 1 < (tried[arm.name] or 0) * UNEQUAL <= most]
    if few:
        return warned(
            item,
            f"{', '.join(few)} got a quarter of another's trials or less",
            *seen,
            remedy="give every system the same budget",
        )
    added = [
        arm
        for arm in judged
        if (tried[arm.name] or 1) == 1 and arm.tuning and not arm.tuning.as_proposed
    ]
    if added:
        told = "; ".join(f"{arm.name}: {arm.tuning.strengthened}" for arm in added if arm.tuning)
        return warned(item, f"strengthened for this workload, though not searched ({told})", *seen)
    silent = [name for name, n in tried.items() if n is None]
    if silent:
        return warned(
            item,
            f"the baselines were tuned; how much more {', '.join(silent)} was is not told",
            *seen,
        )
    return passed(item, "the baselines were tuned for this evaluation", *seen)


def _tried(tuning: Tuning | None) -> int | None:
    """How many configurations are known to have been tried; None where nobody says."""
    if tuning is None:
        return None
    counts = [len(values) for values in (tuning.space or {}).values()]
    known = [n for n in (tuning.configurations, max(counts, default=None)) if n is not None]
    return max(known, default=None)


def _cared(tuning: Tuning | None) -> bool:
    return tuning is not None and (tuning.as_proposed is True or bool(tuning.strengthened))


def _searched(arm: System) -> bool:
    return (_tried(arm.tuning) or 0) > 1


def _told(tuning: Tuning | None) -> dict[str, object]:
    if tuning is None:
        return {}
    fields = {
        name: getattr(tuning, name) for name in tuning.__struct_fields__ if name != "evidence"
    }
    return {name: value for name, value in fields.items() if value is not None}


def edges(evaluation: Evaluation, searched: list[System]) -> Finding:
    """No optimum lies at the end of what was tried."""
    item = f"{ITEM}.edges"
    seen = [
        _at(evaluation, arm, "tuning.edges", list(arm.tuning.edges))
        for arm in searched
        if arm.tuning and arm.tuning.edges
    ]
    if seen:
        told = "; ".join(
            f"{arm.name}: {', '.join(arm.tuning.edges)}"
            for arm in searched
            if arm.tuning and arm.tuning.edges
        )
        return warned(
            item,
            f"the best value is at the end of its range ({told})",
            *seen,
            remedy="widen the range there, and tune again",
        )
    if any(arm.tuning is None or arm.tuning.edges is None for arm in searched):
        return unjudged(
            item,
            "the ranges that were tried are not known",
            remedy="state the values tried of each parameter, and the best",
        )
    return passed(
        item,
        "the best values lie inside of what was tried",
        *(
            _at(evaluation, arm, "tuning.best", arm.tuning.best or "inside")
            for arm in searched
            if arm.tuning
        ),
    )


def held_out(evaluation: Evaluation, searched: list[System]) -> Finding:
    """Tuned on the family of the evaluated workloads, judged on other requests."""
    item, tuned = f"{ITEM}.held_out", [(arm, arm.tuning) for arm in searched if arm.tuning]
    evaluated = _evaluated(evaluation)
    foreign = [
        arm for arm, t in tuned if t.workloads is not None and not set(t.workloads) & evaluated
    ]
    if foreign and evaluated:
        return failed(
            item,
            f"{_names(foreign)} was tuned on another workload than it was judged on",
            *(
                _at(evaluation, a, "tuning.workloads", _told(a.tuning)["workloads"])
                for a in foreign
            ),
            remedy="tune on a part of the evaluated workload that is kept for it",
        )
    if same := [arm for arm, t in tuned if t.held_out is False]:
        return failed(
            item,
            f"{_names(same)} was judged on the very requests that it was tuned on",
            *(_at(evaluation, arm, "tuning.held_out", False) for arm in same),
            remedy="keep some requests for tuning, and report others",
        )
    if not evaluated or any(t.held_out is None or t.workloads is None for _, t in tuned):
        return unjudged(
            item,
            "on which requests the systems were tuned is not known",
            remedy="say on which workload each was tuned, and that others were reported",
        )
    told = (_at(evaluation, arm, "tuning.held_out", True) for arm in searched)
    return passed(item, "tuned on the evaluated workloads, judged on other requests", *told)


def _evaluated(evaluation: Evaluation) -> set[str]:
    """What the workloads that were evaluated are called."""
    named = {
        text for w in evaluation.facts.workloads for text in (w.name, w.app, w.dataset) if text
    }
    return named | {p.place.workload for p in evaluation.points}


def _names(arms: list[System]) -> str:
    return ", ".join(arm.name for arm in arms)


def _at(evaluation: Evaluation, arm: System, field: str, value: object) -> Evidence:
    index = evaluation.facts.systems.index(arm)
    cited = (
        arm.tuning.evidence if arm.tuning is not None and field.startswith("tuning") else ""
    ) or arm.evidence
    return pointer(
        evaluation.at(f"systems[{index}].{field}") + (f" ({cited})" if cited else ""), value
    )
