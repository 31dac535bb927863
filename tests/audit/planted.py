"""Evaluations with exactly one planted flaw, and clean ones: what an audit must catch, and what it must let pass.

Two clean evaluations are the soil: a record (the questionnaire as it ships), and eight simulated runs of two systems on four
workloads with what runs cannot tell. A plant changes one thing in one of them. Nothing here knows how the audit works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import yaml

from inferometer.audit import Evaluation, Facts, of_record
from inferometer.audit.evaluation import filled, of_points, place_of
from inferometer.audit.facts import Bound, Isolation, Model, System, Tuning, Workload
from inferometer.audit.point import point_of
from inferometer.audit.template import template
from inferometer.plan import Plan
from inferometer.run import Run
from inferometer.sim.simulate import Deployment, simulate
from inferometer.sim.systems import Limits
from inferometer.timeline import ABSENT, offsets
from inferometer.workload import WorkloadSpec, make_plan
from inferometer.workload.arrivals import Gamma, Poisson

SECOND = 1_000_000_000
REQUESTS = 420
ARMS = ("sarathi-serve", "vllm-v1")
WORKLOADS = {
    "chat": ("azure-conv-2023", Poisson(rate=4)),
    "code": ("azure-code-2023", Gamma(rate=4, cv=2)),
}
replaced = msgspec.structs.replace


@dataclass(frozen=True)
class Case:
    """An evaluation by runs: {(arm, workload): run}, more runs beside them, and what a person says of it."""

    runs: dict[tuple[str, str], Run]
    more: dict[str, Run] = field(default_factory=dict)
    record: Facts = field(default_factory=lambda: SAID)

    def changed(self, key: tuple[str, str], run: Run) -> Case:
        return replace(self, runs=self.runs | {key: run})

    @property
    def evaluation(self) -> Evaluation:
        named = {"/".join(key): run for key, run in self.runs.items()} | self.more
        points = [_point(name, run) for name, run in named.items()]
        return filled(of_points(points, "planted"), of_record(self.record, "said"))


_POINTS: dict[tuple[int, str], Any] = {}


def _point(name: str, run: Run) -> Any:
    """Each run is reduced once: cases share all runs but the one in which something was planted."""
    key = (id(run), name)
    if key not in _POINTS:
        _POINTS[key] = (run, point_of(run, place_of(run, name)))
    return _POINTS[key][1]


SAID = Facts(
    title="said",
    systems=tuple(
        System(
            name=name,
            tuning=Tuning(
                configurations=8, space={"chunk": (256, 512, 1024)}, best={"chunk": 512}, edges=(),
                workloads=("chat", "code"), held_out=True,
            ),
        )
        for name in ARMS
    ),
    bounds=(Bound(metric="ttft", statistic="p90", seconds=2.0, app="chat"),),
)  # fmt: skip


def plan_of(workload: str, seed: int = 1, requests: int = REQUESTS, **changes: Any) -> Plan:
    profile, arrivals = WORKLOADS[workload]
    asked = {"profile": profile, "arrivals": arrivals, "requests": requests, "max_context": 12000}
    return make_plan(WorkloadSpec(**asked | changes), seed)


def served(arm: str, plan: Plan, **changes: Any) -> Run:
    limits = changes.pop("limits", None) or Limits(chunk=changes.pop("chunk", 512))
    asked = {"system": arm, "model": "llama-3.1-8b", "device": "h100", "limits": limits}
    return simulate(plan, Deployment(**asked | changes))


@cache
def clean() -> Case:
    """Two systems, two workloads, one plan each."""
    plans = {name: plan_of(name) for name in WORKLOADS}
    return Case({(arm, name): served(arm, plan) for name, plan in plans.items() for arm in ARMS})


def record(**changes: Any) -> Facts:
    """The questionnaire's own evaluation, changed."""
    return replaced(_questionnaire(), **changes)


