"""CSV, Parquet and OpenMetrics: every defined number, and nothing else."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from inferometer.cli import export
from inferometer.clock import MILLISECOND
from inferometer.errors import UserError
from inferometer.metrics import score
from inferometer.run import Run


def test_csv_holds_the_scorecard_s_numbers(run: Run) -> None:
    """One line per number, with unit and definition; a refused percentile has no line."""
    card = score(run)
    rows = list(csv.DictReader(io.StringIO(export.to_csv(card))))
    found = {(row["metric"], row["statistic"]): row for row in rows}
    assert float(found["ttft", "p50"]["value"]) == card.row("ttft").quantiles["p50"]
    assert float(found["ttft", "p50"]["lo"]) == card.row("ttft").ci["p50"].lo
    assert found["ttft", "max"]["lo"] == ""
    assert found["ttft_with_failures", "max"]["value"] == "inf"
    assert found["token_rate", "value"]["unit"] == "tokens/s"
    assert ("ttft", "p99") not in found
    assert all(row["definition"] and row["population"] for row in rows)


def test_parquet_holds_the_same_rows(run: Run, tmp_path) -> None:
    """Row by row what the CSV has; a missing interval is null, not NaN; columns have types."""
    import pyarrow.parquet as pq

    card = score(run)
    export.write(card, "parquet", str(tmp_path / "card.parquet"))
    table = pq.read_table(tmp_path / "card.parquet")
    rows = list(csv.DictReader(io.StringIO(export.to_csv(card))))
    assert table.column("metric").to_pylist() == [row["metric"] for row in rows]
    assert table.column("value").to_pylist() == [float(row["value"]) for row in rows]
    assert table.column("lo").null_count == sum(row["lo"] == "" for row in rows) > 0
    assert table.column_names == list(export.Number._fields)


def test_a_file_is_written_whole_for_others_to_read(run: Run, tmp_path) -> None:
    """What -o names holds what stdout would, and nothing lies beside it; a wrong place is one line."""
    card = score(run)
    export.write(card, "openmetrics", str(tmp_path / "run.prom"))
    assert (tmp_path / "run.prom").read_text() == export.to_openmetrics(card)
    assert [path.name for path in tmp_path.iterdir()] == ["run.prom"]
    with pytest.raises(UserError, match="cannot write there"):
        export.write(card, "csv", str(tmp_path / "none" / "x.csv"))


def test_openmetrics_declares_each_family_once_and_ends(run: Run) -> None:
    """A family's lines follow its type; the text ends with # EOF."""
    lines = export.to_openmetrics(score(run)).splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert lines[-1] == "# EOF"
    assert "inferometer_valid 1" in lines
    assert "inferometer_steady 1" in lines
    assert 'inferometer_ttft_with_failures_seconds{statistic="max"} +Inf' in lines
    family = ""
    for line in lines[:-1]:
        if line.startswith("# TYPE"):
            family = line.split()[2]
        elif not line.startswith("#"):
            assert line.split("{")[0].split()[0] == family


def test_numbers_of_no_steady_state_are_left_out(run: Run) -> None:
    """A monitoring system must not draw what a longer run would have made worse."""
    late = np.arange(len(run.timeline)) * 400 * MILLISECOND
    moved = run.timeline.with_columns(
        chunk_ns=run.timeline.chunk_ns + np.repeat(late, 10), ended_ns=run.timeline.ended_ns + late
    )
    text = export.to_openmetrics(score(replace(run, timeline=moved)))
    assert "inferometer_steady 0" in text
    assert "inferometer_ttft_seconds{" not in text
    assert "inferometer_token_rate{" in text
