"""The scorecard: its shape, its populations, what it refuses, and the SLO's verdict."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from inferometer import stats
from inferometer.clock import MILLISECOND, SECOND
from inferometer.errors import UserError
from inferometer.metrics import Scorecard, score
from inferometer.metrics.table import DISTRIBUTIONS, FIGURES, NEEDS_SLO
from inferometer.plan import build_plan
from inferometer.run import Manifest, Run
from inferometer.slo import METRICS

MS = MILLISECOND
VALID = {"valid": True, "invalid_reasons": []}


def reply(i, *, ttft_ms=100, gap_ms=20, tokens=5, **rest):
    """Request i of a run at 10 requests/s: a steady stream."""
    start = i * 100 * MS
    chunks = [(start + (ttft_ms + k * gap_ms) * MS, 1) for k in range(tokens)]
    return {"intended": start, "chunks": chunks} | rest


@pytest.fixture(scope="session")
def run_of(timeline_of):
    """`run_of(*requests)`: a run with the given requests, and a manifest with the given sections."""

    def make(*requests, instrument=VALID, plan=None, **manifest):
        return Run(timeline_of(*requests), Manifest(instrument=instrument, **manifest), plan)

    return make


@pytest.fixture(scope="module")
def card(run_of) -> Scorecard:
    """500 replies with TTFT 1..500 ms in a mixed order, 5 tokens each, and 10 failures."""
    order = np.random.default_rng(1).permutation(500)
    replies = [reply(i, ttft_ms=int(k) + 1) for i, k in enumerate(order)]
    return score(run_of(*replies, *[reply(i, status="timeout") for i in range(500, 510)]))


def test_the_shape_that_is_checked_from_outside(card):
    """DESIGN 4.10, plus what stands beside it; JSON without NaN."""
    out = json.loads(json.dumps(card.to_dict(), allow_nan=False))
    assert out["valid"] is True
    assert out["invalid_reasons"] == []
    assert out["requests"] == {
        "total": 510,
        "ok": 500,
        "failed": 10,
        "by_status": {"ok": 500, "timeout": 10},
        "by_phase": {"measure": 510},
    }
    ttft = out["metrics"]["ttft"]
    for key in ("unit", "definition", "population", "n", "mean", "p50", "p90", "p99", "max", "ci"):
        assert key in ttft
    assert ttft["p50_ci"] == ttft["ci"]["p50"]
    assert ttft["failed"] == 10
    assert out["instrument"] == VALID


def test_percentiles_are_numpys_over_the_good_requests(card):
    """TTFT of 1..500 ms: linear interpolation, failures left out and told beside."""
    row = card.row("ttft")
    values = np.arange(1, 501) / 1000
    assert row.n == 500
    assert row.mean == pytest.approx(values.mean())
    assert row.max == 0.5
    for name, q in (("p50", 50), ("p90", 90), ("p99", 99)):
        assert row.quantiles[name] == pytest.approx(np.percentile(values, q))
        assert row.ci[name].lo < row.quantiles[name] < row.ci[name].hi


def test_failures_count_as_infinite_in_their_own_row(card):
    """10 of 510 failed: p99 touches them, p90 does not; JSON has null and says that it was infinite."""
    row = card.row("ttft_with_failures")
    assert row.n == 510
    assert row.quantiles["p99"] == math.inf
    assert row.quantiles["p90"] == pytest.approx((0.9 * 509 + 1) / 1000)
    out = card.to_dict()["metrics"]["ttft_with_failures"]
    assert out["p99"] is None
    assert set(out["inf"]) >= {"mean", "max", "p99"}


def test_gaps_are_pooled_over_tokens(card):
    """4 gaps of 20 ms for each of 500 replies."""
    row = card.row("tbt")
    assert (row.n, row.undefined) == (2000, 0)
    assert row.mean == row.quantiles["p99"] == 0.02
    assert row.ci["p99"] == stats.Interval(0.02, 0.02)


def test_a_percentile_of_too_few_is_refused_with_the_n_it_needs(run_of):
    """40 requests carry p90 but no p99, the p99 of all metrics being 368."""
    out = score(run_of(*map(reply, range(40)))).to_dict()["metrics"]["ttft"]
    assert out["p90"] is not None
    assert out["p99"] is None
    assert out["too_few"] == {"p95": 72, "p99": 368}
    assert "p99_ci" not in out


def test_undefined_is_counted_not_zero(run_of):
    """Replies of one token have no TPOT and no gap; nobody knows when prefill began."""
    card = score(run_of(reply(0, tokens=1), reply(1), reply(2, tokens=0)))
    assert (card.row("tpot").n, card.row("tpot").undefined) == (1, 2)
    assert (card.row("tbt").n, card.row("tbt").undefined) == (4, 2)
    assert (card.row("ttft").n, card.row("ttft").undefined) == (2, 1)
    assert (card.row("scheduling_delay").n, card.row("scheduling_delay").undefined) == (0, 3)
    assert math.isnan(card.row("scheduling_delay").mean)


def test_what_was_planned_and_did_not_come_has_fluidity_zero(run_of):
    """The plan says 100 tokens; cut short or empty, the pooled index counts all of them as missed."""
    plan = build_plan(
        2, request_id=["r0", "r1"], intended_ns=[0, 1], prompt_tokens=1, output_tokens=100
    )
    for other in (reply(1, status="truncated"), reply(1, tokens=0)):
        card = score(run_of(reply(0), other, plan=plan))
        assert (card.row("fluidity_index").min, card.row("fluidity_index").max) == (0.0, 1.0)
        assert card.value("fluidity_index_pooled").value == pytest.approx(1 - 100 / 105)


def test_only_phase_measure_counts(run_of):
    """Warm-up and drain are in `by_phase` and nowhere else."""
    card = score(run_of(reply(0, phase="warmup", ttft_ms=9000), reply(1), reply(2, phase="drain")))
    assert card.requests.total == 1
    assert card.requests.by_phase == {"warmup": 1, "measure": 1, "drain": 1}
    assert card.row("ttft").max == 0.1


def test_an_empty_run_has_no_numbers(run_of):
    """Nothing was measured: every value is null, none is 0, and nothing raises."""
    out = json.loads(json.dumps(score(run_of(), "each: ttft <= 1s").to_dict(), allow_nan=False))
    assert out["requests"]["total"] == 0
    for name, metric in out["metrics"].items():
        if name != "peak_in_flight":
            assert metric.get("mean", metric.get("value")) is None, name
    assert out["slo"]["met"] is None


def test_without_intervals_the_numbers_are_the_same(run_of):
    """`intervals=False` is the same scorecard, quicker: no intervals, no curve."""
    run = run_of(*map(reply, range(50)))
    slow, quick = score(run).to_dict(), score(run, intervals=False).to_dict()
    assert "fluidity_curve" in slow
    assert "fluidity_curve" not in quick
    for name, metric in quick["metrics"].items():
        assert metric["ci"] == {}
        assert metric | {"ci": 0} == {
            k: v for k, v in slow["metrics"][name].items() if not k.endswith("_ci")
        } | {"ci": 0}


def test_intervals_need_the_order_of_arrival_not_of_the_table(timeline_of):
    """Rows shuffled on disk give the same scorecard."""
    rng = np.random.default_rng(3)
    timeline = timeline_of(*(reply(i, ttft_ms=int(rng.integers(1, 500))) for i in range(100)))
    shuffled = timeline.take(rng.permutation(100))
    manifest = Manifest(instrument=VALID)
    assert score(Run(timeline, manifest)).to_dict() == score(Run(shuffled, manifest)).to_dict()


def test_validity_is_the_instruments_word(run_of):
    """Said invalid with reasons; a measured run without a record cannot be believed, a simulated one has no instrument."""
    late = score(run_of(reply(0), instrument={"valid": False, "invalid_reasons": ["late"]}))
    assert (late.valid, late.invalid_reasons) == (False, ("late",))
    silent = score(run_of(reply(0), instrument={}))
    assert not silent.valid
    assert silent.invalid_reasons
    assert score(run_of(reply(0), instrument={}, world="simulated")).valid


def test_settings_are_in_the_definitions(run_of):
    """A number that depends on a threshold says which."""
    card = score(run_of(reply(0)), stall_threshold_ns=10 * MS, token_deadline_ns=15 * MS)
    assert card.row("stalls").max == 4
    assert "10 ms" in card.row("stalls").definition
    assert "15 ms" in card.row("fluidity_index").definition
    assert card.to_dict()["settings"]["token_deadline"] == 0.015


def test_deadlines_come_with_the_slo(run_of):
    """`with` sets them; another value beside it is a contradiction."""
    run = run_of(reply(0, gap_ms=30))
    slo = "with token_deadline = 20ms and first_deadline = 100ms; each: fluidity_index >= 0.9"
    assert score(run, slo).slo.met is False
    assert score(run, slo.replace("20ms", "30ms")).slo.met is True
    with pytest.raises(UserError, match="give it once"):
        score(run, slo, token_deadline_ns=SECOND)


def test_first_deadlines_may_be_one_per_row_of_the_timeline(run_of):
    """Also where warm-up rows are left out."""
    run = run_of(
        reply(0, phase="warmup"), reply(1, ttft_ms=300, tokens=1), reply(2, ttft_ms=300, tokens=1)
    )
    card = score(run, first_deadline_ns=np.array([1, 299, 300]) * MS)
    assert (card.row("fluidity_index").min, card.row("fluidity_index").max) == (0.0, 1.0)


def test_the_slo_section(run_of):
    """Attainment over all requests, conditions with what was seen, and figures beside the others."""
    requests = [reply(i, ttft_ms=100 + 4 * (37 * i % 100)) for i in range(100)]
    requests += [reply(100, status="timeout")]
    slo = "ttft.p90 <= 0.5s and ttft.p99 <= 1s; each: ttft <= 400ms; attainment >= 0.7"
    card = score(run_of(*requests), slo)
    out = json.loads(json.dumps(card.to_dict(), allow_nan=False))["slo"]
    assert out["attainment"]["attained"] == 76
    assert out["attainment"]["value"] == pytest.approx(76 / 101)
    lo, hi = out["attainment"]["ci"]
    assert lo < 76 / 101 < hi
    assert [c["met"] for c in out["conditions"]] == [True, None, True]
    assert out["conditions"][1]["note"] == "too few: 100 of 368"
    assert out["met"] is None
    assert card.value("goodput").value == pytest.approx(76 / 10.332)


def test_gaps_are_worth_what_their_requests_are(run_of):
    """60 requests, each at a pace of its own: 6,000 gaps are worth 60, which carry p90 but no p99; n is in gaps."""
    rng = np.random.default_rng(2)
    paces = rng.permutation(np.arange(10, 70))
    slow = [reply(i, gap_ms=int(pace), tokens=101) for i, pace in enumerate(paces)]
    row = score(run_of(*slow)).row("tbt")
    assert row.n == 6000
    assert set(row.too_few) == {"p95", "p99"}
    assert 368 / 110 * 6000 < row.too_few["p99"] < 368 / 50 * 6000
    assert math.isnan(row.quantiles["p99"])
    mixed = [reply(i, tokens=1) for i in range(60)]
    for i, request in enumerate(mixed):
        stamps = i * 100 * MS + np.cumsum(rng.integers(10, 50, 101)) * MS
        request["chunks"] = [(int(ns), 1) for ns in stamps]
    assert score(run_of(*mixed)).row("tbt").too_few == {}


def test_a_few_requests_carry_few_percentiles_of_gaps(run_of):
    """Below twenty requests nobody can tell what gaps are worth: no more than the requests are many."""
    row = score(run_of(*(reply(i, gap_ms=10 + i, tokens=501) for i in range(10)))).row("tbt")
    assert set(row.too_few) == {"p90", "p95", "p99"}
    assert row.too_few["p90"] == 36 * 500


def test_past_saturation_no_steady_state_stands_in_place_of_numbers(run_of):
    """What was seen stays in JSON, marked and without intervals; what an SLO sees there can fail but not hold."""
    late = [reply(i, ttft_ms=50 + 90 * i, tokens=2) for i in range(400)]
    slo = "ttft.p99 <= 1s and ttlt.p99 <= 1000s and request_rate >= 1/s; each: ttft <= 1000s"
    card = score(run_of(*late), slo)
    out = json.loads(json.dumps(card.to_dict(), allow_nan=False))
    assert out["steady_state"]["verdict"] == "no steady state"
    assert "in flight rises" in out["steady_state"]["reason"]
    assert out["metrics"]["ttft"]["steady"] is False
    assert out["metrics"]["ttft"]["p99"] > 30
    assert out["metrics"]["ttft"]["ci"] == {}
    assert "steady" not in out["metrics"]["request_rate"]
    assert card.withholds("tbt")
    assert not card.withholds("token_rate")
    assert [c["met"] for c in out["slo"]["conditions"]] == [False, None, True, None]


def test_classes_are_judged_apart(run_of):
    """Chats are slow, code is quick; each is held to its own bound."""
    requests = [reply(i, app="chat", ttft_ms=900) for i in range(20)]
    requests += [reply(i, app="code", ttft_ms=90) for i in range(20, 40)]
    slo = "[app=chat] each: ttft <= 1s; [app=code] each: ttft <= 0.05s; [app=chat] ttft.p50 <= 1s; [app=agent] ttft.p50 <= 1s"
    out = score(run_of(*requests), slo).to_dict()["slo"]
    assert out["attainment"]["by_app"] == {"chat": 1.0, "code": 0.0}
    verdicts = {(c["app"], c["metric"]): c["met"] for c in out["conditions"]}
    assert verdicts == {
        ("chat", "ttft"): True,
        ("agent", "ttft"): None,
        ("chat", "attainment"): True,
        ("code", "attainment"): False,
    }


def test_an_unmeasured_condition_decides_nothing(run_of):
    """Sarathi's bounds need a scheduling delay, which a black box does not tell."""
    replies = [reply(i, tokens=20) for i in range(50)]
    out = score(run_of(*replies), "sarathi-strict-mistral-7b").to_dict()["slo"]
    assert [c["met"] for c in out["conditions"]] == [True, None]
    assert out["met"] is None
    each = score(run_of(*replies), "each: scheduling_delay <= 1s")
    assert each.slo.met is None
    assert math.isnan(each.value("goodput").value)
    told = [r | {"scheduled_ns": r["intended"]} for r in replies]
    assert score(run_of(*told), "sarathi-strict-mistral-7b").slo.met is True


def test_the_vocabulary_of_slos_is_that_of_the_scorecard():
    """Every name that an SLO may use is computed here, in the dimension that it is parsed in."""
    units = {
        "time": {"s"},
        "share": {"1"},
        "ratio": {"1"},
        "count": {"1"},
        "rate": {"requests/s", "tokens/s"},
    }
    for name, kind in METRICS.items():
        found = FIGURES[name] if kind.single else DISTRIBUTIONS[name]
        assert found.unit in units[kind.dimension], name
        assert not (kind.each and DISTRIBUTIONS[name].column is None)
    assert set(NEEDS_SLO) <= set(METRICS)


def test_every_metric_has_a_definition_and_a_population():
    """What is exported says what it is."""
    for metric in (*DISTRIBUTIONS.values(), *FIGURES.values()):
        assert metric.definition
        assert metric.unit


def test_a_fluid_rate_of_too_few_requests_is_refused(run_of):
    """A statement about 1 % of the requests needs as many as p99."""
    few, many = (score(run_of(*map(reply, range(n))), intervals=False) for n in (367, 368))
    assert few.to_dict()["metrics"]["fluid_token_rate"]["too_few"] == {"value": 368}
    assert many.value("fluid_token_rate").value == 50.0
