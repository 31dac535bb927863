"""Table 1 of the seed: lengths of three production traces, recomputed where the trace is public."""

from __future__ import annotations

from inferometer.report.sections import Grid, number
from inferometer.reproduce.reproduction import SEED, Ask, Reproduction, Statement
from inferometer.workload.table1 import as_columns, matches, table1

STATISTICS = {"p50": "median", "iqr": "interquartile range", "p99": "p99"}


def make(ask: Ask) -> Reproduction:
    """All 24 numbers beside ours."""
    assert ask.traces is not None
    cells = table1(ask.traces)
    known = sum(cell.ours is not None for cell in cells)
    exact = matches(cells)
    missing = f"{len(cells) - known} others cannot be recomputed: the traces are not public in full"
    rows = [
        [
            cell.trace,
            f"{cell.column} {STATISTICS[cell.statistic]}",
            f"{cell.paper:g}",
            "–" if cell.ours is None else number(cell.ours),
            "" if cell.ci is None else f"[{number(cell.ci[0])}, {number(cell.ci[1])}]",
            cell.why or cell.verdict,
        ]
        for cell in cells
    ]
    head = ("trace", "number", "paper", "ours", "95 % interval", "")
    return Reproduction(
        "table1",
        "Table 1: lengths of production traces",
        f"{SEED}, Table 1. Medians, interquartile ranges and p99 of prompts and outputs, and of their ratio.",
        (
            Statement(
                f"{len(cells)} numbers",
                f"{exact} of {known} recomputed are equal",
                exact == known,
                missing,
            ),
        ),
        (Grid("Table 1", head, rows),),
        data=as_columns(cells),
    )
