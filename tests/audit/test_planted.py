"""Every planted flaw is caught by the right item, no clean evaluation fails, and no evidence that goes missing helps."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit import planted

from inferometer.audit import Evaluation, Report, audit, of_record
from inferometer.audit.papers import record_names, shipped
from inferometer.timeline import absent


def verdicts(report: Report) -> dict[str, str]:
    found = report.findings() | {"validity": report.validity}
    return {name: finding.verdict for name, finding in found.items()}


@pytest.mark.parametrize("flaw", planted.FLAWS, ids=lambda flaw: flaw.name)
def test_a_planted_flaw_is_caught_by_the_right_item(flaw):
    """The item that is meant fails, and no other but those that the flaw touches, too."""
    failed = {name for name, verdict in verdicts(audit(flaw.make())).items() if verdict == "fail"}
    assert flaw.item in failed
    assert failed <= {flaw.item, *flaw.also}


@pytest.mark.parametrize("name", planted.CLEAN)
def test_a_clean_evaluation_does_not_fail(name):
    """Nothing fails where nothing was planted."""
    assert "fail" not in verdicts(audit(planted.evaluated(planted.CLEAN[name]()))).values()


def test_there_are_enough_of_them():
    """At least forty flaws, each item and validity among them, and twenty clean ones; no name twice."""
    assert len(planted.FLAWS) >= 40
    assert len(planted.CLEAN) >= 20
    assert len({flaw.name for flaw in planted.FLAWS}) == len(planted.FLAWS)
    assert len({flaw.item for flaw in planted.FLAWS}) == 9


# --- removing evidence ------------------------------------------------------------------------------------------------

RECORDS = [shipped(name).facts for name in record_names()]
RECORDS += [flaw.make().facts for flaw in planted.BY_RECORD]
RECORDS += [
    found.facts for make in planted.CLEAN.values() if isinstance(found := make(), Evaluation)
]
KEPT = {
    "title",
    "name",
    "metric",
    "kind",
    "ablation_of",
}  # what a thing is, not what is known of it


def forgotten(value, choose):
    """The record with some of what it says unsaid; arms, models, workloads and numbers stay in their places."""
    if isinstance(value, msgspec.Struct):
        plain = {f.name: f for f in msgspec.structs.fields(type(value))}
        changes = {}
        for name, field in plain.items():
            own = getattr(value, name)
            if name in KEPT or field.required:
                continue
            gone = choose()
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()  # fmt: skip
            changes[name] = default if gone else forgotten(own, choose)
        return msgspec.structs.replace(value, **changes)
    if isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
        return tuple(forgotten(each, choose) for each in value)
    return value


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(RECORDS), st.randoms(use_true_random=False), st.sampled_from([0.02, 0.1, 0.4])
)
def test_forgetting_a_fact_never_makes_an_item_pass(facts, random, share):
    """Whatever of a record is not known any more: an item that passes then passed before."""
    less = forgotten(facts, lambda: random.random() < share)
    before = verdicts(audit(of_record(facts, "record")))
    after = verdicts(audit(of_record(less, "record")))
    assert [
        name for name, verdict in after.items() if verdict == "pass" and before[name] != "pass"
    ] == []


def without_column(run, name):
    column = getattr(run.timeline, name)
    nothing = np.full(
        len(column), None if column.dtype == object else absent(column.dtype), dtype=column.dtype
    )
    return replace(run, timeline=run.timeline.with_columns(**{name: nothing}))


REMOVALS = {
    "plan": lambda run: replace(run, plan=None),
    "instrument": lambda run: planted.told(run, instrument={}),
    "spec": lambda run: planted.told(run, spec={}),
    "target": lambda run: planted.told(run, target={}),
    "model": lambda run: planted.told(run, model={}),
    "versions": lambda run: planted.told(run, versions={}),
    "workload": lambda run: planted.told(run, workload={}),
    "cached_tokens": lambda run: without_column(run, "cached_tokens"),
    "scheduled_ns": lambda run: without_column(run, "scheduled_ns"),
    "finish_reason": lambda run: without_column(run, "finish_reason"),
}


@settings(deadline=None, max_examples=10)
@given(
    st.sampled_from([flaw.plant for flaw in planted.BY_RUNS]),
    st.lists(st.sampled_from(list(REMOVALS)), min_size=1, max_size=3, unique=True),
    st.booleans(),
)
def test_taking_evidence_from_runs_never_makes_an_item_pass(plant, removed, everywhere):
    """Whatever is missing in one run, or in all: what passes then passed before."""
    case = plant()
    before = verdicts(audit(case.evaluation))
    runs = dict(case.runs)
    for key in runs if everywhere else [planted.CHAT]:
        for name in removed:
            if key in runs:
                runs[key] = REMOVALS[name](runs[key])
    after = verdicts(audit(replace(case, runs=runs).evaluation))
    assert [
        name for name, verdict in after.items() if verdict == "pass" and before[name] != "pass"
    ] == []
