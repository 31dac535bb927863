"""Beyond one run: `measure --repeats`, `--until`, `--versus` and `--prefill-curve`, and how their results look.

Reads the options, hands arms to `search`, and shows what comes back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferometer.errors import EXIT_FAILED, EXIT_INVALID, EXIT_OK, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.cli.measure import Wanted
    from inferometer.load.preflight import Found
    from inferometer.metrics.prefill import PrefillCurve
    from inferometer.search.repeats import Arm, Series, Turn, Until
    from inferometer.sim import Deployment


def until(options: dict[str, Any]) -> Until | None:
    """The precision that was asked for, with --repeats as its limit; refuses what excludes each other."""
    from inferometer.search.repeats import MOST, parse_until

    if options["versus"] is not None and (options["until"] or options["prefill_curve"] is not None):
        raise UserError(
            "turns with another target have no precision and no curve of their own",
            where="--versus",
            remedy="leave out --until and --prefill-curve",
        )
    if options["until"] is None:
        return None
    return parse_until(options["until"], most=options["repeats"] or MOST)


def lengths(options: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, ...] | None]:
    """The lengths that --prefill-curve names (its own ladder for none), and the options without it.

    The lengths are optional, so click takes any word that follows for them; one that is none is a URL.
    """
    from inferometer.search.prefill import LADDER

    text = options["prefill_curve"]
    if text is None:
        return options, None
    if text and not re.fullmatch(r"[\d_, ]+", text):
        return options | {"urls": (text, *options["urls"])}, LADDER
    named = tuple(int(word) for word in text.split(",") if word.strip()) or LADDER
    if len(set(named)) < 3 or min(named) < 1:
        raise UserError(
            "a curve needs three prompt lengths or more, each of a token or more",
            where="--prefill-curve",
            remedy="write 64,512,4096",
        )
    return options, named


def with_its_curve(
    served: Found | Deployment, wanted: Wanted, probed: tuple[int, ...]
) -> Found | Deployment:
    """A target whose runs know its prefill curve, probed here and now; the probe's run is kept beside the result."""
    from dataclasses import replace

    from inferometer.cli import card, measure
    from inferometer.load.preflight import Found
    from inferometer.metrics.prefill import KEY
    from inferometer.search.prefill import probe

    if not isinstance(served, Found):
        raise UserError(
            "a simulated system says when prefill began",
            where="--prefill-curve",
            remedy="leave it out",
        )
    _tell(wanted, f"prefill curve: {len(probed)} prompt lengths, one at a time")
    alone = wanted._replace(drive=replace(wanted.drive, workers=1, warmup_s=0.0, duration_s=None))
    folder = wanted.folder.with_name(wanted.folder.name + "-prefill")
    curve = probe(measure.arm(served, alone), folder, lengths=probed, seed=wanted.asked.seed)
    if not (wanted.options["quiet"] or wanted.options["as_json"]):
        card.show(render_curve(curve))
    import msgspec

    return replace(served, facts=served.facts | {KEY: msgspec.to_builtins(curve)})


def series(arm: Arm, wanted: Wanted, precision: Until | None) -> int:
    """Run repeats of one target, show them, and give the exit code that they stand for."""
    from inferometer.run import Run
    from inferometer.search.repeats import repeat

    options, first = wanted.options, wanted.asked.seed
    limit = f"{options['repeats']}" if precision is None else f"at most {precision.most}"

    def measure(seed: int) -> Run:
        _tell(wanted, f"run {seed - first + 1} of {limit}")
        return arm(wanted.plan(seed), seed, wanted.folder / f"{seed - first:03d}")

    found = repeat(measure, times=options["repeats"], until=precision, seed=first, slo=wanted.slo)
    return present(
        found, wanted.folder, precision, as_json=options["as_json"], quiet=options["quiet"]
    )


def present(
    found: Series,
    folder: Path,
    precision: Until | None = None,
    *,
    as_json: bool,
    quiet: bool = False,
) -> int:
    """Show repeats as it was asked for: 3 where a run is invalid or it was not enough, 1 where the SLO was not met."""
    from inferometer.cli import card

    if as_json:
        click.echo(card.plain_json(found.to_dict() | {"run": str(folder)}))
    elif quiet:
        click.echo(str(folder))
    else:
        card.show([*render(found, precision), card.line("runs", str(folder))])
    if not all(found.valid) or found.enough is False:
        return EXIT_INVALID
    return EXIT_FAILED if False in found.met else EXIT_OK


def versus(arms: dict[str, Arm], wanted: Wanted) -> int:
    """Run two targets in turns, and compare them."""
    from inferometer.cli import card
    from inferometer.cli import compare as shown
    from inferometer.search import compare, interleave

    options = wanted.options

    def told(turn: Turn) -> None:
        _tell(wanted, f"block {turn.block + 1} of {times}: {turn.arm}")

    times = options["repeats"] or 1
    runs = interleave(
        arms, wanted.plan, wanted.folder, repeats=times, seed=wanted.asked.seed, told=told
    )
    # Whatever still differs is what the person wants to compare, or is told.
    found = compare(runs["a"], runs["b"], slo=wanted.slo, anyway=True)
    if options["as_json"]:
        click.echo(card.plain_json(found.to_dict() | {"run": str(wanted.folder)}))
    elif options["quiet"]:
        click.echo(str(wanted.folder))
    else:
        card.show([*shown.render(found), card.line("runs", str(wanted.folder))])
    return EXIT_OK


def _tell(wanted: Wanted, what: str) -> None:
    if not wanted.options["quiet"]:
        click.echo(what, err=True)


def render(series: Series, until: Until | None = None) -> Iterator[RenderableType]:
    """Whether it was enough, and a row per statistic: mean, interval, and what varies between and within runs."""
    from inferometer.cli import card

    colour = {True: "green", False: "yellow", None: ""}[series.enough]
    told = f"{len(series.runs)} runs"
    if until is not None:
        done = "reached" if series.enough else f"not reached in {until.most}"
        told += f" · {until.name} within ±{until.relative:.3g}: {done}"
    yield card.line("repeats", told, colour)
    yield from _doubts(series)
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


def _doubts(series: Series) -> Iterator[RenderableType]:
    """How many of the runs must not be believed, moved, or missed the SLO."""
    from inferometer.cli import card

    runs = len(series.runs)
    if invalid := series.valid.count(False):
        yield card.line("INVALID", f"{invalid} of {runs} runs: see their scorecards", "red")
    if moved := series.steady.count("no steady state"):
        yield card.line("steady", f"{moved} of {runs} runs have no steady state", "red")
    if judged := [met for met in series.met if met is not None]:
        fine = judged.count(True)
        yield card.line("SLO", f"met in {fine} of {runs} runs", "green" if fine == runs else "red")


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
