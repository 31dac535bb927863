"""The verbs that take more than one run: capacity, compare, plan-run."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from inferometer.cli import capacity, compare, plan_run
from inferometer.errors import InvalidMeasurement, UserError
from inferometer.run import Run, write_run
from inferometer.search import Ask, Search
from inferometer.search import capacity as search_capacity
from inferometer.search.queueing import Queue

SMALL = Search(requests=150, most_requests=1_500, precision=0.1)


def drawn(parts) -> list[str]:
    """What rich makes of `parts`, 100 columns wide."""
    console = Console(file=io.StringIO(), width=100)
    for part in parts:
        console.print(part)
    return console.file.getvalue().splitlines()


def queue_run(seed: int = 0, *, slower: float = 1.0, fingerprint: str = "w") -> Run:
    """A run of M/M/8 with a workload's fingerprint."""
    queue = Queue(8, lambda rng, n: slower * rng.exponential(1.0, n))
    run = queue(Ask(load=4.0, seed=seed, requests=800, warmup=100))
    facts = {"workload": {"fingerprint": fingerprint}, "complete": True}
    return replace(run, manifest=msgspec.structs.replace(run.manifest, **facts))


def test_a_capacity_fits_the_screen(tmp_path: Path) -> None:
    """Verdict, interval, hysteresis and the whole curve, in 100 columns."""
    found = search_capacity(Queue(8), "each: ttft <= 1s; attainment >= 0.9", SMALL)
    lines = drawn(capacity.render(found, tmp_path))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 100
    assert f"{found.load:.2f} requests/s" in text
    assert found.verdict in text
    assert text.count("refine") == sum(p.ask.role == "refine" for p in found.probes)
    assert "before an overload" in text


def test_a_line_of_progress_says_where_the_search_stands() -> None:
    """Also when it has no upper end yet."""
    lines: list[str] = []
    search_capacity(
        Queue(8),
        "each: ttft <= 1s; attainment >= 0.9",
        SMALL,
        watch=lambda probes, now: lines.append(capacity.progress(probes, now)),
    )
    assert "∞" in lines[0]
    assert "∞" not in lines[-1]
    assert max(map(len, lines)) <= 100


def test_a_comparison_of_run_directories(tmp_path: Path) -> None:
    """Two folders in, the table and the gate's exit code out."""
    write_run(queue_run(), tmp_path / "a")
    write_run(queue_run(1, slower=1.6), tmp_path / "b")
    args = [str(tmp_path / "a"), str(tmp_path / "b"), "--gate", "tbt.mean +5%"]
    result = CliRunner().invoke(compare.command, args, standalone_mode=False)
    assert result.return_value == 1
    assert "regression" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    as_json = CliRunner().invoke(compare.command, [*args, "--json"], standalone_mode=False)
    assert msgspec.json.decode(as_json.stdout)["verdict"] == "regression"


def test_a_folder_of_runs_is_repeats(tmp_path: Path) -> None:
    """Runs directly under a folder are one side, as are those that a pattern matches."""
    for seed in range(3):
        write_run(queue_run(seed), tmp_path / "a" / f"r{seed}")
        write_run(queue_run(seed + 9), tmp_path / "b" / f"r{seed}")
    result = CliRunner().invoke(
        compare.command, [str(tmp_path / "a"), str(tmp_path / "b"), "--json"], standalone_mode=False
    )
    found = msgspec.json.decode(result.stdout)
    assert found["runs"] == {"a": 3, "b": 3}
    assert found["effects"]["ttft.mean"]["how"] == "repeats"
    assert len(compare.runs_in(f"{tmp_path}/?/r[01]")) == 4
    for nothing in (tmp_path, tmp_path / "c*"):
        with pytest.raises(UserError):
            compare.runs_in(str(nothing))


def test_unlike_workloads_are_refused(tmp_path: Path) -> None:
    """With the list of what differs; `--anyway` shows it above the table."""
    write_run(queue_run(), tmp_path / "a")
    write_run(queue_run(1, fingerprint="other"), tmp_path / "b")
    args = [str(tmp_path / "a"), str(tmp_path / "b")]
    refused = CliRunner().invoke(compare.command, args, standalone_mode=False)
    assert isinstance(refused.exception, InvalidMeasurement)
    told = CliRunner().invoke(compare.command, [*args, "--anyway"], standalone_mode=False)
    assert "workload: w and other" in told.stdout


def test_the_length_of_a_run(tmp_path: Path) -> None:
    """A row per statistic; half the precision asks for more requests."""
    write_run(queue_run(), tmp_path / "pilot")
    result = CliRunner().invoke(plan_run.command, [str(tmp_path / "pilot")], standalone_mode=False)
    assert "ttlt.p90" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    requests = []
    for precision in ("5%", "0.1"):
        args = [str(tmp_path / "pilot"), "--precision", precision, "--metric", "ttlt.p50", "--json"]
        out = CliRunner().invoke(plan_run.command, args, standalone_mode=False).stdout
        requests.append(msgspec.json.decode(out)["metrics"]["ttlt.p50"]["requests"])
    assert requests[0] > requests[1]


@pytest.mark.parametrize("verb", [capacity, compare, plan_run])
def test_the_help_fits_a_screen(verb) -> None:
    """32 lines of 80 columns."""
    result = CliRunner().invoke(verb.command, ["--help"], terminal_width=80)
    lines = result.stdout.splitlines()
    assert len(lines) <= 32
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), ("12.5 %", 0.125)])
def test_shares_are_read(text: str, value: float) -> None:
    """Per cent or a fraction; nothing else."""
    assert plan_run.share(text, "--precision") == pytest.approx(value)
    with pytest.raises(UserError):
        plan_run.share("five", "--precision")
    with pytest.raises(UserError):
        plan_run.share("100%", "--precision")
