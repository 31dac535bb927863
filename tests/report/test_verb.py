"""`inferometer report`: from a run directory to files."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from inferometer import cli
from inferometer.run import write_run


@pytest.fixture(scope="module")
def folder(run_of, tmp_path_factory):
    """A run directory."""
    return write_run(run_of(60, 10), tmp_path_factory.mktemp("runs") / "one")


def report(*words):
    return CliRunner().invoke(cli.verbs, ["report", *map(str, words)])


def test_a_page_lies_beside_the_run(folder, tmp_path):
    """Without -o the page goes into the run directory, and the path is the result."""
    result = report(folder, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"report": str(folder / "report.html")}
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_figures_and_trace(folder, tmp_path):
    """--figures and --perfetto write what they say, and no page unless asked."""
    result = report(
        folder,
        "--figures",
        tmp_path / "f",
        "--format",
        "svg",
        "--perfetto",
        tmp_path / "t.json",
        "--json",
    )
    written = json.loads(result.stdout)
    assert set(written) == {"figures", "perfetto"}
    assert all(path.endswith((".svg", ".csv")) for path in written["figures"])
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--format", "gif", "--figures", "x"], "no such format: 'gif'"),
        (["--slo", "ttft.p99 < banana"], "--slo"),
        (["-o", "/proc/none/report.html"], "cannot write there"),
    ],
)
def test_what_is_wrong_is_one_line(folder, words, says):
    """Exit code 2, one line, what and where."""
    result = report(folder, *words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") <= 3


def test_the_audit_has_eight_lights(folder, tmp_path):
    """Each item stands on the page with its verdict; one run of sixty requests does not pass for a distribution."""
    from inferometer.audit import ITEMS
    from inferometer.report.judged import audit_lights

    lights = audit_lights([folder])
    assert len(lights) == len(ITEMS) == 8
    assert next(one for one in lights if "distribution" in one.title).state == "bad"
    report(folder, "-o", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<b>Audit: ") == 8
