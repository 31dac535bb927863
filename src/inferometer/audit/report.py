"""The report: validity, the eight items, the claims; as data whose JSON is published (docs/schemas/audit.schema.json)."""

from __future__ import annotations

from typing import Any

import msgspec

from inferometer.audit import (
    implementation_fairness,
    metric_selection,
    model_selection,
    no_obscuring_normalization,
    parameter_tuning,
    performance_distribution,
    practical_latency,
    validity,
    workload_diversity,
)
from inferometer.audit.claims import Tested, evaluated
from inferometer.audit.evaluation import Evaluation
from inferometer.audit.facts import Facts
from inferometer.audit.finding import Finding, combined
from inferometer.errors import EXIT_FAILED, EXIT_INVALID, EXIT_OK
from inferometer.spec import Spec

RULES = (
    implementation_fairness,
    parameter_tuning,
    model_selection,
    workload_diversity,
    practical_latency,
    metric_selection,
    performance_distribution,
    no_obscuring_normalization,
)


class Items(Spec, frozen=True):
    """The eight items."""

    implementation_fairness: Finding
    parameter_tuning: Finding
    model_selection: Finding
    workload_diversity: Finding
    practical_latency: Finding
    metric_selection: Finding
    performance_distribution: Finding
    no_obscuring_normalization: Finding


class Report(Spec, frozen=True):
    """All that is said of an evaluation."""

    title: str
    where: str
    validity: Finding
    items: Items
    claims: tuple[Tested, ...] = ()
    schema_version: int = 1

    def findings(self) -> dict[str, Finding]:
        """The eight items by name."""
        return {name: getattr(self.items, name) for name in self.items.__struct_fields__}

    @property
    def exit_code(self) -> int:
        """Invalid before failed: what must not be believed decides nothing."""
        if self.validity.verdict == "fail":
            return EXIT_INVALID
        verdicts = {finding.verdict for finding in self.findings().values()}
        reversed_ = any(claim.verdict == "reversed" for claim in self.claims)
        return EXIT_FAILED if "fail" in verdicts or reversed_ else EXIT_OK


def audit(evaluation: Evaluation) -> Report:
    """Judge an evaluation: pure, and the same for a paper, a study and a run."""
    words = evaluation.facts.attested
    found = {
        rule.ITEM: combined(rule.ITEM, rule.judge(evaluation), rule.QUESTION, words.get(rule.ITEM))
        for rule in RULES
    }
    return Report(
        title=evaluation.facts.title,
        where=evaluation.where,
        validity=validity.validity(evaluation),
        items=Items(**found),
        claims=evaluated(evaluation),
    )


def schema() -> dict[str, Any]:
    """The JSON schema of a report."""
    return _titled("inferometer audit --json", Report)


def record_schema() -> dict[str, Any]:
    """The JSON schema of an evaluation's record."""
    return _titled("inferometer audit --paper", Facts)


def _titled(title: str, type_: Any) -> dict[str, Any]:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return head | msgspec.json.schema(type_)
