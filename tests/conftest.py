"""Fixtures that every part shares."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _no_state_of_this_host(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test reads, or writes, the calibration of whoever runs it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture
def traces() -> Path:
    """The folder of production traces, or a loud skip."""
    folder = SHARED / "traces"
    if not folder.is_dir():
        pytest.skip(
            f"no production traces: {folder.name} is not beside the checkout (../shared/traces)"
        )
    return folder
