"""How a scorecard looks: who was measured with what, whether to believe it, what users feel, what the instrument did.

Reads a `Scorecard` and its `Run`, computes nothing, and fits 100 columns. Latencies are shown in ms (or s, from 10 s on);
percentiles carry their 95 % intervals; what the sample cannot carry is a dash with a footnote, never a number.
A run past saturation shows the verdict "no steady state" in place of its latencies.
Beside each latency from the intended time stands the one from the send: where they differ, the load was late.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from inferometer.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_INVALID,
    EXIT_OK,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from inferometer.metrics import Scorecard
    from inferometer.metrics.summary import Row
    from inferometer.run import Run

WIDTH = 100
MARGIN = 12
SHOWN_NOTES = 8

# What a person sees first; `score --json` has all. Indented rows are variants of the one above.
ROWS = {
    "ttft": "ttft",
    "ttft_from_sent": "  from the send",
    "ttft_with_failures": "  with failures",
    "ttfat": "ttfat",
    "tbt": "tbt",
    "tpot": "tpot",
    "ttst": "ttst",
    "ttlt": "ttlt",
    "ttlt_from_sent": "  from the send",
    "ttlt_with_failures": "  with failures",
    "normalized_latency": "normalized_latency",
    "max_gap": "max_gap",
    "stall_time": "stall_time",
    "stalls": "stalls > {stall}",
    "scheduling_delay": "scheduling_delay",
    "ttft_slowdown": "ttft_slowdown",
}
COUNTS = ("stalls",)
PAST_SATURATION = (
    "not shown, for past saturation they say how long one looked; --json keeps what was seen · "
    "`inferometer capacity` finds the highest rate that has them"
)


def present(run: Run, card: Scorecard, *, as_json: bool, quiet: bool = False) -> int:
    """Show a scorecard as it was asked for; returns the exit code that it stands for."""
    if as_json:
        click.echo(plain_json(told(run, card)))
    elif quiet:
        click.echo(str(run.path))
    else:
        show(render(run, card))
    return exit_code(card)


def told(run: Run, card: Scorecard) -> dict[str, Any]:
    """A scorecard as `--json` has it: with the run's path, and its plan beside what was achieved."""
    facts = {"run": None if run.path is None else str(run.path), "fidelity": _fidelity(run)}
    return card.to_dict() | facts


def exit_code(card: Scorecard) -> int:
    """Invalid before failed: a measurement that must not be believed decides no SLO."""
    if not card.valid or (card.slo is not None and card.slo.met is None):
        return EXIT_INVALID
    return EXIT_FAILED if card.slo is not None and not card.slo.met else EXIT_OK


def exit_code_of_measuring(run: Run, card: Scorecard) -> int:
    """The same, for a run that was just made: it may have been interrupted, or have ended before its plan."""
    if run.manifest.complete:
        return exit_code(card)
    stopped = run.manifest.stopped or ""
    return EXIT_INTERRUPTED if stopped.startswith("interrupted") else EXIT_INVALID