@cache
def _questionnaire() -> Facts:
    return msgspec.convert(yaml.safe_load(template()), Facts, strict=False)


class Flaw(NamedTuple):
    """A planted flaw: what it is, the item (or validity) that must fail, and how the evaluation comes about."""

    name: str
    item: str
    plant: Callable[[], Case | Evaluation]
    also: tuple[str, ...] = ()  # what it makes fail besides, and rightly

    def make(self) -> Evaluation:
        return evaluated(self.plant())


def evaluated(case: Case | Evaluation) -> Evaluation:
    return case.evaluation if isinstance(case, Case) else case


# --- edits of a run ---------------------------------------------------------------------------------------------------


def told(run: Run, **facts: Any) -> Run:
    """The run with another manifest."""
    return replace(run, manifest=replaced(run.manifest, **facts))


def columns(run: Run, **new: Any) -> Run:
    return replace(run, timeline=run.timeline.with_columns(**new).check())


def every(run: Run, k: int) -> Any:
    """Every k-th request, as a mask."""
    return np.arange(len(run.timeline)) % k == 0


def delayed(run: Run, rows: Any, seconds: float, *, sent: bool = False, begun: bool = True) -> Run:
    """Some requests answered later: all their chunks move; `sent`: because they were sent later."""
    t = run.timeline
    ns = np.where(rows, round(seconds * SECOND), 0)
    late = {
        "chunk_ns": t.chunk_ns + np.repeat(ns, np.diff(t.chunk_offset)),
        "ended_ns": t.ended_ns + ns,
    }
    if sent:
        late["sent_ns"] = t.sent_ns + ns
    if begun:
        late["scheduled_ns"] = t.scheduled_ns + ns
    return columns(run, first_byte_ns=t.first_byte_ns + ns, **late)


def with_strings(run: Run, name: str, rows: Any, value: Any) -> Run:
    column = getattr(run.timeline, name).copy()
    column[rows] = value
    return columns(run, **{name: column})


def cut_short(run: Run, rows: Any) -> Run:
    """Some replies end after three tokens, and say that they are whole."""
    t = run.timeline
    keep = np.where(rows, np.minimum(np.diff(t.chunk_offset), 3), np.diff(t.chunk_offset))
    place = np.arange(t.chunks) - np.repeat(t.chunk_offset[:-1], np.diff(t.chunk_offset))
    inside = place < np.repeat(keep, np.diff(t.chunk_offset))
    return columns(
        run, chunk_offset=offsets(keep), chunk_ns=t.chunk_ns[inside], chunk_tokens=t.chunk_tokens[inside],
        chunk_channel=t.chunk_channel[inside], output_tokens=keep.astype(np.int32),
    )  # fmt: skip


def as_measured(run: Run, **target: Any) -> Run:
    """The run as if a server had been measured, with all that a good instrument tells."""
    facts = {
        "world": "measured",
        "instrument": {"valid": True, "invalid_reasons": []},
        "target": {
            "urls": [f"http://{run.manifest.target['system']}:8000"], "engine": "vllm", "version": {"version": "0.9.1"},
            "accepts": {"ignore_eos": True, "stream": True}, "extra": {}, "config": {"max_num_seqs": 64},
            "about": {"engine": run.manifest.target["system"], "codebase": "vllm", "dtype": "bf16", "hardware": "h100", "devices": 1},
        } | target,
        "spec": {"drive": {"patience": {"total_s": 900}, "retries": 0, "stamps": "kernel"}},
    }  # fmt: skip
    cached = np.zeros(len(run.timeline), dtype=np.int32)
    source = np.full(len(run.timeline), "server", dtype=object)
    return told(columns(run, cached_tokens=cached, token_source=source), **facts)


def measured() -> Case:
    case = clean()
    return replace(case, runs={key: _measured(run) for key, run in case.runs.items()})


@cache
def _measured(run: Run) -> Run:
    return as_measured(run)


