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


def test_whatever_can_be_replayed_can_be_described(tmp_path: Path) -> None:
    """A folder of sessions, a session in a .json file, a spec, and a profile of one's own."""
    call = {"t": 0.0, "type": "n", "in": 50, "out": 5, "hash_ids": [1]}
    session = {"id": "a", "block_size": 64, "requests": [call, call | {"t": 9.0}]}
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "one.json").write_text(json.dumps(session))
    (tmp_path / "spec.yaml").write_text("arrivals: poisson:rate=2\nrequests: 30\n")
    (tmp_path / "spec.json").write_text('{"prompt_tokens": 7, "requests": 20}')
    expected = {
        "traces": ("trace", 2),
        "traces/one.json": ("trace", 2),
        "spec.yaml": ("plan", 30),
        "spec.json": ("plan", 20),
    }
    for name, (kind, rows) in expected.items():
        told = json.loads(typed(tmp_path / name, "--json").stdout)
        assert (told["kind"], told["rows"]) == (kind, rows), name


def test_a_trace_is_kept_as_a_profile(tmp_path: Path) -> None:
    """By a file or a name; what is no trace cannot be; and the profile is one."""
    kept = tmp_path / "mine.json"
    told = json.loads(typed(trace(tmp_path), "--save", kept, "--json").stdout)
    assert told["saved"] == str(kept)
    again = json.loads(typed(kept, "--json").stdout)
    assert (again["kind"], again["name"], again["rows"]) == ("profile", "mine", 40)
    assert abs(again["prompt_tokens"]["p50"] - 119.5) < 2
    refused = typed("bwb", "--save", tmp_path / "x.json")
    assert (refused.exit_code, refused.stderr.count("\n")) == (EXIT_USAGE, 1)


def test_malformed_rows_are_shown_and_may_be_refused(tmp_path: Path) -> None:
    """With their lines on the screen; with --strict they end it."""
    path = trace(tmp_path)
    path.write_text(path.read_text() + "never,1,2\n")
    result = typed(path)
    assert result.exit_code == EXIT_OK
    assert "1 rows could not be read" in result.stdout
    assert "trace.csv:42: TIMESTAMP is 'never'" in result.stdout
    strict = typed(path, "--strict")
    assert (strict.exit_code, strict.stderr.count("\n")) == (EXIT_USAGE, 1)
    assert "trace.csv:42" in strict.stderr


def test_charts_are_a_page_a_picture_or_a_folder(tmp_path: Path) -> None:
    """Each of the three, by the ending; another ending is refused."""
    source = trace(tmp_path)
    for name, begins in (("a.html", b"<!doctype html>"), ("a.svg", b"<svg"), ("a.png", b"\x89PNG")):
        assert typed(source, "--plot", tmp_path / name).exit_code == EXIT_OK
        assert (tmp_path / name).read_bytes().lower().startswith(begins.lower())
    assert typed(source, "--plot", tmp_path / "charts").exit_code == EXIT_OK
    assert {"lengths.svg", "rate.png", "lengths-table.csv"} <= {
        path.name for path in (tmp_path / "charts").iterdir()
    }
    refused = typed(source, "--plot", tmp_path / "a.gif")
    assert (refused.exit_code, refused.stderr.count("\n")) == (EXIT_USAGE, 1)


def test_what_is_not_there_is_one_line() -> None:
    """A name that is no profile and no file."""
    result = typed("no-such-profile")
    assert (result.exit_code, result.stderr.count("\n")) == (EXIT_USAGE, 1)
    assert "azure-conv-2023" in result.stderr
