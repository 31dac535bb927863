from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import NotMeasurable, UserError
from inferometer.metrics import score
from inferometer.metrics.prefill import with_curve
from inferometer.run import Manifest, Run, write_run
from inferometer.search import prefill
from inferometer.timeline import build

modest = settings(deadline=None, max_examples=40)
LENGTHS = (16, 256, 1024, 4096)


def ladder_run(law, repeats=3, seed=0, counted=None):
    """A run of the ladder against a server whose zero-load TTFT is `law(tokens)`, and thrice that in round 0.

    `counted(asked)`: the prompt tokens that the server counts.
    """
    plan = prefill.ladder_plan(LENGTHS, repeats, seed)
    n = len(plan)
    cold = np.array([3.0 if name.startswith("prefill-00") else 1.0 for name in plan.request_id])
    intended = np.arange(n) * 10_000_000_000
    first = intended + np.rint(law(plan.prompt_tokens.astype(float)) * cold * 1e9).astype(np.int64)
    timeline = build(
        n,
        request_id=plan.request_id,
        intended_ns=intended,
        sent_ns=intended,
        ended_ns=first,
        status="ok",
        prompt_tokens=plan.prompt_tokens if counted is None else counted(plan.prompt_tokens),
        output_tokens=1,
        chunk_offset=np.arange(n + 1),
        chunk_ns=first,
        chunk_tokens=1,
        chunk_channel=0,
    )
    return Run(timeline, Manifest(world="simulated", complete=True), plan)


def scored(run):
    """A run without its warm-up round."""
    return replace(run, timeline=run.timeline.take(np.arange(len(LENGTHS), len(run.timeline))))


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


def test_a_length_is_what_the_server_counted():
    """Tokenizers differ by request: a rung is known by what was asked, and stands at the median of what was counted."""
    noise = np.random.default_rng(1)
    run = ladder_run(
        lambda p: 0.1 + p / 1e4, 5, counted=lambda p: p + 7 + noise.integers(-2, 3, p.size)
    )
    curve = prefill.fit(run)
    assert [point.n for point in curve.points] == [5] * len(LENGTHS)
    counted = np.array([point.prompt_tokens for point in curve.points])
    assert np.abs(counted - np.array(LENGTHS) - 7).max() <= 2


def test_probing_keeps_the_run_and_the_curve(tmp_path):
    """Whatever makes a Run of a Plan can be probed; the curve lies beside its run."""
    folders = []

    def arm(plan, seed, folder):
        folders.append((seed, folder))
        folder.mkdir()
        assert plan.seed == seed
        return ladder_run(lambda p: 0.1 + p / 1e4, 5, seed)

    curve = prefill.probe(arm, tmp_path / "ladder", lengths=LENGTHS, seed=4)
    assert folders == [(4, tmp_path / "ladder")]
    assert prefill.read_curve(tmp_path / "ladder") == curve


def test_the_scheduling_delay_of_a_black_box():
    """What the curve does not explain of a TTFT is the delay, of requests where nobody says when prefill began."""
    curve = prefill.fit(ladder_run(lambda p: 0.1 + p / 1e4))
    loaded = with_curve(scored(ladder_run(lambda p: 0.35 + p / 1e4)), curve)
    row = score(loaded).row("scheduling_delay")
    assert row.n == len(loaded.timeline)
    assert (row.min, row.max) == pytest.approx((0.25, 0.25), abs=1e-4)
    said = loaded.timeline.intended_ns + 100_000_000
    known = replace(loaded, timeline=loaded.timeline.with_columns(scheduled_ns=said))
    assert score(known).row("scheduling_delay").mean == pytest.approx(0.1)


def test_a_bound_that_grows_with_the_prompt():
    """A slowdown of 1.5 admits what is 1.4 times the curve, at every length, and refuses 1.6 times."""
    curve = prefill.fit(ladder_run(lambda p: 0.1 + p / 1e4))
    for factor, share in ((1.4, 1.0), (1.6, 0.0)):
        slower = scored(ladder_run(lambda p, f=factor: f * (0.1 + p / 1e4)))
        card = score(with_curve(slower, curve), "each: ttft_slowdown <= 1.5; attainment >= 0.9")
        assert card.slo.attainment.value == share
        assert card.row("ttft_slowdown").mean == pytest.approx(factor, rel=1e-4)
        assert score(slower, "each: ttft_slowdown <= 1.5").slo.met is None


def test_deadlines_serve_the_fluidity_index():
    """D_p is the curve plus a slack of 300 ms, another by the SLO, or fixed; a fixed one is missed by long prompts."""
    run = scored(ladder_run(lambda p: 0.1 + p / 1e4))
    knowing = with_curve(run, prefill.fit(run))
    assert score(run).row("fluidity_index").min < 1
    usual = score(knowing)
    assert usual.row("fluidity_index").min == 1
    assert "its prefill curve + 300 ms" in usual.row("fluidity_index").definition
    assert (
        usual.to_dict()["settings"] | {"first_deadline": None, "first_slack": 0.3}
        == (usual.to_dict()["settings"])
    )
    late = with_curve(scored(ladder_run(lambda p: 0.3 + p / 1e4)), prefill.fit(run))
    tight = "with first_slack = 100ms; each: fluidity_index >= 0.9; attainment >= 0.5"
    assert score(late, tight.replace("100ms", "250ms")).slo.met is True
    assert score(late, tight).slo.met is False
    assert score(knowing, "with first_deadline = 101ms; fluidity_index.min >= 0.9").slo.met is False
    with pytest.raises(NotMeasurable, match="prefill curve"):
        score(run, tight)


def test_extrapolation_and_a_poor_fit_are_told():
    """On the scorecard: how many prompts lie beyond the probed ones, and whether the curve describes its own points."""
    short = ladder_run(lambda p: 0.1 + p / 1e4)
    short = replace(short, timeline=short.timeline.take(short.timeline.prompt_tokens <= 1024))
    curve = prefill.fit(short)
    used = score(with_curve(scored(ladder_run(lambda p: 0.1 + p / 1e4)), curve)).to_dict()[
        "prefill"
    ]
    assert (used["requests"], used["extrapolated"], used["poor"]) == (12, 3, False)
    assert used["probed"] == [16, 1024]


def test_a_curve_survives_the_disk(tmp_path):
    """Written and read back, a curve is the same; a folder without one is the user's error."""
    curve = prefill.fit(ladder_run(lambda p: 0.1 + p / 1e4))
    prefill.write_curve(curve, tmp_path / prefill.FILE)
    assert prefill.read_curve(tmp_path) == prefill.read_curve(tmp_path / prefill.FILE) == curve
    kept = write_run(with_curve(ladder_run(lambda p: 0.1 + p / 1e4), curve), tmp_path / "run")
    assert prefill.read_curve(kept) == curve
    bare = write_run(ladder_run(lambda p: 0.1 + p / 1e4), tmp_path / "bare")
    for without in (bare, tmp_path / "elsewhere"):
        with pytest.raises(UserError, match="no prefill curve there"):
            prefill.read_curve(without)
