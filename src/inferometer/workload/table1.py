"""The seed paper's Table 1, beside what can be computed from public data.

"On Evaluating Performance of LLM Inference Serving Systems" (Agrawal et al., 2025), Table 1: median, interquartile range
and 99th percentile of prompt and output lengths, and median and interquartile range of their ratio, of three traces.
Only Mooncake's trace is public in full; of the Azure 2024 traces, the figures are repeated from the paper and what
others published of them stands beside, with the reason why nothing can be recomputed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inferometer.errors import UserError
from inferometer.workload.describe import describe
from inferometer.workload.traces import Trace, read_trace

MOONCAKE_FILES = ("mooncake_arxiv.parquet", "mooncake_trace.jsonl")
_COLUMNS = (
    ("prompt_tokens", "p50"),
    ("prompt_tokens", "iqr"),
    ("prompt_tokens", "p99"),
    ("output_tokens", "p50"),
    ("output_tokens", "iqr"),
    ("output_tokens", "p99"),
    ("pd_ratio", "p50"),
    ("pd_ratio", "iqr"),
)
PAPER = {
    "Azure Code 2024": (1928, 2393, 7685, 8, 15, 276, 238, 686),
    "Azure Conv 2024": (928, 1811, 6683, 41, 94, 694, 21, 63),
    "Mooncake": (6345, 4243, 61616, 30, 343, 898, 163.5, 602),
}
_DIGITS = {163.5: 1}  # the paper rounds to whole numbers, but for this one

_NOT_PUBLIC = (
    "the trace's file is not in the public repository, and the ratio needs single requests"
)
_ELSEWHERE: dict[str, dict[tuple[str, str], tuple[float, str]]] = {
    "Azure Code 2024": {
        ("prompt_tokens", "p50"): (1930, "one other source; differs by 2"),
        ("prompt_tokens", "p99"): (7685, "agrees; it is the context cap, not a tail"),
        ("output_tokens", "p50"): (8, "two other sources agree"),
        ("output_tokens", "p99"): (271, "two other sources; differs by 5"),
    },
    "Azure Conv 2024": {
        ("prompt_tokens", "p50"): (928, "another source agrees"),
        ("prompt_tokens", "p99"): (6683, "another source agrees"),
        ("output_tokens", "p50"): (41, "two other sources agree"),
        ("output_tokens", "p99"): (694, "two other sources agree"),
    },
}


class Cell(NamedTuple):
    """One number of the table. `ours` and `ci` are None where it cannot be recomputed; `why` says so."""

    trace: str
    column: str
    statistic: str
    paper: float
    ours: float | None
    ci: tuple[float, float] | None
    verdict: str  # exact | differs | not recomputable
    why: str = ""


def table1(traces: str | Path) -> list[Cell]:
    """All 24 numbers; `traces` is a folder that holds Mooncake's arXiv trace."""
    found = describe(_mooncake(Path(traces)))
    cells = []
    for trace, numbers in PAPER.items():
        for (column, statistic), paper in zip(_COLUMNS, numbers, strict=True):
            if trace == "Mooncake":
                cells.append(_recomputed(column, statistic, paper, found))
            else:
                other, why = _ELSEWHERE[trace].get((column, statistic), (None, ""))
                told = (
                    f"{_NOT_PUBLIC}; elsewhere {other:g}: {why}"
                    if other is not None
                    else _NOT_PUBLIC
                )
                cells.append(
                    Cell(trace, column, statistic, paper, None, None, "not recomputable", told)
                )
    return cells


def _recomputed(column: str, statistic: str, paper: float, found: dict[str, Any]) -> Cell:
    ours = float(found[column][statistic])
    low, high = found[column]["ci"][statistic]
    same = round(ours, _DIGITS.get(paper, 0)) == paper
    verdict = "exact" if same else "differs"
    return Cell("Mooncake", column, statistic, paper, ours, (low, high), verdict)


def _mooncake(folder: Path) -> Trace:
    for name in MOONCAKE_FILES:
        if (folder / name).is_file():
            return read_trace(folder / name)
    raise UserError(
        "Mooncake's arXiv trace is not there",
        where=str(folder),
        remedy=f"put {MOONCAKE_FILES[1]} of github.com/kvcache-ai/Mooncake there",
    )


def as_columns(cells: list[Cell]) -> dict[str, Any]:
    """The table as plain data: {trace: {column.statistic: {paper, ours, ci, verdict, why}}}."""
    out: dict[str, Any] = {}
    for cell in cells:
        row = out.setdefault(cell.trace, {})
        row[f"{cell.column}.{cell.statistic}"] = {
            "paper": cell.paper,
            "ours": cell.ours,
            "ci": list(cell.ci) if cell.ci is not None else None,
            "verdict": cell.verdict,
            "why": cell.why,
        }
    return out


def matches(cells: list[Cell]) -> int:
    """How many numbers were recomputed and are the paper's."""
    return int(np.count_nonzero([cell.verdict == "exact" for cell in cells]))
