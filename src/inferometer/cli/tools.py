"""The same run as other tools would score it, under ours: same words, other formulas, and how each differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from inferometer.cli.card import line, number, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.metrics import Scorecard

OURS = ("ttft", "tbt", "tpot", "ttlt", "normalized_latency")
OUR_RATES = ("request_rate", "token_rate")
PERCENTILES = ("p50", "p90", "p99")

Found = dict[str, dict[str, dict[str, Any]]]  # what `metrics.conventions` returns


def side_by_side(card: Scorecard, found: Found) -> Iterator[RenderableType]:
    """A table per tool, ours first; under each number, how it differs from ours."""
    yield from _one("inferometer", ours(card))
    for tool, numbers in found.items():
        yield ""
        yield from _one(tool, numbers)


def ours(card: Scorecard) -> dict[str, dict[str, Any]]:
    """Our numbers in the shape of a tool's."""
    out: dict[str, dict[str, Any]] = {}
    for name in OURS:
        row = card.row(name)
        out[name] = {"unit": "s", "mean": row.mean, **row.quantiles, "max": row.max}
        out[name]["differs"] = row.definition
    for name in OUR_RATES:
        figure = card.value(name)
        out[name] = {"unit": figure.unit, "value": figure.value, "differs": figure.definition}
    return out


def _one(tool: str, numbers: dict[str, dict[str, Any]]) -> Iterator[RenderableType]:
    columns = table(tool, "unit", "mean", *PERCENTILES, "max", wide=16)
    for name, entry in numbers.items():
        columns.add_row(name, _unit(entry), *_cells(entry))
    yield columns
    for name, entry in numbers.items():
        yield line("", f"{name}: {entry['differs']}", "dim")


def _cells(entry: dict[str, Any]) -> list[str]:
    if "value" in entry:
        return [_shown(entry["value"], 1.0), *[""] * (len(PERCENTILES) + 1)]
    scale = 1e3 if entry["unit"] == "s" else 1.0
    return [_shown(entry[name], scale) for name in ("mean", *PERCENTILES, "max")]


def _shown(value: float | None, scale: float) -> str:
    return "-" if value is None else number(value * scale)


def _unit(entry: dict[str, Any]) -> str:
    return "ms" if entry["unit"] == "s" else str(entry["unit"])