def plain_json(value: Any) -> str:
    """`value` as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def show(parts: Iterable[RenderableType], console: Console | None = None) -> None:
    """Print on stdout, at most 100 columns wide (a path may be longer); in colour on a terminal."""
    from rich.console import Console
    from rich.text import Text

    if console is None:
        console = Console(highlight=False)
        console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def render(run: Run, card: Scorecard) -> Iterator[RenderableType]:
    """The parts of the screen, from top to bottom."""
    yield header(run, card)
    yield verdict(run, card)
    if card.requests.total:
        yield steadiness(run, card)
        yield ""
        if not card.withholds("ttft"):
            yield metrics(card)
            yield ""
        yield figures(card)
    if card.slo is not None:
        yield judgement(card)
    if found := _fidelity(run):
        yield asked(found)
    yield instrument(card.instrument)
    yield footnotes(run, card)
    if run.path is not None:
        yield line("run", str(run.path))


# --- who was measured, and whether to believe it ----------------------------------------------------------------------


def header(run: Run, card: Scorecard) -> Text:
    """Target, plan and outcome, a line each."""
    target = run.manifest.target
    urls = target.get("urls", [])
    more = f" and {len(urls) - 1} more" if len(urls) > 1 else ""
    who = [run.manifest.model.get("name") or "unknown model", target.get("dialect")]
    who += [f"{urls[0]}{more}" if urls else run.manifest.world, target.get("file")]
    lines = [
        line("target", " · ".join(filter(None, who))),
        line("plan", " · ".join(plan_of(run))),
        line("requests", outcome(run, card), "yellow" if card.requests.failed else ""),
    ]
    return _joined(lines)


def plan_of(run: Run) -> list[str]:
    """What was asked for, in a few words."""
    asked = run.manifest.spec.get("workload", {})
    words = [loop_of(run, asked)]
    if source := asked.get("profile") or asked.get("trace"):
        words.append(Path(source["file"] if isinstance(source, dict) else source).name)
    if run.plan is not None and len(run.plan):
        prompts, outputs = _span(run.plan.prompt_tokens), _span(run.plan.output_tokens)
        words += [f"prompts {prompts}, outputs {outputs} tokens", f"seed {run.plan.seed}"]
    fingerprint = run.manifest.workload.get("fingerprint")
    return [*words, f"workload {fingerprint[:8]}"] if fingerprint else words


def loop_of(run: Run, asked: dict[str, Any]) -> str:
    """Closed or open loop, and how much of it."""
    if run.manifest.world == "imported":
        return f"as {run.manifest.target.get('tool')} sent it"
    if run.plan is not None and run.plan.concurrency is not None:
        return f"closed loop, {run.plan.concurrency} in flight"
    arrivals = asked.get("arrivals")
    if isinstance(arrivals, dict):
        how = ", ".join(f"{k}={v:g}" for k, v in arrivals.items() if isinstance(v, int | float))
        return f"open loop, {arrivals.get('kind')} {how}".strip()
    return "open loop"


def outcome(run: Run, card: Scorecard) -> str:
    """How many requests, and what became of them."""
    requests = card.requests
    bad = {status: n for status, n in requests.by_status.items() if status != "ok"}
    failed = "".join(f", {n:,} {status}" for status, n in sorted(bad.items(), key=_by_count))
    rest = {phase: n for phase, n in requests.by_phase.items() if phase != "measure"}
    beside = "".join(f"; {n:,} of {phase} not scored" for phase, n in rest.items())
    t = run.timeline
    seconds = (t.ended_ns.max() - t.intended_ns.min()) / 1e9 if len(t) else 0.0
    return f"{requests.total:,} in {seconds:.1f} s: {requests.ok:,} ok{failed}{beside}"


def verdict(run: Run, card: Scorecard) -> Text:
    """VALID or INVALID, with every reason; and whether the run is whole."""
    lines = []
    if run.manifest.world == "imported":
        lines += [
            line(
                "IMPORTED",
                "nobody vouches for these stamps: no record of the tool's own error",
                "yellow",
            )
        ]
        lines += [line("", what) for what in run.manifest.missing.values()]
    elif card.valid:
        lines.append(
            line("VALID", "the instrument's own error is small beside what it measured", "green")
        )
    lines += [line("INVALID", reason, "red") for reason in card.invalid_reasons]
    if not card.valid and not lines:
        lines.append(line("INVALID", "the run has no instrument record", "red"))
    if not card.complete:
        why = run.manifest.stopped or "the run was cut off"
        lines.append(line("STOPPED", f"{why}; what had ended by then is scored", "yellow"))
    return _joined(lines)


def steadiness(run: Run, card: Scorecard) -> Text:
    """The steady state: from when to when, or why there is none, and what that means for the numbers."""
    found = card.steady_state
    if found.verdict == "too short to tell":
        return line("steady", f"{found.verdict}: {found.reason}")
    if found.verdict == "no steady state":
        told = [line("steady", f"{found.verdict}: {found.reason}", "red")]
        return _joined(
            [*told, line("latencies", PAST_SATURATION)] if card.withholds("ttft") else told
        )
    span = f"from {number(found.warmup_end_s)} to {number(found.drain_start_s)} s of the run"
    outside = _outside(run, card)
    if not outside:
        return line("steady", span)
    what = (
        "outside it are left out"
        if found.applied
        else "outside it are scored, too; --steady leaves them out"
    )
    return line(
        "steady", f"{span} · {outside:,} requests {what}", "" if found.applied else "yellow"
    )


def _outside(run: Run, card: Scorecard) -> int:
    """How many measured requests came before or after the steady part."""
    t, found = run.timeline, card.steady_state
    at_s = t.intended_ns[t.phase == "measure"] / 1e9
    return int(((at_s < found.warmup_end_s) | (at_s > found.drain_start_s)).sum())


# --- what users feel --------------------------------------------------------------------------------------------------


def metrics(card: Scorecard) -> Table:
    """One row per latency, with intervals at the median and at p99."""
    shown = table("", "unit", "n", "mean", "p50 [95 %]", "p90", "p99 [95 %]", "max")
    stall = f"{card.settings.stall_threshold_ns / 1e6:.0f} ms"
    for name, label in ROWS.items():
        row = card.row(name)
        if row.n and _wanted(card, row):
            scale, unit = _scale(row)
            shown.add_row(
                label.format(stall=stall),
                unit,
                f"{row.n:,}",
                number(row.mean * scale),
                _with_interval(row, "p50", scale),
                _shown(row, "p90", scale),
                _with_interval(row, "p99", scale),
                _shown(row, "max", scale),
                style="dim" if label.startswith(" ") else "",
            )
    return shown


def _wanted(card: Scorecard, row: Row) -> bool:
    if row.id.endswith("_with_failures"):
        return card.requests.failed > 0
    if row.id == "ttfat":
        ttft = card.row("ttft")
        return (row.n, row.mean, row.max) != (ttft.n, ttft.mean, ttft.max)
    return True


def figures(card: Scorecard) -> Text:
    """The rates, and fluidity, in lines of a few figures."""

    def value(name: str, form: str = "{}", scale: float = 1.0) -> str:
        found = card.value(name)
        if found.too_few is not None:
            return f"- (needs {found.too_few})"
        return "-" if math.isnan(found.value) else form.format(number(found.value * scale))

    rates = [
        value("request_rate", "{} requests/s"),
        value("token_rate", "{} tokens/s"),
        f"in flight {value('mean_in_flight')} mean, {count(card.value('peak_in_flight').value)} peak",
        f"failed {value('error_rate', '{} %', 100)}",
    ]
    if card.withholds("fluidity_index"):
        return line("rates", " · ".join(rates))
    row = card.row("fluidity_index")
    parts = [f"mean {number(row.mean)}"]
    parts += [f"{name} {_shown(row, name)}" for name in ("p50", "p10", "p1")]
    deadlines = card.settings.told()
    fluid = f"{', '.join(parts)} (deadlines {deadlines['first']}, then {deadlines['token']})"
    rate = f"fluid token rate {value('fluid_token_rate', '{}/s')}"
    return _joined([line("rates", " · ".join(rates)), line("fluidity", f"{fluid} · {rate}")])


def asked(found: dict[str, Any]) -> Text:
    """Whether what was asked for is what was sent and got: how much of the plan held, and what did not."""
    judged = [one for one in found["lines"] if one["ok"] is not None]
    off = [one for one in judged if not one["ok"]]
    parts = [f"{len(judged) - len(off)} of {len(judged)} properties of the plan"]
    for one in off:
        unit = f" {one['unit']}" if one["unit"] not in ("", "KS") else ""
        got, wanted = number(one["achieved"]), number(one["intended"])
        parts.append(f"{one['name']} {got}{unit}, planned {wanted}")
    shared = next((one for one in found["lines"] if one["name"] == "cached prompt share"), None)
    if shared is not None and shared["intended"]:
        could, told = f"{shared['intended']:.0%}", shared["achieved"]
        said = "the server does not say" if told is None else f"the server had {told:.0%}"
        parts.append(f"{could} of prompt tokens could have been cached, {said}")
    return line("as planned", " · ".join(parts), "yellow" if off else "")


def _fidelity(run: Run) -> dict[str, Any] | None:
    """The fidelity table of a run that has one; None for runs that were imported, or have no plan."""
    found: dict[str, Any] | None = run.manifest.workload.get("fidelity")
    return found


def fidelity_table(run: Run) -> Iterator[RenderableType]:
    """Every property of the plan beside what was achieved, and whether the distance is within its tolerance."""
    found = _fidelity(run)
    if found is None:
        yield line("as planned", "this run has no plan to be held against")
        return
    shown = table("", "unit", "planned", "achieved", "off by", "tolerance", "")
    words = {True: "ok", False: "OFF", None: ""}
    for one in found["lines"]:
        unit = "" if one["unit"] == "KS" else one["unit"]
        relative = one["unit"] != "KS" and one["tolerance"] is not None
        shown.add_row(
            one["name"],
            unit,
            _or_dash(one["intended"]),
            _or_dash(one["achieved"]),
            _percent(one["difference"]) if relative else _or_dash(one["difference"]),
            _percent(one["tolerance"]) if relative else _or_dash(one["tolerance"]),
            words[one["ok"]],
            style="" if one["ok"] is not False else "yellow",
        )
    yield shown
    whys = {one["why"]: one["name"] for one in found["lines"] if one["why"]}
    for why, name in whys.items():
        yield line("note", f"{name}: {why}")


def _or_dash(value: float | None) -> str:
    return "-" if value is None else number(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def judgement(card: Scorecard) -> Text:
    """Each condition of the SLO, what was seen, and whether that is clear of the bound."""
    judged = card.slo
    assert judged is not None
    words = {True: ("MET", "green"), False: ("NOT MET", "red"), None: ("UNKNOWN", "yellow")}
    told, colour = words[judged.met]
    lines = [line("SLO", f"{told}: {judged.slo.name or judged.slo.text}", colour)]
    for one in judged.verdicts:
        what = one.condition.text + (f" [app={one.condition.app}]" if one.condition.app else "")
        seen = one.seen.note or _seen(one.condition.metric, one.seen.value)
        unclear = "; the interval crosses the bound" if one.resolved is False else ""
        lines.append(line("", f"{words[one.met][0].lower():8}{what}: {seen}{unclear}"))
    return _joined(lines)


def _seen(metric: str, value: float) -> str:
    from inferometer.slo import METRICS

    return f"{number(1e3 * value)} ms" if METRICS[metric].dimension == "time" else number(value)


# --- what the instrument did ------------------------------------------------------------------------------------------


def instrument(record: dict[str, Any]) -> Text:
    """The instrument's own error and effort; of a run that was not measured, nothing."""
    lines = [" · ".join(filter(None, parts)) for parts in _instrument_parts(record)]
    named = [
        line("instrument" if not i else "", told) for i, told in enumerate(filter(None, lines))
    ]
    return _joined(named or [line("instrument", "no record")])


