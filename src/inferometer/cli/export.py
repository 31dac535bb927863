"""A scorecard as other programs read it: a row per number as CSV or Parquet, or OpenMetrics for a time-series database.

Undefined and refused numbers are left out, and those of no steady state: a missing line says "no such number", a 0 or an
empty cell would not.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from inferometer.errors import UserError

if TYPE_CHECKING:
    from inferometer.metrics import Scorecard
    from inferometer.metrics.summary import Row
    from inferometer.stats import Interval


class Number(NamedTuple):
    """One number of a scorecard: `lo` and `hi` are NaN where it has no interval."""

    metric: str
    statistic: str
    value: float
    lo: float
    hi: float
    unit: str
    n: int
    failed: int
    population: str
    definition: str


def numbers(card: Scorecard) -> Iterator[Number]:
    """Every number that is defined, in the table's order."""
    for row in card.rows:
        if card.withholds(row.id):
            continue
        stats = {"mean": row.mean, "min": row.min, **row.quantiles, "max": row.max}
        for name, value in stats.items():
            if not math.isnan(value):
                ci = row.ci.get(name)
                yield _number(row, name, value, ci)
    for figure in card.values:
        if not math.isnan(figure.value) and not card.withholds(figure.id):
            yield Number(
                figure.id,
                "value",
                figure.value,
                *figure.ci,
                figure.unit,
                figure.n,
                card.requests.failed,
                figure.population,
                figure.definition,
            )


def to_csv(card: Scorecard) -> str:
    """One line per number; an infinite one is `inf`, a missing interval is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Number._fields)
    for number in numbers(card):
        writer.writerow("" if x != x else x for x in number)  # noqa: PLR0124  NaN
    return out.getvalue()


def to_openmetrics(card: Scorecard) -> str:
    """Gauges `inferometer_<metric>` with the labels statistic and bound (OpenMetrics 1.0 text format)."""
    lines: list[str] = []
    for number in numbers(card):
        name = f"inferometer_{number.metric}" + ("_seconds" if number.unit == "s" else "")
        if f"# TYPE {name} gauge" not in lines:
            lines.append(f"# TYPE {name} gauge")
            if number.unit == "s":
                lines.append(f"# UNIT {name} seconds")
            lines.append(f"# HELP {name} {_escaped(number.definition)}")
        for bound, value in (("", number.value), ("lo", number.lo), ("hi", number.hi)):
            if not math.isnan(value):
                label = f',bound="{bound}"' if bound else ""
                lines.append(f'{name}{{statistic="{number.statistic}"{label}}} {_float(value)}')
    lines.append("# TYPE inferometer_valid gauge")
    lines.append("# HELP inferometer_valid whether the run may be believed")
    lines.append(f"inferometer_valid {int(card.valid)}")
    if card.steady_state.verdict != "too short to tell":
        lines.append("# TYPE inferometer_steady gauge")
        lines.append("# HELP inferometer_steady whether the run has a steady state")
        lines.append(f"inferometer_steady {int(card.steady_state.verdict == 'steady')}")
    return "\n".join([*lines, "# EOF", ""])


def to_parquet(card: Scorecard) -> bytes:
    """The same rows as a table; a missing interval is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(numbers(card))
    columns = {
        name: pa.array([getattr(row, name) for row in rows], kind, from_pandas=True)
        for name, kind in _COLUMNS.items()
    }
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()


_COLUMNS = {
    "metric": "string",
    "statistic": "string",
    "value": "float64",
    "lo": "float64",
    "hi": "float64",
    "unit": "string",
    "n": "int64",
    "failed": "int64",
    "population": "string",
    "definition": "string",
}
FORMATS: dict[str, Callable[[Scorecard], str | bytes]] = {
    "csv": to_csv,
    "openmetrics": to_openmetrics,
    "parquet": to_parquet,
}


def write(card: Scorecard, form: str, out: str | None) -> None:
    """Write to a file, whole or not at all, or to stdout; UserError where a table would go to a terminal."""
    if form == "parquet" and out is None and sys.stdout.isatty():
        raise UserError("Parquet is no text", where="--format", remedy="name a file: -o FILE")
    content = FORMATS[form](card)
    if out is None:
        click.echo(content, nl=False)
        return
    path = Path(out)
    beside = path.with_name(path.name + ".part")
    try:  # whole, and readable by whom it is meant for: a collector is another user
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        beside.replace(path)
    except OSError as error:
        raise UserError(f"cannot write there: {error.strerror}", where=out) from None


def _number(row: Row, name: str, value: float, ci: Interval | None) -> Number:
    lo, hi = (math.nan, math.nan) if ci is None else ci
    return Number(
        row.id, name, value, lo, hi, row.unit, row.n, row.failed, row.population, row.definition
    )


def _float(x: float) -> str:
    return "+Inf" if x == math.inf else repr(float(x))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
