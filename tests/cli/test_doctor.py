"""What `doctor` looks at, and what it says."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from inferometer import cli
from inferometer.cli import doctor
from inferometer.load import connection


@pytest.mark.parametrize("check", doctor.CHECKS)
def test_each_check_ends_in_a_line(check) -> None:
    """A state, what was found, and, where it is not ok, what to do."""
    line = check()
    assert line.state in ("ok", "warn", "fail")
    assert line.found
    assert line.state == "ok" or line.remedy


def test_a_host_without_kernel_stamps_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can measure, less well."""
    monkeypatch.setattr(connection, "kernel_stamps_work", lambda: False)
    line = doctor.check_stamps()
    assert line.state == "warn"
    assert "loop" in line.remedy


def test_json_has_every_check() -> None:
    """`doctor --json`."""
    result = CliRunner().invoke(cli.verbs, ["doctor", "--json"])
    assert len(json.loads(result.stdout)["checks"]) == len(doctor.CHECKS)
