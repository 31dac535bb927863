"""Is B better than A: by how much, where, how surely, and would another tool say so.

Knows two sides, each a run or repeats of one. Differences are b - a, ratios b / a.
* First, may they be compared? `differences` lists what was not the same: workloads, SLOs, conditions, instruments. What
  servers are (URL, engine, version) is what is being compared, and is no difference.
* Effects come with intervals. One run a side: from the queue-aware intervals of the two runs (MOVER); a run cannot see what
  differs between runs. Repeats: from the runs' own results, whose scatter holds everything; paired where both sides ran
  the same workloads (each seed once on either side), else Welch's t.
* p-values are adjusted over the whole declared set of effects (Holm); the set is declared here, not after the fact.
* The shift function and the crossings say where: "A lower up to p83, B above".
* The flip table says whether the ranking hangs on the metric, the percentile or the convention.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np

from inferometer import stats
from inferometer.errors import InvalidMeasurement, UserError
from inferometer.metrics import conventions
from inferometer.metrics import summary as summaries
from inferometer.metrics.scorecard import attainment_of, view_of
from inferometer.metrics.summary import Sample, plain
from inferometer.metrics.table import DISTRIBUTIONS, FIGURES, NEEDS_SLO
from inferometer.metrics.view import Settings, View
from inferometer.run import Run
from inferometer.slo import METRICS, UNITS, Slo
from inferometer.slo import parse as parse_slo
from inferometer.stats import UNKNOWN, Interval, Shift
from inferometer.stats.decisions import Verdict
from inferometer.stats.intervals import t_interval
from inferometer.timeline import offsets

DECLARED = tuple(
    f"{metric}.{statistic}"
    for metric in ("ttft", "tbt", "tpot", "max_gap", "ttlt")
    for statistic in ("mean", "p50", "p90", "p99")
)
FIGURES_SHOWN = ("request_rate", "token_rate", "error_rate", "attainment", "goodput")
SHIFTED = ("ttft", "tbt", "ttlt")
HIGHER_IS_BETTER = (
    "request_rate", "token_rate", "total_token_rate", "goodput", "attainment", "fluid_token_rate",
    "fluidity_index_pooled", "fluidity_index", "on_time_fraction",
)  # fmt: skip
GATE_LEVEL = 0.9  # both ends are then one-sided tests of 5 %
LEVEL = 0.95
SAME = 0.01  # relative difference below which the flip table calls two figures equal

How = Literal["one run each", "paired repeats", "repeats"]


class Difference(NamedTuple):
    """What was not the same on the two sides."""

    what: str
    a: str
    b: str


class Effect(NamedTuple):
    """A statistic on both sides: b - a, b / a, their intervals, and the p-value of no difference, adjusted over all."""

    name: str
    unit: str
    a: float
    b: float
    difference: float
    interval: Interval
    ratio: float
    ratio_interval: Interval
    p: float
    adjusted_p: float
    how: How

    @property
    def better(self) -> str:
        """ "a", "b" or "" (not shown), by the adjusted p-value at 5 %."""
        if not self.adjusted_p < 1 - LEVEL or not self.difference:
            return ""
        return "b" if (self.difference > 0) == _rises(self.name) else "a"


class Turn(NamedTuple):
    """Where two CDFs cross: below quantile `q` (at `value`) one side is lower, above it the other."""

    metric: str
    q: float
    value: float
    interval: Interval
    lower_below: str


class Flip(NamedTuple):
    """One way to rank the two sides: by whose convention, which number; who is ahead ("a", "b", "=")."""

    convention: str
    number: str
    a: float
    b: float
    ahead: str


class Gated(NamedTuple):
    """A gate and its outcome; `change` is how much worse b is, relative or in the metric's unit, with its interval."""

    text: str
    change: float
    interval: Interval
    allowed: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that is said about two sides."""

    differences: tuple[Difference, ...]
    effects: tuple[Effect, ...]
    shifts: dict[str, tuple[Shift, ...]]
    turns: tuple[Turn, ...]
    flips: tuple[Flip, ...]
    gates: tuple[Gated, ...]
    runs: tuple[int, int]

    @property
    def ranking_flips(self) -> bool:
        """Whether some way of ranking puts A ahead and another one B."""
        return {"a", "b"} <= {flip.ahead for flip in self.flips}

    @property
    def verdict(self) -> Verdict | None:
        """The worst outcome of the gates; None without any."""
        found = {gate.verdict for gate in self.gates}
        order: tuple[Verdict, ...] = ("regression", "not shown", "equivalent")
        return next((verdict for verdict in order if verdict in found), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; seconds, null for what is not known."""
        return {
            "runs": {"a": self.runs[0], "b": self.runs[1]},
            "differences": [d._asdict() for d in self.differences],
            "effects": {e.name: _effect_dict(e) for e in self.effects},
            "shift": {
                metric: [
                    {"q": s.q, "a": plain(s.a), "b": plain(s.b), "difference": plain(s.difference)}
                    | {"ci": _pair(s.interval)}
                    for s in shifts
                ]
                for metric, shifts in self.shifts.items()
            },
            "crossings": [t._asdict() | {"interval": _pair(t.interval)} for t in self.turns],
            "flips": [f._asdict() for f in self.flips],
            "ranking_flips": self.ranking_flips,
            "gates": [
                g._asdict() | {"change": plain(g.change), "interval": _pair(g.interval)}
                for g in self.gates
            ],
            "verdict": self.verdict,
        }


