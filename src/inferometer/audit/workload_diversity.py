"""Item 4, workload diversity: would the result survive another workload?

Anti-pattern 4 of the seed paper (section 3.2): one dataset of short chats, or lengths from a formula. What is asked:
    datasets      more than one; two whose lengths are samples of one count once (`shapes.distance` below ALIKE)
    lengths       not all of one length. The longest prompts reach SHORT tokens (the seed fails evaluations that end at 2 k);
                  below LONG a reservation: P99 of Azure's, Mooncake's and ShareGPT's prompts is 3.9 k to 85 k
    applications  more than one; lengths that were swept over prompt:output ratios make up for it with a reservation
    ratios        the median prompt:output of the workloads spans a decade; in production it goes from 0.6 to 460
    outputs       where prompts are long, some outputs are, too: of the shipped profiles with a median prompt above 4 k, P90 of
                  the outputs is 500 to 900; below BRIEF, decoding after a long prompt is not evaluated at all
    interaction   more than one way of arriving, or several turns
    likeness      near to production traces that ship as profiles
"""

from __future__ import annotations

import math

from inferometer.audit import shapes
from inferometer.audit.evaluation import Evaluation
from inferometer.audit.facts import Lengths, Workload
from inferometer.audit.finding import (
    Evidence,
    Finding,
    failed,
    passed,
    pointer,
    unjudged,
    warned,
)

ITEM = "workload_diversity"
QUESTION = "Which applications does the evaluation stand for, and which that are served in production does it leave out?"
SHORT = 2048 + 1
LONG = 4096
SHORT_MEAN = 1024  # the seed names evaluations with averages up to it as limited
BRIEF = 50
DECADE = 10.0
UNLIKE = 1.5  # doublings from every shipped profile


def judge(evaluation: Evaluation) -> list[Finding]:
    """The parts of the item."""
    if not evaluation.facts.workloads:
        return [unjudged(ITEM, "no workload is named", remedy="name the workloads")]
    checks = (datasets, lengths, applications, ratios, outputs, interaction, likeness)
    return [check(evaluation) for check in checks]


def datasets(evaluation: Evaluation) -> Finding:
    """More than one dataset."""
    item, workloads = f"{ITEM}.datasets", evaluation.facts.workloads
    seen = [_at(evaluation, w, "dataset", w.dataset or w.name) for w in workloads]
    pairs = [(a, b) for i, a in enumerate(workloads) for b in workloads[i + 1 :]]
    apart = [_apart(evaluation, a, b) for a, b in pairs]
    if not any(each is not False for each in apart):
        twins = "" if len(workloads) == 1 else f": {', '.join(w.name for w in workloads)} are alike"
        return failed(
            item,
            f"one dataset{twins}",
            *seen,
            remedy="add workloads of other applications: `inferometer describe --profiles` lists some from production",
        )
    if all(w.synthetic for w in workloads):
        if any(w.swept for w in workloads):
            return warned(
                item,
                "lengths are swept, but none are from users",
                *seen,
                remedy="add a production trace or profile",
            )
        return failed(
            item,
            "all lengths come from a formula, none from users",
            *seen,
            remedy="add a production trace or profile",
        )
    if True not in apart or not any(w.synthetic is False for w in workloads):
        return unjudged(
            item,
            "whether the workloads differ, and are from users, is not told of all",
            *seen,
            remedy="name the dataset of each workload, and say whether its lengths are from users",
        )
    return passed(item, f"{len(workloads)} workloads that differ", *seen)


def _apart(evaluation: Evaluation, a: Workload, b: Workload) -> bool | None:
    """Whether two workloads are more than two samples of one: by their lengths, else by dataset; None: unknown."""
    one, two = (_shape(evaluation, w) for w in (a, b))
    if one is not None and two is not None:
        return shapes.distance(one, two) >= shapes.ALIKE
    return None if a.dataset is None or b.dataset is None else a.dataset != b.dataset


def _shape(evaluation: Evaluation, workload: Workload) -> shapes.Shape | None:
    for p in evaluation.points:
        for app in p.app:
            if (
                workload.name in (p.place.workload, f"{p.place.workload} ({app})")
                and workload.app == app
            ):
                rows = p.rows_of(app)
                return shapes.shape_of(p.prompt_tokens[rows], p.output_tokens[rows])
    return None


