"""A study directory, judged: arms, tuning, headline, ablations and claims as its author declared them."""

from __future__ import annotations

import pytest

from inferometer.audit import audit, evaluation_of
from inferometer.audit.claims import evaluate
from inferometer.search.study import read_asked, read_study, run_study

STUDY = """\
title: two schedulers
systems:
  old:
    target: sim:vllm?model=llama-3-8b
    {old}
  new:
    target: sim:sarathi-serve?model=llama-3-8b
    tune: {chunk: [256, 512, 1024, 2048]}
  new-without:
    ablation_of: new
    target: sim:orca?model=llama-3-8b
workloads:
  chat: {prompt_tokens: "lognormal:median=300,sigma=1", output_tokens: 40, requests: 60}
  code: {prompt_tokens: "uniform:low=1000,high=6000", output_tokens: 8, requests: 60, app: code}
loads: [4]
slos: {chat: ttft.p90 <= 1s, code: ttft.p90 <= 2s}
tuning: {budget: 4, requests: 30}
report: [ttft.p50, ttft.p90, ttft.p99, normalized_latency.mean]
claims:
  - new lowers ttft.p50 of old
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Runs the study with the baseline's entry filled in; its folder."""

    def made(old):
        folder = tmp_path_factory.mktemp("study")
        (folder / "study.yaml").write_text(STUDY.replace("{old}", old))
        run_study(read_asked(folder / "study.yaml"), folder / "out")
        return folder / "out"

    return made


@pytest.fixture(scope="module")
def tuned(study):
    return study("tune: {max-batch: [8, 16, 32, 64]}")


def test_what_the_author_declared_is_judged(tuned):
    """Roles from the claims, tuning from the journal, numbers from the report, the ablation beside the arms."""
    found = evaluation_of([tuned])
    systems = {s.name: s for s in found.facts.systems}
    assert (systems["new"].role, systems["old"].role) == ("proposed", "baseline")
    assert (systems["new"].tuning.configurations, systems["old"].tuning.configurations) == (4, 4)
    assert systems["old"].tuning.held_out is True
    assert [arm.name for arm in found.facts.arms] == ["old", "new"]
    assert {n.metric for n in found.facts.numbers} == {"ttft", "normalized_latency"}
    assert {p.place.arm for p in found.points} == {"old", "new"}
    (ablation,) = found.facts.isolations
    assert ablation.total > 0
    assert ablation.algorithm > 0


def test_a_study_s_headline_is_held_to_its_report(tuned):
    """TTFT and a mean of normalised latency: no gaps are published, though the runs have them."""
    report = audit(evaluation_of([tuned]))
    assert report.items.no_obscuring_normalization.verdict == "fail"
    assert report.items.implementation_fairness.verdict == "pass"
    assert [claim.text for claim in report.claims] == ["new lowers ttft.p50 of old"]


def test_a_baseline_without_tuning_is_caught(study):
    """One configuration against four."""
    report = audit(evaluation_of([study("config: {max-batch: 16}")]))
    assert report.items.parameter_tuning.verdict == "fail"
    assert "old ran at one configuration" in report.items.parameter_tuning.reason


def test_claims_for_the_study_s_own_result(tuned):
    """Plain data, one per claim, as the runner stores it."""
    (claim,) = evaluate(read_study(tuned))
    assert claim["verdict"] in ("supported", "reversed", "not shown")
    assert {"text", "reason", "cells", "robustness"} <= set(claim)
