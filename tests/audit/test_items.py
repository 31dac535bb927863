"""The examples of the seed paper, as the items judge them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.audit import planted

from inferometer.audit import Facts, audit, of_record
from inferometer.audit.facts import Bound, Isolation, Lengths, Number, System, Workload
from inferometer.audit.implementation_fairness import algorithm_share
from inferometer.audit.no_obscuring_normalization import hidden_waits
from inferometer.audit.performance_distribution import crossings, modes
from inferometer.audit.point import Place, point_of
from inferometer.audit.practical import practical
from inferometer.audit.practical_latency import objectives, values
from inferometer.audit.shapes import distance, nearest, shape_of
from inferometer.metrics.table import DISTRIBUTIONS, FIGURES
from inferometer.run import Manifest, Run
from inferometer.sim.models import MODELS
from inferometer.timeline import build, offsets


def test_nanoflow_gets_its_gain_attributed():
    """Of 1.91x in all and 1.16x by the algorithm alone, the algorithm has 23 % of the logarithm."""
    assert algorithm_share(1.91, 1.16) == pytest.approx(math.log(1.16) / math.log(1.91))
    assert math.isnan(algorithm_share(0.9, 1.1))
    arms = (System(name="new", codebase="a"), System(name="old", codebase="b"))
    facts = Facts(title="x", systems=arms, isolations=(Isolation(kind="ablation", total=1.91, algorithm=1.16),))  # fmt: skip
    found = audit(of_record(facts, "x")).items.implementation_fairness
    told = next(part for part in found.parts if part.item.endswith("attribution"))
    assert told.verdict == "pass"
    assert "23%" in told.reason


def test_loongserve_is_turned_back_into_seconds():
    """A tenth of a second per input token, for half a million tokens, is half a day before the first token."""
    number = Number(
        metric="normalized_latency", per="input token", values={"mean": 0.1}, workload="long"
    )
    facts = Facts(title="x", numbers=(number,), workloads=(Workload(name="long", prompt=Lengths(max=500_000)),))  # fmt: skip
    found = values(of_record(facts, "x"))
    assert found.verdict == "fail"
    assert found.evidence[0].value["seconds"] == 50_000


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [
        (
            Bound(metric="tbt", statistic="p99", seconds=5, app="chat"),
            "fail",
        ),  # Sarathi-Serve, relaxed
        (Bound(metric="tbt", statistic="p99", seconds=1, app="chat"), "pass"),  # ... strict
        (Bound(metric="ttft", seconds=6, app="chat"), "fail"),  # S-LoRA
        (Bound(metric="ttft", seconds=15, app="summarize"), "pass"),  # DistServe
        (Bound(metric="normalized_latency", seconds=0.5, app="chat"), "fail"),  # dLoRA
        (Bound(metric="normalized_latency", seconds=0.2, app="chat"), "fail"),  # NanoFlow
        (Bound(metric="normalized_latency", seconds=0.1, app="chat"), "pass"),  # Orca
        (Bound(metric="ttlt", times_unloaded=5), "not-evaluated"),  # Splitwise
        (Bound(metric="ttft", seconds=900, app="batch"), "pass"),
    ],
)
def test_practical_objectives(bound, verdict):
    """What the seed calls practical passes, what it calls impractical fails."""
    assert objectives(of_record(Facts(title="x", bounds=(bound,)), "x")).verdict == verdict


def test_documents_may_take_longer():
    """Long prompts have the bounds of documents, whatever the application is called; batch work has none."""
    assert practical("chat", 500).wait < practical("chat", 10_000).wait
    assert practical("batch") is None


def by_hand(outputs, delay_s, gap_s=0.02, *, scheduled=True):
    """One request for each number of outputs, a minute apart, all of them waiting `delay_s`."""
    n = len(outputs)
    intended = np.arange(n) * 60_000_000_000
    chunk = [t + int((delay_s + gap_s * k) * 1e9) for t, count in zip(intended, outputs, strict=True) for k in range(1, count + 1)]  # fmt: skip
    at = offsets(np.array(outputs))
    timeline = build(
        n, request_id=[f"r{k}" for k in range(n)], intended_ns=intended, sent_ns=intended,
        ended_ns=np.array(chunk)[at[1:] - 1], status="ok", prompt_tokens=100, output_tokens=outputs,
        scheduled_ns=intended + int(delay_s * 1e9) if scheduled else np.iinfo(np.int64).min,
        chunk_offset=at, chunk_ns=chunk, chunk_tokens=1, chunk_channel=0,
    )  # fmt: skip
    return point_of(Run(timeline, Manifest(complete=True, world="simulated")), Place("x", "x"))


def test_the_wait_that_normalisation_hides():
    """The seed's example: 10 s of waiting before 10 and before 1000 tokens; only the long one looks well served."""
    assert hidden_waits(by_hand([10, 1000], 10.0)).hidden == 1
    assert hidden_waits(by_hand([10, 1000], 0.1)).hidden == 0
    assert hidden_waits(by_hand([1000], 10.0)).worst_s == pytest.approx(10, abs=0.1)


