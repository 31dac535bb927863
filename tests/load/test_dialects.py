"""Every protocol that the wire speaks, measured for real against the emulator that serves it."""

import numpy as np
import pytest

from inferometer.emulator import Schedule, Wire, serve_child
from inferometer.load.fleet import measure
from inferometer.load.options import Drive
from inferometer.load.preflight import find
from inferometer.plan import build_plan
from inferometer.wire import DIALECTS


@pytest.mark.parametrize("dialect", DIALECTS)
def test_tokens_are_counted_and_timed_alike_in_every_protocol(tmp_path, dialect):
    """Six tokens of which two are thoughts where the protocol has them, 20 ms apart, counted by the server."""
    plan = build_plan(3, prompt_tokens=8, output_tokens=6, concurrency=3, seed=1)
    schedule = Schedule(ttft_s=0.02, gap_s=0.02, wire=Wire(reasoning_share=0.4))
    with serve_child(schedule) as url:
        found = find([url], model="emulated", dialect=dialect)
        t = measure(plan, found, Drive(), tmp_path / "run", asked={}, telemetry=False).timeline

    assert t.status.tolist() == ["ok"] * 3
    assert t.output_tokens.tolist() == [6] * 3
    assert set(t.token_source) == {"server"}
    assert set(t.finish_reason) != {None}
    first = t.chunk_ns[
        [
            np.flatnonzero(t.chunk_tokens[a:b])[0] + a
            for a, b in zip(t.chunk_offset, t.chunk_offset[1:], strict=False)
        ]
    ]
    assert np.all(first - t.sent_ns >= 20_000_000)
    assert np.all(
        t.ended_ns - first >= 3 * 20_000_000
    )  # of 5 gaps: a busy machine may read two tokens at once
