"""What was planned stands beside what was achieved: on the card, as a table, and in JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner, Result

from inferometer import cli
from inferometer.run import Run, write_run
from inferometer.workload import fidelity


def typed(*args: object) -> Result:
    """What `score` says."""
    return CliRunner().invoke(cli.verbs, ["score", *map(str, args)])


def kept(run: Run, folder: Path, *, off: bool = False) -> Path:
    """The run with its fidelity, written; `off`: its outputs are half of what was planned."""
    assert run.plan is not None
    plan = run.plan
    if off:
        plan = replace(plan, output_tokens=plan.output_tokens * 2)
    run.manifest.workload["fidelity"] = fidelity(plan, run.timeline).to_dict()
    return write_run(run, folder / "run")


def test_the_whole_table_can_be_read(run: Run, tmp_path: Path) -> None:
    """Every line with what was planned, what was achieved and a verdict, in 100 columns."""
    shown = typed(kept(run, tmp_path), "--fidelity").stdout
    for name in ("requests sent", "prompt p50", "output KS", "cached prompt share"):
        assert name in shown
    assert "OFF" not in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_what_is_outside_of_its_tolerance_says_so_and_how(run: Run, tmp_path: Path) -> None:
    """On the card by name and numbers, in the table as OFF, in JSON as false."""
    path = kept(run, tmp_path, off=True)
    assert "output p50 10.0 tokens, planned 20.0" in " ".join(typed(path).stdout.split())
    assert "OFF" in typed(path, "--fidelity").stdout
    told = json.loads(typed(path, "--json").stdout)["fidelity"]
    assert told["ok"] is False
    assert next(one for one in told["lines"] if one["name"] == "output p50")["ok"] is False


def test_a_run_without_a_plan_says_that(run: Run, tmp_path: Path) -> None:
    """Null in JSON, a sentence on the screen."""
    run.manifest.workload.pop("fidelity", None)
    path = write_run(run, tmp_path / "run")
    assert "no plan to be held against" in typed(path, "--fidelity").stdout
    assert json.loads(typed(path, "--json").stdout)["fidelity"] is None
