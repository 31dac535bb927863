"""The audit on a page: eight lights, the evidence one click away.

The audit judges; here its findings become lights. What was not judged is unsure, and never good.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inferometer.audit import Finding, audit, evaluation_of
from inferometer.report.sections import Light

SHOWN = 12  # pieces of evidence on a page; `inferometer audit --explain ITEM` has all
STATES = {"pass": "good", "attested": "good", "warn": "unsure", "fail": "bad"}


def audit_lights(paths: Sequence[str | Path]) -> tuple[Light, ...]:
    """The eight items of what lies at the paths: runs, folders of runs, or a study."""
    found = audit(evaluation_of(list(paths))).findings()
    return tuple(_light(name, finding) for name, finding in found.items())


def _light(name: str, found: Finding) -> Light:
    evidence = tuple(f"{one.where}: {one.value}" for one in found.evidence[:SHOWN])
    rest = tuple(filter(None, (found.reason, found.remedy, found.question)))
    title = f"Audit: {name.replace('_', ' ')}"
    return Light(title, STATES.get(found.verdict, "unsure"), found.verdict, (*rest, *evidence))