def lengths(evaluation: Evaluation) -> Finding:
    """Not of one length, and not only short."""
    item, workloads = f"{ITEM}.lengths", evaluation.facts.workloads
    seen = [_at(evaluation, w, "prompt", _told(w.prompt)) for w in workloads]
    if all(w.fixed for w in workloads):
        return failed(
            item,
            "every request has the same length",
            *seen,
            remedy="take lengths from a production trace or profile",
        )
    reach = [_reach(w.prompt) for w in workloads]
    longest = max((x for x in reach if x is not None), default=0.0)
    if None not in reach and longest < SHORT:
        return failed(
            item,
            f"prompts are short: {longest:,.0f} tokens at most",
            *seen,
            remedy="add a workload with long prompts: code, documents, agents",
        )
    if not any((w.prompt.p99 or 0) >= LONG for w in workloads):
        if None in reach:
            return unjudged(
                item,
                "how long the prompts are is not told of every workload",
                *seen,
                remedy="state the quantiles of the lengths",
            )
        return warned(
            item,
            f"no P99 of the prompts is known to reach {LONG:,} tokens",
            *seen,
            remedy="add a workload with long prompts, and state its quantiles",
        )
    if any(w.fixed is not False for w in workloads):
        return warned(item, "a workload has, or may have, requests of one length only", *seen)
    return passed(item, f"P99 of the prompts reaches {longest:,.0f} tokens", *seen)


def _reach(lengths: Lengths) -> float | None:
    """How long prompts get: P99, else the maximum; where only the mean is known, twice that (short means: short)."""
    if lengths.p99 is not None or lengths.max is not None:
        return lengths.p99 if lengths.p99 is not None else lengths.max
    return None if lengths.mean is None else SHORT * lengths.mean / SHORT_MEAN


def applications(evaluation: Evaluation) -> Finding:
    """More than one application."""
    item, workloads = f"{ITEM}.applications", evaluation.facts.workloads
    seen = [_at(evaluation, w, "app", w.app) for w in workloads if w.app]
    apps = sorted({w.app for w in workloads if w.app})
    if len(apps) > 1:
        return passed(item, ", ".join(apps), *seen)
    if any(w.app is None for w in workloads):
        return unjudged(
            item,
            "the application is not told of every workload",
            *seen,
            remedy="say what each workload is: chat, code, summarize, agent, ...",
        )
    if any(w.swept for w in workloads):
        return warned(
            item,
            f"one application ({apps[0]}), with a sweep over prompt:output ratios",
            *seen,
            remedy="add another application",
        )
    return failed(
        item,
        f"one application: {apps[0]}",
        *seen,
        remedy="add another application: chat, code, summarization, agents",
    )


def ratios(evaluation: Evaluation) -> Finding:
    """Prompt:output ratios span a decade."""
    item, workloads = f"{ITEM}.ratios", evaluation.facts.workloads
    if any(w.swept for w in workloads):
        return passed(
            item,
            "prompt:output was varied on purpose",
            *(_at(evaluation, w, "swept", True) for w in workloads if w.swept),
        )
    found = {w.name: _over(w.prompt.p50, w.output.p50) for w in workloads}
    known = [ratio for ratio in found.values() if ratio is not None]
    seen = [
        _at(evaluation, w, "prompt, output", {"median prompt:output": found[w.name]})
        for w in workloads
        if found[w.name]
    ]
    if known and max(known) >= DECADE * min(known):
        return passed(item, f"prompt:output from {min(known):.2g} to {max(known):.2g}", *seen)
    if len(known) < len(workloads):
        return unjudged(item, "prompt:output is not told of every workload", *seen)
    return warned(
        item,
        "prompt:output of all workloads is within a decade",
        *seen,
        remedy="add a workload that is mostly prompt, or mostly output",
    )


def _over(prompt: float | None, output: float | None) -> float | None:
    return prompt / output if prompt and output else None


