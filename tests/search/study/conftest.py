"""Studies small enough for a test: simulated systems, forty short requests a cell."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inferometer.search.study import Asked, Study, read_asked, run_study

SIMULATED = """\
title: two schedulers
systems:
  a:
    target: sim:vllm?model=llama-3-8b
    tune: {max-batch: [8, 16]}
  b:
    target: sim:sarathi-serve?model=llama-3-8b
    tune: {chunk: [256, 512, 1024]}
  b-small:
    ablation_of: b
    config: {chunk: 64}
workloads:
  chat: {prompt_tokens: 200, output_tokens: 8, requests: 40}
  code: {prompt_tokens: "uniform:low=100,high=900", output_tokens: 4, requests: 40, loads: [8], app: code}
loads: [2, 4]
repeats: 2
slos: {chat: ttft.p90 <= 1s, code: ttft.p90 <= 1s}
tuning: {budget: 2, requests: 20}
"""


@pytest.fixture
def study_file(tmp_path: Path):
    """Writes a study file, with some of its text replaced, and reads it."""

    def written(text: str = SIMULATED, put: dict[str, str] | None = None) -> Asked:
        for old, new in (put or {}).items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return read_asked(path)

    return written


LIMIT_S = 10


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study of SIMULATED, run to its end; nobody may change it."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "study.yaml").write_text(SIMULATED)
    return run_study(read_asked(folder / "study.yaml"), folder / "st")


@pytest.fixture
def mine(whole: Study, tmp_path: Path) -> Path:
    """A copy of it, in a folder of another name."""
    return Path(shutil.copytree(whole.path, tmp_path / "mine"))


@pytest.fixture
def waited() -> Callable[[int], bool]:
    """Whether a process ends in time; it does not poll."""

    def wait(pid: int) -> bool:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([handle], [], [], LIMIT_S)[0])
        finally:
            os.close(handle)

    return wait