CHAT = ("sarathi-serve", "chat")


def at_chat(edit: Callable[[Run], Run], case: Callable[[], Case] = clean) -> Callable[[], Case]:
    """An edit of the run of one system on one workload."""
    return lambda: case().changed(CHAT, edit(case().runs[CHAT]))


def everywhere(edit: Callable[[Run], Run]) -> Callable[[], Case]:
    return lambda: replace(clean(), runs={k: edit(r) for k, r in clean().runs.items()})


def arm_wide(edit: Callable[[Run], Run]) -> Callable[[], Case]:
    """An edit of all runs of one system."""
    return lambda: replace(
        clean(), runs={k: edit(r) if k[0] == "vllm-v1" else r for k, r in clean().runs.items()}
    )


def _repeated_prompt(run: Run) -> Run:
    assert run.plan is not None
    rows = len(run.plan)
    prompt = np.full(rows, 64, dtype=np.int32)
    blocks = {
        "block_offset": np.arange(rows + 1, dtype=np.int64) * 4,
        "block_id": np.tile(np.arange(4), rows),
    }
    return replace(run, plan=replace(run.plan, prompt_tokens=prompt, block_tokens=16, **blocks))


def _drifted() -> Case:
    other = plan_of("chat", seed=2)
    more = {
        "repeat": served("sarathi-serve", other, chunk=2048),
        "its pair": served("vllm-v1", other),
    }
    return replace(clean(), more=more)


def _overloaded() -> Case:
    plan = plan_of("chat", arrivals=Poisson(rate=400), requests=1000)
    return replace(clean(), runs=clean().runs | {(arm, "chat"): served(arm, plan) for arm in ARMS})


def _only(keep: Callable[[tuple[str, str]], bool]) -> Case:
    return replace(clean(), runs={k: r for k, r in clean().runs.items() if keep(k)})


def _other_arm(**changes: Any) -> Callable[[], Case]:
    def make() -> Case:
        runs = {
            k: served(k[0], r.plan, **changes) if k[0] == "vllm-v1" and r.plan else r
            for k, r in clean().runs.items()
        }
        return replace(clean(), runs=runs)

    return make


def _on_other_workloads() -> Case:
    runs = clean().runs
    kept = {k: r for k, r in runs.items() if k in (("vllm-v1", "code"), CHAT)}
    plan = plan_of("chat", profile="mooncake-arxiv", arrivals=Poisson(rate=0.5))
    return replace(clean(), runs=kept, more={"sarathi-serve/long": served("sarathi-serve", plan)})


def _lost(run: Run) -> Run:
    return replace(run, timeline=run.timeline.take(~every(run, 30)))


def _tuned_alone() -> Case:
    runs, plan = clean().runs, clean().runs[CHAT].plan
    more = {f"chunk {c}": served("sarathi-serve", plan, chunk=c) for c in (256, 1024)}
    return Case(runs, more, Facts(title="nothing said"))


def _everything_on(**changes: Any) -> Callable[[], Case]:
    def make() -> Case:
        plans = {name: plan_of(name, **changes) for name in WORKLOADS}
        return Case({(a, n): served(a, p) for n, p in plans.items() for a in ARMS})

    return make


def _hidden_delay(run: Run) -> Run:
    """Ten seconds of waiting for one long reply in ten."""
    long = run.timeline.output_tokens >= 100
    return delayed(run, long & every(run, 12), 10.0)


def _without_grouped_queries(run: Run) -> Run:
    return told(run, model=run.manifest.model | {"kv_heads": run.manifest.model["heads"]})


