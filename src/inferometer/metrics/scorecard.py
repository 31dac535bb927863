"""What a run is worth: every metric with its definition, population, failures and intervals, and the SLO's verdict.

`score` reads a run and decides nothing about how it is shown; `Scorecard` is typed rows, `to_dict` its JSON.
Whether the run may be believed is the instrument's word (`manifest.instrument`), repeated here at the top.
In JSON, times are seconds, and null means "no such number": undefined (counted in `undefined`), refused for want of
data (named in `too_few`, with the n it needs), or infinite, since JSON has no infinity (named in `inf`).
Past saturation there is no population that a latency could be an estimate for: what was seen stays in JSON, marked
`"steady": false` and without intervals, and no condition of an SLO is met by it. `steady_state` says why.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferometer import slo as slos
from inferometer.clock import MILLISECOND, SECOND
from inferometer.errors import UserError
from inferometer.metrics import summary, tokens
from inferometer.metrics.fluidity import Curve, fluidity_curve
from inferometer.metrics.prefill import PrefillCurve, curve_of
from inferometer.metrics.steady import Steady, steady_state, trimmed
from inferometer.metrics.summary import Row, Value, plain
from inferometer.metrics.table import (
    DISTRIBUTIONS,
    FIGURES,
    NEEDS_SLO,
    NEEDS_STEADY,
    column_of,
    unknown,
    value_of,
)
from inferometer.metrics.view import Settings, View
from inferometer.run import Run
from inferometer.slo import Attainment, Condition, Seen, Slo, Verdict
from inferometer.stats import UNKNOWN, Interval
from inferometer.timeline import Ints, Timeline

# Where the fluidity curve is drawn: around the token times that served models have.
CURVE_NS = np.array([5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500]) * MILLISECOND


@dataclass(frozen=True, slots=True)
class Requests:
    """How many requests of phase measure, and what became of them; `by_phase` counts all of the run."""

    total: int
    ok: int
    failed: int
    by_status: dict[str, int]
    by_phase: dict[str, int]


@dataclass(frozen=True, slots=True)
class Judgement:
    """An SLO and what the run makes of it. `met` is None where it cannot be said."""

    slo: Slo
    met: bool | None
    verdicts: tuple[Verdict, ...]
    attainment: Value
    attained: int
    unknown: int
    vacuous: dict[str, int]
    by_app: dict[str, float]


@dataclass(frozen=True, slots=True)
class Prefill:
    """The prefill curve that was used, and for how many requests: all of these, and those that it extrapolates to."""

    curve: PrefillCurve
    requests: int
    extrapolated: int


@dataclass(frozen=True, slots=True, eq=False)
class Scorecard:
    """All that is said about one run. `rows` are distributions, `values` single figures, both in the table's order."""

    valid: bool
    invalid_reasons: tuple[str, ...]
    complete: bool
    requests: Requests
    steady_state: Steady
    rows: tuple[Row, ...]
    values: tuple[Value, ...]
    settings: Settings
    instrument: dict[str, Any]
    workload: dict[str, Any]
    slo: Judgement | None
    curve: Curve | None
    prefill: Prefill | None

    def row(self, metric: str) -> Row:
        """The row of a distribution."""
        return next(row for row in self.rows if row.id == metric)

    def value(self, metric: str) -> Value:
        """The row of a figure."""
        return next(value for value in self.values if value.id == metric)

    def withholds(self, metric: str) -> bool:
        """Whether the run's lack of a steady state stands in place of this metric."""
        return self.steady_state.in_place_of_numbers and metric in NEEDS_STEADY

    def to_dict(self) -> dict[str, Any]:
        """Plain data of the shape in DESIGN 4.10; nothing in it is NaN or infinite."""
        out: dict[str, Any] = {
            "valid": self.valid,
            "invalid_reasons": list(self.invalid_reasons),
            "complete": self.complete,
            "requests": _requests_dict(self.requests),
            "steady_state": self.steady_state.to_dict(),
            "metrics": {row.id: _row_dict(row) for row in self.rows}
            | {value.id: _value_dict(value) for value in self.values},
            "settings": _settings_dict(self.settings),
            "instrument": self.instrument,
            "workload": self.workload,
        }
        for metric in filter(self.withholds, out["metrics"]):
            out["metrics"][metric]["steady"] = False
        if self.slo is not None:
            out["slo"] = _judgement_dict(self.slo)
        if self.curve is not None:
            out["fluidity_curve"] = _curve_dict(self.curve)
        if self.prefill is not None:
            out["prefill"] = _prefill_dict(self.prefill)
        return out


