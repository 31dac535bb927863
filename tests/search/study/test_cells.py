"""The cells of a study: laws of their order, their plans and their splits."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import UserError
from inferometer.search.study import plan_study
from inferometer.search.study.asked import Load, StudySpec
from inferometer.search.study.cells import Part, cells, estimate, plan_of, split_of, tried
from inferometer.spec import parse
from inferometer.workload import Replay, WorkloadSpec, make_plan


@settings(deadline=None, max_examples=15)
@given(
    systems=st.integers(1, 3),
    models=st.integers(0, 2),
    loads=st.lists(st.sampled_from([1.0, 2.0, 4.0]), min_size=1, max_size=3, unique=True),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_laws_of_the_order(systems, models, loads, repeats, seed):
    """Every combination once; within a block every arm once, all facing the same plans; the same seed, the same order."""
    spec = _spec(systems, models, loads, repeats, seed)
    planned = cells(spec)

    assert planned == cells(spec)
    assert len(planned) == 2 * systems * max(models, 1) * len(loads) * repeats
    assert len({cell.id for cell in planned}) == len(planned)
    assert [cell.order for cell in planned] == list(range(len(planned)))
    for _, block in groupby(planned, key=lambda cell: cell.block):
        turns = [list(turn) for _, turn in groupby(block, key=lambda cell: cell.turn)]
        assert {turn[0].system for turn in turns} == set(spec.systems)
        assert len(turns) == systems
        assert len({tuple(cell.plan for cell in turn) for turn in turns}) == 1
    plans = defaultdict(set)
    for cell in planned:
        plans[cell.workload, cell.load, cell.repeat].add(cell.plan)
    assert all(len(same) == 1 for same in plans.values())
    assert len(set.union(*plans.values())) == len(plans)


def test_the_order_of_arms_changes_from_block_to_block():
    """Or a drift would always meet the same arm."""
    planned = cells(_spec(3, 0, [1.0], 8, 0))
    orders = {
        tuple(cell.system for cell in block)
        for _, block in groupby(planned, key=lambda cell: cell.block)
    }
    assert len(orders) > 2


def test_tuning_comes_first_on_other_requests(study_file):
    """Each trial of each tuned system; nothing of the headline is among its plans."""
    planned = plan_study(study_file())
    tuning = [cell for cell in planned if cell.split == "tuning"]
    headline = [cell for cell in planned if cell.split == "headline"]

    assert max(cell.order for cell in tuning) < min(cell.order for cell in headline)
    assert len(tuning) == 2 * 2 * 2  # systems, workloads, budget
    assert {cell.plan for cell in tuning}.isdisjoint(cell.plan for cell in headline)
    assert {cell.load.label for cell in tuning} == {"4rps", "8rps"}
    assert {cell.requests for cell in tuning} == {20}
    assert all(cell.config is None for cell in headline)


def test_a_system_that_is_not_tuned_has_its_configuration_from_the_start(study_file):
    """So has an ablation of it."""
    spec = study_file(put={"    tune: {chunk: [256, 512, 1024]}\n": ""}).spec
    known = {cell.system: cell.config for cell in cells(spec) if cell.split == "headline"}
    assert known == {"a": None, "b": {}, "b-small": {"chunk": 64}}


def test_the_budget_draws_configurations_at_random_but_once(study_file):
    """In the order of the space, each at most once; all of them where they are few enough."""
    spec = study_file().spec
    every = [{"x": k} for k in range(20)]
    some = tried(every, spec, ("a",))

    assert len(some) == 2
    assert some == [config for config in every if config in some]
    assert tried(every, spec, ("a",)) == some
    assert tried(every[:2], spec, ("a",)) == every[:2]


def test_a_trace_is_split_in_time(tmp_path):
    """Tuning sees its beginning, the headline the rest; together all rows, none twice."""
    path = tmp_path / "trace.csv"
    rows = "\n".join(f"{k},{100 + k},5" for k in range(40))
    path.write_text(f"arrival_s,prompt_tokens,output_tokens\n{rows}\n")
    whole = WorkloadSpec(trace=Replay(file=str(path)))

    parts = [make_plan(split_of(whole, split, 0.25)) for split in ("tuning", "headline")]

    assert [plan.prompt_tokens.tolist() for plan in parts] == [
        list(range(100, 110)),
        list(range(110, 140)),
    ]


def test_a_trace_without_times_cannot_be_split(tmp_path):
    """Nothing tells what came first."""
    path = tmp_path / "trace.json"
    said = [{"from": "human", "value": "one two"}, {"from": "gpt", "value": "three"}]
    path.write_bytes(msgspec.json.encode([{"id": "a", "conversations": said}] * 3))

    with pytest.raises(UserError, match="cannot be split"):
        split_of(WorkloadSpec(trace=str(path)), "tuning", 0.5)


@pytest.mark.parametrize(
    ("workload", "kind"),
    [
        ({"arrivals": "gamma:rate=1,cv=2", "requests": 200}, "gamma"),
        ({"profile": "sharegpt-8k", "requests": 200}, "profile"),
        ({"clients": [{"app": "a"}, {"app": "b"}], "requests": 200}, "mixture"),
    ],
)
def test_a_rate_sets_the_load_of_any_workload(workload, kind):
    """Poisson, shaped, of a profile, of a mixture."""
    spec = parse(
        {"title": kind, "systems": {"s": {"target": "h"}}, "workloads": {"w": workload}}, StudySpec
    )
    plan = plan_of(spec, Part("headline", "w", Load(kind="rate", value=5.0), 0))
    assert 200 / (plan.intended_ns[-1] / 1e9) == pytest.approx(5.0, rel=0.4)


def test_arrivals_without_a_rate_are_told():
    """A ramp has two rates; none is the load."""
    workload = {"arrivals": "ramp:start=1,end=2,over_s=9", "requests": 5}
    spec = parse(
        {"title": "t", "systems": {"s": {"target": "h"}}, "workloads": {"w": workload}}, StudySpec
    )
    with pytest.raises(UserError, match=r"\$\.workloads\.w\.arrivals"):
        cells(msgspec.structs.replace(spec, loads=(1.0,)))


def test_the_estimate_tells_what_can_be_known():
    """Seconds of open loops, the number of closed ones and of searches, starts of servers."""
    plain = {
        "title": "t",
        "systems": {"url": {"target": "http://h"}, "cmd": {"command": ["x"]}, "sim": {"target": "sim:vllm?model=llama-3-8b"}},
        "workloads": {"w": {"requests": 10, "slo": "ttft.p50 <= 1s"}},
        "loads": [1, {"concurrency": 2}, "capacity"],
    }  # fmt: skip
    spec = parse(plain, StudySpec)
    planned = cells(spec)
    span_s = next(cell.span_s for cell in planned if cell.load.kind == "rate")

    took = estimate(spec, planned)

    assert took[:5] == (pytest.approx(2 * span_s), 2, 3, 1, 3)


def _spec(systems: int, models: int, loads: list[float], repeats: int, seed: int) -> StudySpec:
    plain = {
        "title": "t",
        "systems": {f"s{k}": {"target": "http://h:1"} for k in range(systems)},
        "models": {f"m{k}": {} for k in range(models)},
        "workloads": {name: {"requests": 3} for name in ("chat", "code")},
        "loads": loads,
        "repeats": repeats,
        "seed": seed,
    }
    spec: StudySpec = parse(plain, StudySpec)
    return spec