BY_RUNS = (
    Flaw("a run that was broken off", "validity", at_chat(lambda r: told(r, complete=False, stopped="interrupted"))),
    Flaw("an instrument that says it was late", "validity", at_chat(lambda r: told(r, instrument={"valid": False, "invalid_reasons": ["requests were sent late"]}))),
    Flaw("a measured run that nobody vouches for", "validity", at_chat(lambda r: told(r, instrument={}), measured)),
    Flaw("a late client", "validity", at_chat(lambda r: delayed(r, every(r, 20), 1.5, sent=True, begun=False))),
    Flaw("a load past saturation, alone", "validity", _overloaded, ("practical_latency", "no_obscuring_normalization")),
    Flaw("replies without an end that count as complete", "validity", at_chat(lambda r: with_strings(r, "finish_reason", every(r, 50), None))),
    Flaw("streams that were cut", "validity", at_chat(lambda r: with_strings(r, "status", every(r, 50), "truncated"))),
    Flaw("replies that were cut and say they are whole", "validity", at_chat(lambda r: cut_short(r, every(r, 50) & (r.timeline.output_tokens > 20))), ("implementation_fairness",)),
    Flaw("tokens counted from what was asked", "validity", at_chat(lambda r: with_strings(r, "token_source", every(r, 1), "planned"))),
    Flaw("tokens counted in two ways", "validity", at_chat(lambda r: with_strings(r, "token_source", every(r, 1), "tokenizer"), measured)),
    Flaw("a warm prefix cache", "validity", at_chat(lambda r: columns(r, cached_tokens=(r.timeline.prompt_tokens // 2).astype(np.int32)))),
    Flaw("a repeated prompt", "validity", at_chat(_repeated_prompt)),
    Flaw("a configuration that drifts", "validity", _drifted),
    Flaw("a version that drifts", "validity", at_chat(lambda r: told(r, versions={"inferometer": "0.0.1"})), ("implementation_fairness",)),
    Flaw("a fifth of the requests failed", "validity", at_chat(lambda r: with_strings(r, "status", every(r, 5), "http_error")), ("performance_distribution",)),
    Flaw("one arm loses what the other serves", "validity", at_chat(lambda r: with_strings(r, "status", every(r, 25), "timeout"))),
    Flaw("other patience for one arm", "validity", at_chat(lambda r: told(r, spec={"drive": {"patience": {"total_s": 5}, "retries": 0, "stamps": "kernel"}}), measured)),
    Flaw("one arm on other hardware", "implementation_fairness", _other_arm(device="a100")),
    Flaw("one arm on twice the devices", "implementation_fairness", _other_arm(replicas=2)),
    Flaw("one arm with another model", "implementation_fairness", _other_arm(model="mistral-7b")),
    Flaw("arms on workloads of their own", "implementation_fairness", _on_other_workloads),
    Flaw("half of the memory for one arm", "implementation_fairness", _other_arm(limits=Limits(chunk=512, utilization=0.6))),
    Flaw("requests that left no trace", "validity", at_chat(_lost)),
    Flaw("trials of one system only", "parameter_tuning", _tuned_alone),
    Flaw("an objective of a minute", "practical_latency", everywhere(lambda r: told(r, spec=r.manifest.spec | {"slo": "ttft.p99 <= 60s"}))),
    Flaw("one arm asked for shorter replies", "implementation_fairness", at_chat(lambda r: cut_short(told(with_strings(r, "finish_reason", every(r, 1), "stop"), complete=True), every(r, 2)))),
    Flaw("grouped queries switched off", "model_selection", everywhere(_without_grouped_queries)),
    Flaw("one dataset", "workload_diversity", lambda: _only(lambda key: key[1] == "chat")),
    Flaw("fixed lengths", "workload_diversity", _everything_on(profile=None, prompt_tokens=512, output_tokens=64)),
    Flaw("an objective that no load meets", "practical_latency", everywhere(lambda r: told(r, spec=r.manifest.spec | {"slo": "ttft.p99 <= 1ms"}))),
    Flaw("six seconds before every first token", "practical_latency", everywhere(lambda r: delayed(r, every(r, 1), 6.0, begun=False)), ("no_obscuring_normalization",)),
    Flaw("a P99 of a hundred requests", "performance_distribution", _everything_on(requests=110)),
    Flaw("a hidden delay of ten seconds", "no_obscuring_normalization", at_chat(_hidden_delay)),
)  # fmt: skip


# --- edits of a record ------------------------------------------------------------------------------------------------


def _paper(**changes: Any) -> Callable[[], Evaluation]:
    return lambda: of_record(record(**changes), "paper")


def _arm(index: int, **changes: Any) -> Callable[[], Evaluation]:
    def make() -> Evaluation:
        systems = list(_questionnaire().systems)
        systems[index] = replaced(systems[index], **changes)
        return of_record(record(systems=tuple(systems)), "paper")

    return make


def _tuned(index: int, **changes: Any) -> Callable[[], Evaluation]:
    def make() -> Evaluation:
        tuning = _questionnaire().systems[index].tuning
        return _arm(index, tuning=replaced(tuning, **changes))()

    return make


def _number(index: int, **changes: Any) -> Callable[[], Evaluation]:
    def make() -> Evaluation:
        numbers = list(_questionnaire().numbers)
        numbers[index] = replaced(numbers[index], **changes)
        return of_record(record(numbers=tuple(numbers)), "paper")

    return make


def _workloads(*changes: dict[str, Any]) -> Callable[[], Evaluation]:
    def make() -> Evaluation:
        pairs = zip(_questionnaire().workloads, changes, strict=True)
        return of_record(record(workloads=tuple(replaced(w, **c) for w, c in pairs)), "paper")

    return make


def _also_reports(**number: Any) -> Callable[[], Evaluation]:
    def make() -> Evaluation:
        base = _questionnaire().numbers[0]
        plain = {
            "statistics": ("p50", "p90", "p99"),
            "definition": None,
            "values": None,
            "per": None,
        }
        return of_record(record(numbers=(*_questionnaire().numbers, replaced(base, **plain | number))), "paper")  # fmt: skip

    return make


def _reports_only(**number: Any) -> Callable[[], Evaluation]:
    def make() -> Evaluation:
        base = _questionnaire().numbers[0]
        return of_record(record(numbers=(replaced(base, **number),)), "paper")

    return make


_MHA = (Model(name="opt-13b", attention="MHA", params_b=13, year=2024, altered="", memory_share=0.3), Model(name="opt-66b", attention="MHA", params_b=66, year=2024, altered="", memory_share=0.4))  # fmt: skip
_SHORT = {"prompt": msgspec.convert({"mean": 200, "p50": 150, "p99": 900}, Workload.__annotations__ and type(Workload(name="x").prompt))}  # fmt: skip
_BRIEF = {"output": msgspec.convert({"p50": 8, "p90": 20, "p99": 40}, type(Workload(name="x").output))}  # fmt: skip

BY_RECORD = (
    Flaw("two codebases, nothing isolates", "implementation_fairness", _arm(1, codebase="sglang")),
    Flaw("another precision for the baseline", "implementation_fairness", _arm(1, conditions={"model": "llama-3.1-8b", "precision": "fp8", "sampling": "greedy", "hardware": "H100", "devices": 1})),
    Flaw("other sampling for the baseline", "implementation_fairness", _arm(1, conditions={"model": "llama-3.1-8b", "precision": "bf16", "sampling": "temperature 1", "hardware": "H100", "devices": 1})),
    Flaw("another version and other settings", "implementation_fairness", _arm(1, version="0.6.0")),
    Flaw("outputs that disagree", "implementation_fairness", _paper(outputs_match=0.6)),
    Flaw("unequal work", "implementation_fairness", _paper(same_work=False)),
    Flaw("a default-only baseline", "parameter_tuning", _tuned(1, configurations=1, space=None)),
    Flaw("a setting that is left unsaid", "parameter_tuning", _arm(1, undocumented=("max_num_seqs",))),
    Flaw("a baseline tuned on another workload", "parameter_tuning", _tuned(1, workloads=("translation",))),
    Flaw("judged on what it was tuned on", "parameter_tuning", _tuned(0, held_out=False)),
    Flaw("a claim about memory on MHA alone", "model_selection", _paper(memory_claim=True, models=_MHA)),
    Flaw("an altered architecture", "model_selection", _paper(models=(replaced(_MHA[0], altered="GQA switched off"), _MHA[1]))),
    Flaw("a model that does not fit", "model_selection", _paper(models=(replaced(_MHA[0], memory_share=0.97), _MHA[1]))),
    Flaw("one dataset in a paper", "workload_diversity", lambda: of_record(record(workloads=_questionnaire().workloads[:1], bounds=_questionnaire().bounds[:1]), "paper")),
    Flaw("one dataset under two names", "workload_diversity", _workloads({"dataset": "sharegpt"}, {"dataset": "sharegpt"})),
    Flaw("lengths from a formula", "workload_diversity", _workloads({"synthetic": True}, {"synthetic": True})),
    Flaw("lengths that do not vary", "workload_diversity", _workloads({"fixed": True}, {"fixed": True})),
    Flaw("short prompts only", "workload_diversity", _workloads(_SHORT, _SHORT)),
    Flaw("one application", "workload_diversity", _workloads({}, {"app": "chat"})),
    Flaw("long prompts with next to no output", "workload_diversity", _workloads(_BRIEF, _BRIEF)),
    Flaw("an objective of five seconds between tokens", "practical_latency", _paper(bounds=(Bound(metric="tbt", statistic="p99", seconds=5, app="chat"),))),
    Flaw("half a second per token", "practical_latency", _paper(bounds=(Bound(metric="normalized_latency", statistic="mean", seconds=0.5, app="chat"),))),
    Flaw("first tokens after half a minute", "practical_latency", _number(0, values={"p50": 30.0})),
    Flaw("a fifth of a second per input token", "practical_latency", _also_reports(metric="normalized_latency", per="input token", values={"mean": 0.2}, workload="summaries")),
    Flaw("ratios without seconds", "practical_latency", lambda: of_record(record(numbers=tuple(replaced(n, relative=True) for n in _questionnaire().numbers)), "paper")),
    Flaw("latency of what", "metric_selection", _also_reports(metric="latency", per="token", justified="")),
    Flaw("a sum of latencies over a sum of tokens", "metric_selection", _number(1, aggregate="ratio-of-sums")),
    Flaw("the same in words", "metric_selection", _number(0, aggregate=None, definition="total latency of all requests divided by the total number of tokens")),
    Flaw("a mean of ratios", "metric_selection", _number(0, aggregate="mean-of-ratios")),
    Flaw("an average of percentiles", "metric_selection", _number(0, aggregate="mean-of-percentiles")),
    Flaw("a score that nobody explains", "metric_selection", _also_reports(metric="happiness", definition="tokens x speed", justified="")),
    Flaw("medians only", "performance_distribution", lambda: of_record(record(numbers=tuple(replaced(n, statistics=("p50",), values=None) for n in _questionnaire().numbers)), "paper")),
    Flaw("P99 only", "performance_distribution", _number(1, statistics=("p99",))),
    Flaw("a mean only", "performance_distribution", _number(0, statistics=("mean",))),
    Flaw("TPOT without gaps", "no_obscuring_normalization", lambda: of_record(record(numbers=(_questionnaire().numbers[0], replaced(_questionnaire().numbers[1], metric="tpot", per="output token"))), "paper")),
    Flaw("normalised latency alone", "no_obscuring_normalization", _reports_only(metric="normalized_latency", per="output token", values={"p50": 0.03})),
    Flaw("latency per input token alone", "no_obscuring_normalization", _reports_only(metric="normalized_latency", per="input token", values=None)),
)  # fmt: skip

FLAWS = (*BY_RUNS, *BY_RECORD)


# --- clean ------------------------------------------------------------------------------------------------------------


def _clean_arms(one: dict[str, Any], two: dict[str, Any], **plan: Any) -> Callable[[], Case]:
    """Two deployments of other kinds on their own plans."""

    def make() -> Case:
        plans = {name: plan_of(name, **plan) for name in WORKLOADS}
        runs = {
            (arm, name): served(arm, p, **which)
            for name, p in plans.items()
            for arm, which in zip(ARMS, (one, two), strict=True)
        }
        return Case(runs)

    return make


def _swept() -> Case:
    """A sweep of loads whose highest is past saturation for both."""
    plan = plan_of("chat", arrivals=Poisson(rate=400), requests=1000)
    more = {f"{arm} at 400": served(arm, plan) for arm in ARMS}
    return replace(clean(), more=more)


def _with_repeats() -> Case:
    more = {f"{a}/{w} again": served(a, plan_of(w, seed=5)) for a in ARMS for w in WORKLOADS}
    return replace(clean(), more=more)


CLEAN: dict[str, Callable[[], Case | Evaluation]] = {
    "the simulated evaluation": clean,
    "the same, measured": measured,
    "a sweep past saturation": _swept,
    "repeats with other seeds": _with_repeats,
    "other seeds": _clean_arms({}, {}, seed=3),
    "other seeds again": _clean_arms({}, {}, seed=4),
    "another chunk for both": _clean_arms({"chunk": 1024}, {"chunk": 1024}),
    "two devices each": _clean_arms({"tp": 2}, {"tp": 2}),
    "another model": _clean_arms({"model": "qwen3-8b"}, {"model": "qwen3-8b"}),
    "another device": _clean_arms({"device": "a100"}, {"device": "a100"}),
    "lower load": _clean_arms({}, {}, arrivals=Poisson(rate=2)),
    "ragged lengths and an objective": everywhere(
        lambda r: told(r, spec=r.manifest.spec | {"slo": "ttft.p90 <= 2s and tbt.p99 <= 200ms"})
    ),
    "the questionnaire": _paper(),
    "two codebases with an ablation": lambda: of_record(
        record(
            systems=(_questionnaire().systems[0], replaced(_questionnaire().systems[1], codebase="x")),
            isolations=(Isolation(kind="ablation", total=1.9, algorithm=1.2),),
        ),
        "paper",
    ),
    "two codebases with a microbenchmark": lambda: of_record(
        record(
            systems=(_questionnaire().systems[0], replaced(_questionnaire().systems[1], codebase="x")),
            isolations=(Isolation(kind="microbenchmark"),),
        ),
        "paper",
    ),
    "a baseline tuned as the proposal": _tuned(1, as_proposed=True, configurations=None, space=None),
    "a claim about memory, on GQA": _paper(memory_claim=True),
    "a third workload": lambda: of_record(
        record(workloads=(*_questionnaire().workloads, Workload(name="agents", app="agent", dataset="x"))), "paper"
    ),
    "normalised latency beside raw times": _also_reports(metric="normalized_latency", per="output token"),
    "throughput as a ratio, beside": _also_reports(metric="token_rate", relative=True, statistics=None),
    "a new metric, explained": _also_reports(metric="felt wait", definition="TTFT - reading time", justified="what a user waits beyond reading"),
    "attainment at two levels": _number(0, statistics=("attainment@0.9", "attainment@0.99")),
    "the whole distribution": _number(0, statistics=("cdf",)),
    "slow work that nobody waits for": lambda: of_record(
        record(
            workloads=(*_questionnaire().workloads, Workload(name="night", app="batch", dataset="y")),
            bounds=(*_questionnaire().bounds, Bound(metric="ttft", seconds=3600, app="batch")),
        ),
        "paper",
    ),
}  # fmt: skip
__all__ = ["ABSENT", "CLEAN", "FLAWS"]
