"""A point: one run as the audit looks at it. Read once, reduced to columns per request and a sample of gaps, then let go.

A study has a hundred runs of a million chunks each. What judging takes is little: a few numbers per request, and of the
gaps between tokens as many as some thousand requests have (`SAMPLED`, evenly over the run). Nothing here judges.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from inferometer import slo as slos
from inferometer import stats
from inferometer.audit.practical import practical
from inferometer.audit.shapes import Shape, shape_of
from inferometer.clock import SECOND
from inferometer.load.instrument import own_lag_ns
from inferometer.metrics import summary
from inferometer.metrics.scorecard import attainment_of, seen_in, view_of
from inferometer.metrics.steady import FEWEST, Steady, steady_state
from inferometer.metrics.table import DISTRIBUTIONS, FIGURES, column_of
from inferometer.metrics.tokens import Bools, Floats
from inferometer.metrics.view import View
from inferometer.plan import Plan
from inferometer.run import Manifest, Run
from inferometer.slo import Condition, Seen, Slo
from inferometer.timeline import ABSENT, Timeline, absent
from inferometer.workload.burstiness import gap_cv
from inferometer.workload.sharing import cached_tokens, plan_blocks

OVERRUN = 2.0
WHOLE = 0.9  # of the tokens that were asked for: servers count a few more or less
SAMPLED = 2_000  # requests whose gaps are looked at
COLUMNS = (
    "ttft", "ttlt", "tpot", "ttst", "normalized_latency", "max_gap", "stall_time", "scheduling_delay",
)  # fmt: skip
RATES = ("request_rate", "token_rate", "offered_rate", "error_rate", "tokens_per_chunk")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a point stands in an evaluation: which arm, model, workload and load, and in what role.

    declared: whether somebody said that the runs of this arm are of one system (a study, a folder of repeats).
    """

    path: str
    arm: str
    model: str = ""
    workload: str = ""
    load: str = ""
    repeat: int = 0
    split: str = "headline"
    study: str | None = None
    ablation_of: str | None = None
    declared: bool = False

    @property
    def condition(self) -> tuple[str, str, str]:
        """What arms have in common where they are compared."""
        return self.model, self.workload, self.load


@dataclass(frozen=True, slots=True)
class Planned:
    """What the plan of a run says. repeated: the share of prompts that repeat an earlier one of another session, whole."""

    fingerprint: str
    requests: int
    closed: bool
    sessions: bool
    cv: float
    cacheable: float
    repeated: float
    shortfall: float  # planned minus given output tokens of completed requests / planned
    lost: int  # requests that were to start before the last one that did, and of which there is no trace


class Cut(NamedTuple):
    """Streams that were cut short: those that count as failures, and those that count as complete."""

    told: int
    hidden: int

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.told or self.hidden)


@dataclass(frozen=True)
class Point:
    """A run, reduced. Arrays are per request of phase measure [R], in order of intended time; seconds, NaN if undefined."""

    place: Place
    manifest: Manifest
    columns: dict[str, Floats]
    figures: dict[str, float]
    ids: Any
    ok: Bools
    app: tuple[str, ...]
    app_of: Any  # [R], the place of each request's application in `app`
    prompt_tokens: Any
    output_tokens: Any
    statuses: dict[str, int]
    sources: dict[str, int]
    cut: Cut | None  # None where no reply says why it ended
    cached: float | None  # the share of prompt tokens that the server says it had cached
    lag_p99_s: float
    has_gaps: bool
    gaps: summary.Sample
    steady: Steady
    overrun: (
        float  # first tokens came for that many times as long as requests did; 0 in a closed loop
    )
    planned: Planned | None
    slo: str | None
    verdicts: tuple[slos.Verdict, ...]
    bounds: str | None
    practical: tuple[slos.Verdict, ...]
    telemetry: dict[str, str] = field(default_factory=dict)

    @property
    def manifest_at(self) -> str:
        """Where its manifest is."""
        return f"{self.place.path}/manifest.json"

    @property
    def timeline_at(self) -> str:
        """Where its timeline is."""
        return f"{self.place.path}/timeline.parquet"

    @property
    def requests(self) -> int:
        """R, the requests of phase measure."""
        return len(self.ok)

    @property
    def world(self) -> str:
        """measured, simulated or imported."""
        return self.manifest.world

    @property
    def past_saturation(self) -> bool:
        """Whether more was asked than the system sustains: its queue grew, or outlived the arrivals by as long again."""
        return self.steady.in_place_of_numbers or self.overrun > OVERRUN

    @cached_property
    def shape(self) -> Shape | None:
        """Its lengths as curves."""
        return shape_of(self.prompt_tokens, self.output_tokens)

    def rows_of(self, app: str) -> Bools:
        """Which requests are of an application [R]."""
        return (
            np.asarray(self.app_of == self.app.index(app)) if app in self.app else self.ok & False
        )

    def sample(self, metric: str) -> summary.Sample:
        """The defined values of a metric, in order; gaps come in clusters."""
        if metric == "tbt":
            return self.gaps
        values = self.columns[metric]
        missing = np.isnan(values)
        return summary.Sample(values[~missing], int(missing.sum()))

    def value(self, name: str) -> float:
        """A statistic of the run ("ttft.p99", "request_rate"); NaN where it has none, or too few values."""
        metric, _, statistic = name.partition(".")
        if not statistic:
            return self.figures.get(metric, math.nan)
        if metric not in (*COLUMNS, "tbt"):
            return math.nan
        found = self.sample(metric)
        if statistic.startswith("p") and len(found.values) < summary.needed(statistic):
            return math.nan
        return summary.statistic(found, statistic) if len(found.values) else math.nan

    def interval(self, name: str) -> stats.Interval:
        """The 95 % interval of a statistic; UNKNOWN where the run cannot carry one, and of a figure."""
        metric, _, statistic = name.partition(".")
        if not statistic or math.isnan(self.value(name)):
            return stats.UNKNOWN
        return summary.interval(self.sample(metric), statistic)


