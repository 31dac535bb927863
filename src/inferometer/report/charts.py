"""Charts as data: a title, a sentence for who cannot see it, the tables, and a Vega-Lite specification of the marks.

A specification names its tables and never holds them: the page puts them in as columns (and offers them for download),
`figure` puts them in as rows for a file. Colours are chosen to be told apart with any kind of colour vision, on white
and on black (Okabe & Ito 2008); what carries meaning by colour carries it by its name as well.
Knows nothing of runs; `sections` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from inferometer.report.tables import Table

Spec = dict[str, Any]

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#3b8ad9", "#e08214", "#1b9e77", "#e0433c", "#b07cc6", "#8a8f98",
)  # fmt: skip
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


class Chart(NamedTuple):
    """One picture. `tables` by the names that `spec` uses; `note` is what a reader should see in it."""

    id: str
    title: str
    note: str
    spec: Spec
    tables: dict[str, Table]
    height: int = 240


def figure(chart: Chart, *, width: int = 560) -> Spec:
    """The whole Vega-Lite specification of a chart, with its tables inline: what `vl_convert` makes a file of."""
    datasets = {name: rows(table) for name, table in chart.tables.items()}
    paper = {"datasets": datasets, "title": chart.title, "background": "white"}
    return whole(chart, width=width) | paper


def together(charts: Sequence[Chart], *, width: int = 560) -> Spec:
    """Several charts as one picture, one below the other."""
    parts = [figure(chart, width=width) for chart in charts]
    datasets = {
        f"{chart.id} {name}": table
        for chart, part in zip(charts, parts, strict=True)
        for name, table in part.pop("datasets").items()
    }
    own = [
        _of_its_own({k: v for k, v in part.items() if k not in ("$schema", "background")}, chart.id)
        for chart, part in zip(charts, parts, strict=True)
    ]
    return {
        "$schema": SCHEMA,
        "background": "white",
        "datasets": datasets,
        "vconcat": own,
        "resolve": {"scale": {"color": "independent"}},
    }


def _of_its_own(spec: Any, owner: str) -> Any:
    """The same marks, of tables whose names begin with their chart's."""
    if isinstance(spec, list):
        return [_of_its_own(part, owner) for part in spec]
    if not isinstance(spec, dict):
        return spec
    return {
        key: {"name": f"{owner} {value['name']}"} if key == "data" else _of_its_own(value, owner)
        for key, value in spec.items()
    }


def whole(chart: Chart, *, width: int | str = "container") -> Spec:
    """The specification without its tables."""
    return {
        "$schema": SCHEMA,
        "width": width,
        "height": chart.height,
        "background": "transparent",
        **chart.spec,
    }