def compare(
    a: Run | Sequence[Run],
    b: Run | Sequence[Run],
    *,
    slo: Slo | str | None = None,
    gates: Iterable[str] = (),
    anyway: bool = False,
) -> Comparison:
    """Compare side b with side a. Raises InvalidMeasurement where they are not comparable, unless told `anyway`."""
    sides = _aligned([a] if isinstance(a, Run) else list(a), [b] if isinstance(b, Run) else list(b))
    parsed = parse_slo(slo) if isinstance(slo, str) else slo
    rules = [parse_gate(text) for text in gates]
    found = differences(*sides)
    if found and not anyway:
        told = "; ".join(f"{d.what}: {d.a} and {d.b}" for d in found)
        raise InvalidMeasurement(f"not comparable: {told} (--anyway compares them all the same)")
    views = [[_view(run, parsed) for run in side] for side in sides]
    paired = _paired(sides)
    figures = [f for f in FIGURES_SHOWN if parsed is not None or f not in NEEDS_SLO]
    return Comparison(
        tuple(found),
        tuple(_adjusted([_effect(name, views, paired=paired) for name in (*DECLARED, *figures)])),
        {metric: tuple(_shifts(metric, views)) for metric in SHIFTED},
        tuple(turn for metric in SHIFTED for turn in _turns(metric, views)),
        tuple(_flips(sides, views)),
        tuple(_gated(rule, views, paired=paired) for rule in rules),
        (len(sides[0]), len(sides[1])),
    )


# --- may they be compared ---------------------------------------------------------------------------------------------


def differences(a: Sequence[Run], b: Sequence[Run]) -> list[Difference]:
    """What was not the same on the two sides, and which runs are invalid; empty where they may be compared."""
    out = []
    for what, read in CONDITIONS.items():
        seen = [sorted({str(read(run)) for run in side}) for side in (a, b)]
        if seen[0] != seen[1]:
            out.append(Difference(what, ", ".join(seen[0]), ", ".join(seen[1])))
    bad = [sum(not _valid(run) for run in side) for side in (a, b)]
    if any(bad):
        out.append(Difference("validity", *(f"{n} invalid runs" for n in bad)))
    return out


def _asked(*path: str) -> Any:
    def read(run: Run) -> Any:
        value: Any = run.manifest.spec
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    return read


