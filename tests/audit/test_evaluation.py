"""Runs become an evaluation: arms, trials, workloads, loads; a record fills what runs cannot tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.audit import planted

from inferometer.audit import Facts, audit, evaluation_of, of_record
from inferometer.audit.evaluation import filled
from inferometer.audit.facts import System
from inferometer.errors import UserError
from inferometer.run import write_run
from inferometer.workload.arrivals import Poisson


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs of one system, two of another, in folders."""
    root = tmp_path_factory.mktemp("runs")
    for arm in ("vllm-v1", "orca"):
        (root / arm).mkdir()
        for seed in (1, 2):
            plan = planted.plan_of("chat", seed=seed, requests=120)
            write_run(planted.served(arm, plan), root / arm / f"run{seed}")
    return root


def named(evaluation):
    return [(p.place.arm, p.place.workload, p.place.load) for p in evaluation.points]


def test_runs_are_grouped_by_system_workload_and_load(folder):
    """What the manifest calls the system is the arm; lengths that are samples of one are a workload; so are rates."""
    found = evaluation_of([folder / "vllm-v1" / "run1", folder / "vllm-v1" / "run2", folder / "orca" / "run1"])  # fmt: skip
    assert {arm for arm, _, _ in named(found)} == {"vllm-v1", "orca"}
    assert len({(workload, load) for _, workload, load in named(found)}) == 1
    assert [system.name for system in found.facts.systems] == ["vllm-v1", "orca"]


def test_a_folder_of_runs_is_an_arm(folder):
    """A folder's name is its arm's, and its runs are repeats."""
    found = evaluation_of([folder / "vllm-v1", folder / "orca"])
    assert sorted({arm for arm, _, _ in named(found)}) == ["orca", "vllm-v1"]
    assert len(found.points) == 4


def test_a_single_run(folder):
    """One run compares nothing: the first items are not evaluated, and one dataset is not diverse."""
    report = audit(evaluation_of([folder / "orca" / "run1"]))
    found = report.findings()
    assert found["implementation_fairness"].verdict == "not-evaluated"
    assert found["workload_diversity"].verdict == "fail"
    assert report.validity.verdict in ("pass", "warn")


def test_two_configurations_of_one_system_are_two_arms():
    """Where there is nothing else to compare, the settings that differ name the arms."""
    plan = planted.plan_of("chat", requests=120)
    runs = {("sarathi-serve", str(c)): planted.served("sarathi-serve", plan, chunk=c) for c in (256, 1024)}  # fmt: skip
    found = planted.Case(runs, record=Facts(title="x")).evaluation
    assert [s.name for s in found.facts.systems] == [
        "sarathi-serve chunk=256",
        "sarathi-serve chunk=1024",
    ]


def test_two_configurations_on_one_plan_are_trials_beside_another_system():
    """The configuration with most runs counts, the others were tried."""
    plan = planted.plan_of("chat", requests=120)
    runs = {("sarathi-serve", str(c)): planted.served("sarathi-serve", plan, chunk=c) for c in (256, 512, 1024)}  # fmt: skip
    runs["orca", "chat"] = planted.served("orca", plan)
    found = planted.Case(runs, record=Facts(title="x")).evaluation
    tuning = {s.name: s.tuning for s in found.facts.systems}
    assert tuning["sarathi-serve"].configurations == 3
    assert tuning["orca"].configurations == 1
    assert len(found.points) == 2


def test_loads_of_a_sweep_are_told_apart():
    """Rates that differ by more than chance are loads of their own."""
    runs = {
        ("orca", str(rate)): planted.served("orca", planted.plan_of("chat", arrivals=Poisson(rate=rate), requests=150))
        for rate in (2, 4)
    }  # fmt: skip
    found = planted.Case(runs, record=Facts(title="x")).evaluation
    assert len({load for _, _, load in named(found)}) == 2


def test_a_record_fills_what_runs_do_not_tell():
    """Null facts of an arm come from the record by its name; what the run says stays."""
    found = planted.clean().evaluation
    said = System(name="vllm-v1", codebase="another", ablation_of=None, bursty=True, evidence="me")
    both = filled(found, of_record(Facts(title="said", memory_claim=True, systems=(said,)), "said"))
    arm = next(s for s in both.facts.systems if s.name == "vllm-v1")
    assert arm.codebase == "inferometer's simulator"
    assert both.facts.memory_claim is True
    assert len(both.points) == len(found.points)


def test_an_imported_run_is_judged_as_far_as_it_goes():
    """Without stamps of tokens, plan and instrument: nothing fails for that, and what cannot be judged is said."""
    run = planted.clean().runs[planted.CHAT]
    t = run.timeline
    bare = planted.columns(
        run, chunk_offset=t.chunk_offset * 0, chunk_ns=t.chunk_ns[:0], chunk_tokens=t.chunk_tokens[:0],
        chunk_channel=t.chunk_channel[:0], output_tokens=t.output_tokens * 0,
    )  # fmt: skip
    bare = replace(planted.told(bare, world="imported", target={"tool": "x"}, spec={}), plan=None)
    report = audit(planted.Case({("x", "chat"): bare}, record=Facts(title="x")).evaluation)
    assert report.validity.verdict != "pass"
    assert {p.item for p in report.validity.parts if p.verdict == "fail"} == set()
    assert report.items.no_obscuring_normalization.verdict in ("warn", "not-evaluated")


def test_what_is_no_run_is_one_clear_line(tmp_path):
    """An empty folder and a missing one are the person's mistake."""
    with pytest.raises(UserError, match="no run there"):
        evaluation_of([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        evaluation_of([tmp_path / "nothing"])
