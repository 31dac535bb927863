"""Papers as data: what the twelve systems of the seed's Table 2 reported, and the table's own ticks.

A record holds what the seed says of an evaluation (section 3 and appendix A), in our words, each fact with the place where it
stands; it holds no verdict. `ticks` are the paper's verdicts, and no rule reads them. A record of your own has the same form:
`inferometer audit --template` writes it with a comment at each field. A model that is known by its name need not be described.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from inferometer.audit import arms
from inferometer.audit.evaluation import Evaluation, of_record
from inferometer.audit.facts import ITEMS, Facts
from inferometer.spec import Spec, read_spec

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

TABLE = "table2.yaml"


class _Table(Spec, frozen=True):
    source: str
    ticks: dict[str, list[bool]]


def record_names() -> tuple[str, ...]:
    """The systems of Table 2, in its order."""
    return tuple(_ticks())


def shipped(name: str) -> Evaluation:
    """The record of a system of Table 2."""
    return read_record(Path(str(_folder() / f"{name}.yaml")))


def read_record(path: str | Path) -> Evaluation:
    """The evaluation that a YAML or JSON record describes; complaints carry the line and the path."""
    facts: Facts = read_spec(path, Facts)
    models = tuple(map(arms.completed, facts.models))
    return of_record(msgspec.structs.replace(facts, models=models), Path(path).name)


def ticks(name: str) -> dict[str, bool]:
    """What Table 2 says of a system: {item: tick}."""
    return dict(zip(ITEMS, _ticks()[name], strict=True))


def _ticks() -> dict[str, list[bool]]:
    table: _Table = read_spec(Path(str(_folder() / TABLE)), _Table)
    return table.ticks


def _folder() -> Traversable:
    return resources.files(__name__)