CONDITIONS: dict[str, Any] = {
    "workload": lambda run: str(run.manifest.workload.get("fingerprint", "unknown"))[:12],
    "SLO": _asked("slo"),
    "world": lambda run: run.manifest.world,
    "model": lambda run: run.manifest.model.get("name"),
    "tokenizer": lambda run: (run.manifest.model.get("tokenizer") or {}).get("fingerprint"),
    "protocol": lambda run: run.manifest.target.get("dialect"),
    "ignore_eos": lambda run: (run.manifest.target.get("accepts") or {}).get("ignore_eos"),
    "streaming": lambda run: (run.manifest.target.get("accepts") or {}).get("stream"),
    "warm-up": _asked("drive", "warmup_s"),
    "patience": _asked("drive", "patience"),
    "retries": _asked("drive", "retries"),
    "stamps": _asked("drive", "stamps"),
    "instrument's version": lambda run: run.manifest.versions.get("inferometer"),
    "instrument's host": lambda run: {
        key: run.manifest.host.get(key) for key in ("system", "machine", "cpus")
    },
    "complete": lambda run: run.manifest.complete,
}


def _valid(run: Run) -> bool:
    record = run.manifest.instrument
    vouched = run.manifest.world != "measured" and not record.get("invalid_reasons")
    return bool(record.get("valid", vouched))


def _fingerprint(run: Run) -> str:
    return str(run.manifest.workload.get("fingerprint", ""))


def _aligned(a: list[Run], b: list[Run]) -> list[list[Run]]:
    """Both sides, repeats in the order of their workloads, so that equal workloads stand at equal places."""
    if not a or not b:
        raise UserError("a comparison needs a run on either side")
    return [sorted(side, key=_fingerprint) for side in (a, b)]


def _paired(sides: list[list[Run]]) -> bool:
    """Whether every workload was run exactly once on either side."""
    names = [[_fingerprint(run) for run in side] for side in sides]
    return names[0] == names[1] and max(Counter(names[0]).values()) == 1


# --- effects ----------------------------------------------------------------------------------------------------------


def _view(run: Run, slo: Slo | None) -> View:
    fixed = {} if slo is None else {f"{k}_ns": ns for k, ns in slo.settings_ns.items()}
    view = view_of(run, Settings(**fixed))
    if slo is not None:
        view.attainment = attainment_of(view, slo)
    return view


class _Seen(NamedTuple):
    value: float
    interval: Interval


def _seen(view: View, name: str, level: float) -> _Seen:
    """A statistic of one run, with its interval."""
    metric, _, statistic = name.partition(".")
    if not statistic:
        got = summaries.value(view, FIGURES[metric], intervals=True)
        return _Seen(got.value, got.ci)
    found = summaries.sample(view, DISTRIBUTIONS[metric])
    if statistic.startswith("p") and len(found.values) < summaries.needed(statistic):
        return _Seen(math.nan, UNKNOWN)
    return _Seen(summaries.statistic(found, statistic), _interval(found, statistic, level))


def _interval(found: Sample, statistic: str, level: float) -> Interval:
    if statistic == "mean" or level == summaries.LEVEL:
        return _narrowed(found, statistic, level)
    q = float(statistic[1:]) / 100
    offset = np.arange(len(found.values) + 1) if found.offset is None else np.unique(found.offset)
    ci = stats.clustered_quantile_ci(found.values, offset, [q], level)[0]
    return Interval(ci.lo * found.scale, ci.hi * found.scale)


def _narrowed(found: Sample, statistic: str, level: float) -> Interval:
    """The scorecard's 95 % interval; at another level each half scaled by the normal quantiles."""
    ci, centre = summaries.interval(found, statistic), summaries.statistic(found, statistic)
    scale = _z(level) / _z(summaries.LEVEL)
    return Interval(centre - scale * (centre - ci.lo), centre + scale * (ci.hi - centre))


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _effect(name: str, views: list[list[View]], *, paired: bool, level: float = LEVEL) -> Effect:
    seen = [[_seen(view, name, level) for view in side] for side in views]
    a, b = ([s.value for s in side] for side in seen)
    unit = (DISTRIBUTIONS.get(name.partition(".")[0]) or FIGURES[name.partition(".")[0]]).unit
    if len(a) == len(b) == 1:
        one, two = seen[0][0], seen[1][0]
        difference = stats.difference_ci(*one, *two)
        ratio = stats.ratio_ci(*one, *two)
        p = _p_of(b[0] - a[0], difference, level)
        means, how = (a[0], b[0]), "one run each"
    else:
        difference, p = _of_repeats(np.array(a), np.array(b), paired=paired, level=level)
        ratio = ratio_of_repeats(np.array(a), np.array(b), paired=paired, level=level)
        means = (float(np.mean(a)), float(np.mean(b)))
        how = "paired repeats" if paired else "repeats"
    share = means[1] / means[0] if means[0] > 0 else math.nan
    return Effect(
        name, unit, *means, means[1] - means[0], difference, share, ratio, p, p, how  # type: ignore[arg-type]
    )  # fmt: skip


