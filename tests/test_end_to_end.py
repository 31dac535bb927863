"""The main job on real sockets: the command line measures an emulated server, and the server's own log is the judge."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner, Result

import inferometer
from inferometer import cli
from inferometer.clock import MILLISECOND
from inferometer.emulator import Schedule, WriteLog, read_writes, serve_child
from inferometer.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
)
from inferometer.run import Run
from inferometer.timeline import ABSENT

REQUESTS, TOKENS = 12, 8
# Slow enough that even a busy host's lags are small beside it: these runs must come out as valid.
SCHEDULE = Schedule(models=("tiny",), ttft_s=0.2, gap_s=0.03, gap_sigma=0.2, seed=1)


class Measured(NamedTuple):
    """What one `measure --json` left behind."""

    score: dict[str, Any]
    run: Run
    log: WriteLog
    folder: Path


def typed(*args: object) -> Result:
    """What the command line does."""
    return CliRunner().invoke(cli.verbs, list(map(str, args)))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """One run of 12 requests, 4 at a time."""
    folder = tmp_path_factory.mktemp("measured")
    with serve_child(SCHEDULE, log=folder / "log.parquet") as url:
        load = ("--concurrency", 4, "--requests", REQUESTS, "--output-tokens", TOKENS)
        result = typed("measure", url, *load, "--seed", 3, "--json", "-o", folder / "run")
    assert result.exit_code == EXIT_OK, result.output
    assert result.stderr == ""
    run = inferometer.read_run(folder / "run")
    return Measured(
        json.loads(result.stdout), run, read_writes(folder / "log.parquet"), folder / "run"
    )


def test_the_json_has_the_shape_that_stays(measured: Measured) -> None:
    """DESIGN 4.10, key by key."""
    score = measured.score
    assert (score["valid"], score["invalid_reasons"]) == (True, [])
    assert score["requests"]["total"] == score["requests"]["ok"] == REQUESTS
    assert score["requests"]["failed"] == 0
    assert score["requests"]["by_status"] == {"ok": REQUESTS}
    for name in ("ttft", "tbt", "tpot", "ttlt", "normalized_latency", "fluidity_index"):
        metric = score["metrics"][name]
        assert {"unit", "definition", "n", "mean", "p50", "p90", "p99", "max", "ci"} <= set(metric)
    assert score["metrics"]["ttft"]["unit"] == "s"
    assert 0.2 <= score["metrics"]["ttft"]["p50"] < 0.25
    assert score["metrics"]["tbt"]["n"] == REQUESTS * (TOKENS - 1)
    assert score["instrument"]["send_lag"]["n"] == REQUESTS


def test_every_request_can_be_joined_to_the_server_s_log(measured: Measured) -> None:
    """The request ids of the timeline are those that the server saw, besides the preflight's."""
    seen = {name for name in measured.log.request_ids if not name.startswith("preflight-")}
    assert seen == set(measured.run.timeline.request_id)
    assert seen == set(measured.run.plan.request_id)


def test_stamps_are_the_server_s_writes(measured: Measured) -> None:
    """Each token's stamp is at most a few milliseconds after the write that carried it, and never before it."""
    t = measured.run.timeline
    stamped_ns = t.chunk_ns[t.chunk_tokens == 1] + measured.run.manifest.clock["epoch_ns"]
    error_ns = stamped_ns - _true_ns(measured)
    assert error_ns.min() > -MILLISECOND // 2  # both clocks are read on one host
    assert np.median(error_ns) < MILLISECOND
    assert np.percentile(error_ns, 90) < 10 * MILLISECOND


def test_the_load_was_the_plan(measured: Measured) -> None:
    """Never more in flight than slots; every prompt as long as planned, by the server's count."""
    t = measured.run.timeline
    in_flight = [int(np.sum((t.sent_ns <= s) & (t.ended_ns > s))) for s in t.sent_ns]
    assert max(in_flight) <= 4
    assert set(t.output_tokens) == {TOKENS}
    assert set(t.token_source) == {"server"}
    assert (t.sent_ns != ABSENT).all()


