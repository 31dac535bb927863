"""Batches, memory and idle stages over time: sums of the file's rows, by bin."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferometer.report.scheduler import scheduler_charts
from inferometer.report.tables import Axis

ON = Axis(np.array([0, 10, 20], dtype=np.int64) * 10**9)


def written(folder, **columns):
    rows = len(columns["start_ns"])
    neutral = dict.fromkeys(
        ("replica", "stage", "tokens", "prefill_tokens", "decode_tokens", "sequences", "kv_used", "kv_cached", "kv_free", "preemptions"),
        [0] * rows,
    )  # fmt: skip
    pq.write_table(pa.table(neutral | columns), folder / "iterations.parquet")
    return {chart.id: chart for chart in scheduler_charts(folder, ON)}


def test_tokens_are_summed_and_memory_is_weighed_by_time(tmp_path):
    """Two iterations in the first bin, of 1 s and 3 s: token rates are sums over 10 s, shares are weighed 1 : 3."""
    drawn = written(
        tmp_path,
        start_ns=[0, 5 * 10**9],
        duration_ns=[10**9, 3 * 10**9],
        prefill_tokens=[100, 0],
        decode_tokens=[0, 50],
        sequences=[1, 5],
        kv_used=[10, 50],
        kv_free=[90, 50],
    )
    rates = drawn["batch-composition"].tables["table"]
    assert rates["tokens_per_s"] == [10.0, 0.0, 5.0, 0.0]
    assert drawn["batch-size"].tables["table"]["sequences"] == [4.0, None]
    shares = drawn["kv-use"].tables["table"]
    assert shares["share"][shares["what"].index("used")] == pytest.approx(0.4)
    assert "bubbles" not in drawn


def test_stages_that_wait_are_seen(tmp_path):
    """Of two stages one is busy for 4 of 10 s, the other for 1: idle 60 % and 90 %."""
    drawn = written(
        tmp_path,
        stage=[0, 1],
        start_ns=[0, 4 * 10**9],
        duration_ns=[4 * 10**9, 10**9],
        sequences=[1, 1],
    )
    assert drawn["bubbles"].tables["table"]["idle"] == pytest.approx([0.6, 1.0, 0.9, 1.0])


def test_a_run_without_the_file_has_no_charts(tmp_path):
    """A measured run, or one that kept no iterations."""
    assert scheduler_charts(tmp_path, ON) == []
    assert scheduler_charts(None, ON) == []
