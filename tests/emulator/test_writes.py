"""The ledger and the log of writes."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from inferometer.emulator.writes import ABSENT, Ledger, read_writes
from inferometer.errors import UserError
from inferometer.timeline import ABSENT as TIMELINE_ABSENT


def ledger() -> Ledger:
    """Two requests whose writes are interleaved; one write was held back."""
    made = Ledger(rows=True)
    a, b = made.arrived("a", 10), made.arrived("b", 20)
    for key, tokens, due, late, whole in (
        (a, 1, 100, 5, True),
        (b, 4, 110, 7, True),
        (a, 2, 200, 9, False),
        (b, 1, 210, 2_000_000, True),
        (a, 1, 300, 3, True),
    ):
        made.wrote_tokens(key, tokens, due, due + late, whole)
    return made


def test_the_log_knows_each_writes_place_in_its_request():
    """The index counts the tokens of the same request before the write; a write held back has no instant."""
    log = ledger().log()
    assert log.request_ids[log.request].tolist() == ["a", "b", "a", "b", "a"]
    assert log.index.tolist() == [0, 0, 1, 4, 3]
    assert log.wrote_ns.tolist() == [105, 117, ABSENT, 2_000_210, 303]
    assert log.lateness_ns().tolist() == [5, 7, 2_000_000, 3]
    assert ABSENT == TIMELINE_ABSENT


def test_the_log_survives_parquet(tmp_path):
    """What is read is what was saved; the columns have their names, and a write held back is null."""
    log = ledger().log()
    log.save(tmp_path / "log.parquet")
    again = read_writes(tmp_path / "log.parquet")
    assert again.request_ids[again.request].tolist() == log.request_ids[log.request].tolist()
    for name in ("index", "tokens", "due_ns", "wrote_ns"):
        assert np.array_equal(getattr(again, name), getattr(log, name))
    table = pq.read_table(tmp_path / "log.parquet")
    assert table.column_names == ["request_id", "index", "tokens", "due_ns", "wrote_ns"]
    assert table.column("wrote_ns").null_count == 1


def test_an_empty_log_is_a_log(tmp_path):
    """Nothing written: no rows, before and after Parquet, and a report without figures for lateness."""
    empty = Ledger(rows=True)
    empty.log().save(tmp_path / "log.parquet")
    assert len(read_writes(tmp_path / "log.parquet")) == 0
    report = empty.report(cpu_s=0.0, wall_s=1.0)
    assert (report.late_share, report.lateness_p99_ns, report.kept_up) == (None, None, True)
    assert report.summary() == "0 requests, no token written"


def test_the_report_says_how_late_and_whether_it_kept_up():
    """One of five writes was 2 ms late: a share of 0.2, which is not keeping up; quantiles are upper bounds."""
    report = ledger().report(cpu_s=0.0, wall_s=1.0)
    assert (report.tokens, report.writes, report.held_back) == (9, 5, 1)
    assert report.late_share == pytest.approx(0.2)
    assert report.lateness_p50_ns == 7
    assert report.lateness_p99_ns == report.lateness_max_ns == 2_000_000
    assert not report.kept_up
    assert "COULD NOT KEEP UP (20.0% late)" in report.summary()


def test_without_rows_only_the_counts_are_kept():
    """The report is the same, and the log is empty."""
    made = Ledger(rows=False)
    made.wrote_tokens(made.arrived("a", 1), 3, 100, 150, True)
    assert made.report(cpu_s=0.0, wall_s=0.0).tokens == 3
    assert len(made.log()) == 0


def test_a_log_that_cannot_be_written_or_read_is_said(tmp_path):
    """The error names the path."""
    with pytest.raises(UserError, match="nowhere"):
        ledger().log().save(tmp_path / "nowhere" / "log.parquet")
    with pytest.raises(UserError, match="missing"):
        read_writes(tmp_path / "missing.parquet")
