"""`inferometer capacity` from its command line: simulated targets, journals, and what a kill leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from inferometer.cli import capacity
from inferometer.errors import EXIT_FAILED, EXIT_INVALID, EXIT_OK, UserError
from inferometer.load.recovery import read_run

TARGET = "sim:vllm-v1?model=llama-3-8b&device=a100"
SLO = "ttft.p90 <= 0.2s and tbt.p90 <= 20ms"
QUICK = [
    TARGET, "--slo", SLO, "--probe-requests", "60", "--most-requests", "200", "--precision", "0.3", "--output-tokens", "24",
    "--start", "8", "--prompt-tokens", "lognormal:median=300,sigma=1", "--json",
]  # fmt: skip


def asked(*options: str):
    """The result of the verb, and its JSON."""
    result = CliRunner().invoke(capacity.command, [*QUICK, *options], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, msgspec.json.decode(result.stdout)


def without_paths(answer):
    """The answer but for where its runs lie."""
    probes = [probe | {"run": None} for probe in answer["probes"]]
    return answer | {"folder": None, "probes": probes}


@pytest.fixture(scope="module")
def alone():
    """The answer of a search that nobody disturbs, and that writes nothing."""
    return asked()[1]


def test_a_simulated_system_has_a_capacity(tmp_path: Path) -> None:
    """The JSON of DESIGN 4.10, and a run directory per probe that can be read by itself."""
    code, answer = asked("-o", str(tmp_path / "c"))
    assert code == EXIT_OK
    assert answer["verdict"] in ("resolved", "cliff")
    lo, hi = answer["interval"]
    assert lo <= answer["rate_per_s"] <= hi
    assert {"rate_per_s", "attainment", "met"} <= set(answer["probes"][0])
    runs = [read_run(Path(probe["run"])) for probe in answer["probes"]]
    assert all(run.manifest.world == "simulated" and run.manifest.complete for run in runs)
    assert [len(run.timeline) for run in runs] == [p["requests"] for p in answer["probes"]]


def test_a_simulated_search_needs_no_folder(alone) -> None:
    """Without one nothing is kept, and nothing says where it would be."""
    assert alone["folder"] is None
    assert {probe["run"] for probe in alone["probes"]} == {None}


def test_requests_in_flight_are_searched_by_the_same_path() -> None:
    """`--in-flight`: whole numbers, under `concurrency`."""
    _, answer = asked("--in-flight")
    assert answer["concurrency"] == int(answer["concurrency"])
    assert all(probe["concurrency"] == int(probe["concurrency"]) for probe in answer["probes"])


@pytest.mark.parametrize(
    ("options", "code", "verdict"),
    [
        (["--highest", "5"], EXIT_OK, "unbounded"),
        (["--slo", "ttft.p90 <= 1ms", "--lowest", "1"], EXIT_FAILED, "infeasible"),
        (["--budget", "60s"], EXIT_INVALID, "unresolved"),
    ],
)
def test_every_verdict_has_its_exit_code(options: list[str], code: int, verdict: str) -> None:
    """0 for an answer, 1 for a promise that no load keeps, 3 where it was not settled."""
    found, answer = asked(*options)
    assert answer["verdict"] == verdict
    assert found == code


@pytest.mark.parametrize(
    "target",
    [["sim:vllm-v1"], ["sim:nothing?model=llama-3-8b"], [TARGET, TARGET], [TARGET + "&nonsense=1"]],
)
def test_a_target_that_means_nothing_is_refused(target: list[str]) -> None:
    """Before anything is simulated."""
    with pytest.raises(UserError):
        CliRunner().invoke(
            capacity.command, [*target, "--slo", SLO], standalone_mode=False, catch_exceptions=False
        )


def test_a_server_option_beside_a_simulated_system_is_refused() -> None:
    """A key for nobody is a mistake."""
    with pytest.raises(UserError, match="--api-key"):
        asked("--api-key", "secret")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_was_ended_goes_on(tmp_path: Path, how: signal.Signals, alone) -> None:
    """Killed in mid-probe, or interrupted: the same command again comes to the answer of a search left alone."""
    command = [sys.executable, "-m", "inferometer", "capacity", *QUICK[:-1], "-o", str(tmp_path / "c")]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(b"probe 3"):
                os.kill(process.pid, how)
                break
        process.stderr.read()
    assert process.returncode in (-how, 130)
    kept = (tmp_path / "c" / "probes.jsonl").read_bytes().count(b"\n") - 1
    assert kept >= 3
    _, resumed = asked("-o", str(tmp_path / "c"))
    assert without_paths(resumed) == without_paths(alone)
