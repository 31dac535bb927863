"""Several sides on one page: every side is there, and what differs says how surely."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from inferometer import cli
from inferometer.report.searched import search_sections
from inferometer.report.sides import overlays, side_sections
from inferometer.run import Run, write_run
from inferometer.search.compare import compare


@pytest.fixture(scope="module")
def sides(run_of):
    """A run, and the same with every wait for a first token 30 % longer."""
    fast = run_of(400, 20)
    t = fast.timeline
    wait = t.chunk_ns[t.chunk_offset[:-1][t.ok]] - t.intended_ns[t.ok]
    shift = np.zeros(len(t), dtype=np.int64)
    shift[t.ok] = (wait * 0.3).astype(np.int64)
    slow = t.with_columns(
        chunk_ns=t.chunk_ns + np.repeat(shift, np.diff(t.chunk_offset)),
        ended_ns=t.ended_ns + shift,
        first_byte_ns=np.where(t.ok, t.first_byte_ns + shift, t.first_byte_ns),
    )
    return {"fast": [fast], "slow": [Run(slow.check(), msgspec.structs.replace(fast.manifest))]}


def test_two_sides_are_compared(sides):
    """Both are named, TTFT is shown to differ, and the ranking is said with every way of ranking behind it."""
    found = side_sections(sides, compare(*sides.values(), anyway=True), "ttft.p50 <= 1s")
    assert [section.id for section in found] == ["verdict", "felt", "effects"]
    rows = {row[0]: row for row in found[2].grids[0].rows}
    assert rows["ttft.p50"][1] == "fast"
    assert {chart.id for chart in found[2].charts} >= {"shift-ttft"}
    assert any("fast ahead" in light.text for light in found[0].lights)


def test_curves_hold_all_repeats(sides):
    """The overlay of a side with two repeats is that of both together."""
    both = {"fast": [*sides["fast"], *sides["slow"]], "slow": sides["slow"]}
    table = overlays(both)[0].tables["curve"]
    assert set(table["what"]) == {"fast", "slow"}
    assert len(table["value"]) == len(table["share"])


def test_three_sides_are_drawn_and_not_compared(sides, tmp_path):
    """Three runs give one page without a comparison; the verb names them by their folders."""
    names = ("one", "two", "three")
    paths = [str(write_run(sides["fast"][0], tmp_path / name)) for name in names]
    out = tmp_path / "page.html"
    result = CliRunner().invoke(cli.verbs, ["report", *paths, "-o", str(out)])
    assert result.exit_code == 0, result.stderr
    text = out.read_text()
    assert "one · two · three" in text
    assert 'id="effects"' not in text


def test_a_search_is_drawn(tmp_path):
    """The verdict, the curve with the probes that count, and every probe in a table."""
    probe = {
        "requests": 100,
        "failed": 0,
        "role": "bracket",
        "run": "probe-000",
        "ttft_p50_s": 0.1,
        "ttft_p99_s": 0.4,
    }
    answer = {
        "verdict": "resolved", "rate_per_s": 4.2, "interval": [4.0, 4.4], "confidence": 0.9, "reason": "",
        "binding": "ttft.p99 <= 0.5s", "slo": "ttft.p99 <= 0.5s", "hysteresis": None, "requests": 300, "spent_s": 60.0,
        "probes": [
            probe | {"rate_per_s": 8.0, "attainment": 0.2, "met": False},
            probe | {"rate_per_s": 4.0, "attainment": 1.0, "met": True},
            probe | {"rate_per_s": 5.0, "attainment": None, "met": False},
        ],
    }  # fmt: skip
    (tmp_path / "capacity.json").write_text(json.dumps(answer))
    found = search_sections(tmp_path)
    assert found[0].lights[0].state == "good"
    assert "4.2 requests/s, 90% interval [4, 4.4]" in found[0].lights[0].text
    table = found[1].charts[0].tables["table"]
    assert table["load"] == [4.0, 8.0]
    assert all(
        lo <= x <= hi
        for lo, x, hi in zip(table["lo"], table["attainment"], table["hi"], strict=True)
    )
    assert len(found[2].grids[0].rows) == 3
