"""Claims: what an evaluation says that it shows, in a few fixed sentences, and whether it does.

    claim = A "sustains" [ ">=" NUMBER "x" "the" ] "rate of" B [ "under SLO" TEXT ] { where }
          | A ( "lowers" | "raises" ) METRIC[.STATISTIC] "of" B [ "by" [ ">=" ] NUMBER "%" ] { where }
    where = "on" [ "workload" ] W | "on model" M | "at" NUMBER ( "rps" | "in flight" )

Names that are not one word stand in double quotes. Without a place a claim is about every condition that both arms were
measured under, and must hold in each: intervals are then wider (Bonferroni), so that all of them hold together.
A rate that is sustained comes from a search for the capacity where there is one, else from the loads of a sweep: at least
the highest load that surely met the objective, at most the lowest that did not.

Verdicts: supported   the whole interval is on the claimed side of the claimed size
          reversed    the whole interval is on the other side of "no difference"
          not shown   anything else, and what was not measured
Robustness: the share of cells (metric x percentile x workload x load) in which the arm that is claimed to be better is better,
of those in which there is a difference. A claim may be supported where it was made, and fragile everywhere else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import msgspec

from inferometer.audit.contrast import Effect, effect, rises
from inferometer.audit.evaluation import Evaluation
from inferometer.audit.point import Point
from inferometer.errors import UserError
from inferometer.metrics.summary import plain
from inferometer.metrics.table import DISTRIBUTIONS, FIGURES
from inferometer.search.compare import DECLARED
from inferometer.spec import Spec
from inferometer.stats import UNKNOWN, Interval

if TYPE_CHECKING:
    from inferometer.search.study import Study

LEVEL = 0.95
Verdict = Literal["supported", "reversed", "not shown", "not parsed"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A parsed claim: `ahead` against `behind`. factor: at least (rate, raises) or at most (lowers) this ratio of both."""

    text: str
    ahead: str
    behind: str
    kind: Literal["rate", "lowers", "raises"]
    metric: str
    factor: float
    slo: str | None = None
    workload: str | None = None
    model: str | None = None
    load: str | None = None

    @property
    def names(self) -> tuple[str, str]:
        """The two arms."""
        return self.ahead, self.behind


class Cell(NamedTuple):
    """What one condition says of a claim: both values, ahead over behind with its interval, and the verdict."""

    model: str
    workload: str
    load: str
    ahead: float
    behind: float
    ratio: float
    interval: Interval
    verdict: Verdict
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        numbers = {name: plain(getattr(self, name)) for name in ("ahead", "behind", "ratio")}
        return self._asdict() | numbers | {"interval": [plain(end) for end in self.interval]}


class Robustness(Spec, frozen=True):
    """Of the cells in which the arms differ (by 1 %), in how many the claimed direction holds; some of the others."""

    share: float | None
    holds: int
    against: int
    equal: int
    unknown: int
    against_in: tuple[str, ...] = ()


class Tested(Spec, frozen=True):
    """A claim and what was found of it; ratio and interval (ahead over behind) where one condition is meant."""

    text: str
    verdict: Verdict
    reason: str
    ratio: float | None = None
    interval: tuple[float | None, float | None] | None = None
    cells: tuple[dict[str, Any], ...] = ()
    robustness: Robustness | None = None


# --- parsing ----------------------------------------------------------------------------------------------------------


def parse(text: str, where: str = "claim") -> Claim:
    """A claim, or a UserError that points at the word that cannot be read."""
    return _Parser(text, where).claim()


