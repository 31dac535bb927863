"""Profiling an engine from outside: what its ladders make of known times, and of an emulated server's."""

from __future__ import annotations

import numpy as np
import pytest

from inferometer.search import arms
from inferometer.search.engine_profile import (
    Decoded,
    Ladders,
    decode_sizes,
    decoded,
    profile_engine,
)
from inferometer.sim import Deployment
from inferometer.sim.profiled import Profile, Profiled, write_profile
from inferometer.timeline import build


def timeline(starts_ms, tokens, gap_ms, per_chunk=1):
    """Requests that begin at `starts_ms` and make `tokens` each, `per_chunk` of them every `gap_ms`."""
    chunks = tokens // per_chunk
    at = np.concatenate([start + gap_ms * np.arange(chunks) for start in starts_ms])
    ends = [start + gap_ms * (chunks - 1) for start in starts_ms]
    return build(
        len(starts_ms),
        request_id=[str(i) for i in range(len(starts_ms))],
        intended_ns=0,
        sent_ns=0,
        ended_ns=np.array(ends) * 1_000_000,
        status="ok",
        prompt_tokens=16,
        output_tokens=tokens,
        chunk_offset=np.arange(len(starts_ms) + 1) * chunks,
        chunk_ns=np.rint(at * 1e6).astype(np.int64),
        chunk_tokens=per_chunk,
        chunk_channel=0,
    )


@pytest.mark.parametrize("per_chunk", [1, 2])
def test_an_iteration_is_what_all_took_together(per_chunk):
    """Two requests, a token every 5 ms, also where two tokens arrive in one event every 10 ms."""
    found = decoded(timeline([100, 130], 40, 5 * per_chunk, per_chunk))
    assert found == Decoded(2, 16 + 20, pytest.approx(0.005))


def test_requests_that_never_decode_together_say_nothing():
    """One after the other, or all tokens at one instant: no iteration to be seen."""
    assert decoded(timeline([0, 1000], 40, 5)) is None
    assert decoded(timeline([0], 40, 0)) is None


def test_known_times_are_found_again(tmp_path):
    """A simulated engine of known times, profiled as a server would be: 10 ms outside, 4 ms + 0.1 ms a prompt token,

    0.2 ms a further sequence, 1 us a cached token.
    """
    known = Profile(
        kind="engine",
        model="m",
        device="d",
        tokens=((1, 4e-3), (1001, 104e-3)),
        sequences=((1, 0.0), (17, 16 * (0.2e-3 - 0.1e-3))),
        context_s=1e-6,
        front_s=10e-3,
    )
    path = write_profile(known, tmp_path / "known.json")
    deployment = Deployment("vllm-v1", "llama-3.2-1b", cost=f"profile:{path}")
    ladders = Ladders((16, 256, 1024), (1, 4, 16), output_tokens=32, repeats=1)
    told = []
    found = profile_engine(
        arms.simulated(deployment),
        tmp_path / "runs",
        ladders,
        model="m",
        told=lambda *said: told.append(said),
    )
    ours, theirs = Profiled(found), Profiled(known)
    assert found.front_s == pytest.approx(10e-3, rel=0.02)
    assert found.context_s == pytest.approx(1e-6, rel=0.02)
    for chunks, decoders, context in (
        ((), 4, 4000),
        ((), 12, 500),
        ([(512, 0)], 0, 0),
        ([(300, 0)], 8, 800),
    ):
        step = ours.step(chunks, decoders, context)[0]
        assert step == pytest.approx(theirs.step(chunks, decoders, context)[0], rel=0.02)
    assert decode_sizes(ladders) == [(1, 16), (4, 16), (16, 16), (1, 1024), (4, 1024)]
    assert [of for _, _, of in told] == [6] * 6
    assert len(list((tmp_path / "runs").iterdir())) == 6