def test_score_says_again_what_measure_said(measured: Measured) -> None:
    """A run directory is all that is needed; its numbers do not change."""
    again = json.loads(typed("score", measured.folder, "--json").stdout)
    assert again["metrics"] == measured.score["metrics"]
    assert again["requests"] == measured.score["requests"]


def test_score_judges_by_exit_code(measured: Measured) -> None:
    """An SLO that holds is 0, one that does not is 1."""
    assert typed("score", measured.folder, "--slo", "ttft.max <= 10s").exit_code == EXIT_OK
    assert typed("score", measured.folder, "--slo", "ttft.max <= 1ms").exit_code == EXIT_FAILED


def test_score_has_a_screen_and_three_other_forms(measured: Measured) -> None:
    """Table, CSV, OpenMetrics, and other tools' conventions."""
    assert "VALID" in typed("score", measured.folder).stdout
    assert typed("score", measured.folder, "--format", "csv").stdout.startswith("metric,statistic")
    assert typed("score", measured.folder, "--format", "openmetrics").stdout.endswith("# EOF\n")
    assert "vllm bench" in typed("score", measured.folder, "--conventions").stdout
    both = json.loads(typed("score", measured.folder, "--conventions", "--json").stdout)
    assert both["conventions"]["guidellm"]["ttft"]["n"] == REQUESTS


def test_the_same_seed_is_the_same_plan(measured: Measured, tmp_path: Path) -> None:
    """Asked again, the same load is sent."""
    with serve_child(SCHEDULE) as url:
        load = ("--concurrency", 4, "--requests", REQUESTS, "--output-tokens", TOKENS)
        result = typed("measure", url, *load, "--seed", 3, "--quiet", "-o", tmp_path / "again")
    assert result.exit_code == EXIT_OK
    assert result.stdout.strip() == str(tmp_path / "again")
    again = inferometer.read_run(tmp_path / "again")
    assert again.plan.fingerprint == measured.run.plan.fingerprint


def test_what_a_person_gets_wrong_is_one_line_before_any_load(tmp_path: Path) -> None:
    """A wrong model, path, key, tokenizer or folder: its exit code, one line, and no request but the preflight's."""
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("mine")
    log = tmp_path / "log.parquet"
    schedule = Schedule(models=("tiny",), api_key="sk-right", ttft_s=0.01)
    with serve_child(schedule, log=log) as url:
        key = ("--api-key", "sk-right", "--requests", 1)
        for args, code, said in (
            ((url, "--api-key", "sk-wrong", "--model", "tiny"), EXIT_UNREACHABLE, "401"),
            ((url, *key, "--model", "huge"), EXIT_UNREACHABLE, "tiny"),
            ((f"{url}/v1/nothing", *key), EXIT_UNREACHABLE, "404"),
            ((url, *key, "--tokenizer", tmp_path / "none.json"), EXIT_USAGE, "none.json"),
            ((url, *key, "-o", taken), EXIT_USAGE, "not empty"),
            ((url, *key, "-o", "/proc/nowhere"), EXIT_USAGE, "/proc/nowhere"),
        ):
            result = typed("measure", *args)
            assert (result.exit_code, result.stdout) == (code, ""), (args, result.output)
            assert result.stderr.count("\n") == 1, result.stderr
            assert said in result.stderr
            assert "sk-" not in result.stderr
    assert all(name.startswith("preflight-") for name in read_writes(log).request_ids)


def test_no_secret_is_in_any_artifact(tmp_path: Path) -> None:
    """The key, a header's value and a login are on the wire and nowhere in the run directory."""
    with serve_child(SCHEDULE) as url:
        result = typed(
            "measure", url.replace("://", "://user:hunter2login@"), "--requests", 2,
            "--api-key", "sk-hunter2key", "--header", "X-Tenant: hunter2tenant", "--save-text",
            "--output-tokens", 2, "-o", tmp_path / "run",
        )  # fmt: skip
    assert result.exit_code == EXIT_OK, result.output
    assert "hunter2" not in result.output
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(files) >= 4
    for file in files:
        assert b"hunter2" not in file.read_bytes(), file.name
        assert not file.stat().st_mode & 0o077, f"{file.name} can be read by others"