def outputs(evaluation: Evaluation) -> Finding:
    """After long prompts, some outputs are long."""
    item, workloads = f"{ITEM}.outputs", evaluation.facts.workloads
    long = [w for w in workloads if _long(w.prompt) is not False]
    seen = [_at(evaluation, w, "output", _told(w.output)) for w in long]
    enough = [w for w in long if _long(w.prompt) and (w.output.p90 or 0) >= BRIEF]
    if enough:
        return passed(
            item,
            f"after the long prompts of {enough[0].name}, outputs reach {enough[0].output.p90:,.0f} tokens at P90",
            *seen,
        )
    if not long:
        return passed(
            item,
            "no workload is made of long prompts",
            *(_at(evaluation, w, "prompt", _told(w.prompt)) for w in workloads),
        )
    reaches = [_most(w.output) for w in long]
    if any(x is None for x in reaches) or not any(
        _long(w.prompt) or (w.prompt.max or 0) >= LONG for w in long
    ):
        return unjudged(item, "how long outputs are after long prompts is not told", *seen)
    return failed(
        item,
        f"after long prompts, nine of ten outputs end before {BRIEF} tokens: decoding is not evaluated there",
        *seen,
        remedy="add a workload with long prompts and long outputs",
    )


def _long(lengths: Lengths) -> bool | None:
    """Whether prompts are typically long; None where the tail may be all of it."""
    if lengths.p50 is not None:
        return lengths.p50 >= LONG
    if (lengths.mean or 0) >= LONG:
        return True
    top = lengths.max if lengths.max is not None else lengths.p99
    return False if top is not None and top < LONG else None


def _most(lengths: Lengths) -> float | None:
    """P90 of outputs that are known to be brief; None where they are not."""
    known = [x for x in (lengths.p90, lengths.p99, lengths.max) if x is not None and x < BRIEF]
    return known[0] if known else None


def interaction(evaluation: Evaluation) -> Finding:
    """More than one way of arriving, or several turns."""
    item, workloads = f"{ITEM}.interaction", evaluation.facts.workloads
    seen = [
        _at(
            evaluation,
            w,
            "arrivals",
            {"arrivals": w.arrivals, "cv": w.arrival_cv, "turns": w.multi_turn},
        )
        for w in workloads
        if w.arrivals or w.multi_turn is not None
    ]
    if any(w.multi_turn for w in workloads):
        return passed(item, "conversations of several turns", *seen)
    kinds = {w.arrivals for w in workloads if w.arrivals}
    if len(kinds) > 1:
        return passed(item, f"arrivals: {', '.join(sorted(kinds))}", *seen)
    if any(w.arrivals is None or w.multi_turn is None for w in workloads):
        return unjudged(
            item,
            "how requests arrive is not told of every workload",
            *seen,
            remedy="state the arrival process",
        )
    return warned(
        item,
        f"all requests arrive in one way ({next(iter(kinds))}), and none is a later turn",
        *seen,
        remedy="add bursty arrivals, or conversations",
    )


def likeness(evaluation: Evaluation) -> Finding:
    """Near to production."""
    item, workloads = f"{ITEM}.likeness", evaluation.facts.workloads
    seen = [
        _at(evaluation, w, "like", f"{w.apart:.2f} doublings of length from {w.like}")
        for w in workloads
        if w.like and w.apart is not None
    ]
    far = [w for w in workloads if w.apart is not None and w.apart > UNLIKE]
    if far and len(far) == len(workloads):
        return warned(
            item,
            "no workload is like a production trace that ships",
            *seen,
            remedy="take a shipped profile, or make one from a trace of your own",
        )
    if any(w.apart is None or w.like is None for w in workloads):
        return unjudged(
            item,
            "how like production the lengths are cannot be computed for every workload",
            *seen,
            remedy="give the lengths of the requests",
        )
    near = min(workloads, key=lambda w: w.apart or math.inf)
    return passed(item, f"{near.name} is like {near.like}", *seen)


def _told(lengths: Lengths) -> dict[str, float]:
    fields = {name: getattr(lengths, name) for name in lengths.__struct_fields__}
    return {name: round(value, 1) for name, value in fields.items() if value is not None}


def _at(evaluation: Evaluation, workload: Workload, field: str, value: object) -> Evidence:
    index = evaluation.facts.workloads.index(workload)
    cited = f" ({workload.evidence})" if workload.evidence else ""
    shown = {workload.name: value} if value else None
    return pointer(evaluation.at(f"workloads[{index}].{field}") + cited, shown)
