"""`import`: a run for each benchmark, what is missing said on screen and in JSON, and read on by the other verbs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inferometer import cli
from inferometer.errors import EXIT_OK, EXIT_USAGE
from inferometer.load.recovery import read_run

FIXTURES = Path(__file__).parents[1] / "importers/fixtures"


def typed(*args: object) -> Result:
    """What the command line says."""
    return CliRunner().invoke(cli.verbs, [*map(str, args)])


def test_one_benchmark_becomes_one_run_that_other_verbs_read(tmp_path: Path) -> None:
    """Import, then score: the tool, the file, and that nobody vouches for the stamps."""
    made = typed("import", FIXTURES / "aiperf", "-o", tmp_path / "run")
    assert made.exit_code == EXIT_OK
    assert "aiperf 0.13.0" in made.stdout
    assert max(map(len, made.stdout.splitlines())) <= 100
    assert read_run(tmp_path / "run").manifest.world == "imported"
    scored = typed("score", tmp_path / "run")
    assert scored.exit_code == EXIT_OK
    assert "as aiperf sent it" in scored.stdout
    assert "IMPORTED" in scored.stdout
    assert "VALID" not in scored.stdout


def test_several_benchmarks_become_runs_in_folders_by_their_labels(tmp_path: Path) -> None:
    """GuideLLM's file has one per number of streams."""
    told = json.loads(typed("import", FIXTURES / "guidellm", "-o", tmp_path, "--json").stdout)
    assert [run["label"] for run in told["runs"]] == ["01-concurrent@2", "02-concurrent@5"]
    for run in told["runs"]:
        assert Path(run["run"]).parent == tmp_path
        assert len(read_run(run["run"]).timeline) == run["requests"]["total"] == 8
        assert "tbt" in run["no_value"]
        assert run["stamps"].keys() == {"ends"}
        assert "practical_latency" in run["audit"]
        assert "channels" in run["missing"]
    assert told["tool"] == "guidellm"
    assert told["problems"] == {"rows": 0, "first": []}


def test_what_an_imported_run_is_like_can_be_described_and_drawn(tmp_path: Path) -> None:
    """Without a plan, `describe` looks at what arrived; `report` draws what is known, and no more."""
    run = tmp_path / "run"
    typed("import", FIXTURES / "vidur", "-o", run)
    assert json.loads(typed("describe", run, "--json").stdout)["rows"] == 25
    assert typed("report", run, "-o", tmp_path / "page.html").exit_code == EXIT_OK
    page = (tmp_path / "page.html").read_text()
    assert "imported from another tool" in page
    assert "token by token" not in page


def test_unreadable_records_are_shown_and_strict_refuses_them(tmp_path: Path) -> None:
    """The line of each; with --strict, one line and exit code 2."""
    lines = (FIXTURES / "veeksha/request_level_metrics.jsonl").read_text().splitlines()
    file = tmp_path / "request_level_metrics.jsonl"
    file.write_text("\n".join([*lines[:3], "{", *lines[3:]]))
    shown = typed("import", file, "-o", tmp_path / "a")
    assert shown.exit_code == EXIT_OK
    assert "request_level_metrics.jsonl:4: not JSON" in shown.stdout
    refused = CliRunner().invoke(
        cli.verbs, ["import", str(file), "-o", str(tmp_path / "b"), "--strict"]
    )
    assert refused.exit_code == EXIT_USAGE
    assert "(1 such records)" in refused.stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["--from", "locust"], "no tool 'locust'; one of vllm,"),
        (["--from", "vidur"], "no readable request; profile_export.jsonl:2: "),
    ],
)
def test_a_wrong_tool_ends_in_one_line(tmp_path: Path, args: list[str], what: str) -> None:
    """A name that is none, and a file that is another tool's."""
    got = typed("import", FIXTURES / "aiperf/profile_export.jsonl", "-o", tmp_path / "run", *args)
    assert got.exit_code == EXIT_USAGE
    assert what in got.stderr
    assert len(got.stderr.splitlines()) == 1