class _Parser:
    """A cursor over the text."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.pos = text, where, 0

    def claim(self) -> Claim:
        ahead = self.name("the arm that is claimed to be better")
        verb = self.word("sustains", "lowers", "raises")
        if verb == "sustains":
            metric, factor, behind = "request_rate", *self.rate()
        else:
            metric = self.metric()
            self.word("of")
            behind, factor = self.name("the arm that it is compared with"), self.size(verb)
        places = self.places(verb)
        kind: Any = "rate" if verb == "sustains" else verb
        return Claim(self.text.strip(), ahead, behind, kind, metric, factor, **places)

    def rate(self) -> tuple[float, str]:
        factor = 1.0
        if self.take(r">=|≥"):
            factor = self.number()
            self.take(r"x|×|times") or self.fail("expected 'x' after the factor")
        self.take(r"the\b")
        self.word("rate")
        self.word("of")
        return factor, self.name("the arm that it is compared with")

    def metric(self) -> str:
        self.skip()
        begin = self.pos
        found = self.take(r"\w+(\.\w+(\.\d+)?)?") or self.fail("expected a metric, like ttft.p99")
        metric, _, statistic = found.partition(".")
        known = metric in DISTRIBUTIONS if statistic else metric in FIGURES
        if not known or (statistic and not re.fullmatch(r"mean|max|min|p\d+(\.\d+)?", statistic)):
            self.pos = begin
            self.fail(f"{found!r} is no statistic: write ttft.p99, tbt.mean or token_rate")
        return found

    def size(self, verb: str) -> float:
        if not self.take(r"by\b"):
            return 1.0
        self.take(r">=|≥|at least\b")
        share = self.number() / 100
        self.take(r"%") or self.fail("expected '%' after the size")
        if verb == "lowers" and share >= 1:
            self.fail("nothing is lowered by all of itself")
        return 1 - share if verb == "lowers" else 1 + share

    def places(self, verb: str) -> dict[str, str]:
        out: dict[str, str] = {}
        while not self.at_end():
            begin = self.pos
            key, value = self.place(verb)
            if key in out:
                self.pos = begin
                self.fail(f"a second {key}")
            out[key] = value
        return out

    def place(self, verb: str) -> tuple[str, str]:
        if self.take(r"under\b"):
            if verb != "sustains":
                self.fail("only a rate is sustained under an SLO")
            self.take(r"SLO\b")
            return "slo", self.objective()
        if self.take(r"at\b"):
            return "load", self.load()
        self.word("on")
        if self.take(r"model\b"):
            return "model", self.name("a model")
        self.take(r"workload\b")
        return "workload", self.name("a workload")

    def objective(self) -> str:
        """A name, a quoted text, or everything up to the next place."""
        if found := self.quoted():
            return found
        self.skip()
        end = re.compile(r"\s+(?:on|at)\s+|$").search(self.text, self.pos)
        found = self.text[self.pos : end.start() if end else None].strip()
        self.pos += len(found)
        return found or self.fail("expected an SLO")

    def load(self) -> str:
        if found := self.take(r"(rate|concurrency)\b"):
            return f"{found} {self.number():g}"
        value = self.number()
        if self.take(r"rps\b|requests/s\b|/s\b"):
            return f"rate {value:g}"
        self.take(r"in flight\b") or self.fail("expected 'rps' or 'in flight'")
        return f"concurrency {value:g}"

    def number(self) -> float:
        return float(self.take(r"\d+(\.\d+)?") or self.fail("expected a number"))

    def name(self, what: str) -> str:
        found = self.quoted() or self.take(r"[A-Za-z0-9][\w./:+-]*")
        return found or self.fail(f"expected {what}")

    def quoted(self) -> str | None:
        found = self.take(r'"[^"]+"')
        return None if found is None else found[1:-1]

    def word(self, *words: str) -> str:
        found = self.take("(" + "|".join(words) + r")\b")
        return found or self.fail(f"expected {' or '.join(map(repr, words))}")

    def take(self, pattern: str) -> str | None:
        self.skip()
        found = re.compile(pattern).match(self.text, self.pos)
        if found is None:
            return None
        self.pos = found.end()
        return found[0]

    def skip(self) -> None:
        while self.pos < len(self.text) and (
            self.text[self.pos].isspace() or self.text[self.pos] in ",;"
        ):
            self.pos += 1

    def at_end(self) -> bool:
        self.skip()
        return self.text[self.pos :].strip(" .") == ""

    def fail(self, what: str) -> NoReturn:
        """Raise with a caret line under the word at the cursor."""
        self.skip()
        line = re.sub(r"\s", " ", self.text)
        found = re.compile(r"\S+").match(self.text, self.pos)
        caret = " " * self.pos + "^" * max(len(found[0]) if found else 1, 1)
        remedy = "write: A sustains >= 1.5x the rate of B under SLO chat on workload W"
        raise UserError(f"{what}\n    {line}\n    {caret}\n    {remedy}", where=self.where)


# --- judging ----------------------------------------------------------------------------------------------------------


def evaluate(study: Study) -> list[dict[str, Any]]:
    """What a study shows of its claims, as plain data."""
    from inferometer.audit.studies import of_study

    return [msgspec.to_builtins(each) for each in evaluated(of_study(study.path))]


def evaluated(evaluation: Evaluation) -> tuple[Tested, ...]:
    """What an evaluation shows of its claims; a claim in other words is "not parsed"."""
    return tuple(_tested(evaluation, text) for text in evaluation.facts.claims)


def _tested(evaluation: Evaluation, text: str) -> Tested:
    try:
        claim = parse(text)
    except UserError as error:
        return Tested(text=text, verdict="not parsed", reason=error.what.splitlines()[0])
    arms = {system.name for system in evaluation.facts.systems}
    strangers = [name for name in claim.names if name not in arms]
    if strangers:
        return Tested(text=text, verdict="not shown", reason=f"no arm is called {strangers[0]!r}")
    found = cells(claim, evaluation)
    verdict, reason = together(claim, found)
    only = found[0] if len(found) == 1 else None
    return Tested(
        text=text,
        verdict=verdict,
        reason=reason,
        ratio=None if only is None else plain(only.ratio),
        interval=None if only is None else (plain(only.interval.lo), plain(only.interval.hi)),
        cells=tuple(cell.to_dict() for cell in found),
        robustness=robustness(claim, evaluation),
    )


def together(claim: Claim, found: Sequence[Cell]) -> tuple[Verdict, str]:
    """The verdict over all cells, and why."""
    if not found:
        return "not shown", "nothing was measured that it is about"
    kinds = {cell.verdict for cell in found}
    chosen: Verdict = (
        "reversed"
        if "reversed" in kinds
        else "supported"
        if kinds == {"supported"}
        else "not shown"
    )
    telling = [cell for cell in found if cell.verdict == chosen] or list(found)
    worst = min(telling, key=lambda c: _margin(claim, c))
    more = f" ({len(telling)} of {len(found)} conditions)" if len(found) > 1 else ""
    return chosen, f"{_told(claim, worst)}{more}"


def _told(claim: Claim, cell: Cell) -> str:
    if math.isnan(cell.ratio) or cell.note:
        return cell.note or "it was not measured on both arms"
    ends = ", ".join("?" if math.isnan(end) else f"{end:.3g}" for end in cell.interval)
    return f"{claim.ahead} over {claim.behind} is {cell.ratio:.3g} [{ends}] on {cell.workload or 'this workload'}; claimed is {'at most' if claim.kind == 'lowers' else 'at least'} {claim.factor:g}"


def _margin(claim: Claim, cell: Cell) -> float:
    """How far a cell is on the claimed side, less being worse."""
    if math.isnan(cell.ratio):
        return -math.inf
    return -cell.ratio if claim.kind == "lowers" else cell.ratio


def cells(claim: Claim, evaluation: Evaluation) -> list[Cell]:
    """What each condition that the claim is about says of it."""
    if claim.kind == "rate":
        return _rates(claim, evaluation)
    wanted = [
        (condition, arms[claim.ahead], arms[claim.behind])
        for condition, arms in evaluation.conditions().items()
        if claim.ahead in arms and claim.behind in arms and _meant(claim, condition)
    ]
    level = 1 - (1 - LEVEL) / max(len(wanted), 1)
    return [
        _cell(claim, condition, effect(claim.metric, a, b, level)) for condition, a, b in wanted
    ]


def _meant(claim: Claim, condition: tuple[str, str, str]) -> bool:
    model, workload, load = condition
    return (
        claim.model in (None, model)
        and claim.workload in (None, workload)
        and claim.load in (None, load)
    )


def _cell(claim: Claim, condition: tuple[str, str, str], seen: Effect) -> Cell:
    verdict = judged(claim, seen.interval)
    return Cell(*condition, seen.a, seen.b, seen.ratio, seen.interval, verdict)


def judged(claim: Claim, interval: Interval) -> Verdict:
    """The verdict that the interval of ahead / behind allows."""
    if math.isnan(interval.lo) or math.isnan(interval.hi):
        return "not shown"
    if claim.kind == "lowers":
        return (
            "supported"
            if interval.hi <= claim.factor and interval.hi < 1
            else "reversed"
            if interval.lo > 1
            else "not shown"
        )
    return (
        "supported"
        if interval.lo >= claim.factor and interval.lo > 1
        else "reversed"
        if interval.hi < 1
        else "not shown"
    )


# --- rates that are sustained -----------------------------------------------------------------------------------------


class Sustained(NamedTuple):
    """The rate that an arm sustains: an estimate (NaN where there is none), and what it surely lies between."""

    rate: float
    interval: Interval
    note: str = ""


def _rates(claim: Claim, evaluation: Evaluation) -> list[Cell]:
    places = dict.fromkeys(
        [(p.place.model, p.place.workload) for p in evaluation.points]
        + [(c.model, c.workload) for c in evaluation.capacities]
    )
    out = []
    for model, workload in places:
        if claim.model not in (None, model) or claim.workload not in (None, workload):
            continue
        a, b = (sustained(evaluation, arm, model, workload) for arm in claim.names)
        if a is None or b is None:
            continue
        other = _other_objective(claim, evaluation, workload)
        note = other or a.note or b.note
        interval = UNKNOWN if other else _ratio(a.interval, b.interval)
        ratio = a.rate / b.rate if b.rate > 0 else math.nan
        verdict = judged(claim, interval)
        told = note if verdict == "not shown" else ""
        out.append(Cell(model, workload, "", a.rate, b.rate, ratio, interval, verdict, told))
    return out


def _ratio(a: Interval, b: Interval) -> Interval:
    """All that a / b may be."""
    return Interval(a.lo / b.hi if b.hi else math.nan, a.hi / b.lo if b.lo else math.inf)


def sustained(evaluation: Evaluation, arm: str, model: str, workload: str) -> Sustained | None:
    """What an arm sustains of a workload: by a search for its capacity, else by its sweep; None where it was not measured."""
    for found in evaluation.capacities:
        if (found.arm, found.model, found.workload) == (arm, model, workload):
            return Sustained(found.rate_per_s, Interval(*found.interval))
    mine = [
        p for p in evaluation.arm(arm) if (p.place.model, p.place.workload) == (model, workload)
    ]
    return _of_sweep(mine) if mine else None


def _of_sweep(points: Iterable[Point]) -> Sustained:
    by_load: dict[str, list[Point]] = {}
    for p in points:
        by_load.setdefault(p.place.load, []).append(p)
    loads = sorted(
        (sum(p.figures["offered_rate"] for p in group) / len(group), _met(group))
        for group in by_load.values()
    )
    missed = [rate for rate, met in loads if met is False]
    highest = min(missed, default=math.inf)
    kept = [rate for rate, met in loads if met and rate < highest]
    note = (
        ""
        if missed
        else "the objective was met at every load that was tried: what is sustained beyond is not known"
    )
    lo = max(kept, default=0.0)
    return Sustained(lo or math.nan, Interval(lo, highest), note)


def _met(group: list[Point]) -> bool | None:
    """Whether the repeats of a load met their objective: False if one did not, None if one cannot tell."""
    answers = {_kept(p) for p in group}
    return False if False in answers else None if None in answers else True


def _kept(point: Point) -> bool | None:
    if point.past_saturation or any(
        v.met is False and v.resolved is not False for v in point.verdicts
    ):
        return False
    if not point.verdicts or any(not v.met or v.resolved is False for v in point.verdicts):
        return None
    return True


def _other_objective(claim: Claim, evaluation: Evaluation, workload: str) -> str:
    """Why the objective of the claim is not that of the workload; "" where it is, or none is named."""
    from inferometer import slo as slos

    own = evaluation.objectives.get(workload)
    if claim.slo is None or claim.slo in (own, *_apps(evaluation, workload)):
        return ""
    try:
        meant = slos.parse(claim.slo).text
    except UserError:
        meant = claim.slo
    same = own is not None and meant == slos.parse(own).text
    return (
        "" if same else f"{workload} was judged by {own or 'no objective'!r}, not by {claim.slo!r}"
    )


def _apps(evaluation: Evaluation, workload: str) -> set[str]:
    return {app for p in evaluation.points if p.place.workload == workload for app in p.app} | {
        w.app for w in evaluation.facts.workloads if w.app and w.name == workload
    }


# --- robustness -------------------------------------------------------------------------------------------------------


def robustness(claim: Claim, evaluation: Evaluation) -> Robustness:
    """In how many of the cells (metric x percentile x condition) the claimed direction holds."""
    found: Counter[str] = Counter()
    against: list[str] = []
    for condition, arms in evaluation.conditions().items():
        if claim.ahead not in arms or claim.behind not in arms:
            continue
        for name in DECLARED:
            kind = _direction(
                claim, effect(name, arms[claim.ahead], arms[claim.behind], intervals=False)
            )
            found[kind] += 1
            against += [f"{name} on {' '.join(filter(None, condition))}"] * (kind == "against")
    differ = found["holds"] + found["against"]
    return Robustness(
        share=found["holds"] / differ if differ else None,
        holds=found["holds"],
        against=found["against"],
        equal=found["equal"],
        unknown=found["unknown"],
        against_in=tuple(against[:10]),
    )


def _direction(claim: Claim, seen: Effect) -> str:
    """Whether a cell holds with the claim, or against it; who claims to be worse is held to that."""
    kind = {"": "unknown", "=": "equal", "a": "holds", "b": "against"}[seen.ahead]
    good = claim.kind == "rate" or rises(claim.metric) == (claim.kind == "raises")
    other = {"holds": "against", "against": "holds"}
    return kind if good else other.get(kind, kind)
