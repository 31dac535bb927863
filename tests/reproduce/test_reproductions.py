"""The seed's figures from our own runs: each statement follows from data, and the data are there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from inferometer import cli
from inferometer.errors import UserError
from inferometer.metrics import latency
from inferometer.reproduce import dilution, fig1, fig2
from inferometer.reproduce.reproduction import NAMES, Ask, make, names

QUICK = Ask(quick=True, tell=lambda _: None)


@pytest.fixture(scope="module")
def second():
    return fig2.make(QUICK)


def test_the_worked_example():
    """10 and 1000 tokens after 10 s: 1.02 and 0.03 s/token (seed, section 3.4), computed from a timeline."""
    found = dilution.make(QUICK)
    assert [one.agrees for one in found.statements] == [True, True, True]
    normalized = latency.normalized_latency(dilution.timeline())
    np.testing.assert_allclose(normalized, [1.02, 0.03])


def test_a_request_is_its_three_parts():
    """The spans of figure 1 touch, start at 0 and end with the last token; every token has its mark."""
    found = fig1.make(QUICK)
    assert all(one.agrees for one in found.statements)
    spans, marks = (found.charts[0].tables[name] for name in ("spans", "marks"))
    assert spans["start"][0] == 0
    assert spans["start"][1:] == spans["end"][:2]
    assert spans["end"][2] == pytest.approx(marks["t"][-1])
    assert spans["end"][1] == pytest.approx(marks["t"][0])


def test_the_distributions_cross(second):
    """The better system at p90 is not the better one at p99, as the paper says of its figure 2c."""
    crossing = next(one for one in second.statements if "p99" in one.paper)
    assert crossing.agrees
    assert "crossing at p9" in crossing.ours


def test_what_differs_says_why(second):
    """A statement that does not agree carries its reason."""
    assert all(one.why for one in second.statements if one.agrees is not True)


def test_figure_2_has_its_load_on_the_axis(second):
    """The claim on delays is drawn over loads, with intervals, beside normalized latency at the same loads."""
    delays = second.data["delays"]
    assert sorted(set(delays["load"])) == sorted(fig2.LOADS_PER_S)
    assert all(
        lo <= share <= hi
        for lo, share, hi in zip(delays["lo"], delays["share"], delays["hi"], strict=True)
        if lo is not None
    )
    assert {"fig2a", "fig2b", "fig2c", "fig2d", "fig2e"} == {chart.id for chart in second.charts}


def test_another_seed_is_another_sample(second):
    """Nothing is fixed: other arrivals give other numbers."""
    other = fig2.make(QUICK._replace(seed=7))
    assert other.data["delays"] != second.data["delays"]


def test_table_1_needs_the_traces():
    """Without the folder the verb says what to name; `all` leaves it out."""
    with pytest.raises(UserError, match="--traces"):
        make("table1", QUICK)
    assert "table1" not in names("all", QUICK)


@pytest.mark.traces
def test_table_1_agrees_where_it_can(traces):
    """All eight numbers of Mooncake are equal."""
    found = make("table1", QUICK._replace(traces=traces))
    assert found.statements[0].agrees
    assert "8 of 8" in found.statements[0].ours


def test_the_verb(tmp_path):
    """A page, figures and JSON, for one name; an unknown name is one line."""
    runner = CliRunner()
    out = tmp_path / "page.html"
    words = ["reproduce", "dilution", "--json", "-o", str(out), "--figures", str(tmp_path / "f")]
    result = runner.invoke(cli.verbs, words)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["statements"][0]["agrees"] is True
    assert "1.02" in out.read_text()
    assert (tmp_path / "f" / "dilution.svg").exists()
    wrong = runner.invoke(cli.verbs, ["reproduce", "fig9"])
    assert wrong.exit_code == 2
    assert "take of " + ", ".join(NAMES) in wrong.stderr


def test_the_terminal_shows_units(tmp_path):
    """Units in brackets are text, not markup."""
    result = CliRunner().invoke(cli.verbs, ["reproduce", "dilution"])
    assert "scheduling delay [s]" in result.stdout
