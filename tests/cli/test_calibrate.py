"""The calibration on screen, and its ladder on the command line; the figures are tested where they are made."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from inferometer import cli
from inferometer.cli import calibrate, doctor
from inferometer.emulator.calibrate import LADDER, QUICK
from inferometer.errors import EXIT_INVALID, EXIT_OK, EXIT_USAGE, UserError
from inferometer.load.calibration import BELIEVED, REFUSED, Calibration, Rung, Spread, store

SMALL = Spread(n=1000, p50=1e-6, p99=1.2e-5, p999=2e-5, max=1e-3)


def rung(streams: int, verdict: str, *reasons: str) -> Rung:
    """A rung with small errors."""
    return Rung(
        streams=streams, stamps="kernel", tokens=1000, tokens_per_s=50.0 * streams, matched_share=1.0,
        stamp_error=SMALL, gap_error=SMALL, ttft_error=SMALL, send_lag=SMALL, shared_stamps=0.0,
        cpu_us_per_token=7.5, cpu_share=0.4, emulator_late_share=0.0, emulator_lateness=SMALL,
        verdict=verdict, reasons=reasons,
    )  # fmt: skip


FOUND = Calibration(
    when="2026-11-21T05:00:00+00:00",
    host_id="0123456789abcdef",
    stamps="kernel",
    rungs=(rung(64, BELIEVED), rung(1024, REFUSED, "gap error p99 2 ms is above 1 ms")),
    believed_tokens_per_s=3200.0,
    gap_error_p99_s=1.2e-5,
    stamp_error_p99_s=1.2e-5,
    notes=("a note",),
)


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are kept in a folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def shown(*args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `calibrate --show`."""
    result = CliRunner().invoke(cli.verbs, ["calibrate", "--show", *args])
    return result.exit_code, result.stdout, result.stderr


def test_a_kept_record_is_shown() -> None:
    """A column per rung, the reasons, the verdict, the notes, and where the record is."""
    where = store(FOUND)
    code, text, _ = shown()
    assert code == EXIT_OK
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["streams", "64", "1,024"]
    assert ["tokens/s", "3,200", "51,200"] in rows
    assert ["gap", "error", "p50,", "µs", "1.00", "1.00"] in rows
    assert rows.count(["p99", "12.0", "12.0"]) == 3
    assert ["p99.9", "20.0", "20.0"] in rows
    assert ["believed", "yes", "no"] in rows
    assert "refused     1,024 streams, kernel stamps: gap error p99 2 ms" in text
    assert "believed up to 3,200 tokens/s per worker" in text
    assert str(where) in text
    assert max(len(line) for line in text.splitlines() if str(where) not in line) <= 100


def test_many_and_terrible_rungs_fit_100_columns() -> None:
    """Eight of them, on the second line of columns the last; what is far out of bounds is told in seconds."""
    bad = msgspec.structs.replace(
        rung(99_999, "discarded", "a reason"),
        tokens_per_s=123_456.0,
        stamp_error=Spread(n=1000, p50=0.0999, p99=0.0999, p999=1.06, max=1.06),
        send_lag=Spread(n=3, p50=0.5),
    )
    where = store(msgspec.structs.replace(FOUND, rungs=(bad,) * 7, beside=(bad,)))
    _, text, _ = shown()
    assert max(len(line) for line in text.splitlines() if str(where) not in line) <= 100
    assert "…" not in text
    assert text.count("99,999 ") >= 8
    assert [*["max"], *["1.1", "s"] * 7] in [line.split() for line in text.splitlines()]


def test_json_is_the_record() -> None:
    """Nothing is lost between file and screen."""
    store(FOUND)
    _, text, _ = shown("--json")
    assert msgspec.json.decode(text, type=Calibration) == FOUND


def test_a_host_that_cannot_be_believed_is_exit_code_3() -> None:
    """The record is shown all the same."""
    store(
        msgspec.structs.replace(
            FOUND, rungs=FOUND.rungs[1:], believed_tokens_per_s=None, gap_error_p99_s=None
        )
    )
    code, text, _ = shown()
    assert code == EXIT_INVALID
    assert "no load was found" in text


def test_without_a_record_it_says_how_to_make_one() -> None:
    """One line."""
    code, _, error = shown()
    assert (code, error.count("\n")) == (EXIT_USAGE, 1)
    assert "inferometer calibrate" in error


def test_doctor_cites_the_record() -> None:
    """And asks for one where there is none."""
    assert doctor.check_calibration().state == "warn"
    store(FOUND)
    line = doctor.check_calibration()
    assert (line.state, line.remedy) == ("ok", "")
    assert "3,200 tokens/s" in line.found


def test_a_rung_is_told_with_its_reasons() -> None:
    """As it ends, on stderr."""
    assert calibrate.told(FOUND.rungs[0]) == "64 streams, kernel stamps: believed"
    assert calibrate.told(FOUND.rungs[1]).endswith("refused: gap error p99 2 ms is above 1 ms")


def test_the_ladder_can_be_chosen() -> None:
    """The default, the quick one, or rising numbers of streams."""
    assert calibrate.ladder(False, None) == LADDER
    assert calibrate.ladder(True, None) == QUICK
    assert [load.streams for load in calibrate.ladder(False, "8,32")] == [8, 32]


@pytest.mark.parametrize("rungs", ["8,4", "0,1", "many", "1,200000", "8,8"])
def test_a_ladder_that_does_not_rise_is_refused(rungs: str) -> None:
    """One line that names the option."""
    with pytest.raises(UserError, match="--rungs"):
        calibrate.ladder(False, rungs)