def _instrument_parts(record: dict[str, Any]) -> Iterator[list[str]]:
    late = record.get("late_sends")
    yield [
        _lag("send lag", record.get("send_lag")),
        _lag("loop lag", record.get("loop_lag")),
        "" if late is None else f"{late:,} sent more than 5 ms late",
    ]
    stamps, clock = record.get("stamps") or {}, record.get("clock") or {}
    share = record.get("cpu_share")
    yield [
        f"{stamps['mode']} stamps ({stamps['user_fallbacks']:,} fallbacks)" if stamps else "",
        f"clock {clock['source']}, {1e9 * clock['resolution_s']:.0f} ns" if clock else "",
        "" if share is None else f"{_workers(record)} {share:.0%} of a core",
        f"{record['gc']['pauses']} GC pauses" if "gc" in record else "",
    ]
    opened = record.get("connections") or {}
    yield [
        f"connections {opened['opened']:,} opened ({opened['opened_ahead']:,} ahead), "
        f"{opened['reused']:,} reuses"
        if opened
        else "",
        f"peak in flight {record['peak_in_flight']:,}" if "peak_in_flight" in record else "",
        f"{record['retries']:,} retries" if record.get("retries") else "",
    ]
    yield [_calibrated(record["calibration"])] if record.get("calibration") else []


