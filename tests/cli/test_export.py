"""CSV and OpenMetrics: every defined number, and nothing else."""

from __future__ import annotations

import csv
import io

from inferometer.cli import export
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


def test_openmetrics_declares_each_family_once_and_ends(run: Run) -> None:
    """A family's lines follow its type; the text ends with # EOF."""
    lines = export.to_openmetrics(score(run)).splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert lines[-1] == "# EOF"
    assert "inferometer_valid 1" in lines
    assert 'inferometer_ttft_with_failures_seconds{statistic="max"} +Inf' in lines
    family = ""
    for line in lines[:-1]:
        if line.startswith("# TYPE"):
            family = line.split()[2]
        elif not line.startswith("#"):
            assert line.split("{")[0].split()[0] == family
