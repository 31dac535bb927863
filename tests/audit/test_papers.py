"""Papers as data: records hold facts, rules derive the table; a fact that changes changes the cell."""

from __future__ import annotations

import msgspec
import pytest
import yaml

from inferometer.audit import ITEMS, Facts, audit, of_record
from inferometer.audit.facts import (
    Bound,
    Isolation,
    Lengths,
    Model,
    Number,
    System,
    Tuning,
    Workload,
)
from inferometer.audit.papers import read_record, record_names, shipped, ticks
from inferometer.audit.template import template
from inferometer.errors import UserError
from inferometer.reproduce.reproduction import Ask
from inferometer.reproduce.table2 import cells, make

RECORDS = (System, Tuning, Model, Workload, Lengths, Number, Bound, Isolation)


@pytest.fixture(scope="module")
def table():
    return cells()


def test_the_paper_s_table():
    """The ticks add up: 53 of 96; by item and by system as in the paper."""
    found = {name: ticks(name) for name in record_names()}
    assert len(found) == 12
    assert sum(sum(row.values()) for row in found.values()) == 53
    assert [sum(row[item] for row in found.values()) for item in ITEMS] == [
        10,
        9,
        9,
        3,
        4,
        10,
        5,
        3,
    ]
    assert [sum(row.values()) for row in found.values()] == [5, 3, 6, 4, 3, 4, 5, 3, 5, 2, 6, 7]


def test_the_rules_derive_the_table(table):
    """Every cell that is not attested follows from facts, and is the paper's; what is attested is counted."""
    assert len(table) == 96
    assert [(c.system, c.item) for c in table if c.agrees is False] == []
    assert {(c.system, c.item) for c in table if c.ours == "attested"} == {
        ("dLoRA", "parameter_tuning"),
        ("S-LoRA", "parameter_tuning"),
        ("SpotServe", "parameter_tuning"),
        ("MuxServe", "practical_latency"),
    }


def test_every_cell_has_its_evidence(table):
    """A derived cell points to a fact with its place in the seed; an attested one to who said so."""
    for cell in table:
        assert cell.finding.evidence or cell.finding.parts, (cell.system, cell.item)
    derived = [c for c in table if c.ours != "attested"]
    assert all(any(": $." in e.where for e in c.finding.evidence) for c in derived)


@pytest.mark.parametrize("name", record_names())
def test_each_fact_says_where_it_stands(name):
    """Systems, models, workloads, numbers, bounds and isolations cite the seed; nothing says pass or fail."""
    facts = shipped(name).facts
    parts = (*facts.systems, *facts.models, *facts.workloads, *facts.numbers, *facts.bounds, *facts.isolations)  # fmt: skip
    assert all(part.evidence for part in parts)
    text = msgspec.json.encode(facts).decode()
    assert not any(f'"{word}"' in text for word in ("pass", "fail", "warn", "verdict", "tick"))


def changed(name, item, **facts):
    record = msgspec.structs.replace(shipped(name).facts, **facts)
    return audit(of_record(record, name)).findings()[item].verdict


def test_other_facts_lead_to_other_cells():
    """What the rules say follows the record: vLLM with a GQA model, DistServe with a microbenchmark, Orca with a CDF."""
    vllm, orca, distserve = (shipped(name).facts for name in ("vllm", "orca", "distserve"))
    more = (*vllm.models, msgspec.structs.replace(vllm.models[0], name="new", attention="GQA"))
    assert changed("vllm", "model_selection", models=more) != "fail"
    cdf = (msgspec.structs.replace(orca.numbers[0], statistics=("cdf",)),)
    assert changed("orca", "performance_distribution", numbers=cdf) == "pass"
    isolated = shipped("orca").facts.isolations
    assert changed("distserve", "implementation_fairness", isolations=isolated) != "fail"
    raw = (*distserve.numbers, Number(metric="tbt", statistics=("cdf",)))
    assert changed("distserve", "no_obscuring_normalization", numbers=raw) != "fail"


def test_table_2_as_json():
    """The shape of DESIGN 4.10, and the counts."""
    plain = make(Ask(tell=lambda _: None)).to_dict()
    cell = plain["cells"]["vLLM"]["model_selection"]
    assert cell["paper"] is False
    assert cell["ours"] == "fail"
    assert cell["evidence"]
    assert plain["counts"] == {"cells": 96, "derived": 92, "agree": 92, "differ": 0, "attested": 4}


def test_the_questionnaire_is_a_record():
    """As it ships it can be read, mentions every item, and has nothing to object to."""
    text = template()
    facts = msgspec.convert(yaml.safe_load(text), Facts, strict=False)
    assert all(item in text for item in ITEMS)
    assert {f.verdict for f in audit(of_record(facts, "template")).findings().values()} <= {"pass", "warn"}  # fmt: skip


FIELDS = {name for type_ in (Facts, *RECORDS) for name in type_.__struct_fields__}
LATER = {"arrival_cv", "requests", "swept", "ablation_of", "params_b", "attention", "experts", "kv_bytes_per_token", "system", "min", "max"}  # fmt: skip


@pytest.mark.parametrize("field", sorted(FIELDS - LATER))
def test_every_field_is_in_the_questionnaire(field):
    """A person finds each field of the schema, at least in a comment; but for those that runs know better."""
    assert f"{field}:" in template()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title: x\nsystems: [{nam: y}]", "unknown field `nam`"),
        ("title: x\nattested: {cost: {answer: true, says: a, by: b}}", "no item is called 'cost'"),
        ("title: x\nnumbers: [{metric: ttft, per: input token}]", "normalized_latency"),
        ("title: x\nsystems: [{name: a}, {name: a}]", "two systems have one name"),
        ("[]", "Expected `object`"),
    ],
)
def test_a_mistake_in_a_record_is_one_clear_line(tmp_path, text, told):
    """What is wrong, and where in the file."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=told) as error:
        read_record(path)
    assert "mine.yaml" in str(error.value)


def test_a_known_model_need_not_be_described(tmp_path):
    """Attention, size and year come from the table of models; what is told stays."""
    path = tmp_path / "mine.yaml"
    path.write_text("title: x\nmodels: [{name: Llama-3-70B, year: 2030}]")
    (model,) = read_record(path).facts.models
    assert (model.attention, model.year) == ("GQA", 2030)
    assert model.params_b == pytest.approx(70.6, abs=0.5)