def point_of(run: Run, place: Place, slo: Slo | None = None) -> Point:
    """The point of a run; `slo` is what the evaluation asks of it, by default what the run itself was asked."""
    view = view_of(run)
    small = _thinned(view)
    asked = slo if slo is not None else _slo_of(run.manifest)
    bounds = _bounds(view)
    timeline = view.timeline
    return Point(
        place=place,
        manifest=run.manifest,
        columns={name: column_of(view, name) for name in COLUMNS},
        figures={name: FIGURES[name].value(view) for name in RATES},
        ids=timeline.request_id,
        ok=view.ok,
        app=tuple(sorted(set(timeline.app.tolist()))),
        app_of=np.unique(timeline.app.astype(str), return_inverse=True)[1].astype(np.int8),
        prompt_tokens=timeline.prompt_tokens,
        output_tokens=timeline.output_tokens,
        statuses=dict(Counter(timeline.status.tolist())),
        sources=dict(Counter(timeline.token_source[view.ok].tolist())),
        cut=_cut(timeline, run.plan),
        cached=_cached(timeline),
        lag_p99_s=_lag(timeline),
        has_gaps=bool(timeline.chunks > view.ok.sum()),
        gaps=summary.sample(small, DISTRIBUTIONS["tbt"]),
        steady=steady_state(run),
        overrun=_overrun(timeline, view)
        if run.plan is None or run.plan.concurrency is None
        else 0.0,
        planned=None if run.plan is None else _planned(run.plan, timeline, run.timeline),
        slo=None if asked is None else asked.text,
        verdicts=() if asked is None else _judged(view, small, asked),
        bounds=bounds,
        practical=() if bounds is None else _judged(view, small, slos.parse(bounds)),
        telemetry=_settings_told(run),
    )


# --- what a view says -------------------------------------------------------------------------------------------------


def _thinned(view: View) -> View:
    """The same view with at most `SAMPLED` requests, evenly over the run."""
    if len(view) <= SAMPLED:
        return view
    rows = np.linspace(0, len(view) - 1, SAMPLED).astype(np.int64)
    promised = None if view.promised is None else view.promised[rows]
    return View(view.timeline.take(rows), view.settings, promised, view.window)


def _slo_of(manifest: Manifest) -> Slo | None:
    text = manifest.spec.get("slo")
    return slos.parse(text, where="manifest: slo") if isinstance(text, str) else None


def _bounds(view: View) -> str | None:
    """The practical bounds of a run, as an SLO: the widest of its applications; None for work that nobody waits for."""
    if not len(view):
        return None
    median = float(np.median(view.timeline.prompt_tokens))
    found = [practical(app, median) for app in set(view.timeline.app.tolist())]
    bounds = [each for each in found if each is not None]
    return max(bounds).slo if bounds else None


def _judged(view: View, small: View, slo: Slo) -> tuple[slos.Verdict, ...]:
    if not len(view):
        return ()
    view.attainment = attainment_of(view, slo)

    def seen(condition: Condition) -> Seen:
        gaps = condition.metric == "tbt" and condition.app is None
        return seen_in(small if gaps else view, condition, intervals=True)

    return slo.judge(seen)


def _overrun(timeline: Timeline, view: View) -> float:
    """From the first arrival to the last first token, over the time that requests arrived in; NaN where unknown."""
    span = int(np.ptp(timeline.intended_ns)) / SECOND if len(timeline) else 0.0
    first = timeline.intended_ns / SECOND + column_of(view, "ttft")
    if span <= 0 or len(timeline) < FEWEST or np.isnan(first).all():
        return math.nan
    return float((np.nanmax(first) - timeline.intended_ns[0] / SECOND) / span)


