"""Fixtures that every part shares."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def traces() -> Path:
    """The folder of production traces, or a loud skip."""
    folder = SHARED / "traces"
    if not folder.is_dir():
        pytest.skip(
            f"no production traces: {folder.name} is not beside the checkout (../shared/traces)"
        )
    return folder