def _calibrated(cited: dict[str, Any]) -> str:
    rate, error = cited.get("believed_tokens_per_s"), cited.get("gap_error_p99_s")
    when = str(cited.get("when"))[:10]
    if rate is None or error is None:
        return f"calibrated {when}: no load was found at which this host can be believed"
    return f"calibrated {when}: {rate:,.0f} tokens/s per worker, gap error p99 {1e3 * error:.3g} ms"


def _workers(record: dict[str, Any]) -> str:
    count = record.get("workers", 1)
    return "1 worker, busy" if count == 1 else f"{count} workers, the busiest"


def _lag(name: str, spread: dict[str, Any] | None) -> str:
    if not spread or spread.get("p50") is None:
        return ""
    p50, p99, most = (f"{1e3 * spread[key]:.3g}" for key in ("p50", "p99", "max"))
    return f"{name} p50 {p50}, p99 {p99}, max {most} ms"


# --- what a reader must know ------------------------------------------------------------------------------------------


def footnotes(run: Run, card: Scorecard) -> Text:
    """Refused percentiles, failures beside percentiles, where token counts came from, and the run's own notes."""
    notes = [*_refused(card), *_failures(card), *_curve(card)]
    notes += [*_counted(run), *_uncalibrated(run)]
    notes += run.manifest.notes
    extra = len(notes) - SHOWN_NOTES
    shown = notes if extra <= 1 else [*notes[:SHOWN_NOTES], f"{extra} more in manifest.json"]
    return _joined([line("note" if not i else "", note) for i, note in enumerate(shown)])


