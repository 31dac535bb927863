"""The pictures of a workload show what is known of it, and only that."""

import json

import numpy as np

from inferometer.report import save_figure, workload_charts
from inferometer.report.charts import together
from inferometer.workload import WorkloadSpec, describe, load_profile, make_plan
from inferometer.workload.sessions import Sessions


def _told(**more):
    spec = {
        "arrivals": "gamma:rate=5,cv=3",
        "requests": 2000,
        "prompt_tokens": "lognormal:median=300,sigma=1",
    }
    return describe(make_plan(WorkloadSpec(**spec | more)))


def test_lengths_and_ratio_are_distribution_functions():
    """Shares rise with values for each curve, from the described quantiles; nothing stands at or below 0."""
    told = _told(sessions=Sessions(turns=3))
    drawn = {chart.id: chart for chart in workload_charts(told)}
    for name, curves in (("lengths", 2), ("prompt-output", 2)):
        table = {k: np.array(v) for k, v in drawn[name].tables["table"].items()}
        assert len(set(table["what"])) == curves
        assert table["value"].min() > 0
        for what in set(table["what"]):
            mine = table["what"] == what
            assert np.all(np.diff(table["value"][mine]) >= 0)
            assert np.all(np.diff(table["share"][mine]) > 0)


def test_the_rate_over_time_is_the_arrivals():
    """Rates times stretches are all requests."""
    told = _told()
    table = next(chart for chart in workload_charts(told) if chart.id == "rate").tables["table"]
    every = told["curves"]["arrivals"]["every_s"]
    assert round(sum(table["rate"]) * every) == 2000


def test_what_is_not_known_is_not_drawn():
    """Lengths alone: no picture of times."""
    assert [chart.id for chart in workload_charts(describe(load_profile("bwb")))] == [
        "lengths",
        "prompt-output",
    ]


def test_one_picture_holds_all_charts_each_with_its_own_tables(tmp_path):
    """Tables of the same name do not meet; the file is a picture."""
    charts = workload_charts(_told())
    spec = together(charts)
    assert len(spec["vconcat"]) == 4
    named = {part["data"]["name"] for chart in spec["vconcat"] for part in chart["layer"]}
    assert named == set(spec["datasets"])
    json.dumps(spec, allow_nan=False)
    svg = save_figure(charts, tmp_path / "deep" / "all.svg").read_text()
    for chart in charts:
        assert chart.title in svg
