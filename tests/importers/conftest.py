"""Where the fixtures are: raw outputs of other tools (fixtures/README.md says how each was made)."""

from __future__ import annotations

from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of raw outputs, a folder per tool."""
    return FIXTURES
