from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import NotMeasurable, UserError
from inferometer.metrics import latency, score
from inferometer.run import Manifest, Run
from inferometer.search import prefill
from inferometer.timeline import build

modest = settings(deadline=None, max_examples=40)
LENGTHS = (16, 256, 1024, 4096)


def ladder_run(law, repeats=3, seed=0):
    """A timeline of the ladder against a server whose zero-load TTFT is `law(tokens)`, and thrice that in round 0."""
    plan = prefill.ladder_plan(LENGTHS, repeats, seed)
    n = len(plan)
    cold = np.array([3.0 if name.startswith("prefill-00") else 1.0 for name in plan.request_id])
    intended = np.arange(n) * 10_000_000_000
    first = intended + np.rint(law(plan.prompt_tokens.astype(float)) * cold * 1e9).astype(np.int64)
    return build(
        n,
        request_id=plan.request_id,
        intended_ns=intended,
        sent_ns=intended,
        ended_ns=first,
        status="ok",
        prompt_tokens=plan.prompt_tokens,
        output_tokens=1,
        chunk_offset=np.arange(n + 1),
        chunk_ns=first,
        chunk_tokens=1,
        chunk_channel=0,
    )


@modest
@given(st.floats(0.001, 1), st.floats(0, 1e-3), st.floats(0, 1e-7))
def test_a_quadratic_is_found_again(constant, per_token, per_token2):
    """The fit of an exact quadratic is that quadratic, its warm-up round left out, with residuals of zero."""

    def law(p):
        return constant + per_token * p + per_token2 * p**2

    curve = prefill.fit(ladder_run(law))
    at = np.array([16, 100, 2000, 4096])
    assert curve.seconds(at) == pytest.approx(law(at.astype(float)), rel=1e-5)
    assert curve.worst_residual < 1e-5
    assert not curve.poor


def test_a_step_is_called_poor():
    """A server whose TTFT jumps between two lengths is not described by a quadratic, and the curve says so."""
    curve = prefill.fit(ladder_run(lambda p: np.where(p > 500, 1.0, 0.1)))
    assert curve.poor


def test_beyond_the_ladder_is_extrapolation():
    """Only lengths outside of the probed ones are flagged."""
    curve = prefill.fit(ladder_run(lambda p: 0.1 + p / 1e4))
    assert curve.extrapolates([15, 16, 4096, 4097]).tolist() == [True, False, False, True]


def test_the_ladder_is_interleaved_and_repeated():
    """Every round holds each length once, not in the same order, one request at a time."""
    plan = prefill.ladder_plan(LENGTHS, repeats=6, seed=3)
    rounds = plan.prompt_tokens.reshape(7, len(LENGTHS))
    assert all(sorted(each) == list(LENGTHS) for each in rounds.tolist())
    assert len({tuple(each) for each in rounds.tolist()}) > 1
    assert plan.concurrency == 1


def test_two_lengths_are_refused():
    """A quadratic through two points would be an invention."""
    with pytest.raises(UserError):
        prefill.ladder_plan((16, 64))
    with pytest.raises(NotMeasurable):
        prefill.fit_rungs([prefill.Rung(16, np.ones(3)), prefill.Rung(64, np.ones(3))])


def test_the_scheduling_delay_of_a_black_box():
    """What the curve does not explain of a TTFT is the delay; as `scheduled_ns` the scorecard reads it, with a note."""
    curve = prefill.fit(ladder_run(lambda p: 0.1 + p / 1e4))
    loaded = ladder_run(lambda p: 0.35 + p / 1e4).take(np.arange(len(LENGTHS), 4 * len(LENGTHS)))
    assert prefill.scheduling_delay(loaded, curve) == pytest.approx(0.25, abs=1e-4)
    run = prefill.estimate_scheduled(Run(loaded, Manifest(world="simulated")), curve)
    assert latency.scheduling_delay(run.timeline.check()) == pytest.approx(0.25, abs=1e-4)
    assert score(run).row("scheduling_delay").n == len(loaded)
    assert "estimated" in run.manifest.notes[-1]


def test_a_bound_that_grows_with_the_prompt():
    """A slowdown of 1.5 admits what is 1.4 times the curve, at every length, and refuses 1.6 times."""
    curve = prefill.fit(ladder_run(lambda p: 0.1 + p / 1e4))
    warm = slice(len(LENGTHS), None)
    for factor, fine in ((1.4, True), (1.6, False)):
        slower = ladder_run(lambda p, f=factor: f * (0.1 + p / 1e4))
        assert (prefill.within(slower, curve, 1.5)[warm] == fine).all()


def test_deadlines_serve_the_fluidity_index():
    """With D_p from the curve, requests at zero load miss no deadline, whatever their length; a fixed one is missed."""
    timeline = ladder_run(lambda p: 0.1 + p / 1e4).take(np.arange(len(LENGTHS), 4 * len(LENGTHS)))
    curve = prefill.fit(timeline)
    run = Run(timeline, Manifest(world="simulated"))
    deadlines = curve.deadlines_ns(timeline.prompt_tokens, slack_s=0.001)
    assert score(run, first_deadline_ns=deadlines).row("fluidity_index").min == 1
    assert score(run, first_deadline_ns=110_000_000).row("fluidity_index").min < 1


def test_a_curve_survives_the_disk(tmp_path):
    """Written and read back, a curve is the same; a folder without one is the user's error."""
    curve = prefill.fit(ladder_run(lambda p: 0.1 + p / 1e4))
    prefill.write_curve(curve, tmp_path / prefill.FILE)
    assert prefill.read_curve(tmp_path) == curve
    with pytest.raises(UserError):
        prefill.read_curve(tmp_path / "elsewhere")
