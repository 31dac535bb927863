"""Table 2 of the seed: the audit's rules over what twelve evaluations reported, beside the paper's ticks, cell by cell.

The records hold facts in words of ours (inferometer/audit/papers), the ticks are data that no rule reads. A cell is `attested`
where the rules have nothing to go on and the seed's authors gave their word; it is counted apart, and agrees by construction
with nothing. A `warn` is a tick, as the paper's are, which carry reservations too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from inferometer.audit import ITEMS, audit
from inferometer.audit.finding import Finding
from inferometer.audit.papers import record_names, shipped, ticks
from inferometer.report.sections import Grid
from inferometer.reproduce.reproduction import SEED, Ask, Reproduction, Statement

OURS = {"pass": "pass", "warn": "pass", "fail": "fail", "attested": "attested", "not-evaluated": "attested"}  # fmt: skip
SHORT = ("IF", "PT", "MS", "WD", "PL", "Met", "PD", "NN")
MARKS = {"pass": "✓", "fail": "✗", "attested": "?"}


class Cell(NamedTuple):
    """One cell: the paper's tick, our verdict, and the finding behind it."""

    system: str
    item: str
    paper: bool
    ours: str
    finding: Finding

    @property
    def agrees(self) -> bool | None:
        """Whether our rules say what the paper says; None where they say nothing."""
        return None if self.ours == "attested" else (self.ours == "pass") == self.paper

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "paper": self.paper,
            "ours": self.ours,
            "agrees": self.agrees,
            "verdict": self.finding.verdict,
            "reason": self.finding.reason,
            "evidence": msgspec.to_builtins(self.finding.evidence),
        }


def cells() -> list[Cell]:
    """All 96 cells, by system, in the paper's order."""
    return [cell for name in record_names() for cell in _row(name)]


def _row(name: str) -> list[Cell]:
    record, paper = shipped(name), ticks(name)
    return [
        Cell(record.facts.title, item, paper[item], _ours(finding), finding)
        for item, finding in audit(record).findings().items()
    ]


def _ours(finding: Finding) -> str:
    return "attested" if finding.by_word else OURS[finding.verdict]


def make(_ask: Ask) -> Reproduction:
    """The table, and how often rules and paper agree."""
    found = cells()
    derived = [cell for cell in found if cell.agrees is not None]
    same = sum(bool(cell.agrees) for cell in derived)
    attested = len(found) - len(derived)
    differences = [f"{c.system}, {c.item}: {c.finding.reason}" for c in derived if not c.agrees]
    return Reproduction(
        "table2",
        "Table 2: twelve evaluations against the checklist",
        f"{SEED}, Table 2 and appendix A. ✓ and ✗ by our rules from what the appendix tells of each evaluation; "
        "? where only its authors can say; ≠ where the paper says the other.",
        (
            Statement(
                f"{sum(cell.paper for cell in found)} ticks in {len(found)} cells",
                f"{len(derived)} cells follow from the rules, and {same} of them agree; {attested} are attested",
                same == len(derived),
                "; ".join(differences),
            ),
        ),
        (Grid("Table 2", ("system", *SHORT), _grid(found)), Grid("Items", ("", "item"), _legend())),
        data=as_columns(found),
    )


def as_columns(found: list[Cell]) -> dict[str, Any]:
    """{"cells": {system: {item: {paper, ours, ...}}}, "counts": ...}."""
    out: dict[str, dict[str, Any]] = {}
    for cell in found:
        out.setdefault(cell.system, {})[cell.item] = cell.to_dict()
    agree = [cell.agrees for cell in found]
    counts = {"cells": len(found), "derived": len(found) - agree.count(None), "agree": agree.count(True), "differ": agree.count(False), "attested": agree.count(None)}  # fmt: skip
    return {"cells": out, "counts": counts}


def _grid(found: list[Cell]) -> list[list[str]]:
    rows: dict[str, list[str]] = {}
    for cell in found:
        mark = MARKS[cell.ours] + ("≠" if cell.agrees is False else "")
        rows.setdefault(cell.system, [cell.system]).append(mark)
    return list(rows.values())


def _legend() -> list[list[str]]:
    return [[short, item.replace("_", " ")] for short, item in zip(SHORT, ITEMS, strict=True)]
