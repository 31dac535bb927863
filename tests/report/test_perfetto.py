"""The trace for Perfetto: valid JSON, slices inside of their request, lanes that never overlap."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise

from inferometer.report.perfetto import write_trace


def test_a_trace_is_json_with_every_request(run_of, tmp_path):
    """One slice per request, one instant per token, and as many events as were said."""
    run = run_of(60, 10)
    count = write_trace(run.timeline, tmp_path / "trace.json")
    found = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert len(found) == count
    assert sum(e["name"] == "request" for e in found) == 60
    assert sum(e["name"] == "token" for e in found) == run.timeline.chunks


def test_slices_lie_inside_of_their_request_and_lanes_do_not_overlap(run_of, tmp_path):
    """On one lane a request begins after the one before it has ended, and its parts stay within it."""
    write_trace(run_of(200, 10).timeline, tmp_path / "t.json", each_token=False)
    lanes = defaultdict(list)
    for event in json.loads((tmp_path / "t.json").read_text())["traceEvents"]:
        if event["ph"] == "X":
            lanes[event["pid"], event["tid"]].append(event)
    for events in lanes.values():
        requests = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "request")
        assert all(a[1] <= b[0] + 1e-6 for a, b in pairwise(requests))
        for e in events:
            assert any(a - 1e-6 <= e["ts"] and e["ts"] + e["dur"] <= b + 1e-6 for a, b in requests)


def test_an_empty_run_is_an_empty_trace(tmp_path):
    """No requests: a document without events, which still opens."""
    from inferometer.timeline import build

    assert (
        write_trace(
            build(0, request_id=[], intended_ns=[], ended_ns=[], status=[]), tmp_path / "t.json"
        )
        == 0
    )
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"] == []
