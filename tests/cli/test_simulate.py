"""The verb `simulate`: options in, a run directory and JSON out."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from inferometer.cli import measure, simulate
from inferometer.errors import UserError
from inferometer.run import load_run

TRACE = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,100,5\n0.2,50,7\n0.2,30,1\n"


def invoke(*words, verb=simulate.command):
    result = CliRunner().invoke(verb, list(map(str, words)), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_a_trace_becomes_a_run_with_exact_times(tmp_path):
    """The rows of Vidur's CSV, served; `scheduled_ns` is there, and every token has its own time."""
    (tmp_path / "trace.csv").write_text(TRACE)
    said = invoke(
        "--trace", tmp_path / "trace.csv", "--system", "sarathi-serve", "--model", "llama-3-8b",
        "--chunk", 64, "-o", tmp_path / "run", "--json",
    )  # fmt: skip
    card = json.loads(said.stdout)
    assert card["requests"]["ok"] == 3
    run = load_run(tmp_path / "run")
    assert run.timeline.output_tokens.tolist() == [5, 7, 1]
    assert (run.timeline.scheduled_ns >= run.timeline.intended_ns).all()
    assert run.manifest.target["policy"]["chunk"] == 64
    assert run.manifest.spec["deployment"]["device"] == "a100"


def test_the_same_seed_is_the_same_run(tmp_path):
    """Generated load, twice: equal to the token."""
    for name in ("a", "b"):
        invoke(
            "--rate", 20, "--requests", 30, "--model", "llama-3.1-8b", "--device", "h100",
            "--replicas", 2, "--router", "power-of-two", "--seed", 3, "-o", tmp_path / name, "--quiet",
        )  # fmt: skip
    first, second = (load_run(tmp_path / name).timeline for name in ("a", "b"))
    assert first.chunk_ns.tolist() == second.chunk_ns.tolist()


@pytest.mark.parametrize("load", [("--rate", 20), ("--concurrency", 4)])
def test_measuring_a_simulated_target_is_simulating(load, tmp_path):
    """The same load, to `simulate` and to `measure sim:...`: the same run, duration and warm-up included."""
    words = [
        *load,
        "--duration",
        "3s",
        "--warmup",
        "1s",
        "--prompt-tokens",
        100,
        "--seed",
        2,
        "--quiet",
        "-o",
    ]
    invoke("--system", "vllm", "--model", "llama-3-8b", *words, tmp_path / "a")
    target = "sim:vllm?model=llama-3-8b&seed=2"
    invoke(target, *words, tmp_path / "b", verb=measure.command)
    first, second = (load_run(tmp_path / name) for name in ("a", "b"))
    assert first.manifest == second.manifest
    assert first.timeline.chunk_ns.tolist() == second.timeline.chunk_ns.tolist()
    assert set(first.timeline.phase) == {"warmup", "measure"}
    assert first.timeline.intended_ns.max() < 4_000_000_000


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "llama-9"], "no such model"),
        (["--model", "llama-3-8b", "--device", "z80"], "no such device"),
        (["--model", "llama-2-70b"], "does not fit"),
        (["--model", "llama-3-8b", "--tp", "3"], "does not divide"),
        (["--model", "llama-3-8b", "--utilization", "2"], "no more than 1"),
        (["--model", "llama-3-8b", "--cost", "vidur:nowhere.npz"], "not a readable"),
    ],
)
def test_a_bad_question_is_one_line(words, complaint, tmp_path):
    """Before the run, and nothing is written."""
    with pytest.raises(UserError, match=complaint):
        invoke(*words, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()