def test_a_wait_of_one_among_many_is_seen_from_outside():
    """Without knowing when prefill began: TTFT beyond what other prompts of that length take."""
    point = by_hand([1000] * 40, 0.2, scheduled=False)
    slow = point.columns["ttft"].copy()
    slow[7] += 8.0
    late = replace(point, columns=point.columns | {"ttft": slow}, app=("summarize",))
    assert hidden_waits(late).hidden == 1


def test_crossing_distributions_are_told():
    """One arm quicker at the median and slower at the tail: said with the percentile where they cross."""
    case = planted.clean()
    run = case.runs["vllm-v1", "chat"]
    t = run.timeline
    shift = np.where(np.arange(len(t)) % 4 == 0, 900_000_000, 0)
    slow = planted.delayed(run, shift > 0, 0.9)
    other = planted.delayed(case.runs["sarathi-serve", "chat"], shift >= 0, 0.3)
    found = crossings(
        case.changed(("vllm-v1", "chat"), slow).changed(planted.CHAT, other).evaluation
    )
    assert found.verdict == "warn"
    assert "vllm-v1 is lower below P7" in found.reason


def test_bursts_have_no_typical_gap():
    """Speculative decoding: three of four gaps are next to nothing, which a median does not tell."""
    case = planted.clean()
    run = case.runs[planted.CHAT]
    t = run.timeline
    place = np.arange(t.chunks) - np.repeat(t.chunk_offset[:-1], np.diff(t.chunk_offset))
    first = np.repeat(t.chunk_offset[:-1], np.diff(t.chunk_offset))
    burst = planted.columns(run, chunk_ns=t.chunk_ns[first + place // 4 * 4])
    record = planted.replaced(case.record, numbers=(Number(metric="tbt", statistics=("p50",)),))
    found = modes(replace(case.changed(planted.CHAT, burst), record=record).evaluation)
    assert found.verdict == "warn"
    assert found.evidence[0].value == pytest.approx(0.75, abs=0.03)


def test_shapes_know_their_profiles():
    """Lengths drawn from a profile are nearest to it, and far from another application's."""
    chat, code = (planted.plan_of(name) for name in planted.WORKLOADS)
    shapes = [shape_of(p.prompt_tokens, p.output_tokens) for p in (chat, code)]
    assert [nearest(shape)[0] for shape in shapes] == ["azure-conv-2023", "azure-code-2023"]
    assert distance(*shapes) > 1
    assert distance(shapes[0], shapes[0]) == 0
    assert shape_of([], []) is None


def test_every_reason_to_fail_says_what_would_mend_it():
    """Whatever fails carries a remedy and, but for what is missing, evidence."""
    for flaw in planted.BY_RECORD:
        report = audit(flaw.make())
        finding = report.findings()[flaw.item]
        assert finding.remedy, flaw.name
        assert finding.question
        assert all(part.evidence for part in finding.parts if part.verdict == "fail"), flaw.name


def test_the_vocabulary_is_that_of_the_metrics():
    """The metrics that the rules name are those of the table."""
    from inferometer.audit import metric_selection, no_obscuring_normalization, practical_latency

    named = {*metric_selection.FIRST, *metric_selection.FLOW, *metric_selection.WHOLE, *metric_selection.BURSTS}  # fmt: skip
    named |= {*no_obscuring_normalization.GAPS, *practical_latency.WAITS, *practical_latency.GAPS}
    assert named <= {*DISTRIBUTIONS, *FIGURES}
    assert {name.partition(".")[0] for name in no_obscuring_normalization.RAW} <= set(DISTRIBUTIONS)
    assert MODELS
