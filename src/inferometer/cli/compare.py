"""`inferometer compare`: two sides, each one run directory or several, and what differs between them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferometer.cli.options import json_option, opt, rare, section, verb
from inferometer.errors import EXIT_FAILED, EXIT_INVALID, EXIT_OK, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.run import Run
    from inferometer.search.compare import Comparison, Effect, Gated

EXITS = {
    None: EXIT_OK,
    "equivalent": EXIT_OK,
    "regression": EXIT_FAILED,
    "not shown": EXIT_INVALID,
}
COLOURS = {"equivalent": "green", "regression": "red", "not shown": "yellow"}


@verb(
    click.Argument(["a"], metavar="A"),
    click.Argument(["b"], metavar="B"),
    *section(
        "Judge",
        opt("--gate RULE", "'ttft.p99 +5%': how much worse B may be; repeatable.", to="gates", multiple=True),
        opt("--slo EXPR", "Compare attainment and goodput under it, too."),
        opt("--anyway", "Compare although the conditions differ."),
    ),
    *section(
        "Result",
        json_option(),
        rare("--flips", "Show the whole table of rankings, not only what disagrees."),
    ),
)  # fmt: skip
def command(**options: Any) -> int:
    """What differs between A and B, by how much, and how surely.

    A and B are run directories, or folders of them, or patterns that match
    several (quoted): repeats. Exit code with
    --gate: 0 equivalent, 1 a proven regression, 3 neither is shown.
    """
    from inferometer import slo as slos
    from inferometer.cli import card
    from inferometer.search.compare import compare

    slo = slos.parse(options["slo"], where="--slo") if options["slo"] else None
    found = compare(
        runs_in(options["a"]),
        runs_in(options["b"]),
        slo=slo,
        gates=options["gates"],
        anyway=options["anyway"],
    )
    if options["as_json"]:
        click.echo(card.plain_json(found.to_dict()))
    else:
        card.show(render(found, every_flip=options["flips"]))
    return EXITS[found.verdict]


def runs_in(path: str) -> list[Run]:
    """The run in a directory, the runs in the directories directly under it, or those that a pattern matches."""
    from inferometer.load.recovery import read_run

    folder = Path(path)
    matching = Path(folder.anchor).glob(str(folder.relative_to(folder.anchor)))
    if not folder.exists() and (found := sorted(matching)):
        return [read_run(each) for each in found]
    if (folder / "manifest.json").is_file() or not folder.is_dir():
        return [read_run(folder)]
    inner = sorted(each.parent for each in folder.glob("*/manifest.json"))
    if not inner:
        raise UserError("there is no run there", where=path)
    return [read_run(each) for each in inner]


def render(found: Comparison, *, every_flip: bool = False) -> Iterator[RenderableType]:
    """What was not the same, the gates, the effects, where the curves cross, and how far the ranking can be trusted."""
    from inferometer.cli import card

    how = found.effects[0].how
    yield card.line("sides", f"A {_runs(found.runs[0])} · B {_runs(found.runs[1])} · {how}")
    for difference in found.differences:
        told = f"{difference.what}: {difference.a} and {difference.b}"
        yield card.line("DIFFERS", told, "yellow")
    for gate in found.gates:
        yield card.line(
            "gate", f"{gate.text}: {gate.verdict} · {_change(gate)}", COLOURS[gate.verdict]
        )
    yield ""
    yield effects(found)
    yield ""
    for turn in found.turns:
        other = "B" if turn.lower_below == "a" else "A"
        yield card.line(
            "crossing",
            f"{turn.metric}: {turn.lower_below.upper()} is lower below p{100 * turn.q:.0f} "
            f"({_time(turn.value, 's')}), {other} above it · shown outside "
            f"p{100 * turn.interval.lo:.0f} to p{100 * turn.interval.hi:.0f}",
        )
    yield ranking(found)
    if every_flip or found.ranking_flips:
        yield flips(found, every=every_flip)


def effects(found: Comparison) -> RenderableType:
    """A row per statistic: both sides, the change with its interval, and whether it is shown."""
    from inferometer.cli import card

    shown = card.table("", "better", "A", "B", "B - A", "95 % interval", "B / A", "p (Holm)")
    for effect in found.effects:
        if math.isnan(effect.a) or math.isnan(effect.b):
            continue
        shown.add_row(
            effect.name,
            effect.better.upper() or "-",
            _time(effect.a, effect.unit),
            _time(effect.b, effect.unit),
            _time(effect.difference, effect.unit, sign=True),
            _ends(effect),
            "-" if math.isnan(effect.ratio) else f"{effect.ratio:.3f}",
            "-" if math.isnan(effect.adjusted_p) else _p(effect.adjusted_p),
            style="" if effect.better else "dim",
        )
    return shown


def ranking(found: Comparison) -> RenderableType:
    """How many ways of ranking put whom ahead."""
    from inferometer.cli import card

    count = {side: sum(f.ahead == side for f in found.flips) for side in ("a", "b", "=")}
    told = f"A ahead in {count['a']}, B in {count['b']}, equal in {count['=']} of {len(found.flips)} rankings"
    if not found.ranking_flips:
        return card.line("ranking", told)
    return card.line("ranking", f"{told} · IT DEPENDS ON WHAT IS ASKED", "yellow")


def flips(found: Comparison, *, every: bool) -> RenderableType:
    """Who is ahead, a row per number and a column per convention; without `every`, the rows where they disagree."""
    from inferometer.cli import card

    tools = list(dict.fromkeys(flip.convention for flip in found.flips))
    rows: dict[str, dict[str, str]] = {}
    for flip in found.flips:
        rows.setdefault(flip.number, {})[flip.convention] = flip.ahead.upper()
    ahead = [flip.ahead for flip in found.flips if flip.ahead != "="]
    most = max(("a", "b"), key=ahead.count).upper()
    shown = card.table("ahead by", *tools)
    for number, row in rows.items():
        if every or set(row.values()) - {most, "="}:
            shown.add_row(number, *(row.get(tool, "") for tool in tools))
    return shown


def _runs(n: int) -> str:
    return "1 run" if n == 1 else f"{n} runs"


def _change(gate: Gated) -> str:
    from inferometer.slo import METRICS

    if math.isnan(gate.interval.lo) or math.isnan(gate.interval.hi):
        return "it has no interval here"
    metric = METRICS.get(gate.text.split(".")[0].strip())
    timed = metric is not None and metric.dimension == "time"
    scale, unit = (100, " %") if "%" in gate.text else (1e3, " ms") if timed else (1, "")
    lo, hi = (f"{scale * end:+.3g}{unit}" for end in gate.interval)
    return f"worse by {scale * gate.change:+.3g}{unit}, 90 % interval {lo} to {hi}"


def _ends(effect: Effect) -> str:
    if math.isnan(effect.interval.lo) or math.isnan(effect.interval.hi):
        return "-"
    return " to ".join(_time(end, effect.unit, sign=True) for end in effect.interval)


def _time(value: float, unit: str, *, sign: bool = False) -> str:
    from inferometer.cli.card import number

    plus = "+" if sign and value > 0 else ""
    if unit != "s" or math.isnan(value):
        return plus + number(value)
    return f"{plus}{number(1e3 * value)} ms" if abs(value) < 10 else f"{plus}{number(value)} s"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
