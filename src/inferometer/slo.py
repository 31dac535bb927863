"""What latency is good enough: a small language, the presets of the literature, and the judgement.

    slo       = clause { ";" clause }
    clause    = [ "[app=" NAME "]" ] [ "each:" ] condition { "and" condition }
              | "with" NAME "=" duration { "and" NAME "=" duration }
    condition = metric [ "." ( pNN | mean | max | min ) ] ( "<=" | "<" | ">=" | ">" ) number [ unit ]

    ttft.p99 <= 0.5s and tbt.p99 <= 50ms          about the run: a statistic, or a figure that needs none
    each: ttft <= 0.5s and max_gap <= 0.2s        about every request by itself; attainment is how many kept it
    [app=chat] each: tpot <= 100ms                the same for one class of requests
    with token_deadline = 25ms                    the deadlines that `fluidity_index` is to be computed with
    each: ttft_slowdown <= 3                      a bound that grows with the prompt: 3 times the prefill curve

What it means, where it could mean two things:
* `attainment` is the share of *all* requests that were to be sent which meet every `each` condition of their class. A
  failed or dropped request never attains. Without any `each` it is the share that completed.
* `each` without an attainment condition means each: attainment >= 1.
* A reply of exactly one token has no gap, so conditions on gaps (tpot, ttst, max_gap, stalls, stall_time) hold for it
  vacuously, and such cases are counted (`vacuous`); they are never a 0 that passes. A reply without any token meets
  nothing.
* What was not measured is not met and not failed: the verdict is None. (`scheduling_delay` and `ttft_slowdown` of a black
  box need a prefill curve.)

This module knows the names and dimensions of metrics and nothing of how they are computed: values come from functions
that the caller gives. Text is parsed by hand, never evaluated.
"""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from inferometer.clock import SECOND
from inferometer.errors import UserError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Kind(NamedTuple):
    """What may be said about a metric: its dimension, and whether it has a value per request, or one for the run.

    `gap`: it speaks of gaps between tokens. `external`: it is known only where a server, a simulator or a prefill curve
    tells.
    """

    dimension: str  # time | share (of 1) | ratio | rate | count
    each: bool = True
    single: bool = False
    gap: bool = False
    external: bool = False


_TIME, _SHARE = Kind("time"), Kind("share")
METRICS: dict[str, Kind] = {
    "ttft": _TIME,
    "ttfat": _TIME,
    "ttlt": _TIME,
    "ttft_from_sent": _TIME,
    "ttlt_from_sent": _TIME,
    "normalized_latency": _TIME,
    "send_lag": _TIME,
    "tpot": Kind("time", gap=True),
    "ttst": Kind("time", gap=True),
    "max_gap": Kind("time", gap=True),
    "stall_time": Kind("time", gap=True),
    "stalls": Kind("count", gap=True),
    "scheduling_delay": Kind("time", external=True),
    "ttft_slowdown": Kind("ratio", external=True),
    "fluidity_index": _SHARE,
    "on_time_fraction": _SHARE,
    "tbt": Kind("time", each=False),
    "connect": Kind("time", each=False),
    **{
        f"{name}_with_failures": Kind("time", each=False)
        for name in ("ttft", "ttfat", "ttlt", "tpot", "normalized_latency", "max_gap")
    },
    "attainment": Kind("share", each=False, single=True),
    "error_rate": Kind("share", each=False, single=True),
    "fluidity_index_pooled": Kind("share", each=False, single=True),
    "mean_in_flight": Kind("count", each=False, single=True),
    "peak_in_flight": Kind("count", each=False, single=True),
    **{
        name: Kind("rate", each=False, single=True)
        for name in (
            "goodput",
            "request_rate",
            "token_rate",
            "total_token_rate",
            "fluid_token_rate",
        )
    },
}
SETTINGS = ("first_deadline", "first_slack", "token_deadline", "stall_threshold")
UNITS = {
    "time": {"s": "1", "ms": "0.001", "us": "0.000001", "µs": "0.000001"},
    "share": {"": "1", "%": "0.01"},
    "ratio": {"": "1", "%": "0.01"},
    "rate": {"": "1", "/s": "1"},
    "count": {"": "1"},
}
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}