def rows(table: Table) -> list[dict[str, Any]]:
    """A table of columns as rows."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


# --- the marks --------------------------------------------------------------------------------------------------------


def distribution(
    name: str,
    title: str,
    note: str,
    curve: Table,
    *,
    band: Table | None = None,
    bounds: Table | None = None,
    unit: str = "s",
) -> Chart:
    """A distribution function with its 95 % band, and the SLO's bounds as lines: tables curve, band, bounds.

    `curve` has columns value and share, and maybe `what` where there are several.
    """
    several = "what" in curve
    x = {"scale": _log_or_linear(curve["value"]), "axis": {"title": f"{title} [{unit}]"}}
    line = _layer(
        "curve",
        {"type": "line", "strokeWidth": 2, "interpolate": "step-after"},
        x=quantity("value", **x),
        y=quantity("share", axis={"title": "share of requests or gaps", "format": "%"}),
        color=colours("what", curve["what"]) if several else {"value": BLUE},
        tooltip=tooltip(curve),
    )
    line["encoding"]["order"] = {"field": "share", "type": "quantitative"}
    layers, tables = [line], {"curve": curve}
    if band is not None and band["share"]:
        layers.insert(0, _band_layer(x))
        tables["band"] = band
    if bounds is not None and bounds["value"]:
        layers += _bound_layers(x, _room_right(curve["value"], bounds["value"]))
        tables["bounds"] = bounds
    return Chart(name, title, note, {"layer": layers}, tables)


def _band_layer(x: Spec) -> Spec:
    return _layer(
        "band",
        {"type": "area", "opacity": 0.25, "color": BLUE, "orient": "horizontal"},
        x=quantity("lo", **x),
        x2={"field": "hi"},
        y=quantity("share"),
    )


def _room_right(values: list[Any], bounds: list[Any]) -> bool:
    """Whether the words beside a bound fit better on its right."""
    low, high = min(*values, *bounds), max(*values, *bounds)
    middle = (low * high) ** 0.5 if low > 0 else (low + high) / 2
    return bool(max(bounds) < middle)


def _bound_layers(x: Spec, right: bool) -> list[Spec]:
    mark = {"type": "rule", "color": RED, "strokeDash": [5, 3], "strokeWidth": 1.5}
    side = {"align": "left", "dx": 4} if right else {"align": "right", "dx": -4}
    words = {"type": "text", "dy": 10, "color": RED, "baseline": "top", **side}
    at = quantity("value", **x)
    return [
        _layer(
            "bounds", mark, x=at, tooltip=[{"field": "text", "type": "nominal", "title": "SLO"}]
        ),
        _layer("bounds", words, x=at, y={"value": 0}, text={"field": "text", "type": "nominal"}),
    ]


def lines(
    name: str,
    title: str,
    note: str,
    table: Table,
    *,
    x: str,
    y: str,
    what: str | None = None,
    x_title: str = "time [s]",
    y_title: str,
    log_x: bool = False,
    log_y: bool = False,
    step: bool = False,
    shaded: Table | None = None,
    y_format: str | None = None,
    bands: tuple[str, str] | None = None,
    points: bool = False,
    until: float | None = None,
) -> Chart:
    """Lines over x, one for each value of the column `what`; `shaded` spans lie behind (columns phase, start, end)."""
    axis: Spec = {"title": y_title} | ({"format": y_format} if y_format else {})
    scale = {"domain": [0, until]} if until else _scale(log_x, zero=False)
    across = quantity(x, axis={"title": x_title}, scale=scale)
    colour = colours(what, table[what]) if what else {"value": BLUE}
    mark: Spec = {"type": "line", "strokeWidth": 1.8, "point": points}
    if step:
        mark["interpolate"] = "step-after"
    layers = [
        _layer(
            "table",
            mark,
            x=across,
            y=quantity(y, axis=axis, scale=_scale(log_y)),
            color=colour,
            tooltip=tooltip(table),
        )
    ]
    tables = {"table": table}
    if bands:
        layers.insert(0, _interval_layer(across, bands, colour))
    if shaded is not None and shaded["start"]:
        layers.insert(0, _shade_layer())
        tables["shaded"] = shaded
    return Chart(name, title, note, {"layer": layers}, tables)


def _interval_layer(across: Spec, bands: tuple[str, str], colour: Spec) -> Spec:
    return _layer(
        "table",
        {"type": "area", "opacity": 0.2},
        x=across,
        y=quantity(bands[0]),
        y2={"field": bands[1]},
        color=colour,
    )


def _shade_layer() -> Spec:
    return _layer(
        "shaded",
        {"type": "rect", "opacity": 0.15, "color": GREY},
        x=quantity("start"),
        x2={"field": "end"},
        tooltip=[{"field": "phase", "type": "nominal"}],
    )


def token_steps(name: str, title: str, note: str, steps: Table, stalls: Table) -> Chart:
    """Tokens received over time of a few requests, their stalls drawn over in red: tables steps, stalls."""
    x = {"axis": {"title": "time since the request was due [s]"}, "scale": {"zero": True}}
    received = _layer(
        "steps",
        {"type": "line", "interpolate": "step-after", "strokeWidth": 1.8},
        x=quantity("t", **x),
        y=quantity("tokens", axis={"title": "tokens received"}),
        color=colours("request", steps["request"]),
        tooltip=tooltip(steps),
    )
    late = _layer(
        "stalls",
        {"type": "rule", "strokeWidth": 4, "color": RED, "opacity": 0.8},
        x=quantity("start", **x),
        x2={"field": "end"},
        y=quantity("tokens"),
        tooltip=tooltip(stalls),
    )
    return Chart(name, title, note, {"layer": [received, late]}, {"steps": steps, "stalls": stalls})


def heat(name: str, title: str, note: str, table: Table) -> Chart:
    """How many requests had which prompt length and which TTFT; both axes logarithmic."""
    spec = _layer(
        "table",
        {"type": "rect"},
        x=quantity("p0", axis={"title": "prompt [tokens]"}, scale=_scale(True)),
        x2={"field": "p1"},
        y=quantity("t0", axis={"title": "TTFT [s]"}, scale=_scale(True)),
        y2={"field": "t1"},
        color={
            "field": "count",
            "type": "quantitative",
            "scale": {"scheme": "viridis", "type": "log"},
            "legend": {"title": "requests"},
        },
        tooltip=tooltip(table),
    )
    return Chart(name, title, note, spec, {"table": table})


def dots(name: str, title: str, note: str, table: Table, *, group: str, unit: str = "s") -> Chart:
    """p50, p90 and p99 of each group, as dots joined by a line, a row per group: columns `group`, p50, p90, p99."""
    places = list(dict.fromkeys(table[group]))
    long: Table = {group: [], "percentile": [], "value": []}
    for row in rows(table):
        for percentile in ("p50", "p90", "p99"):
            if row.get(percentile) is not None:
                for key, value in zip(long, (row[group], percentile, row[percentile]), strict=True):
                    long[key].append(value)
    y = {
        "field": group,
        "type": "nominal",
        "sort": places,
        "axis": {"title": None, "labelLimit": 260},
    }
    x = quantity("value", axis={"title": f"[{unit}]"}, scale=_log_or_linear(long["value"]))
    joined = _layer("table", {"type": "line", "color": GREY, "strokeWidth": 1}, x=x, y=y)
    joined["encoding"]["detail"] = {"field": group, "type": "nominal"}
    marks = _layer(
        "table",
        {"type": "point", "filled": True, "size": 70},
        x=x,
        y=y,
        color=colours("percentile", ["p50", "p90", "p99"]),
        shape={"field": "percentile", "type": "nominal", "scale": {"domain": ["p50", "p90", "p99"]}}
        | {"legend": {"title": None, "orient": "top"}},
        tooltip=tooltip(long),
    )
    height = max(90, 34 * len(places))
    return Chart(name, title, note, {"layer": [joined, marks]}, {"table": long}, height)


def stacked(
    name: str, title: str, note: str, table: Table, *, x: str, y: str, what: str, y_title: str
) -> Chart:
    """Areas on top of each other over time, one for each value of the column `what`."""
    spec = _layer(
        "table",
        {"type": "area", "interpolate": "step-after", "opacity": 0.85},
        x=quantity(x, axis={"title": "time [s]"}),
        y=quantity(y, axis={"title": y_title}, stack="zero"),
        color=colours(what, table[what]),
        tooltip=tooltip(table),
    )
    return Chart(name, title, note, spec, {"table": table})


# --- the pieces -------------------------------------------------------------------------------------------------------


def _layer(table: str, mark: Spec, **encoding: Any) -> Spec:
    return {"data": {"name": table}, "mark": {"clip": True, **mark}, "encoding": encoding}


def quantity(field: str, **rest: Any) -> Spec:
    """A quantitative channel."""
    return {"field": field, "type": "quantitative", **rest}


def tooltip(table: Table) -> list[Spec]:
    """Every column, in the table's order."""
    kinds = {
        name: "quantitative" if any(isinstance(v, (int, float)) for v in values) else "nominal"
        for name, values in table.items()
    }
    return [
        {"field": name, "type": kind} | ({"format": ".4~g"} if kind == "quantitative" else {})
        for name, kind in kinds.items()
    ]


def colours(field: str, values: list[Any]) -> Spec:
    """A colour for each value of a column, in the order in which they first come."""
    order = list(dict.fromkeys(values))
    palette = [BLUE, ORANGE, GREEN, PURPLE, RED, GREY]
    scale = {"domain": order, "range": [palette[k % len(palette)] for k in range(len(order))]}
    legend = {"title": None, "orient": "top"}
    return {"field": field, "type": "nominal", "scale": scale, "legend": legend}


def _scale(log: bool, *, zero: bool = True) -> Spec:
    return {"type": "log", "nice": False} if log else {"zero": zero, "nice": True}


def _log_or_linear(values: list[Any]) -> Spec:
    """Logarithmic where values span more than a decade, and none is 0 or less."""
    known = [v for v in values if v is not None]
    spans = bool(known) and min(known) > 0 and max(known) > 10 * min(known)
    return {"type": "log"} if spans else {"zero": False}
