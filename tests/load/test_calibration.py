"""The record of a calibration: kept for this host alone, found again, and cited."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import pytest

from inferometer.errors import UserError
from inferometer.load import calibration
from inferometer.load.calibration import Calibration, cite, host_id, latest, record_path, store

FOUND = Calibration(
    when="2030-01-02T03:04:05+00:00",
    host_id="0123456789abcdef",
    stamps="kernel",
    rungs=(),
    believed_tokens_per_s=50_000.4,
    gap_error_p99_s=13e-6,
    stamp_error_p99_s=20e-6,
)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_what_is_stored_is_found_again(state: Path) -> None:
    """Whole, under the state folder, in a file that only its owner can read."""
    assert latest() is None
    path = store(FOUND)
    assert latest() == FOUND
    assert path.parent == state / "inferometer" / "calibration"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == [f"{host_id()}.json"]


def test_the_last_one_replaces_the_one_before() -> None:
    """One record per host."""
    store(FOUND)
    store(msgspec.structs.replace(FOUND, believed_tokens_per_s=None))
    found = latest()
    assert found is not None
    assert found.believed_tokens_per_s is None


@pytest.mark.parametrize("content", [b"", b"{}", b'{"when": 3}', b"\xff"])
def test_a_record_that_cannot_be_read_is_none(content: bytes) -> None:
    """It is made again rather than repaired."""
    store(FOUND).write_bytes(content)
    assert latest() is None


def test_a_record_of_another_version_is_none() -> None:
    """Its figures may mean something else."""
    store(msgspec.structs.replace(FOUND, schema_version=calibration.SCHEMA_VERSION + 1))
    assert latest() is None


def test_another_kernel_is_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured under one kernel says nothing of another."""
    store(FOUND)
    monkeypatch.setattr(platform, "release", lambda: "99.0.0-other")
    assert latest() is None


def test_the_host_id_names_nobody() -> None:
    """16 hex digits, the same each time, and no part of the host's name or machine id."""
    assert host_id() == host_id()
    assert len(bytes.fromhex(host_id())) == 8
    assert platform.node() not in str(record_path().name)


def test_a_relative_state_folder_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the XDG specification says."""
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert record_path().parent == tmp_path / ".local" / "state" / "inferometer" / "calibration"


def test_a_folder_that_cannot_be_written_is_one_line(state: Path) -> None:
    """With what to do."""
    state.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="XDG_STATE_HOME"):
        store(FOUND)


def test_a_citation_has_the_five_facts_and_nothing_else() -> None:
    """Null where there is no calibration."""
    assert cite(None) is None
    assert cite(FOUND) == {
        "when": "2030-01-02T03:04:05+00:00",
        "believed_tokens_per_s": 50_000.4,
        "gap_error_p99_s": 13e-6,
        "stamp_error_p99_s": 20e-6,
        "stamps": "kernel",
    }


def test_the_verdict_is_one_line() -> None:
    """How far, and with what error; or that there is no such load."""
    assert "up to 50,000 tokens/s per worker, with gap error p99 0.013 ms" in FOUND.verdict()
    assert "no load" in msgspec.structs.replace(FOUND, believed_tokens_per_s=None).verdict()
