"""Sections become one HTML file that needs nothing else: no network, no server, no other file.

Numbers and words are plain HTML, there before any script runs; charts are drawn when they come into view. Vega-Lite is
compiled to Vega here, so that the page carries only Vega's runtime (from `vl_convert`, which has it on board).
All text goes through the template's escaping, all data through JSON with `<`, `>` and `&` written as escapes, and a
Content-Security-Policy forbids the page every connection: what a server or a model sent can be read, never run.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from inferometer.report.charts import Chart, Spec, figure, together, whole
from inferometer.report.sections import Section
from inferometer.report.tables import Table

VEGA_LITE = "6.1"
FORMATS = ("svg", "png", "pdf")


def html(title: str, sections: Sequence[Section], *, made: str = "") -> str:
    """The page. `made`: when and by which version, for its foot."""
    return fill(
        "page.html",
        title=title,
        sections=sections,
        made=made,
        css=asset("page.css"),
        script="\n".join(map(asset, ("page.js", "lanes.js"))),
        vega=runtime() if any(section.charts for section in sections) else "",
        data=as_script_data(_data(sections)),
    )


def _data(sections: Sequence[Section]) -> dict[str, Any]:
    drawn = {chart.id: _compiled(chart) for section in sections for chart in section.charts}
    lanes = [section.lanes.data for section in sections if section.lanes is not None]
    return {"charts": drawn, "lanes": lanes[0] if lanes else None}


def _compiled(chart: Chart) -> dict[str, Any]:
    """A chart as the page's script wants it: a Vega specification, and its tables as columns."""
    return {
        "spec": to_vega(msgspec.json.encode(whole(chart)).decode()),
        "tables": chart.tables,
        "title": chart.title,
    }


@functools.lru_cache(maxsize=256)
def to_vega(vega_lite: str) -> dict[str, Any]:
    """A Vega-Lite specification (JSON) as Vega's; pure, so that charts of the same kind are compiled once."""
    import vl_convert

    return vl_convert.vegalite_to_vega(vega_lite, vl_version=VEGA_LITE)


@functools.cache
def runtime() -> str:
    """Vega's runtime as one script that sets `window.vegaEmbed`."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return script.replace("</script", "<\\/script")


def as_script_data(value: Any) -> str:
    """JSON that may stand inside of a script element: nothing in it can end the element or begin another."""
    text = msgspec.json.encode(value).decode()
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def save_figures(charts: Sequence[Chart], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Every chart as a file per format, and its tables as CSV; the paths, in order. Needs no browser."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in charts:
        for form in formats:
            path = folder / f"{chart.id}.{form}"
            path.write_bytes(_drawn(figure(chart), form))
            written.append(path)
        for name, table in chart.tables.items():
            written.append(_save_table(table, folder / f"{chart.id}-{name}.csv"))
    return written


def save_figure(charts: Sequence[Chart], path: Path) -> Path:
    """All charts as one picture; the path's ending says of which format."""
    content = _drawn(together(charts), path.suffix.removeprefix("."))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _drawn(spec: Spec, form: str) -> bytes:
    import vl_convert

    convert = getattr(vl_convert, f"vegalite_to_{form}")
    extra = {"scale": 2.0} if form == "png" else {}
    drawn = convert(msgspec.json.encode(spec).decode(), vl_version=VEGA_LITE, **extra)
    return drawn.encode() if isinstance(drawn, str) else bytes(drawn)


def _save_table(table: Table, path: Path) -> Path:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return path


def fill(name: str, **values: Any) -> str:
    """A template with its values, all text escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(asset(name)).render(**values)


def asset(name: str) -> str:
    """The text of a file that ships with the package."""
    return (files("inferometer.report") / "assets" / name).read_text(encoding="utf-8")
