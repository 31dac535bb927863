"""What a page says of a study: systems side by side, curves over loads with intervals, what tuning tried, the claims.

A point is the median over a cell's repeats, its band from the least to the largest of them: with three repeats that is all
that is known, and it is named so. Distributions are drawn for the highest load at which every system still has valid runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from inferometer.report import charts
from inferometer.report.charts import Chart
from inferometer.report.searched import load_of
from inferometer.report.sections import Grid, Light, Section, number
from inferometer.report.sides import overlays
from inferometer.report.tables import Table
from inferometer.run import Run
from inferometer.search.study import Ended, Planned, Study

STATES = {"supported": "good", "reversed": "bad"}


class Place(NamedTuple):
    """Where systems meet: a workload on a model."""

    workload: str
    model: str

    @property
    def name(self) -> str:
        """For a title."""
        return f"{self.workload}, {self.model}" if self.model else self.workload

    @property
    def id(self) -> str:
        """For an id."""
        return "".join(c if c.isalnum() else "-" for c in f"{self.workload}-{self.model}")


def study_sections(study: Study, *, lights: tuple[Light, ...] = ()) -> list[Section]:
    """The sections of a study's page; `lights` (the audit's) stand with the verdict."""
    places = list(dict.fromkeys(Place(c.workload, c.model) for c, _ in study.cells()))
    found = [_verdict(study, lights)]
    found += [_place(study, place) for place in places]
    if study.choices:
        found.append(_tuning(study))
    return [*found, _cells(study)]


def _verdict(study: Study, lights: tuple[Light, ...]) -> Section:
    ended = [e for _, e in study.cells("tuning")] + [e for _, e in study.cells()]
    failed = tuple(f"{e.cell}: {e.error}" for e in ended if e.status == "failed")
    invalid = tuple(f"{e.cell}: {'; '.join(e.invalid_reasons)}" for e in ended if e.valid is False)
    own = [
        Light(
            "Study",
            "good" if study.complete else "unsure",
            f"{len(ended)} of {len(study.planned)} cells have ended",
            failed,
        ),
        Light("Measurements", "bad" if invalid else "good", f"{len(invalid)} invalid", invalid),
        *_claims(study),
    ]
    return Section(
        "verdict", study.spec.title or "Verdict", study.spec.question or "", (*own, *lights)
    )


def _claims(study: Study) -> Iterator[Light]:
    for claim in (study.result or {}).get("claims") or []:
        verdict = str(claim.get("verdict", ""))
        share = (claim.get("robustness") or {}).get("share")
        held = "" if share is None else f"; its direction holds in {share:.0%} of all cells"
        text = f"{claim.get('text', '')}: {verdict}{held}"
        yield Light(
            "Claim",
            STATES.get(verdict, "unsure"),
            text,
            tuple(filter(None, (str(claim.get("reason") or ""),))),
        )


# --- systems side by side ---------------------------------------------------------------------------------------------


def _place(study: Study, place: Place) -> Section:
    table, names = _points(study, place)
    drawn = [chart for name in names if (chart := _curve(place, table, name)) is not None]
    sides, load = _shown(study, place)
    if len(sides) > 1:
        drawn += [chart._replace(id=f"{chart.id}-{place.id}") for chart in overlays(sides)]
    slo = study.slo_of(place.workload)
    lead = f"Distributions at {load}." if load else ""
    if slo is not None:
        lead += f" SLO: {slo.name or slo.text}."
    return Section(
        f"place-{place.id}",
        place.name,
        lead.strip(),
        grids=(_side_by_side(table, names),),
        charts=tuple(drawn),
    )


def _points(study: Study, place: Place) -> tuple[Table, list[str]]:
    """A row per system, load and figure: median, least and largest over the repeats; and the figures there are."""
    out: Table = {
        "system": [],
        "load": [],
        "label": [],
        "figure": [],
        "value": [],
        "lo": [],
        "hi": [],
        "repeats": [],
    }
    for (system, label), cells in _grouped(study, place).items():
        for figure in dict.fromkeys(name for _, e in cells for name in e.figures):
            values = [v for _, e in cells if (v := e.figures.get(figure)) is not None]
            if not values:
                continue
            load = cells[0][0].load.value
            row = (
                system,
                load,
                label,
                figure,
                median(values),
                min(values),
                max(values),
                len(values),
            )
            for name, value in zip(out, row, strict=True):
                out[name].append(value)
        for cell, ended in cells:
            if ended.capacity is not None and load_of(ended.capacity) is not None:
                found = load_of(ended.capacity), *ended.capacity["interval"]
                row = (system, cell.load.value, label, "capacity", *found, 2)
                for name, value in zip(out, row, strict=True):
                    out[name].append(value)
    return out, list(dict.fromkeys(out["figure"]))


def _grouped(study: Study, place: Place) -> dict[tuple[str, str], list[tuple[Planned, Ended]]]:
    found: dict[tuple[str, str], list[tuple[Planned, Ended]]] = {}
    for cell, ended in study.cells(workload=place.workload, model=place.model):
        if ended.status == "ok":
            found.setdefault((cell.system, cell.load.label), []).append((cell, ended))
    return found


def _curve(place: Place, table: Table, figure: str) -> Chart | None:
    """A figure over loads; None where there is but one load."""
    keep = [
        k
        for k, name in enumerate(table["figure"])
        if name == figure and table["load"][k] is not None
    ]
    part = {name: [values[k] for k in keep] for name, values in table.items() if name != "figure"}
    if len(set(part["load"])) < 2:
        return None
    note = "Median over repeats; the band goes from the least to the largest."
    name = "".join(c if c.isalnum() else "-" for c in figure)
    return charts.lines(
        f"{name}-{place.id}", figure, note, part,
        x="load", y="value", what="system", x_title="load", y_title=figure, bands=("lo", "hi"), points=True,
    )  # fmt: skip


def _side_by_side(table: Table, names: list[str]) -> Grid:
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for one in charts.rows(table):
        spread = f" [{number(one['lo'])}, {number(one['hi'])}]" if one["repeats"] > 1 else ""
        rows.setdefault((one["label"], one["system"]), {})[one["figure"]] = (
            number(one["value"]) + spread
        )
    cells = [
        [f"{system} at {load}", *(row.get(name, "–") for name in names)]
        for (load, system), row in rows.items()
    ]
    return Grid(
        "Systems side by side",
        ("", *names),
        cells,
        "Times in seconds. In brackets: least and largest of the repeats; of a capacity, its interval.",
    )


def _shown(study: Study, place: Place) -> tuple[dict[str, list[Run]], str]:
    """The runs of every system at the highest load where all have valid ones, and that load."""
    grouped = _grouped(study, place)
    systems = list(dict.fromkeys(system for system, _ in grouped))
    loads = sorted(
        {(c.load.value or 0.0, c.load.label) for cells in grouped.values() for c, _ in cells},
        reverse=True,
    )
    for _, label in loads:
        valid = {
            name: [
                c.id
                for c, e in grouped.get((name, label), ())
                if e.valid is not False and e.run and not e.capacity
            ]
            for name in systems
        }
        if all(valid.values()):
            return {
                name: [study.run(cell) for cell in cells] for name, cells in valid.items()
            }, label
    return {}, ""


# --- tuning, cells ----------------------------------------------------------------------------------------------------


def _tuning(study: Study) -> Section:
    rows = [
        [
            f"{c.system}, {Place(c.workload, c.model).name}",
            f"{len(c.trials)} of {c.budget}" if c.budget else str(len(c.trials)),
            ", ".join(f"{k}={v}" for k, v in (c.best or {}).items()),
            ", ".join(c.edges) or "none",
            c.inherited_from or "",
        ]
        for c in study.choices
    ]
    head = ("system, workload", "tried", "chosen", "at the edge of its range", "taken from")
    return Section(
        "tuning",
        "What tuning tried",
        "On another split of the workload than the headline.",
        grids=(Grid("", head, rows),),
    )


def _cells(study: Study) -> Section:
    rows = [
        [
            cell.id,
            ended.status,
            "" if ended.valid is None else str(ended.valid),
            number(ended.seconds),
            ended.error or "",
            ended.run or "",
        ]
        for split in ("tuning", "headline")
        for cell, ended in study.cells(split)
    ]
    head = ("cell", "status", "valid", "seconds", "error", "run")
    return Section(
        "cells",
        "Every cell",
        f"Fingerprint {study.fingerprint[:16]}.",
        grids=(Grid("In order", head, rows),),
    )