def _refused(card: Scorecard) -> Iterator[str]:
    needs: dict[str, int] = {}
    for name in ROWS:
        row = card.row(name)
        short = {k: n for k, n in row.too_few.items() if row.n and k in ("p50", "p90", "p99")}
        if name == "tbt" and short:
            told = ", ".join(f"{k} needs {n:,}" for k, n in short.items())
            yield f"gaps of one request are alike: by what {row.n:,} of them are worth, tbt {told}"
        elif name != "tbt":
            needs |= short
    if needs:
        told = ", ".join(f"{name} needs {n}" for name, n in sorted(needs.items()))
        yield f"a dash is a percentile that so few samples cannot bound: {told}"


def _failures(card: Scorecard) -> Iterator[str]:
    failed = card.requests.failed
    if failed and card.requests.ok:
        yield (
            f"the {failed:,} that failed are in no latency above but those with failures, "
            "where they count as infinite"
        )


def _curve(card: Scorecard) -> Iterator[str]:
    """What a prefill curve was used beyond, or for a server that it does not describe."""
    used = card.prefill
    if used is None:
        return
    curve = used.curve
    if used.extrapolated:
        probed = f"{curve.shortest:,} to {curve.longest:,} tokens"
        yield f"{used.extrapolated:,} of {used.requests:,} prompts lie beyond those of the prefill curve ({probed})"
    if curve.poor:
        yield f"the prefill curve misses its own points by up to {curve.worst_residual:.0%}"


