"""The page: one file that needs nothing else, in which nobody's text can run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from inferometer.metrics import score
from inferometer.report import html, run_sections, save_figures
from inferometer.report.charts import figure
from inferometer.report.page import as_script_data


class Elements(HTMLParser):
    """Counts of elements, the attributes that load something, and the texts of scripts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.scripts, self.loads, self.events, self._in = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._in = tag == "script"
        if self._in:
            self.scripts.append("")
        for name, value in attrs:
            if name in ("src", "href") and not (value or "").startswith(("#", "data:")):
                self.loads.append(value)
            if name.startswith("on"):
                self.events.append(name)

    def handle_data(self, data):
        if self._in:
            self.scripts[-1] += data

    def handle_endtag(self, _tag):
        self._in = False


@pytest.fixture(scope="module")
def page(run_of):
    run = run_of()
    card = score(run, "ttft.p90 <= 400ms and tbt.p99 <= 50ms")
    return html("A run", run_sections(run, card))


def test_the_page_stands_alone(page):
    """Nothing is loaded from anywhere, no element has a handler, and a policy forbids every connection."""
    found = Elements(page)
    assert (found.loads, found.events) == ([], [])
    assert "default-src 'none'" in page
    assert "http-equiv" in page


def test_the_sections_come_in_the_readers_order(page):
    """The verdict first, the manifest last."""
    assert re.findall(r'<section id="(\w+)"', page) == [
        "verdict", "felt", "time", "groups", "scheduler", "lanes", "instrument", "definitions", "manifest",
    ]  # fmt: skip


def test_every_chart_has_its_data_and_its_words(page):
    """The tables of every figure are in the page's data, every figure has a label that says what is seen."""
    data = json.loads(Elements(page).scripts[0])
    ids = re.findall(r'data-chart="([\w-]+)"', page)
    assert ids
    assert set(ids) == set(data["charts"])
    assert len(re.findall(r'role="img" aria-label="[^"]{10,}"', page)) == len(ids)
    for name, table in re.findall(r'data-csv="([\w-]+)" data-table="(\w+)"', page):
        assert data["charts"][name]["tables"][table]


def test_planted_scripts_stay_text(planted_run):
    """Script tags in every text of a run end no script element and begin none."""
    clean = Elements(html("x", run_sections(planted_run, score(planted_run))))
    found = Elements(
        html("<script>alert(0)</script>", run_sections(planted_run, score(planted_run)))
    )
    assert len(found.scripts) == len(clean.scripts) == 4
    assert (found.loads, found.events) == ([], [])
    assert "<script" not in found.scripts[0].lower()
    assert not any("alert('" in script for script in found.scripts[1:])


@pytest.mark.parametrize("text", ["</script>", "<!--", "&lt;", "\u2028", "]]>"])
def test_script_data_is_json_without_markup(text):
    """What comes out is the same JSON, with nothing that HTML would read."""
    safe = as_script_data({"a": text})
    assert json.loads(safe) == {"a": text}
    assert not set("<>&\u2028") & set(safe)


def test_figures_are_written_without_a_browser(run_of, tmp_path):
    """Each chart becomes the asked formats, and its tables CSV."""
    run = run_of()
    drawn = [chart for section in run_sections(run, score(run)) for chart in section.charts][:2]
    written = save_figures(drawn, tmp_path, ("svg", "png", "pdf"))
    assert {path.suffix for path in written} == {".svg", ".png", ".pdf", ".csv"}
    assert (tmp_path / "ttft-cdf.svg").read_text().startswith("<svg")
    assert (tmp_path / "ttft-cdf.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "ttft-cdf.pdf").read_bytes()[:4] == b"%PDF"
    assert (tmp_path / "ttft-cdf-curve.csv").read_text().startswith("value,share\n")


def test_a_figure_holds_its_own_data(run_of):
    """The specification of a figure names no table that is not inside of it."""
    run = run_of()
    for section in run_sections(run, score(run)):
        for chart in section.charts:
            spec = figure(chart)
            named = set(re.findall(r'"name": "(\w+)"', json.dumps(chart.spec)))
            assert named <= set(spec["datasets"])


def test_a_run_in_which_everything_failed(run_of):
    """No latency can be drawn; the page says so and has its verdict."""
    import numpy as np

    run = run_of(50, 4)
    rows = ~run.timeline.ok
    run = type(run)(run.timeline.take(np.flatnonzero(rows)), run.manifest)
    text = html("failed", run_sections(run, score(run)))
    assert "failed" in text
    assert 'id="verdict"' in text
