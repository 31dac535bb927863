"""What a page says of two sides, or of several: their distributions over each other, what differs and how surely.

A side is a run, or repeats of one, under a name. Two sides are compared (`search.compare`); more are drawn side by side
with their scorecards, since "which of five" is not one question but ten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from inferometer.clock import SECOND
from inferometer.metrics import latency
from inferometer.metrics.scorecard import Scorecard, score, view_of
from inferometer.report import charts, tables
from inferometer.report.charts import Chart
from inferometer.report.sections import Grid, Light, Section, number
from inferometer.report.tables import Table
from inferometer.run import Run
from inferometer.search.compare import Comparison

Sides = Mapping[str, Sequence[Run]]


def side_sections(sides: Sides, found: Comparison | None, slo: str | None = None) -> list[Section]:
    """The sections of a page over several sides; `found` is their comparison, where they are two."""
    cards = {name: score(runs[0], slo) for name, runs in sides.items()}
    lights = tuple(_side_light(name, card) for name, card in cards.items())
    if found is not None:
        lights += tuple(_comparison_lights(found, list(sides)))
    lead = f"{' against '.join(sides)}. Every curve holds all repeats of its side."
    sections = [
        Section("verdict", "Verdict", lead, lights, (beside(cards),)),
        Section("felt", "What users feel", charts=tuple(overlays(sides))),
    ]
    if found is not None:
        sections.append(_effects(found, list(sides)))
    return sections


def _side_light(name: str, card: Scorecard) -> Light:
    if not card.valid:
        return Light(name, "bad", "invalid measurement", card.invalid_reasons)
    if card.slo is None:
        return Light(name, "good", "valid")
    state = {True: "good", False: "bad", None: "unsure"}[card.slo.met]
    words = {True: "meets the SLO", False: "does not meet the SLO", None: "cannot be said"}
    return Light(
        name, state, words[card.slo.met], tuple(v.condition.text for v in card.slo.verdicts)
    )


def _comparison_lights(found: Comparison, names: Sequence[str]) -> list[Light]:
    differ = tuple(f"{d.what}: {d.a} and {d.b}" for d in found.differences)
    fair = Light(
        "Same conditions",
        "bad" if differ else "good",
        f"{len(differ)} differences" if differ else "yes",
        differ,
    )
    count = {side: sum(flip.ahead == side for flip in found.flips) for side in "ab="}
    told = f"{names[0]} ahead in {count['a']}, {names[1]} in {count['b']}, equal in {count['=']} rankings"
    side = {"a": names[0], "b": names[1]}
    flips = tuple(
        f"{flip.convention}, {flip.number}: {side.get(flip.ahead, 'equal')}" for flip in found.flips
    )
    ranking = Light("Ranking", "unsure" if found.ranking_flips else "good", told, flips)
    gates = [
        Light(
            "Gate",
            {"equivalent": "good", "regression": "bad"}.get(gate.verdict, "unsure"),
            f"{gate.text}: {gate.verdict}",
        )
        for gate in found.gates
    ]
    return [fair, ranking, *gates]


ROWS = ("ttft", "tbt", "tpot", "ttlt", "max_gap", "scheduling_delay")


def beside(cards: Mapping[str, Scorecard]) -> Grid:
    """A row per metric and percentile, a column per side, with intervals."""
    rows = []
    for metric in ROWS:
        for name in ("p50", "p90", "p99"):
            cells = [_cell(card, metric, name) for card in cards.values()]
            if any(cell != "–" for cell in cells):
                rows.append([f"{metric} {name} [ms]", *cells])
    for figure in ("request_rate", "token_rate", "goodput", "attainment", "error_rate"):
        values = [
            next((v.value for v in card.values if v.id == figure), math.nan)
            for card in cards.values()
        ]
        if not all(math.isnan(value) for value in values):
            rows.append([figure, *map(number, values)])
    return Grid(
        "Side by side",
        ("", *cards),
        rows,
        "In brackets: 95 % intervals, of the first run of each side.",
    )


def _cell(card: Scorecard, metric: str, name: str) -> str:
    row = card.row(metric)
    value, ci = row.quantiles.get(name, math.nan), row.ci.get(name)
    if math.isnan(value):
        return "–"
    ends = (
        f" [{number(1e3 * ci.lo)}, {number(1e3 * ci.hi)}]" if ci and not math.isnan(ci.lo) else ""
    )
    return number(1e3 * value) + ends


def overlays(sides: Sides) -> list[Chart]:
    """The distribution functions of TTFT, TBT and the longest gap of all sides, over each other."""
    ttft: Table = {"value": [], "share": [], "what": []}
    tbt: Table = {"value": [], "share": [], "what": []}
    gap: Table = {"value": [], "share": [], "what": []}
    for name, runs in sides.items():
        views = [view_of(run) for run in runs]
        total = sum(map(len, views))
        _over(ttft, name, [latency.ttft(v.timeline)[v.ok] for v in views], total)
        _over(gap, name, [latency.max_gap(v.timeline)[v.ok] for v in views], total)
        _over(tbt, name, [v.gaps.values / SECOND for v in views], None)
    failed = "A curve that ends below 100 % has failures."
    drawn = [
        ("ttft-sides", "Time to first token", failed, ttft),
        (
            "tbt-sides",
            "Time between tokens",
            "Where two curves cross, the better side changes.",
            tbt,
        ),
        ("gap-sides", "The longest gap of each request", failed, gap),
    ]
    return [
        charts.distribution(name, title, note, table)
        for name, title, note, table in drawn
        if table["value"]
    ]


def _over(table: Table, name: str, values: Sequence[np.ndarray], total: int | None) -> None:
    pooled = np.concatenate(values)
    one = tables.cdf(pooled[~np.isnan(pooled)], of=total)
    for column in ("value", "share"):
        table[column] += one[column]
    table["what"] += [name] * len(one["value"])


# --- the comparison of two --------------------------------------------------------------------------------------------


def _effects(found: Comparison, names: Sequence[str]) -> Section:
    drawn = [
        _shift_chart(metric, shifts, names) for metric, shifts in found.shifts.items() if shifts
    ]
    lead = f"{names[1]} minus {names[0]}; p-values are adjusted for all rows at once (Holm). {_turns(found, names)}"
    head = ("metric", "better", *names, "difference", "95 % interval", "ratio", "p")
    rows = [
        [
            e.name,
            {"a": names[0], "b": names[1]}.get(e.better, "not shown"),
            *(number(x) for x in (e.a, e.b, e.difference)),
            "–"
            if math.isnan(e.interval.lo)
            else f"[{number(e.interval.lo)}, {number(e.interval.hi)}]",
            "–" if math.isnan(e.ratio) else f"{e.ratio:.3f}",
            "–" if math.isnan(e.adjusted_p) else f"{e.adjusted_p:.3f}",
        ]
        for e in found.effects
        if not (math.isnan(e.a) or math.isnan(e.b))
    ]
    return Section(
        "effects",
        "What differs, and how surely",
        lead,
        grids=(Grid("Effects", head, rows),),
        charts=tuple(drawn),
    )


def _turns(found: Comparison, names: Sequence[str]) -> str:
    side = {"a": names[0], "b": names[1]}
    return " ".join(
        f"The distributions of {turn.metric} cross at p{100 * turn.q:.0f}: {side[turn.lower_below]} is lower below it."
        for turn in found.turns
    )


def _shift_chart(metric: str, shifts: Sequence[object], names: Sequence[str]) -> Chart:
    table: Table = {"q": [], "difference": [], "lo": [], "hi": []}
    for shift in shifts:
        values = (shift.q, shift.difference, *shift.interval)  # type: ignore[attr-defined]
        for name, value in zip(table, tables.plain(values), strict=True):
            table[name].append(value)
    note = f"At each quantile, {names[1]} minus {names[0]}, with its 95 % interval; above 0, {names[1]} is slower."
    return charts.lines(
        f"shift-{metric}", f"Shift function of {metric}", note, table,
        x="q", y="difference", x_title="quantile", y_title="s", bands=("lo", "hi"), points=True,
    )  # fmt: skip
