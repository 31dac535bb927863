"""`describe` on a trace, a profile and a run; the numbers are tested where they are computed."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from inferometer import cli
from inferometer.errors import EXIT_OK, EXIT_USAGE
from inferometer.run import Run, write_run


def typed(*args: object) -> Result:
    """What `describe` says."""
    return CliRunner().invoke(cli.verbs, ["describe", *map(str, args)])


def trace(folder: Path) -> Path:
    """Forty requests, one a second, in Azure's format."""
    rows = [f"2024-05-10 00:00:{s:02d}.000000+00:00,{100 + s},{10 + s}" for s in range(40)]
    file = folder / "trace.csv"
    file.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    return file


def test_the_json_of_a_trace_has_the_shape_that_stays(tmp_path: Path) -> None:
    """DESIGN 4.10."""
    told = json.loads(typed(trace(tmp_path), "--json").stdout)
    assert told["rows"] == 40
    for name in ("prompt_tokens", "output_tokens", "pd_ratio"):
        assert {"mean", "p25", "p50", "p75", "p90", "p99", "max", "iqr", "ci"} <= set(told[name])
    assert told["prompt_tokens"]["p50"] == 119.5
    assert {"rate_per_s", "cv", "idc"} <= set(told["arrivals"])
    assert set(told["arrivals"]["idc"]) == {"1", "10", "60", "300"}


def test_a_trace_has_a_screen(tmp_path: Path) -> None:
    """Lengths and arrivals, in 100 columns."""
    result = typed(trace(tmp_path))
    assert result.exit_code == EXIT_OK
    assert "40 requests" in result.stdout
    assert "prompt tokens" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_a_profile_is_called_by_name() -> None:
    """And the names can be listed."""
    names = [line.split()[0] for line in typed("--profiles").stdout.splitlines()]
    assert "azure-conv-2023" in names
    result = typed("azure-conv-2023")
    assert result.exit_code == EXIT_OK
    assert "Splitwise" in result.stdout


def test_a_run_is_described_by_its_plan(run: Run, tmp_path: Path) -> None:
    """What was asked for, not what happened."""
    write_run(run, tmp_path / "run")
    told = json.loads(typed(tmp_path / "run", "--json").stdout)
    assert (told["kind"], told["rows"], told["output_tokens"]["max"]) == ("plan", 120, 10)


def test_what_is_not_there_is_one_line() -> None:
    """A name that is no profile and no file."""
    result = typed("no-such-profile")
    assert (result.exit_code, result.stderr.count("\n")) == (EXIT_USAGE, 1)
    assert "azure-conv-2023" in result.stderr
