"""A run with everything in it that a report draws, made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inferometer.run import Manifest, Run
from inferometer.timeline import ABSENT, build, offsets

SCRIPT = "<script>alert('{}')</script><img src=x onerror=alert(1)>"


def _run(requests=300, tokens=40, seed=0, **planted):
    """A run of `requests` with stalls, failures, two applications and gauges; `planted` replaces columns of text."""
    rng = np.random.default_rng(seed)
    intended = np.cumsum(rng.exponential(5e7, requests)).astype(np.int64)
    gaps = rng.gamma(4, 4e6, (requests, tokens))
    gaps[:, 0] = rng.gamma(3, 6e7, requests)
    gaps[::17, tokens // 2] = 6e8
    ns = intended[:, None] + np.cumsum(gaps, axis=1).astype(np.int64)
    failed = np.arange(requests) % 50 == 49
    counts = np.where(failed, 0, tokens)
    flat = ns[~failed].ravel()
    first = np.where(failed, ABSENT, ns[:, 0])
    columns = {
        "request_id": [f"r{k}" for k in range(requests)],
        "app": np.where(np.arange(requests) % 3 == 0, "code", "chat").astype(object),
        "intended_ns": intended,
        "sent_ns": intended + 20_000,
        "first_byte_ns": first,
        "ended_ns": np.where(failed, intended + 10_000_000, ns[:, -1]),
        "status": np.where(failed, "http_error", "ok").astype(object),
        "prompt_tokens": rng.integers(10, 4_000, requests),
        "output_tokens": counts,
        "scheduled_ns": np.where(failed, ABSENT, intended + 30_000_000),
        "phase": np.where(np.arange(requests) < 20, "warmup", "measure").astype(object),
        "chunk_offset": offsets(counts),
        "chunk_ns": flat,
        "chunk_tokens": np.ones(len(flat), dtype=np.int32),
        "chunk_channel": np.zeros(len(flat), dtype=np.int8),
    }
    columns |= planted
    manifest = Manifest(
        complete=True,
        target={"engine": "emulated", "model": "m"},
        instrument={"valid": True, "invalid_reasons": [], "workers": 1},
        workload={"fingerprint": "ab" * 32},
    )
    end = int(columns["ended_ns"].max())
    at = np.arange(0, end, 1_000_000_000)
    telemetry = {
        "t_ns": at,
        "source": np.full(len(at), "http://127.0.0.1", dtype=object),
        "name": np.full(len(at), "vllm:num_requests_running", dtype=object),
        "labels": np.full(len(at), "", dtype=object),
        "value": np.arange(len(at), dtype=float),
    }
    return Run(build(requests, **columns).check(), manifest, telemetry=telemetry)


@pytest.fixture(scope="session")
def run_of():
    """`run_of(requests=300, tokens=40, **planted)`: such a run."""
    return _run


@pytest.fixture(scope="session")
def planted_run():
    """A run in which every text that somebody else may have written is an attack on the page."""
    n = 300
    everywhere = {
        name: np.array([SCRIPT.format(f"{name}{k}") for k in range(n)], dtype=object)
        for name in ("request_id", "session_id", "error", "finish_reason")
    }
    apps = np.array([SCRIPT.format(f"app{k % 2}") for k in range(n)], dtype=object)
    run = _run(n, **everywhere, app=apps)
    run.manifest.target |= {"engine": SCRIPT.format("engine"), "version": SCRIPT.format("version")}
    run.manifest.model["name"] = "</script>" + SCRIPT.format("model")
    run.manifest.instrument["note"] = SCRIPT.format("instrument")
    run.manifest.instrument |= {"valid": False, "invalid_reasons": [SCRIPT.format("reason")]}
    run.manifest.workload["fingerprint"] = "<b>x</b>"
    run.manifest.notes.append(SCRIPT.format("note"))
    return run