def score(
    run: Run,
    slo: Slo | str | None = None,
    *,
    intervals: bool = True,
    steady: bool = False,
    stall_threshold_ns: int | None = None,
    first_deadline_ns: int | Ints | None = None,
    token_deadline_ns: int | None = None,
) -> Scorecard:
    """The scorecard of a run, judged by `slo` (parsed, as text, or a preset's name) where one is given.

    `intervals=False` leaves out the intervals and the fluidity curve, which are most of the work. `steady=True` leaves
    out what came before and after the steady state that was found, where there is one. A threshold or
    deadline that is not given is the SLO's, else the default; `first_deadline_ns` may be one per row of the timeline.
    """
    parsed = slos.parse(slo) if isinstance(slo, str) else slo
    given = {
        "stall_threshold_ns": stall_threshold_ns,
        "first_deadline_ns": first_deadline_ns,
        "token_deadline_ns": token_deadline_ns,
    }
    found = steady_state(run)
    if steady:
        run, found = trimmed(run, found), found._replace(applied=found.verdict == "steady")
    view = view_of(run, _settings(given, parsed))
    sure = intervals and not found.in_place_of_numbers
    rows = tuple(summary.row(view, m, intervals=sure) for m in DISTRIBUTIONS.values())
    judgement = None if parsed is None else _judge(view, parsed, rows, found, intervals=sure)
    figures = [f for f in FIGURES.values() if parsed is not None or f.id not in NEEDS_SLO]
    instrument = run.manifest.instrument
    valid, reasons = _validity(run)
    return Scorecard(
        valid=valid,
        invalid_reasons=reasons,
        complete=run.manifest.complete,
        requests=_requests(run.timeline, view),
        steady_state=found,
        rows=rows,
        values=tuple(summary.value(view, f, intervals=sure) for f in figures),
        settings=view.settings,
        instrument=instrument,
        workload=run.manifest.workload,
        slo=judgement,
        curve=_curve(view) if intervals and _has_curve(view) else None,
        prefill=_prefill(view),
    )


def view_of(run: Run, settings: Settings | None = None) -> View:
    """The requests of a run that metrics are about: phase measure, by intended time, only chunks with tokens."""
    settings = Settings() if settings is None else settings
    rows = tokens.measured_rows(run.timeline)
    timeline = tokens.token_chunks(tokens.take(run.timeline, rows))
    if isinstance(settings.first_deadline_ns, np.ndarray):
        settings = settings._replace(first_deadline_ns=settings.first_deadline_ns[rows])
    missing = run.manifest.missing
    curve = None if "prompt_tokens" in missing else curve_of(run)
    untold = unknown(timeline, missing)
    return View(timeline, settings, _promised(run, timeline), curve=curve, unknown=untold)


def attainment_of(view: View, slo: Slo) -> Attainment:
    """Which requests of a view attain an SLO."""
    return slo.attained(
        lambda metric: column_of(view, metric),
        ok=view.ok,
        output_tokens=view.timeline.output_tokens,
        app=view.timeline.app,
    )


def _judge(
    view: View, slo: Slo, rows: tuple[Row, ...], steady: Steady, *, intervals: bool
) -> Judgement:
    view.attainment = attainment_of(view, slo)
    known = {row.id: row for row in rows}

    def seen(condition: Condition) -> Seen:
        if condition.app is None and condition.metric in known and condition.statistic:
            shown = _shown(known[condition.metric], condition.statistic)
            if shown is not None:
                return shown
        return seen_in(view, condition, intervals=intervals)

    verdicts = slo.judge(seen)
    if steady.in_place_of_numbers:
        verdicts = tuple(map(_of_no_steady_state, verdicts))
    apps = sorted(set(view.timeline.app.tolist()))
    by_app = {app: value_of(view.only(app), "attainment") for app in apps if len(apps) > 1}
    return Judgement(
        slo,
        slos.met(verdicts),
        verdicts,
        summary.value(view, FIGURES["attainment"], intervals=intervals),
        int(view.attainment.attained.sum()),
        int(view.attainment.unknown.sum()),
        view.attainment.vacuous,
        by_app,
    )