def _uncalibrated(run: Run) -> Iterator[str]:
    """Only where calibrations are known of: a record without the key is an older one, or a crashed run's."""
    if run.manifest.instrument.get("calibration", ...) is None:
        yield "not calibrated: run `inferometer calibrate`"


def _counted(run: Run) -> Iterator[str]:
    ok = run.timeline.token_source[run.timeline.ok]
    sources = Counter(ok.tolist())
    words = {"server": "the server's usage", "tokenizer": "the tokenizer", "planned": "the plan"}
    words["unknown"] = "whom the file does not name"
    if sources:
        told = ", ".join(f"{words.get(k, k)} ({n:,})" for k, n in sources.most_common())
        exact = run.manifest.model.get("tokenizer", {}).get("exact", True)
        rough = " which only estimates" if sources["tokenizer"] and not exact else ""
        yield f"output tokens were counted by {told}{rough}"


# --- words and numbers ------------------------------------------------------------------------------------------------


def table(*columns: str, wide: int = 0) -> Table:
    """A table of words and numbers; `wide` is the least width of its first column."""
    from rich import box
    from rich.table import Table

    out = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold"
    )
    for place, name in enumerate(columns):
        out.add_column(
            name,
            justify="left" if place < 2 else "right",
            no_wrap=True,
            min_width=0 if place else wide,
        )
    return out


def line(title: str, text: str, colour: str = "") -> Text:
    """A title in the margin and text beside it, wrapped under itself; what stands between dots stays together."""
    from rich.text import Text

    lines: list[str] = []
    for part in text.split(" · "):
        if lines and len(lines[-1]) + len(part) + 3 <= WIDTH - MARGIN:
            lines[-1] += f" · {part}"
        else:
            lines += _wrap(part) or [""]
    out = Text().append(f"{title:<{MARGIN}}", style=f"bold {colour}".strip())
    return out.append(("\n" + " " * MARGIN).join(lines), style=colour)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH - MARGIN, break_long_words=False, break_on_hyphens=False)


def _joined(lines: list[Text]) -> Text:
    from rich.text import Text

    return Text("\n").join(lines)


def _scale(row: Row) -> tuple[float, str]:
    """(factor, unit) in which a row is easy to read."""
    if row.unit != "s":
        return 1.0, "" if row.unit == "1" else row.unit
    return (1.0, "s") if row.max >= 10 and math.isfinite(row.max) else (1e3, "ms")


def _shown(row: Row, name: str, scale: float = 1.0) -> str:
    if name in row.too_few:
        return "-"
    value = row.max if name == "max" else row.quantiles.get(name, math.nan)
    return count(value) if row.id in COUNTS else number(value * scale)


def _with_interval(row: Row, name: str, scale: float) -> str:
    found = _shown(row, name, scale)
    ci = row.ci.get(name)
    if ci is None or found == "-" or math.isnan(ci.lo) or math.isnan(ci.hi):
        return found
    bound = count if row.id in COUNTS else number
    return f"{found} [{bound(ci.lo * scale)}, {bound(ci.hi * scale)}]"


def number(x: float) -> str:
    """Three significant digits, or whole from 100 on; "-" for NaN."""
    if math.isnan(x):
        return "-"
    if math.isinf(x):
        return "inf"
    if abs(x) < 1:
        return f"{x:.3g}"
    return f"{x:,.{max(0, 2 - math.floor(math.log10(abs(x))))}f}"


def count(x: float) -> str:
    """A number of things, whole or not; "-" for NaN."""
    return number(x) if x != x or x % 1 else f"{x:,.0f}"  # noqa: PLR0124  NaN


def _span(column: Any) -> str:
    low, high = int(column.min()), int(column.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _by_count(item: tuple[str, int]) -> int:
    return -item[1]
