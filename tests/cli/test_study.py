"""`inferometer study`: the dry run, what is shown while and after, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from inferometer import cli
from inferometer.cli import study as verb
from inferometer.search.study import plan_study, read_asked, read_study, run_study, store_claims

GOLDEN = Path(__file__).parent / "study-dry-run.txt"
SMALL = """\
title: two schedulers
question: Which is faster?
systems:
  a: {target: "sim:vllm?model=llama-3-8b", tune: {max-batch: [8, 16]}}
  b: {target: "sim:sarathi-serve?model=llama-3-8b"}
workloads:
  chat: {prompt_tokens: 200, output_tokens: 8, requests: 40, slo: ttft.p90 <= 1s}
loads: [2]
tuning: {requests: 20}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def invoke(*words: object):
    return CliRunner().invoke(cli.verbs, ["study", *map(str, words)])


def test_the_template_is_a_study_and_its_dry_run_is_as_recorded(tmp_path):
    """Plan, duration, fingerprint, order: a golden file, in 100 columns."""
    path = tmp_path / "t.yaml"
    path.write_text(invoke("--template").stdout)
    read_asked(path)

    done = invoke(path, "--dry-run")

    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert done.stdout == GOLDEN.read_text()
    assert not (tmp_path / "studies").exists()


def test_the_dry_run_as_json_has_every_cell(file):
    """In order, with the fingerprints of the plans."""
    told = json.loads(invoke(file, "--dry-run", "--json").stdout)
    planned = plan_study(read_asked(file))
    assert [cell["id"] for cell in told["cells"]] == [cell.id for cell in planned]
    assert [cell["plan"] for cell in told["cells"]] == [cell.plan for cell in planned]
    assert told["estimate"]["simulated"] == 4


def test_a_study_is_run_shown_and_gone_on_with(file, tmp_path):
    """A line per cell on stderr, the result on stdout; the second call plays nothing."""
    out = tmp_path / "out"
    first = invoke(file, "-o", out)
    assert first.exit_code == 0, first.output
    assert first.stderr.count("\n") == 4
    assert "4/4 chat+2rps+r0+" in first.stderr
    assert "max-batch=8*" in first.stdout or "max-batch=16*" in first.stdout
    assert max(map(len, first.stdout.splitlines()[:-1])) <= 100

    second = invoke(file, "-o", out, "--json")

    assert second.exit_code == 0
    assert second.stderr == ""
    told = json.loads(second.stdout)
    assert told["complete"] is True
    assert [row["system"] for row in told["summary"]] == ["a", "b"]


def test_exit_codes_say_the_worst(file, tmp_path):
    """No run before invalid before a claim that is not supported."""
    study = run_study(read_asked(file), tmp_path / "out")
    assert verb.exit_code(study) == 0
    store_claims(study.path, [{"text": "t", "verdict": "not shown", "reason": "r"}])
    assert verb.exit_code(read_study(study.path)) == 1
    journal = study.path / "cells.jsonl"
    text = journal.read_text()
    journal.write_text(text.replace('"valid":true', '"valid":false', 1))
    assert verb.exit_code(read_study(study.path)) == 3
    journal.write_text(text.replace('"status":"ok"', '"status":"failed"', 1))
    assert verb.exit_code(read_study(study.path)) == 4


def test_a_mistake_ends_in_one_line(file):
    """With the file and the line of it."""
    file.write_text(SMALL.replace("loads: [2]", "loads: [two]"))
    done = invoke(file, "--dry-run")
    assert done.exit_code == 2
    assert "small.yaml:8: $.loads: 'two' is no load" in done.stderr
    assert done.stderr.count("\n") == 1
    assert invoke().exit_code == 2


def test_cells_that_failed_are_shown(file, tmp_path):
    """With the reason."""
    file.write_text(
        SMALL.replace(
            'target: "sim:sarathi-serve?model=llama-3-8b"', "command: echo no GPU; exit 7"
        )
    )
    done = invoke(file, "-o", tmp_path / "out")
    assert done.exit_code == 4
    assert "FAILED" in done.stdout
    assert "no GPU" in done.stdout
