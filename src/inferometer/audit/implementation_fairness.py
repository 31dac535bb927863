"""Item 1, implementation fairness: is what was compared the algorithm, or the engineering around it?

Anti-pattern 1 of the seed paper (section 3.1): arms that run on different engines differ in everything, and the algorithm
gets the credit. So: either one codebase, or an ablation or microbenchmark that tells the two apart. And all else equal:
model, precision, sampling, hardware, work.
Where an ablation arm exists (the proposed engine without the algorithm), a gain is attributed. Gains multiply, so shares are
of logarithms: log(gain of the algorithm on one engine) / log(total gain). The seed's example: of NanoFlow's 1.91x the
algorithm alone gives 1.16x, which is 23 % of the way; the engine gives 77 %.
"""

from __future__ import annotations

import math

from inferometer.audit.arms import CONDITIONS
from inferometer.audit.evaluation import Evaluation
from inferometer.audit.facts import Isolation, System
from inferometer.audit.finding import (
    Evidence,
    Finding,
    failed,
    known,
    passed,
    pointer,
    unjudged,
    warned,
)

ITEM = "implementation_fairness"
QUESTION = "Do all arms run on one codebase; and if not, which experiment isolates the algorithm?"
SAME_OUTPUTS = 0.95  # share of greedy outputs that agree; kernels that differ in rounding diverge on a few prompts


def judge(evaluation: Evaluation) -> list[Finding]:
    """The parts of the item."""
    if len(evaluation.facts.arms) < 2:
        return [
            unjudged(
                ITEM,
                "one system: nothing was compared",
                remedy="audit the runs of both systems together",
            )
        ]
    return [
        codebase(evaluation),
        conditions(evaluation),
        work(evaluation),
        *attribution(evaluation),
    ]


def codebase(evaluation: Evaluation) -> Finding:
    """One engine under all arms, or what isolates the algorithm."""
    item, arms = f"{ITEM}.codebase", evaluation.facts.arms
    seen = [_at(evaluation, arm, "codebase", _engine(arm)) for arm in arms]
    isolated = [
        e for i, each in enumerate(evaluation.facts.isolations) for e in _shown(evaluation, i, each)
    ]
    unknown = [arm.name for arm in arms if arm.codebase is None]
    if isolated:
        return passed(
            item, "an experiment isolates the algorithm from the engine", *isolated, *seen
        )
    if unknown:
        return unjudged(
            item,
            f"the engine under {', '.join(unknown)} is not told",
            *seen,
            remedy="name engine and version of every arm",
        )
    if len({arm.codebase for arm in arms}) > 1:
        engines = ", ".join(sorted({str(arm.codebase) for arm in arms}))
        return failed(
            item,
            f"different codebases ({engines}), and nothing isolates the algorithm",
            *seen,
            remedy="add an ablation arm (the proposed engine without the algorithm), or a microbenchmark of one request at a time on each",
        )
    return _versions(item, arms, seen)


def _versions(item: str, arms: tuple[System, ...], seen: list[Evidence]) -> Finding:
    versions = {arm.version for arm in arms}
    if len(versions - {None}) > 1:
        settings = {repr(sorted((arm.parameters or {}).items(), key=str)) for arm in arms}
        if len(settings) > 1:
            return failed(
                item,
                "arms differ in version as well as in settings: which of both made the difference?",
                *seen,
                remedy="run all arms on one version",
            )
        return warned(
            item,
            "arms differ in version: all that changed between the versions is in the difference",
            *seen,
        )
    if None in versions:
        return warned(
            item, f"all arms run on {arms[0].codebase}; of which version is not told of all", *seen
        )
    return passed(item, f"all arms run on {arms[0].codebase}", *seen)


def _engine(arm: System) -> str | None:
    return (
        arm.codebase
        if arm.version is None or arm.codebase is None
        else f"{arm.codebase} {arm.version}"
    )


def _shown(evaluation: Evaluation, index: int, each: Isolation) -> list[Evidence]:
    told = {"kind": each.kind} | {
        k: v for k in ("total", "algorithm") if (v := getattr(each, k)) is not None
    }
    return [pointer(evaluation.at(f"isolations[{index}]") + _cited(each.evidence), told)]