class Preset(NamedTuple):
    """A named SLO, and who says so."""

    text: str
    source: str


_SARATHI = (
    "Sarathi-Serve (Agrawal et al., OSDI 2024), Table 3: {how} the decode iteration of a batch of 32 with 4k context; "
    "capacity is judged at P99 TBT and a median scheduling delay of 2 s"
)
_DISTSERVE = (
    "DistServe (Zhong et al., OSDI 2024), {what}: TTFT and TPOT per request, 90 % of requests"
)
_MLPERF = "MLPerf Inference, {what}: P99 of TTFT and of TPOT"


def _sarathi(how: str, bounds: dict[str, str]) -> dict[str, Preset]:
    source = _SARATHI.format(how={"strict": "5x", "relaxed": "25x"}[how])
    return {
        f"sarathi-{how}-{model}": Preset(
            f"tbt.p99 <= {bound} and scheduling_delay.p50 <= 2s", source
        )
        for model, bound in bounds.items()
    }


def _distserve(name: str, ttft: str, tpot: str, what: str) -> dict[str, Preset]:
    text = f"each: ttft <= {ttft} and tpot <= {tpot}; attainment >= 0.9"
    return {f"distserve-{name}": Preset(text, _DISTSERVE.format(what=what))}


def _mlperf(name: str, ttft: str, tpot: str, what: str) -> dict[str, Preset]:
    text = f"ttft.p99 <= {ttft} and tpot.p99 <= {tpot}"
    return {f"mlperf-{name}": Preset(text, _MLPERF.format(what=what))}


PRESETS: dict[str, Preset] = {
    "reading-speed": Preset(
        "fluid_token_rate >= 6/s",
        "6 tokens/s is typical reading speed (Agrawal et al. 2025, On Evaluating Performance of LLM Inference Serving "
        "Systems, section 2.2); that 99 % of the requests must keep 90 % of its deadlines is Etalon's",
    ),
    **_sarathi(
        "strict",
        {"mistral-7b": "0.1s", "yi-34b": "0.2s", "llama2-70b": "1s", "falcon-180b": "1s"},
    ),
    **_sarathi(
        "relaxed",
        {"mistral-7b": "0.5s", "yi-34b": "1s", "llama2-70b": "5s", "falcon-180b": "5s"},
    ),
    **_distserve("chat-13b", "0.25s", "0.1s", "chatbot, OPT-13B"),
    **_distserve("chat-66b", "2.5s", "0.15s", "chatbot, OPT-66B, as in the paper's text"),
    **_distserve(
        "chat-66b-artifact", "0.4s", "0.1s", "chatbot, OPT-66B, as in its artifact's script"
    ),
    **_distserve("chat-175b", "4s", "0.2s", "chatbot, OPT-175B"),
    **_distserve("code-66b", "0.125s", "0.2s", "code completion, OPT-66B"),
    **_distserve("summarization-66b", "15s", "0.15s", "summarization, OPT-66B"),
    **_mlperf("llama-405b", "6s", "175ms", "Llama 405B"),
    **_mlperf("llama-405b-interactive", "4.5s", "80ms", "Llama 405B, interactive"),
    **_mlperf("deepseek-r1-interactive", "1.5s", "15ms", "DeepSeek-R1, interactive"),
    **_mlperf("gpt-oss", "2s", "20ms", "gpt-oss"),
    "etalon": Preset(
        "with first_deadline = 100ms and token_deadline = 50ms; fluidity_index.p1 >= 0.9",
        "Etalon (Agrawal et al. 2024, arXiv 2407.07000) and the defaults of its capacity search: P99 over requests of "
        "the deadline miss rate <= 0.1; fixed deadlines, without a prefill curve",
    ),
}