def _cut(timeline: Timeline, plan: Plan | None) -> Cut | None:
    """A complete reply says why it ended, and one that ended for its length has the length that was asked for."""
    ok = timeline.ok
    told = int(np.isin(timeline.status, ("truncated", "protocol_error")).sum())
    without = np.array([reason is None for reason in timeline.finish_reason], dtype=bool)
    if not ok.any() or without[ok].all():
        return Cut(told, 0) if told else None
    asked = _asked_tokens(timeline, plan)
    early = (timeline.finish_reason == "length") & (timeline.output_tokens < WHOLE * asked)
    return Cut(told, int(np.count_nonzero(ok & (without | early))))


def _asked_tokens(timeline: Timeline, plan: Plan | None) -> Any:
    """The output tokens that were planned [R]; 0 where that is unknown."""
    if plan is None:
        return np.zeros(len(timeline))
    asked = dict(zip(plan.request_id.tolist(), plan.output_tokens.tolist(), strict=True))
    return np.array([asked.get(name, 0) for name in timeline.request_id.tolist()])


def _cached(timeline: Timeline) -> float | None:
    told = timeline.cached_tokens != absent(timeline.cached_tokens.dtype)
    if not told.any():
        return None
    total = int(timeline.prompt_tokens[told].sum(dtype=np.int64))
    return float(timeline.cached_tokens[told].sum(dtype=np.int64) / max(total, 1))


def _lag(timeline: Timeline) -> float:
    lag = own_lag_ns(timeline)
    return float(np.percentile(lag, 99)) / SECOND if len(lag) else math.nan


def _settings_told(run: Run) -> dict[str, str]:
    """What a server's own metrics say of its settings: the labels of `*_config_info` (vLLM's cache_config_info)."""
    import re

    names = run.telemetry.get("name")
    if names is None:
        return {}
    rows = [k for k, name in enumerate(names) if str(name).endswith("config_info")]
    labels = " ".join(str(run.telemetry["labels"][k]) for k in rows[:4])
    return dict(re.findall(r'(\w+)="([^"]*)"', labels))


# --- what the plan says -----------------------------------------------------------------------------------------------


def _planned(plan: Plan, timeline: Timeline, everything: Timeline) -> Planned:
    starts = plan.intended_ns[plan.intended_ns != ABSENT] / SECOND
    sessions = plan.session_id
    total = max(int(plan.prompt_tokens.sum(dtype=np.int64)), 1)
    return Planned(
        fingerprint=plan.fingerprint,
        requests=len(plan),
        closed=plan.concurrency is not None,
        sessions=bool(np.any(plan.turn > 0)) and sessions[0] is not None if len(plan) else False,
        cv=gap_cv(np.sort(starts)),
        cacheable=float(cached_tokens(plan).sum() / total),
        repeated=_repeated(plan),
        shortfall=_shortfall(plan, timeline),
        lost=_lost(plan, everything),
    )


def _repeated(plan: Plan) -> float:
    """The share of prompts that are, block by block, one that another session sent before."""
    if not len(plan) or not len(plan.block_id):
        return 0.0
    blocks = plan_blocks(plan)
    known: dict[bytes, Any] = {}
    again = 0
    for row in range(len(plan)):
        ids = blocks.id[blocks.offset[row] : blocks.offset[row + 1]]
        covered = len(ids) * plan.block_tokens >= plan.prompt_tokens[row]
        if not covered or not len(ids):
            continue
        prompt = ids.tobytes() + int(plan.prompt_tokens[row]).to_bytes(8, "little")
        owner = plan.session_id[row] or plan.request_id[row]
        again += known.setdefault(prompt, owner) != owner
    return again / len(plan)


def _lost(plan: Plan, timeline: Timeline) -> int:
    """Requests with a start before the last one in the timeline that are not in it."""
    if not len(timeline):
        return len(plan)
    due = (plan.intended_ns != ABSENT) & (plan.intended_ns <= int(timeline.intended_ns.max()))
    return len(set(plan.request_id[due].tolist()) - set(timeline.request_id.tolist()))


def _shortfall(plan: Plan, timeline: Timeline) -> float:
    """By how much completed replies are shorter than planned, in tokens of all that was planned for them."""
    ok = timeline.ok
    given, wanted = timeline.output_tokens[ok], _asked_tokens(timeline, plan)[ok]
    total = int(wanted.sum())
    return float((wanted - given).sum() / total) if total else math.nan


def with_place(point: Point, **changes: Any) -> Point:
    """The same point at another place."""
    return replace(point, place=replace(point.place, **changes))
