"""Beyond one run: repeats, a precision, turns with another target, the prefill curve; typed, and how they look."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from inferometer.cli import repeats as shown
from inferometer.cli import verbs
from inferometer.emulator import Schedule, serve_child
from inferometer.errors import EXIT_FAILED, EXIT_INVALID, EXIT_OK, EXIT_USAGE
from inferometer.search import Ask, prefill, repeat
from inferometer.search.queueing import Queue
from inferometer.search.repeats import parse_until

SIM = "sim:vllm-v1?model=llama-3-8b&device=a100"
LOAD = ("--rate", "5", "--requests", "60", "--output-tokens", "8", "--seed", "3")


def typed(*args: object) -> Result:
    """What comes of a command line."""
    return CliRunner().invoke(verbs, [str(arg) for arg in args])


def drawn(parts) -> str:
    """What rich makes of `parts`, 100 columns wide."""
    console = Console(file=io.StringIO(), width=100)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def test_repeats_show_both_variances() -> None:
    """A row per statistic, and whether the precision was reached."""
    until = parse_until("ttlt.p50 ci<20%", most=4)
    series = repeat(
        lambda seed: Queue(8)(Ask(load=4.0, seed=seed, requests=500, warmup=50)), until=until
    )
    text = drawn(shown.render(series, until))
    assert "between runs" in text
    assert "ttlt.p50 within ±0.2: reached" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_poor_curve_warns() -> None:
    """The formula, its points, and a word where it does not describe them."""
    good = prefill.fit_rungs([prefill.Rung(p, np.full(3, 0.1 + p / 1e4)) for p in (16, 256, 4096)])
    steps = [prefill.Rung(p, np.full(3, 1.0 if p > 500 else 0.1)) for p in (16, 256, 1024, 4096)]
    assert "100 ms + 100 µs p" in drawn(shown.render_curve(good))
    assert "BEWARE" not in drawn(shown.render_curve(good))
    assert "BEWARE" in drawn(shown.render_curve(prefill.fit_rungs(steps)))


def test_repeats_of_a_target(tmp_path: Path) -> None:
    """Each in a folder of its own with a seed of its own; `score` of the whole says the same again."""
    out = tmp_path / "runs"
    result = typed("measure", SIM, *LOAD, "--repeats", 3, "--json", "-o", out)
    found = json.loads(result.stdout)
    assert result.exit_code == EXIT_OK
    assert found["runs"] == [str(out / name) for name in ("000", "001", "002")]
    assert found["valid"] == [True] * 3
    assert len(set(found["metrics"]["request_rate"]["results"])) == 3
    seeds = [json.loads((Path(run) / "manifest.json").read_text()) for run in found["runs"]]
    assert [each["spec"]["workload"]["seed"] for each in seeds] == [3, 4, 5]
    again = typed("score", out, "--json", "--slo", "ttft.p50 <= 1us")
    assert again.exit_code == EXIT_FAILED
    assert json.loads(again.stdout)["metrics"]["ttft.p50"] == found["metrics"]["ttft.p50"]
    assert "met in 0 of 3 runs" in typed("score", out, "--slo", "ttft.p50 <= 1us").stdout


def test_a_precision_that_is_not_reached(tmp_path: Path) -> None:
    """All declared looks are taken, and that it was not enough is an outcome of its own."""
    asked = ("--until", "ttft.mean ci<0.001%", "--repeats", 3)
    result = typed("measure", SIM, *LOAD, *asked, "-o", tmp_path / "runs")
    assert result.exit_code == EXIT_INVALID
    assert "not reached in 3" in result.stdout
    assert "run 3 of at most 3" in result.stderr


def test_two_targets_in_turns(tmp_path: Path) -> None:
    """Blocks in random order on shared plans, and a comparison of the pairs."""
    other = SIM.replace("a100", "h100")
    asked = ("--versus", other, "--repeats", 3, "--json", "-o", tmp_path / "ab")
    result = typed("measure", SIM, *LOAD, *asked)
    assert result.exit_code == EXIT_OK
    found = json.loads(result.stdout)
    effects = found["effects"]
    assert effects["ttlt.p50"]["how"] == "paired repeats"
    assert effects["ttlt.p50"]["better"] == "b"
    for arm in "ab":
        assert sorted(path.name for path in (tmp_path / "ab" / arm).iterdir()) == [
            "000",
            "001",
            "002",
        ]


def test_a_curve_is_probed_kept_and_used(tmp_path: Path) -> None:
    """Asked for before a URL, without lengths of its own: the run knows the curve, and so does `score --prefill`."""
    schedule = Schedule(models=("m",), ttft_s=0.005, ttft_per_prompt_token_s=2e-6, gap_s=0.001)
    load = ("--requests", 30, "--output-tokens", 3, "--prompt-tokens", 64)
    with serve_child(schedule) as url:
        run, bare = tmp_path / "run", tmp_path / "bare"
        first = typed("measure", "--prefill-curve", url, *load, "--json", "-o", run)
        typed("measure", url, *load, "--quiet", "-o", bare)
    found = json.loads(first.stdout)
    assert found["prefill"]["extrapolated"] == 0
    assert found["metrics"]["scheduling_delay"]["n"] == 30
    assert found["settings"]["first_slack"] == 0.3
    kept = tmp_path / "run-prefill"
    assert len(prefill.read_curve(kept).points) == len(prefill.LADDER)
    without = json.loads(typed("score", bare, "--json").stdout)
    assert without["metrics"]["ttft_slowdown"]["n"] == 0
    for place in (kept, kept / "prefill.json", run):
        known = json.loads(typed("score", bare, "--prefill", place, "--json").stdout)
        assert known["metrics"]["ttft_slowdown"]["n"] == 30


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--until", "ci<5"), "'ci<5' is no precision"),
        (("--until", "ttft.p75 ci<5%"), "no p75"),
        (("--until", "ttft.p50 ci<5%", "--repeats", 2), "3 repeats or more"),
        (("--until", "attainment ci<5%"), "attainment needs an SLO"),
        (("--versus", SIM, "--until", "ci<5%"), "leave out --until"),
        (("--prefill-curve", "16,32"), "three prompt lengths"),
        (("--prefill-curve", "0,1,2"), "three prompt lengths"),
        (("--prefill-curve",), "says when prefill began"),
    ],
)
def test_what_cannot_be_meant_is_refused(args: tuple[object, ...], said: str) -> None:
    """One line, before any load."""
    result = typed("measure", SIM, *args)
    assert (result.exit_code, result.stdout) == (EXIT_USAGE, "")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