class Condition(NamedTuple):
    """One comparison: `metric.statistic op bound`, in seconds, 1/s or plain numbers; of class `app` (None: all)."""

    metric: str
    statistic: str | None
    op: str
    bound: float
    app: str | None
    text: str

    def holds(self, value: Any) -> Any:
        """`value op bound`, elementwise for an array; False for NaN."""
        return OPERATORS[self.op](value, self.bound)


class Each(NamedTuple):
    """Conditions that a request of class `app` (None: every request) must meet by itself."""

    app: str | None
    conditions: tuple[Condition, ...]


class Seen(NamedTuple):
    """What was measured for a condition: value and interval (NaN where unknown), and why there is none."""

    value: float
    lo: float = math.nan
    hi: float = math.nan
    note: str = ""


class Verdict(NamedTuple):
    """A condition, what was seen, and whether it is met (None: cannot be said).

    `resolved`: whether the whole interval agrees with the verdict; None where there is no interval.
    """

    condition: Condition
    seen: Seen
    met: bool | None
    resolved: bool | None


class Attainment(NamedTuple):
    """Which requests meet all that is asked of each [R]; which cannot be judged [R]; vacuous passes by condition."""

    attained: Bools
    unknown: Bools
    vacuous: dict[str, int]

    def take(self, rows: Bools) -> Attainment:
        """The same of some requests; the vacuous passes stay those of all."""
        return Attainment(self.attained[rows], self.unknown[rows], self.vacuous)


@dataclass(frozen=True, slots=True)
class Slo:
    """A parsed SLO. `settings_ns` holds what a `with` clause fixes; `name` and `source` are those of a preset."""

    text: str
    conditions: tuple[Condition, ...]
    each: tuple[Each, ...]
    settings_ns: dict[str, int]
    name: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        return self.text

    def attained(
        self,
        column: Callable[[str], Floats],
        *,
        ok: Bools,
        output_tokens: NDArray[Any],
        app: NDArray[Any],
    ) -> Attainment:
        """Who attains. `column(metric)` gives a metric's values [R] (NaN where undefined); the rest are columns [R]."""
        good, unknown = ok.copy(), np.zeros(len(ok), dtype=bool)
        vacuous: dict[str, int] = {}
        for clause in self.each:
            asked = ok if clause.app is None else ok & (app == clause.app)
            for condition in clause.conditions:
                values, kind = column(condition.metric), METRICS[condition.metric]
                holds = condition.holds(values)
                if kind.gap:
                    empty = asked & np.isnan(values) & (output_tokens == 1)
                    vacuous[condition.text] = vacuous.get(condition.text, 0) + int(empty.sum())
                    holds |= empty
                if kind.external:
                    unknown |= asked & np.isnan(values) & (output_tokens > 0)
                good &= holds | ~asked
        return Attainment(good & ~unknown, unknown, vacuous)

    def judge(self, seen: Callable[[Condition], Seen]) -> tuple[Verdict, ...]:
        """The verdict on each condition about the run, from what `seen` finds for it."""
        return tuple(_verdict(condition, seen(condition)) for condition in self.conditions)


def met(verdicts: Iterable[Verdict]) -> bool | None:
    """Whether all are met: False if one is not, else None if one cannot be said."""
    answers = {verdict.met for verdict in verdicts}
    return False if False in answers else None if None in answers else True


def parse(text: str, *, where: str = "SLO") -> Slo:
    """An SLO from a preset's name or from text; a UserError points at the offending token."""
    name = text.strip()
    preset = PRESETS.get(name)
    if preset is not None:
        return _Parser(preset.text, where).slo(name, preset.source)
    if re.fullmatch(r"[\w.-]+", name):
        what = f"no preset is called {name!r}{_nearest(name, PRESETS)}"
        raise UserError(
            what, where=where, remedy="name a preset, or write a condition like ttft.p99 <= 0.5s"
        )
    return _Parser(text, where).slo()