def _p_of(difference: float, interval: Interval, level: float) -> float:
    """The two-sided p-value that the interval's nearer half implies; NaN without an interval."""
    half = difference - interval.lo if difference > 0 else interval.hi - difference
    if math.isnan(half) or math.isnan(difference):
        return math.nan
    if half <= 0:
        return 0.0 if difference else 1.0
    return math.erfc(abs(difference) / (half / _z(level)) / math.sqrt(2))


def _of_repeats(
    a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], *, paired: bool, level: float
) -> tuple[Interval, float]:
    """Interval of the mean of b - a over runs, and p: paired t, or Welch 1947 (dof of Satterthwaite 1946)."""
    if min(a.size, b.size) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return UNKNOWN, math.nan
    if paired:
        d = b - a
        error, dof = float(d.std(ddof=1)) / math.sqrt(d.size), float(d.size - 1)
    else:
        parts = [float(x.var(ddof=1)) / x.size for x in (a, b)]
        error = math.sqrt(sum(parts))
        below = sum(v * v / (x.size - 1) for v, x in zip(parts, (a, b), strict=True))
        dof = error**4 / below if below else float(a.size + b.size - 2)
    difference = float(b.mean() - a.mean())
    return t_interval(difference, error, dof, level), stats.t_p_value(difference, error, dof)


def ratio_of_repeats(
    a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], *, paired: bool, level: float
) -> Interval:
    """Interval of the ratio of geometric means: the same, of the logarithms."""
    if not (np.all(a > 0) and np.all(b > 0)):
        return UNKNOWN
    logs, _ = _of_repeats(np.log(a), np.log(b), paired=paired, level=level)
    return Interval(math.exp(logs.lo), math.exp(logs.hi))


def _adjusted(effects: list[Effect]) -> list[Effect]:
    """The same effects with p-values adjusted over all that have one."""
    known = [k for k, e in enumerate(effects) if not math.isnan(e.p)]
    for k, p in zip(known, stats.holm([effects[k].p for k in known]), strict=True):
        effects[k] = effects[k]._replace(adjusted_p=p)
    return effects


def _rises(name: str) -> bool:
    return name.partition(".")[0] in HIGHER_IS_BETTER


# --- where ------------------------------------------------------------------------------------------------------------


def _pooled(metric: str, views: list[View]) -> stats.Sample:
    """The values of all runs of a side, in order, in the metric's unit."""
    found = [summaries.sample(view, DISTRIBUTIONS[metric]) for view in views]
    values = np.concatenate([f.values * f.scale for f in found])
    if found[0].offset is None:
        return stats.Sample(values)
    sizes = [np.diff(np.unique(f.offset)) for f in found if f.offset is not None]
    return stats.Sample(values, offsets(np.concatenate(sizes)))


def _both(metric: str, views: list[list[View]]) -> tuple[stats.Sample, stats.Sample] | None:
    a, b = (_pooled(metric, side) for side in views)
    return (a, b) if len(a.values) and len(b.values) else None


def _shifts(metric: str, views: list[list[View]]) -> list[Shift]:
    both = _both(metric, views)
    return [] if both is None else stats.shift_function(*both, together=True)


def _turns(metric: str, views: list[list[View]]) -> list[Turn]:
    both = _both(metric, views)
    found = [] if both is None else stats.crossings(*both)
    return [Turn(metric, c.q, c.value, c.interval, c.lower_below) for c in found]


# --- would another tool say so ----------------------------------------------------------------------------------------


