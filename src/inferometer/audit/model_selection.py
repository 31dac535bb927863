"""Item 3, model selection: do the models stand for those that people serve, and for those on which the effect may differ?

Anti-pattern 3 of the seed paper (section 3.2): memory techniques shown on multi-head attention alone, whose KV cache is 4 to 8
times that of grouped queries. What is asked:
    architecture  as its publisher made it: a model whose grouped queries were switched off is another model
    memory        a claim about memory is shown on more than MHA; the KV bytes per token of each model stand beside it
    breadth       more than one size or architecture
    era           the newest model is at most OLD years older than the evaluation
    fit           the weights leave room for a cache on the devices (FULL of their memory at most): else what is measured is
                  how one serves a model that does not fit
"""

from __future__ import annotations

from inferometer.audit.evaluation import Evaluation
from inferometer.audit.facts import Model
from inferometer.audit.finding import (
    Evidence,
    Finding,
    failed,
    passed,
    pointer,
    unjudged,
    warned,
)

ITEM = "model_selection"
QUESTION = "Do the evaluated models stand for those that are served today, on hardware on which one would serve them?"
OLD = 2
FULL = 0.9
APART = 2.0  # times as many parameters make another size


def judge(evaluation: Evaluation) -> list[Finding]:
    """The parts of the item."""
    if not evaluation.facts.models:
        return [unjudged(ITEM, "no model is named", remedy="name the models")]
    return [check(evaluation) for check in (architecture, memory, breadth, era, fit)]


def architecture(evaluation: Evaluation) -> Finding:
    """As their publishers made them."""
    item, models = f"{ITEM}.architecture", evaluation.facts.models
    altered = [m for m in models if m.altered]
    if altered:
        told = "; ".join(f"{m.name}: {m.altered}" for m in altered)
        return failed(
            item,
            f"the architecture was altered ({told})",
            *(_at(evaluation, m, "altered", m.altered) for m in altered),
            remedy="evaluate the model as it was published",
        )
    unknown = [m.name for m in models if m.altered is None]
    if unknown:
        return unjudged(
            item,
            f"whether {', '.join(unknown)} is as published is not known",
            remedy="name the model, or give its config.json",
        )
    return passed(
        item,
        "the models are as their publishers made them",
        *(_at(evaluation, m, "name", m.name) for m in models),
    )


def memory(evaluation: Evaluation) -> Finding:
    """A claim about memory is shown on more than multi-head attention."""
    item, models, claim = f"{ITEM}.memory", evaluation.facts.models, evaluation.facts.memory_claim
    seen = [_at(evaluation, m, "attention", _kv(m)) for m in models if m.attention]
    if any(m.attention not in (None, "MHA") for m in models):
        return passed(
            item,
            f"attention: {', '.join(sorted({m.attention for m in models if m.attention}))}",
            *seen,
        )
    where = pointer(evaluation.at("memory_claim"), claim)
    if claim is False:
        return passed(item, "nothing is claimed about the memory of the KV cache", where, *seen)
    if any(m.attention is None for m in models):
        return unjudged(
            item,
            "the attention of the models is not known",
            *seen,
            remedy="give the models' config.json",
        )
    if claim:
        return failed(
            item,
            "a claim about memory is shown on multi-head attention alone, whose KV cache is several times that of newer models",
            where,
            *seen,
            remedy="add a model with grouped queries (GQA), or latent attention",
        )
    return unjudged(
        item,
        "all models have multi-head attention, and whether memory is claimed to be saved is not told",
        *seen,
        remedy="say whether the claim is about memory; add a model with GQA",
    )


def _kv(model: Model) -> str:
    if model.kv_bytes_per_token is None:
        return str(model.attention)
    return f"{model.attention}, {model.kv_bytes_per_token:,.0f} bytes of KV cache per token"


def breadth(evaluation: Evaluation) -> Finding:
    """More than one size or architecture."""
    item, models = f"{ITEM}.breadth", evaluation.facts.models
    seen = [_at(evaluation, m, "params_b", _size(m)) for m in models]
    if len(_kinds(models)) > 1:
        return passed(item, f"{len(models)} models", *seen)
    if len(models) > 1 and not any(m.params_b for m in models):
        return unjudged(
            item,
            f"whether the {len(models)} models differ in size or architecture is not told",
            *seen,
        )
    return warned(
        item,
        f"one size of one architecture ({models[0].name}): what holds for it may not hold for other sizes and architectures",
        *seen,
        remedy="add a model of another size or architecture",
    )


def _kinds(models: tuple[Model, ...]) -> list[Model]:
    """Models that are known to differ in architecture, or in size by a factor of `APART`."""
    kinds: list[Model] = []
    for m in models:
        if all(_differ(m, other) for other in kinds):
            kinds.append(m)
    return kinds


def _differ(a: Model, b: Model) -> bool:
    if a.attention and b.attention and a.attention != b.attention:
        return True
    if a.experts is not None and b.experts is not None and bool(a.experts) != bool(b.experts):
        return True
    if a.params_b and b.params_b:
        return max(a.params_b, b.params_b) >= APART * min(a.params_b, b.params_b)
    return False


def _size(model: Model) -> str:
    size = "size not told" if model.params_b is None else f"{model.params_b:g} B parameters"
    return f"{size}, {model.experts} experts" if model.experts else size


def era(evaluation: Evaluation) -> Finding:
    """Not older than the evaluation by much."""
    item, models = f"{ITEM}.era", evaluation.facts.models
    dated = [m for m in models if m.year]
    if not dated:
        return unjudged(
            item, "how old the models are is not known", remedy="state the year of each model"
        )
    now = evaluation.facts.year
    if now is None:
        return unjudged(item, "when the evaluation was made is not told", remedy="state its year")
    newest = max(dated, key=lambda m: m.year or 0)
    seen = _at(evaluation, newest, "year", newest.year)
    if now - (newest.year or 0) > OLD:
        return warned(
            item,
            f"the newest model, {newest.name}, is of {newest.year}",
            seen,
            remedy="add a model that is served today",
        )
    return passed(item, f"the newest model is of {newest.year}", seen)


def fit(evaluation: Evaluation) -> Finding:
    """The weights leave room for the cache."""
    item, models = f"{ITEM}.fit", evaluation.facts.models
    tight = [m for m in models if m.memory_share is not None and m.memory_share > FULL]
    if tight:
        told = ", ".join(f"{m.name} {m.memory_share:.0%}" for m in tight)
        return failed(
            item,
            f"the weights take most of the memory of the devices ({told}): they leave no room to serve with",
            *(_at(evaluation, m, "memory_share", m.memory_share) for m in tight),
            remedy="take larger or more devices, or a smaller model",
        )
    unknown = [m.name for m in models if m.memory_share is None]
    if unknown:
        return unjudged(
            item,
            f"how much of the devices' memory {', '.join(unknown)} takes is not known",
            remedy="state the devices",
        )
    return passed(
        item,
        "the weights leave room for the cache",
        *(_at(evaluation, m, "memory_share", m.memory_share) for m in models),
    )


def _at(evaluation: Evaluation, model: Model, field: str, value: object) -> Evidence:
    index = evaluation.facts.models.index(model)
    cited = f" ({model.evidence})" if model.evidence else ""
    return pointer(evaluation.at(f"models[{index}].{field}") + cited, f"{model.name}: {value}")