def _of_no_steady_state(verdict: Verdict) -> Verdict:
    """Past saturation a longer run is a worse one: what fails fails, what holds would not have held for long."""
    if not verdict.met or verdict.condition.metric not in NEEDS_STEADY:
        return verdict
    seen = verdict.seen._replace(note="no steady state: a longer run would show another value")
    return Verdict(verdict.condition, seen, None, None)


def seen_in(view: View, condition: Condition, *, intervals: bool) -> Seen:
    """What a run shows for a condition: value, interval where asked for, and why there is no value."""
    if condition.app is not None:
        view = view.only(condition.app)
    if not len(view):
        return Seen(math.nan, note=_nobody(condition))
    if condition.statistic is None:
        return _figure_seen(view, condition.metric, intervals=intervals)
    found = summary.sample(view, DISTRIBUTIONS[condition.metric])
    n, name = len(found.values), condition.statistic
    if not n:
        return Seen(math.nan, note=f"{condition.metric} was not measured")
    if name.startswith("p") and (short := summary.needs(found, name)) is not None:
        return Seen(math.nan, note=f"too few: {n} of {short}")
    ci = summary.interval(found, name) if intervals else UNKNOWN
    return Seen(summary.statistic(found, name), *ci)


def _shown(row: Row, statistic: str) -> Seen | None:
    """What stands in a row already, so that 20 M gaps are not sorted again; None where it does not."""
    value = row.mean if statistic == "mean" else row.quantiles.get(statistic, math.nan)
    return None if math.isnan(value) else Seen(value, *row.ci.get(statistic, UNKNOWN))


def _nobody(condition: Condition) -> str:
    return "no request" if condition.app is None else f"no request with app={condition.app}"


def _figure_seen(view: View, metric: str, *, intervals: bool) -> Seen:
    got = summary.value(view, FIGURES[metric], intervals=intervals)
    if not math.isnan(got.value):
        return Seen(got.value, *got.ci)
    if got.too_few is not None:
        return Seen(math.nan, note=f"too few: {got.n} of {got.too_few}")
    unknown = 0 if view.attainment is None else int(view.attainment.unknown.sum())
    if metric in NEEDS_SLO and unknown:
        return Seen(math.nan, note=f"{unknown} requests cannot be judged: not measured")
    return Seen(math.nan, note=f"{metric} has no value on this run")


def _settings(given: dict[str, Any], slo: Slo | None) -> Settings:
    fixed = {} if slo is None else {f"{k}_ns": v for k, v in slo.settings_ns.items()}
    for name, value in given.items():
        if value is None:
            continue
        if name in fixed and not np.array_equal(value, fixed[name]):
            raise UserError(
                f"{name} is {fixed[name]} in the SLO and {value} beside it",
                where=name,
                remedy="give it once",
            )
        fixed[name] = value
    return Settings(**fixed)


def _promised(run: Run, timeline: Timeline) -> Ints | None:
    """The output tokens that were planned [R]; None where no plan is known, or all replies came and nobody asks."""
    if run.plan is None or bool(np.all(timeline.ok & (timeline.output_tokens > 0))):
        return None
    planned = dict(zip(run.plan.request_id.tolist(), run.plan.output_tokens.tolist(), strict=True))
    ids = timeline.request_id.tolist()
    return np.array([planned.get(name, 1) for name in ids], dtype=np.int64)


def _validity(run: Run) -> tuple[bool, tuple[str, ...]]:
    """The instrument's own word; a measured run without one has nobody to vouch for it."""
    record = run.manifest.instrument
    reasons = tuple(record.get("invalid_reasons", ()))
    if "valid" in record:
        return bool(record["valid"]), reasons
    if run.manifest.world == "measured":
        return False, (*reasons, "the run has no instrument record")
    return not reasons, reasons


def _requests(timeline: Timeline, view: View) -> Requests:
    ok = int(view.ok.sum())
    return Requests(
        len(view),
        ok,
        len(view) - ok,
        dict(Counter(view.timeline.status.tolist())),
        dict(Counter(timeline.phase.tolist())),
    )


def _has_curve(view: View) -> bool:
    return len(view) > 0 and "fluidity_index_pooled" not in view.unknown


def _curve(view: View) -> Curve:
    settings = view.settings
    return fluidity_curve(
        view.timeline,
        np.union1d(CURVE_NS, settings.token_deadline_ns),
        first_deadline_ns=view.first_deadline_ns,
        promised=view.promised,
    )


