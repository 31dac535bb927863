"""The verb `profile`: a server behind a URL, or kernels; a file that `simulate` reads."""

from __future__ import annotations

import importlib.util
import json

import pytest
from click.testing import CliRunner

from inferometer.cli.profile import _up_to, command
from inferometer.emulator import Schedule, serve_child
from inferometer.errors import UserError
from inferometer.sim.profiled import read_profile


def invoke(*words):
    result = CliRunner().invoke(command, list(map(str, words)), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_a_server_is_profiled(tmp_path):
    """Over HTTP: both ladders are there, the raw points beside them, and the file is what was printed."""
    schedule = Schedule(models=("m",), ttft_s=0.01, ttft_per_prompt_token_s=1e-5, gap_s=0.003)
    with serve_child(schedule) as url:
        said = invoke(
            url, "--max-prompt", 128, "--max-batch", 1, "--output-tokens", 40, "--repeats", 1,
            "-o", tmp_path / "p.json", "--json",
        )  # fmt: skip
    printed = json.loads(said.stdout)
    profile = read_profile(tmp_path / "p.json")
    assert profile.kind == printed["kind"] == "engine"
    assert profile.model == "m"
    assert [int(row[1]) for row in profile.evidence["prefill"]] == [1, 1, 1]
    assert [row[0] for row in profile.evidence["decode"]] == [1, 1]
    assert (tmp_path / "p.runs" / "prefill" / "timeline.parquet").exists()


def test_what_is_missing_is_said(tmp_path):
    """Neither a URL nor a model; a file that is there already; no PyTorch."""
    with pytest.raises(UserError, match="whose layers"):
        invoke("-o", tmp_path / "p.json")
    (tmp_path / "there.json").write_text("mine")
    with pytest.raises(UserError, match="something already"):
        invoke("--model", "llama-3.2-1b", "-o", tmp_path / "there.json")
    if importlib.util.find_spec("torch") is None:
        with pytest.raises(UserError, match="PyTorch is not installed"):
            invoke("--model", "llama-3.2-1b", "-o", tmp_path / "p.json")


def test_a_ladder_ends_where_it_is_told_to():
    """Rungs below the limit, and the limit; never beyond the ladder's own top."""
    assert _up_to((1, 2, 4, 8), 5) == (1, 2, 4, 5)
    assert _up_to((1, 2, 4, 8), 8) == (1, 2, 4, 8)
    assert _up_to((1, 2, 4, 8), 100) == (1, 2, 4, 8)
