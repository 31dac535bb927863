"""The page of a study: every place where systems meet, every cell, and what tuning tried."""

from __future__ import annotations

import pytest

from inferometer.report import html
from inferometer.report.studied import study_sections
from inferometer.search.study import read_asked, read_study, run_study

FILE = """
title: Two <b>systems</b>
systems:
  vllm: {target: "sim:vllm?model=llama-3-8b"}
  sarathi-serve: {target: "sim:sarathi-serve?model=llama-3-8b", tune: {chunk: [256, 512]}}
workloads:
  chat: {prompt_tokens: 400, output_tokens: 30, arrivals: "poisson:rate=1", requests: 80, app: chat}
loads: [2, 6]
repeats: 2
tuning: {budget: 2, objective: ttft.mean}
slos: {chat: ttft.p90 <= 1s}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study, run in simulation."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(FILE)
    run_study(read_asked(folder / "study.yaml"), folder / "out")
    return read_study(folder / "out")


def test_every_place_and_cell_is_there(study):
    """A section for the workload, a curve per figure over both loads, a row per cell, the trials of tuning."""
    found = {section.id: section for section in study_sections(study)}
    place = next(section for name, section in found.items() if name.startswith("place-"))
    curve = place.charts[0].tables["table"]
    assert sorted(set(curve["load"])) == [2, 6]
    assert set(curve["system"]) == {"vllm", "sarathi-serve"}
    assert all(
        lo <= x <= hi for lo, x, hi in zip(curve["lo"], curve["value"], curve["hi"], strict=True)
    )
    assert any(chart.id.startswith("tbt-sides") for chart in place.charts)
    assert len(found["cells"].grids[0].rows) == len(study.planned)
    assert found["tuning"].grids[0].rows[0][1] == "2 of 2"


def test_a_claim_is_a_light(study):
    """What the evaluator stored stands with the verdict, with its robustness."""
    claims = [
        {
            "text": "a <i>claim</i>",
            "verdict": "reversed",
            "reason": "why",
            "robustness": {"share": 0.25},
        }
    ]
    judged = type(study)(
        study.path, study.spec, study.fingerprint, study.planned, study.ended, {"claims": claims}
    )
    light = next(light for light in study_sections(judged)[0].lights if light.title == "Claim")
    assert light.state == "bad"
    assert "25%" in light.text
    assert "<i>" not in html("x", study_sections(judged))