def conditions(evaluation: Evaluation) -> Finding:
    """What must be equal is equal."""
    item, arms = f"{ITEM}.conditions", evaluation.facts.arms
    keys = dict.fromkeys([*CONDITIONS, *(k for arm in arms for k in arm.conditions or {})])
    told = {key: {arm.name: (arm.conditions or {}).get(key) for arm in arms} for key in keys}
    differ = {
        k: v
        for k, v in told.items()
        if all(map(known, v.values())) and len(set(map(repr, v.values()))) > 1
    }
    if differ:
        seen = [pointer(f"{evaluation.where}: {key} of the arms", v) for key, v in differ.items()]
        return failed(
            item,
            f"arms differ in {', '.join(differ)}",
            *seen,
            remedy="make them equal, or say why they may differ and what that does",
        )
    missing = [key for key, v in told.items() if not all(map(known, v.values()))]
    equal = [
        pointer(f"{evaluation.where}: {key} of the arms", v)
        for key, v in told.items()
        if key not in missing
    ]
    if missing:
        return unjudged(
            item,
            f"not told of every arm: {', '.join(missing)}",
            *equal,
            remedy=f"state {', '.join(missing)} of every arm",
        )
    return passed(item, f"arms are equal in {', '.join(told)}", *equal)


def work(evaluation: Evaluation) -> Finding:
    """All arms did the same work, with the same results."""
    item, facts = f"{ITEM}.work", evaluation.facts
    match = facts.outputs_match
    if match is not None and match < SAME_OUTPUTS:
        return failed(
            item,
            f"only {match:.0%} of the greedy outputs agree between the arms",
            pointer(evaluation.at("outputs_match"), match),
            remedy="make sure that both arms compute the same model",
        )
    if facts.same_work is False:
        return failed(
            item,
            "the arms did not serve the same requests with outputs of the same length",
            pointer(evaluation.at("same_work"), False),
            remedy="give every arm the same plan (one seed), and fix the output lengths",
        )
    if facts.same_work is None:
        return unjudged(
            item,
            "whether the arms served the same requests, with the same outputs, is not told",
            remedy="run all arms on one plan; keep the texts (--save-text) to compare outputs",
        )
    seen = [pointer(evaluation.at("same_work"), True)]
    if match is not None:
        return passed(
            item,
            f"the same requests, and {match:.0%} of the greedy outputs agree",
            *seen,
            pointer(evaluation.at("outputs_match"), match),
        )
    if evaluation.points and all(p.world == "simulated" for p in evaluation.points):
        return passed(item, "the same requests, and the same number of tokens for each", *seen)
    return unjudged(
        item,
        "the same requests were served; whether the outputs agree was not compared",
        *seen,
        remedy="keep the texts of both arms (--save-text)",
    )


def attribution(evaluation: Evaluation) -> list[Finding]:
    """How much of a gain is the engine's and how much the algorithm's; nothing where no ablation was made.

    On one codebase the ablation only informs: what it does not tell is then no gap.
    """
    found = [
        _attributed(evaluation, i, each)
        for i, each in enumerate(evaluation.facts.isolations)
        if each.kind == "ablation"
    ]
    engines = {arm.codebase for arm in evaluation.facts.arms}
    one = len(engines) == 1 and None not in engines
    return [part for part in found if part.verdict == "pass"] if one else found


def _attributed(evaluation: Evaluation, index: int, each: Isolation) -> Finding:
    item = f"{ITEM}.attribution"
    if each.total is None or each.algorithm is None:
        return unjudged(
            item,
            "the factors of the ablation are not told",
            remedy="state the total gain, and that of the algorithm alone",
        )
    share = algorithm_share(each.total, each.algorithm)
    seen = (*_shown(evaluation, index, each), pointer("log(algorithm) / log(total)", share))
    told = f"of {each.total:.3g}x in all, the algorithm alone gives {each.algorithm:.3g}x"
    if math.isnan(share):
        return unjudged(item, f"{told}: there is no gain to attribute", *seen)
    if each.algorithm <= 1:
        return warned(item, f"{told}: the gain is the engine's", *seen)
    return passed(item, f"{told} ({share:.0%} of the logarithm), the engine the rest", *seen)


def algorithm_share(total: float, algorithm: float) -> float:
    """The algorithm's share of a gain, in logarithms; NaN where there is no gain (total at most 1)."""
    return math.log(algorithm) / math.log(total) if total > 1 else math.nan


def _at(evaluation: Evaluation, arm: System, field: str, value: object) -> Evidence:
    index = evaluation.facts.systems.index(arm)
    return pointer(evaluation.at(f"systems[{index}].{field}") + _cited(arm.evidence), value)


def _cited(evidence: str) -> str:
    return f" ({evidence})" if evidence else ""
