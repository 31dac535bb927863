"""A run made by hand: 120 requests, 10 tokens each, one of which failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inferometer.clock import MILLISECOND
from inferometer.plan import build_plan
from inferometer.run import Manifest, Run
from inferometer.timeline import build

REQUESTS, TOKENS = 120, 10


@pytest.fixture
def run() -> Run:
    """Request r is intended at 100 r ms, sent 1 ms later, and has tokens 10 ms apart from 20 to 139 ms later on."""
    row = np.arange(REQUESTS)
    intended = row * 100 * MILLISECOND
    first = intended + (21 + row * 37 % REQUESTS) * MILLISECOND
    chunk = (first[:, None] + np.arange(TOKENS) * 10 * MILLISECOND).ravel()
    status = ["ok"] * (REQUESTS - 1) + ["truncated"]
    timeline = build(
        REQUESTS,
        request_id=[f"r{r:03d}" for r in row],
        intended_ns=intended,
        sent_ns=intended + MILLISECOND,
        ended_ns=chunk.reshape(REQUESTS, TOKENS)[:, -1],
        status=status,
        output_tokens=TOKENS,
        prompt_tokens=50,
        token_source="server",
        chunk_offset=np.arange(REQUESTS + 1) * TOKENS,
        chunk_ns=chunk,
        chunk_tokens=1,
        chunk_channel=0,
    )
    plan = build_plan(
        REQUESTS,
        request_id=[f"r{r:03d}" for r in row],
        intended_ns=intended,
        prompt_tokens=50,
        output_tokens=TOKENS,
        seed=7,
    )
    return Run(timeline, manifest(), plan, Path("runs/by-hand"))


def manifest() -> Manifest:
    """What the instrument would have said."""
    return Manifest(
        complete=True,
        spec={"workload": {"arrivals": {"kind": "constant", "rate": 10.0}}},
        target={"urls": ["http://server:8000/v1/chat/completions"], "dialect": "openai-chat"},
        model={"name": "tiny"},
        workload={"fingerprint": "0123456789abcdef"},
        notes=["a note of the run's own"],
        instrument={
            "valid": True,
            "invalid_reasons": [],
            "workers": 1,
            "send_lag": {"n": 120, "p50": 0.001, "p99": 0.001, "max": 0.001},
            "loop_lag": {"n": 1200, "p50": 0.00001, "p99": 0.0002, "max": 0.0005},
            "late_sends": 0,
            "cpu_share": 0.02,
            "peak_in_flight": 2,
            "connections": {"opened": 4, "opened_ahead": 4, "reused": 116},
            "retries": 0,
            "stamps": {"mode": "kernel", "user_fallbacks": 0},
            "gc": {"pauses": 0, "max_s": 0.0},
            "clock": {"source": "tsc", "resolution_s": 4e-8},
        },
    )