def _verdict(condition: Condition, seen: Seen) -> Verdict:
    if math.isnan(seen.value):
        return Verdict(condition, seen, None, None)
    holds = bool(condition.holds(seen.value))
    if math.isnan(seen.lo) or math.isnan(seen.hi):
        return Verdict(condition, seen, holds, None)
    agree = {bool(condition.holds(seen.lo)), bool(condition.holds(seen.hi))} == {holds}
    return Verdict(condition, seen, holds, agree)


class _Parser:
    """A cursor over the text; each method eats one rule of the grammar and returns what it means."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.pos = text, where, 0
        self.settings: dict[str, int] = {}

    def slo(self, name: str | None = None, source: str | None = None) -> Slo:
        run: list[Condition] = []
        each: list[Each] = []
        while True:
            self.clause(run, each)
            if not self.take(";"):
                break
            if self.at_end():  # a closing semicolon is harmless
                break
        if not self.at_end():
            self.fail("conditions are joined by 'and', clauses by ';'", self.word())
        if not run and not each:
            self.fail("settings ask for nothing: add a condition", "")
        run += _implied(run, each)
        return Slo(self.text.strip(), tuple(run), tuple(each), self.settings, name, source)

    def clause(self, run: list[Condition], each: list[Each]) -> None:
        if self.take_word("with"):
            self.joined(self.setting)
            return
        app = self.app_class()
        if self.take_word("each"):
            self.expect(":", "a colon after 'each'")
            each.append(Each(app, tuple(self.joined(lambda: self.condition(app, each=True)))))
        else:
            run += self.joined(lambda: self.condition(app, each=False))

    def joined(self, rule: Callable[[], Any]) -> list[Any]:
        found = [rule()]
        while self.take_word("and"):
            found.append(rule())
        return found

    def app_class(self) -> str | None:
        if not self.take("["):
            return None
        self.skip()
        key = self.word()
        if key != "app":
            self.fail("requests are classed by app: write [app=chat]", key)
        self.pos += len(key)
        self.expect("=", "'=' after 'app'")
        self.skip()
        name = self.match(r"[\w.-]+") or self.fail(
            "expected the name of an application", self.word()
        )
        self.expect("]", "a closing ']'")
        return name

    def setting(self) -> None:
        self.skip()
        name = self.match(r"\w+") or self.fail("expected a setting", self.word())
        if name not in SETTINGS:
            self.back(name)
            self.fail(f"unknown setting {name!r}{_nearest(name, SETTINGS)}", name)
        self.expect("=", f"'=' after {name!r}")
        ns = round(self.quantity("time") * SECOND)
        if ns < 1:
            self.fail("a duration must be above 0", "")
        if self.settings.setdefault(name, ns) != ns:
            self.fail(f"{name} has another value already", "")

    def condition(self, app: str | None, *, each: bool) -> Condition:
        self.skip()
        begin = self.pos
        metric = self.match(r"[A-Za-z_]\w*") or self.fail("expected a metric", self.word())
        kind = METRICS.get(metric)
        if kind is None:
            self.back(metric)
            if (preset := self.match(r"[\w.-]+") or "") in PRESETS:
                self.back(preset)
                self.fail(f"{preset} is a preset, and stands alone", preset)
            self.back(preset)
            self.fail(f"unknown metric {metric!r}{_nearest(metric, METRICS)}", metric)
        statistic = self.statistic(metric, kind, each=each)
        self.skip()
        op = self.match(r"<=|>=|<|>") or self.fail("expected one of <=, <, >=, >", self.word())
        bound = self.quantity(kind.dimension)
        text = " ".join(self.text[begin : self.pos].split())
        return Condition(metric, statistic, op, bound, app, text)

    def statistic(self, metric: str, kind: Kind, *, each: bool) -> str | None:
        dot = self.pos
        found = self.match(r"\.\s*[A-Za-z]\w*(\.\d+)?")
        if found is None:
            if each and not kind.each:
                self.back(metric)
                remedy = "; write max_gap or tpot" if metric == "tbt" else ""
                self.fail(f"{metric} is not a property of one request{remedy}", metric)
            if not each and not kind.single:
                self.fail(f"{metric} needs a statistic here, like {metric}.p99", self.word())
            return None
        name = found[1:].strip()
        if each or kind.single:
            self.pos = dot
            what = f"{metric} of one request" if each else metric
            self.fail(f"{what} is a single value; leave out {found!r}", found)
        percentile = re.fullmatch(r"p([0-9]+(?:\.[0-9]+)?)", name)
        if percentile and 0 < float(percentile[1]) < 100:
            return name
        if name not in {"mean", "max", "min"}:
            self.pos = dot + 1
            self.fail(
                f"{name!r} is not a statistic: pNN (between 0 and 100), mean, max or min", name
            )
        return name

    def quantity(self, dimension: str) -> float:
        self.skip()
        begin = self.pos
        number = self.match(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
        if number is None:
            self.fail("expected a number", self.word())
        self.skip()
        unit = self.match(r"%|/s\b|(?!and\b)[A-Za-zµ]+") or ""
        units = UNITS[dimension]
        if unit not in units:
            self.back(unit)
            known = ", ".join(filter(None, units))
            want = f"a {dimension} is given in {known}" if known else "a plain number"
            self.fail(
                f"{want}, not {unit!r}" if unit else f"{want}: add the unit", unit or self.word()
            )
        bound = float(Decimal(number) * Decimal(units[unit]))
        most = 1.0 if dimension == "share" else sys.float_info.max
        if not 0 <= bound <= most:
            written = self.text[begin : self.pos]
            self.pos = begin
            what = "between 0 and 1, or 0 % and 100 %" if dimension == "share" else "of 0 or more"
            self.fail(f"a {dimension} is a number {what}", written)
        return bound

    # --- the cursor ---

    def skip(self) -> None:
        self.match(r"\s+")

    def match(self, pattern: str) -> str | None:
        found = re.compile(pattern).match(self.text, self.pos)
        if found is None:
            return None
        self.pos = found.end()
        return found[0]

    def take(self, mark: str) -> bool:
        self.skip()
        return self.match(re.escape(mark)) is not None

    def take_word(self, word: str) -> bool:
        self.skip()
        return self.match(rf"{word}\b") is not None

    def expect(self, mark: str, what: str) -> None:
        if not self.take(mark):
            self.fail(f"expected {what}", self.word())

    def word(self) -> str:
        """What stands at the cursor, for a complaint about it."""
        self.skip()
        found = re.compile(r"\w+|\S").match(self.text, self.pos)
        return found[0] if found else ""

    def back(self, word: str) -> None:
        self.pos -= len(word)

    def at_end(self) -> bool:
        self.skip()
        return self.pos >= len(self.text)

    def fail(self, what: str, word: str) -> NoReturn:
        """Raise with a caret line under `word`, which stands at the cursor."""
        line = re.sub(r"\s", " ", self.text)
        caret = " " * self.pos + "^" * max(len(word), 1)
        raise UserError(f"{what}\n    {line}\n    {caret}", where=self.where)


def _implied(run: list[Condition], each: list[Each]) -> list[Condition]:
    """`attainment >= 1` for each class that has `each` conditions and no threshold."""
    given = {condition.app for condition in run if condition.metric == "attainment"}
    apps = dict.fromkeys(clause.app for clause in each)
    if None in given:
        return []
    return [
        Condition("attainment", None, ">=", 1.0, app, "attainment >= 1")
        for app in apps
        if app not in given
    ]


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"; did you mean {', '.join(close)}?" if close else ""
