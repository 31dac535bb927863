"""What it is to reproduce something: statements of the paper beside ours, the data, the charts, a caption.

A `Statement` has three outcomes: it agrees, it does not (with the reason), or nothing can be said (with the reason).
Whoever makes a reproduction computes both the number and the outcome; nobody writes an outcome down.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from inferometer.errors import UserError
from inferometer.report.charts import Chart, rows
from inferometer.report.sections import Grid, Light, Section

SEED = 'Agrawal et al., "On Evaluating Performance of LLM Inference Serving Systems", 2025'


class Ask(NamedTuple):
    """What a person may choose: the folder of public traces, the seed, fewer requests; and who is told of progress."""

    traces: Path | None = None
    seed: int = 0
    quick: bool = False
    tell: Callable[[str], None] = print


class Statement(NamedTuple):
    """What the paper states, and what we find. `agrees` is None where it cannot be said."""

    paper: str
    ours: str
    agrees: bool | None
    why: str = ""


class Reproduction(NamedTuple):
    """One figure or table. `data` is what `--json` adds to its statements and to the tables of its charts."""

    name: str
    title: str
    caption: str
    statements: tuple[Statement, ...] = ()
    grids: tuple[Grid, ...] = ()
    charts: tuple[Chart, ...] = ()
    data: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data: statements, grids, and every table of every chart by columns."""
        return {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "statements": [one._asdict() for one in self.statements],
            "charts": {chart.id: chart.tables for chart in self.charts},
            **(self.data or {}),
        }

    def section(self) -> Section:
        """Its chapter of a page."""
        states = {True: "good", False: "bad", None: "unsure"}
        lights = tuple(
            Light(one.paper, states[one.agrees], one.ours, (one.why,) if one.why else ())
            for one in self.statements
        )
        return Section(self.name, self.title, self.caption, lights, self.grids, self.charts)


# name -> where it is made, in the order of the page that `all` makes
NAMES = {
    "fig1": "inferometer.reproduce.fig1",
    "fig2": "inferometer.reproduce.fig2",
    "table1": "inferometer.reproduce.table1",
    "table2": "inferometer.reproduce.table2",
    "dilution": "inferometer.reproduce.dilution",
}
NEEDS_TRACES = ("table1",)


def make(name: str, ask: Ask) -> Reproduction:
    """The reproduction of that name."""
    if name in NEEDS_TRACES and ask.traces is None:
        raise UserError(
            "it is computed from public traces",
            where=name,
            remedy="name their folder: --traces FOLDER (with Mooncake's mooncake_trace.jsonl)",
        )
    found: Reproduction = import_module(NAMES[name]).make(ask)
    return found


def names(what: str, ask: Ask) -> list[str]:
    """The names that `what` stands for; of `all`, without traces, those that need none."""
    if what != "all":
        return [what]
    return [name for name in NAMES if ask.traces is not None or name not in NEEDS_TRACES]


__all__ = ["NAMES", "SEED", "Ask", "Grid", "Reproduction", "Statement", "make", "names", "rows"]