def _prefill(view: View) -> Prefill | None:
    if view.curve is None:
        return None
    beyond = view.curve.extrapolates(view.timeline.prompt_tokens)
    return Prefill(view.curve, len(view), int(beyond.sum()))


def _requests_dict(requests: Requests) -> dict[str, Any]:
    return {
        "total": requests.total,
        "ok": requests.ok,
        "failed": requests.failed,
        "by_status": requests.by_status,
        "by_phase": requests.by_phase,
    }


def _row_dict(row: Row) -> dict[str, Any]:
    numbers = {"mean": row.mean, "min": row.min, "max": row.max} | row.quantiles
    out: dict[str, Any] = {
        "unit": row.unit,
        "definition": row.definition,
        "population": row.population,
        "n": row.n,
        "undefined": row.undefined,
        "failed": row.failed,
    }
    out |= {name: plain(number) for name, number in numbers.items()}
    out |= {f"{name}_ci": _pair(ci) for name, ci in row.ci.items()}
    out["ci"] = {name: _pair(ci) for name, ci in row.ci.items()}
    if row.too_few:
        out["too_few"] = row.too_few
    if infinite := [name for name, number in numbers.items() if math.isinf(number)]:
        out["inf"] = infinite
    return out


def _value_dict(value: Value) -> dict[str, Any]:
    out: dict[str, Any] = {
        "unit": value.unit,
        "definition": value.definition,
        "population": value.population,
        "n": value.n,
        "value": plain(value.value),
        "ci": {} if math.isnan(value.ci.lo) else {"value": _pair(value.ci)},
    }
    if value.too_few is not None:
        out["too_few"] = {"value": value.too_few}
    return out


def _settings_dict(settings: Settings) -> dict[str, Any]:
    first, slack = settings.first_deadline_ns, settings.first_slack_ns
    assert first is not None
    return {
        "stall_threshold": settings.stall_threshold_ns / SECOND,
        "first_deadline": None if isinstance(first, np.ndarray) else first / SECOND,
        "first_slack": None if slack is None else slack / SECOND,
        "token_deadline": settings.token_deadline_ns / SECOND,
    }


def _prefill_dict(used: Prefill) -> dict[str, Any]:
    curve = used.curve
    return {
        "constant": curve.constant_s,
        "per_token": curve.per_token_s,
        "per_token2": curve.per_token2_s,
        "probed": [curve.shortest, curve.longest],
        "worst_residual": curve.worst_residual,
        "poor": curve.poor,
        "requests": used.requests,
        "extrapolated": used.extrapolated,
    }


def _judgement_dict(judged: Judgement) -> dict[str, Any]:
    return {
        "text": judged.slo.text,
        "preset": judged.slo.name,
        "source": judged.slo.source,
        "met": judged.met,
        "conditions": [_verdict_dict(verdict) for verdict in judged.verdicts],
        "attainment": {
            "value": plain(judged.attainment.value),
            "n": judged.attainment.n,
            "attained": judged.attained,
            "unknown": judged.unknown,
            "vacuous": judged.vacuous,
            "ci": _pair(judged.attainment.ci),
            "by_app": {app: plain(share) for app, share in judged.by_app.items()},
        },
    }


def _verdict_dict(verdict: Verdict) -> dict[str, Any]:
    condition, seen = verdict.condition, verdict.seen
    return {
        "text": condition.text,
        "app": condition.app,
        "metric": condition.metric,
        "statistic": condition.statistic,
        "op": condition.op,
        "bound": condition.bound,
        "value": plain(seen.value),
        "inf": math.isinf(seen.value),
        "ci": _pair(Interval(seen.lo, seen.hi)),
        "met": verdict.met,
        "resolved": verdict.resolved,
        "note": seen.note,
    }


def _curve_dict(curve: Curve) -> dict[str, Any]:
    return {
        "token_deadline": (curve.token_deadline_ns / SECOND).tolist(),
        "pooled_index": [plain(x) for x in curve.pooled_index],
        "mean_index": [plain(x) for x in curve.mean_index],
        "share_fluid": [plain(x) for x in curve.share],
    }


def _pair(ci: Interval) -> list[float | None]:
    return [plain(ci.lo), plain(ci.hi)]
