"""How repeats and prefill curves look; for `measure --repeats`, `--until` and `--prefill-curve`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.search.prefill import PrefillCurve
    from inferometer.search.repeats import Series, Until


def render(series: Series, until: Until | None = None) -> Iterator[RenderableType]:
    """Whether it was enough, and a row per statistic: mean, interval, and what varies between and within runs."""
    from inferometer.cli import card

    colour = {True: "green", False: "yellow", None: ""}[series.enough]
    told = f"{len(series.runs)} runs"
    if until is not None:
        done = "reached" if series.enough else f"not reached in {until.most}"
        told += f" · {until.name} within ±{until.relative:.3g}: {done}"
    yield card.line("repeats", told, colour)
    yield ""
    shown = card.table("", "unit", "mean", "95 % interval", "±", "between runs", "within a run")
    for row in series.rows:
        if math.isnan(row.mean):
            continue
        timed = row.name.partition(".")[0] in ("ttft", "tbt", "ttlt", "tpot", "max_gap", "ttst")
        scale, unit = (1e3, "ms") if timed else (1.0, "")
        ends = " to ".join(card.number(scale * end) for end in row.interval)
        shown.add_row(
            row.name,
            unit,
            card.number(scale * row.mean),
            "-" if math.isnan(row.interval.lo) else ends,
            "-" if math.isnan(row.relative) else f"{row.relative:.1%}",
            _deviation(row.between_sd, row.mean),
            _deviation(row.within_sd, row.mean),
        )
    yield shown


def render_curve(curve: PrefillCurve) -> Iterator[RenderableType]:
    """The formula, a row per length with its residual, and what to beware of."""
    from inferometer.cli import card

    a, b, c = 1e3 * curve.constant_s, 1e6 * curve.per_token_s, 1e9 * curve.per_token2_s
    yield card.line(
        "prefill", f"{card.number(a)} ms + {card.number(b)} µs p + {card.number(c)} ns p² · p: prompt tokens"
    )  # fmt: skip
    shown = card.table("prompt tokens", "n", "p25", "median", "p75", "residual")
    for point in curve.points:
        times = (point.p25_s, point.p50_s, point.p75_s)
        shown.add_row(
            f"{point.prompt_tokens:,}",
            str(point.n),
            *(f"{card.number(1e3 * t)} ms" for t in times),
            f"{point.residual:+.1%}",
        )
    yield shown
    if curve.poor:
        told = f"a quadratic misses a point by {curve.worst_residual:.0%}: chunked prefill, a cache, or other users?"
        yield card.line("BEWARE", told, "yellow")
    if curve.failed:
        yield card.line("note", f"{curve.failed} requests had no first token")


def _deviation(sd: float, mean: float) -> str:
    return "-" if math.isnan(sd) or not mean else f"{sd / abs(mean):.1%}"