def _flips(sides: list[list[Run]], views: list[list[View]]) -> list[Flip]:
    """Who is ahead by every metric, percentile and convention; repeats by the mean over their runs."""
    out = [
        _flip("ours", name, [[_seen(view, name, LEVEL).value for view in side] for side in views])
        for name in (*DECLARED, "request_rate", "token_rate")
    ]
    theirs = [[conventions(run) for run in side] for side in sides]
    for tool, numbers in theirs[0][0].items():
        for number, shown in numbers.items():
            for statistic in [k for k in ("value", "mean", "p50", "p90", "p99") if k in shown]:
                got = [[_number(run[tool][number][statistic]) for run in side] for side in theirs]
                name = number if statistic == "value" else f"{number}.{statistic}"
                out.append(_flip(tool, name, got, rate=statistic == "value"))
    return [flip for flip in out if not math.isnan(flip.a + flip.b)]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _flip(convention: str, name: str, seen: list[list[float]], *, rate: bool = False) -> Flip:
    a, b = (float(np.mean(side)) for side in seen)
    ahead = "="
    if abs(b - a) > SAME * max(abs(a), abs(b)):
        ahead = "b" if (b > a) == (rate or _rises(name)) else "a"
    return Flip(convention, name, a, b, ahead)


# --- gates ------------------------------------------------------------------------------------------------------------


class Gate(NamedTuple):
    """How much worse b may be: `allowed` (relative, or in the metric's unit) in the direction of `sign`."""

    text: str
    name: str
    sign: int
    allowed: float
    relative: bool


_GATE = re.compile(r"\s*(\w+)(?:\.(p[\d.]+|mean))?\s*([+-])\s*([\d.]+)\s*(%|[µa-z/]*)\s*")


def parse_gate(text: str) -> Gate:
    """ "ttft.p99 +5%", "tbt.p99 +3ms", "token_rate -2%": the change for the worse that is still allowed."""
    where = f"--gate {text!r}"
    match = _GATE.fullmatch(text)
    if match is None:
        raise UserError("not a gate", where=where, remedy='write "ttft.p99 +5%"')
    metric, statistic, sign, amount, unit = match.groups()
    known = FIGURES if statistic is None else DISTRIBUTIONS
    if metric not in known:
        kind = "figure of a run" if statistic is None else "metric with percentiles"
        raise UserError(f"no {kind} is called {metric!r}", where=where)
    if (sign == "-") != (metric in HIGHER_IS_BETTER):
        worse = "less" if metric in HIGHER_IS_BETTER else "more"
        raise UserError(f"of {metric}, {worse} is worse: turn the sign", where=where)
    name = metric if statistic is None else f"{metric}.{statistic}"
    relative = unit == "%"
    units = UNITS[METRICS[metric].dimension] if metric in METRICS else {"": "1"}
    if not relative and unit not in units:
        raise UserError(f"{metric} is not measured in {unit!r}", where=where)
    scale = 0.01 if relative else float(units[unit])
    return Gate(text, name, 1 if sign == "+" else -1, float(amount) * scale, relative)


def _gated(gate: Gate, views: list[list[View]], *, paired: bool) -> Gated:
    effect = _effect(gate.name, views, paired=paired, level=GATE_LEVEL)
    centre, ci = (
        (effect.ratio - 1, Interval(effect.ratio_interval.lo - 1, effect.ratio_interval.hi - 1))
        if gate.relative
        else (effect.difference, effect.interval)
    )
    worse = ci if gate.sign > 0 else Interval(-ci.hi, -ci.lo)
    verdict = stats.gate(worse, gate.allowed)
    return Gated(gate.text, gate.sign * centre, worse, gate.allowed, verdict)


# --- plain data -------------------------------------------------------------------------------------------------------


def _pair(ci: Interval) -> list[float | None]:
    return [plain(ci.lo), plain(ci.hi)]


def _effect_dict(effect: Effect) -> dict[str, Any]:
    numbers = {
        name: plain(getattr(effect, name))
        for name in ("a", "b", "difference", "ratio", "p", "adjusted_p")
    }
    return {
        "unit": effect.unit,
        **numbers,
        "ci": _pair(effect.interval),
        "ratio_ci": _pair(effect.ratio_interval),
        "better": effect.better or None,
        "how": effect.how,
    }