def test_failed_requests_are_counted_by_status(tmp_path: Path) -> None:
    """A server that cuts a third of its streams: the score says so, and exits 0, for the measurement is good."""
    schedule = Schedule(models=("tiny",), ttft_s=0.2, faults={"truncate": 0.4}, seed=5)
    with serve_child(schedule) as url:
        load = ("--requests", 20, "--output-tokens", TOKENS)
        result = typed("measure", url, *load, "--json", "-o", tmp_path / "run")
    requests = json.loads(result.stdout)["requests"]
    assert result.exit_code == EXIT_OK
    assert requests["by_status"]["truncated"] == requests["failed"] > 0
    assert requests["ok"] + requests["failed"] == requests["total"] == 20


def test_an_interrupted_run_is_kept_and_scored(tmp_path: Path) -> None:
    """SIGINT in mid-run: exit code 130, and what had ended is there, marked as incomplete."""
    with serve_child(Schedule(models=("tiny",), ttft_s=0.02, gap_s=0.002)) as url:
        command = [sys.executable, "-m", "inferometer", "measure", url, "--rate", "50"]
        command += ["--duration", "30s", "--output-tokens", "4", "-o", str(tmp_path / "run")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            _wait_for_spool(tmp_path / "run")
            process.send_signal(signal.SIGINT)
            screen, _ = process.communicate(timeout=20)
    assert process.returncode == EXIT_INTERRUPTED
    assert "STOPPED     interrupted (SIGINT)" in screen
    run = inferometer.read_run(tmp_path / "run")
    assert not run.manifest.complete
    assert run.timeline.ok.any()


def test_a_simulated_system_behind_http_is_measured_as_it_was_simulated(tmp_path: Path) -> None:
    """`measure` against `emulate --system` agrees with `simulate` on the same plan, request by request and on the whole."""
    system = ("--system", "sarathi-serve", "--model", "llama-3-8b", "--device", "a100")
    lengths = ("--prompt-tokens", "uniform:low=50,high=900", "--output-tokens", 12)
    load = ("--rate", 12, "--requests", 24, *lengths, "--seed", 1, "--quiet", "-o")
    command = [sys.executable, "-m", "inferometer", "emulate", *system, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            result = typed("measure", url, *load, tmp_path / "measured")
        finally:
            server.send_signal(signal.SIGINT)
        report = json.loads(server.stdout.read())
    assert result.stdout.strip() == str(tmp_path / "measured"), result.output
    assert typed("simulate", *system, *load, tmp_path / "simulated").exit_code == EXIT_OK
    measured, simulated = (
        inferometer.read_run(tmp_path / name) for name in ("measured", "simulated")
    )
    assert report["requests"] == 24 + 1  # and the preflight's
    assert {"vllm:num_requests_running", "vllm:num_preemptions_total"} <= set(
        measured.telemetry["name"]
    )
    ours, theirs = measured.timeline, simulated.timeline
    for column in ("request_id", "intended_ns", "prompt_tokens", "output_tokens", "status"):
        assert getattr(ours, column).tolist() == getattr(theirs, column).tolist()
    tokens, truth = (np.repeat(t.chunk_ns, t.chunk_tokens).reshape(24, 12) for t in (ours, theirs))
    late = tokens - truth
    assert 0 <= np.median(late) < 20 * MILLISECOND
    assert np.median(late[:, 0]) < 20 * MILLISECOND
    gaps = np.diff(tokens, axis=1) - np.diff(truth, axis=1)
    assert abs(np.median(gaps)) < 3 * MILLISECOND


def _true_ns(measured: Measured) -> np.ndarray:
    """When the server wrote each token of the timeline, in the timeline's order (one token per write)."""
    log = measured.log
    where = {
        (log.request_ids[r], int(i)): int(t)
        for r, i, t in zip(log.request, log.index, log.wrote_ns, strict=True)
    }
    names = measured.run.timeline.request_id
    return np.array([where[name, index] for name in names for index in range(TOKENS)])


def _wait_for_spool(folder: Path) -> None:
    """Until some requests have ended and are on disk (bounded)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if sum(spool.stat().st_size for spool in folder.glob("spool-*.bin")) > 2000:
            return
        time.sleep(0.05)
    raise AssertionError("no request ended within 20 s")
