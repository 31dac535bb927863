from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from inferometer.errors import InvalidMeasurement, UserError
from inferometer.metrics import score
from inferometer.run import Run
from inferometer.search.capacity import Ask
from inferometer.search.compare import compare, differences, parse_gate
from inferometer.search.queueing import Queue


def run_of(seed=0, *, load=4.0, slower=1.0, requests=1_500, stretch=None, **manifest):
    """A run of M/M/8 with a plan's fingerprint for each seed; `slower` scales services, `stretch` TTFTs by rank."""
    queue = Queue(8, lambda rng, n: 0.2 + 0.8 * slower * rng.exponential(1.0, n))
    run = queue(Ask(load=load, seed=seed, requests=requests, warmup=100))
    t = run.timeline
    if stretch is not None:
        first = t.chunk_offset[:-1]
        wait = np.random.default_rng(seed + 77).exponential(1.0, len(t))
        shift = np.rint(stretch(wait) * 1e9).astype(np.int64)
        ns = t.chunk_ns + np.repeat(shift, 2)
        ns[first] = t.intended_ns + shift
        t = t.with_columns(chunk_ns=np.maximum(ns, np.repeat(t.intended_ns, 2)))
        t = t.with_columns(ended_ns=t.chunk_ns[first + 1])
    facts = {"workload": {"fingerprint": f"plan-{seed}"}, "model": {"name": "m"}} | manifest
    return Run(t.check(), msgspec.structs.replace(run.manifest, **facts))


def named(found, name):
    return next(e for e in found.effects if e.name == name)


def test_a_slower_server_is_shown_to_be_slower():
    """Token times of +20 % are found: difference, ratio inside its interval, adjusted p below 5 %, and A ahead."""
    found = compare(run_of(), run_of(1, slower=1.25, workload={"fingerprint": "plan-0"}))
    effect = named(found, "tbt.mean")
    assert effect.interval.lo < 0.2 < effect.interval.hi
    assert effect.ratio_interval.lo < 1.2 < effect.ratio_interval.hi
    assert effect.better == "a"
    assert effect.adjusted_p >= effect.p


def test_the_same_server_twice_shows_nothing():
    """Two runs of one server under other seeds: no effect survives the adjustment, and no crossing is found."""
    found = compare(run_of(), run_of(5, workload={"fingerprint": "plan-0"}))
    assert {e.better for e in found.effects} == {""}
    assert found.turns == ()


def test_a_run_against_itself():
    """All differences are 0, every way of ranking says so."""
    found = compare(run_of(), run_of())
    assert {e.difference for e in found.effects if not math.isnan(e.difference)} == {0}
    assert {f.ahead for f in found.flips} == {"="}
    assert not found.ranking_flips


def test_crossing_distributions():
    """A spread TTFT against a narrow one: A is lower below the crossing, and the median and p99 rank them differently."""
    spread = run_of(stretch=lambda wait: 0.1 + wait)
    narrow = run_of(stretch=lambda wait: 1.1 + wait / 100)
    found = compare(spread, narrow)
    turn = next(t for t in found.turns if t.metric == "ttft")
    assert turn.lower_below == "a"
    assert turn.q == pytest.approx(1 - math.exp(-1), abs=0.05)
    assert turn.interval.lo <= turn.q <= turn.interval.hi
    assert named(found, "ttft.p50").better == "a"
    assert named(found, "ttft.p99").better == "b"
    assert found.ranking_flips


def test_what_differs_is_listed_and_refused():
    """Another workload, model or SLO is not comparable; told anyway, the differences stand in the result."""
    a = run_of()
    b = run_of(1, model={"name": "other"}, spec={"slo": "ttft.p99 <= 1s"})
    assert {d.what for d in differences([a], [b])} == {"workload", "SLO", "model"}
    with pytest.raises(InvalidMeasurement, match="workload"):
        compare(a, b)
    assert len(compare(a, b, anyway=True).differences) == 3


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("workload", {"workload": {"fingerprint": "another plan"}}),
        ("SLO", {"spec": {"slo": "ttft.p99 <= 1s"}}),
        ("world", {"world": "measured", "instrument": {"valid": True}}),
        ("model", {"model": {"name": "other"}}),
        ("tokenizer", {"model": {"name": "m", "tokenizer": {"fingerprint": "t"}}}),
        ("protocol", {"target": {"dialect": "anthropic"}}),
        ("ignore_eos", {"target": {"accepts": {"ignore_eos": False}}}),
        ("streaming", {"target": {"accepts": {"stream": False}}}),
        ("fields", {"target": {"extra": {"temperature": 0.7}}}),
        ("warm-up", {"spec": {"drive": {"warmup_s": 5}}}),
        ("patience", {"spec": {"drive": {"patience": {"total_s": 5}}}}),
        ("retries", {"spec": {"drive": {"retries": 1}}}),
        ("stamps", {"spec": {"drive": {"stamps": "user"}}}),
        ("instrument's version", {"versions": {"inferometer": "0.0.1"}}),
        ("instrument's host", {"host": {"cpus": 96}}),
        ("complete", {"complete": False}),
        ("validity", {"instrument": {"valid": False, "invalid_reasons": ["late"]}}),
    ],
)
def test_every_kind_of_difference_is_refused_by_its_name(what, changed):
    """One changed condition is one difference, named, with both sides; in either order."""
    a, b = run_of(requests=300), run_of(requests=300, **changed)
    for sides in ((a, b), (b, a)):
        assert {d.what for d in differences(*([side] for side in sides))} == {what}
        with pytest.raises(InvalidMeasurement, match=f"not comparable: {what}"):
            compare(*sides)


def test_runs_past_saturation_are_refused():
    """A queue that grows until the run ends has latencies that say how long it lasted, on both sides alike."""
    a, b = run_of(load=16.0), run_of(load=16.0, slower=1.1)
    assert [tuple(d) for d in differences([a], [b])] == [
        ("steady state", "1 past saturation", "1 past saturation")
    ]


def test_conditions_are_compared_as_sets_over_repeats():
    """Repeats of several workloads are comparable with the same ones in another order, and not with others."""
    a = [run_of(s, requests=200) for s in (0, 1)]
    assert differences(a, a[::-1]) == []
    assert [d.what for d in differences(a, [a[0], run_of(2, requests=200)])] == ["workload"]


def test_an_invalid_run_is_refused():
    """What the instrument does not vouch for is not compared."""
    bad = run_of(instrument={"valid": False, "invalid_reasons": ["late"]})
    with pytest.raises(InvalidMeasurement, match="validity"):
        compare(run_of(), bad)


def test_what_servers_are_is_no_difference():
    """URL, engine and version are what is compared."""
    a = run_of(target={"urls": ["http://a"], "engine": "vllm", "version": {"version": "1"}})
    b = run_of(target={"urls": ["http://b"], "engine": "sglang"})
    assert differences([a], [b]) == []


def test_runs_of_one_plan_are_paired_by_request():
    """The same arrivals and services but for 2 %: what a lone pair shows is several times sharper than runs apart."""
    a, b = run_of(load=5), run_of(load=5, slower=1.02)
    apart = run_of(7, load=5, slower=1.02, workload={"fingerprint": "plan-0"})
    effect, other = named(compare(a, b), "ttlt.mean"), named(compare(a, apart), "ttlt.mean")
    assert effect.how == other.how == "paired requests"
    assert effect.better == "a"
    assert not other.better
    width = [e.interval.hi - e.interval.lo for e in (effect, other)]
    assert width[0] < width[1] / 3
    lost = replace(b, timeline=b.timeline.take(np.arange(len(b.timeline)) % 3 > 0))
    assert named(compare(a, lost), "ttlt.mean").interval.hi > effect.interval.hi


def test_repeats_are_paired_by_workload():
    """The same seeds on both sides, in any order: the t test is on their differences, and sees what a lone run cannot."""
    seeds = (0, 1, 2, 3)
    a = [run_of(s, requests=800) for s in seeds]
    b = [run_of(s, requests=800, slower=1.05) for s in reversed(seeds)]
    effect = named(compare(a, b), "tbt.mean")
    assert effect.how == "paired repeats"
    assert effect.better == "a"
    lone = named(compare(a[:1], b[-1:]), "tbt.mean")
    assert lone.how == "paired requests"
    assert lone.interval.hi - lone.interval.lo > effect.interval.hi - effect.interval.lo


def test_unpaired_repeats_use_welch():
    """One workload repeated: between-run scatter makes the interval, for sides of unlike size."""
    a = [run_of(s, requests=500, workload={"fingerprint": "w"}) for s in (0, 1, 2)]
    b = [run_of(s, requests=500, workload={"fingerprint": "w"}) for s in (3, 4, 5, 6)]
    effect = named(compare(a, b), "tbt.mean")
    means = [[score(r, intervals=False).row("tbt").mean for r in side] for side in (a, b)]
    assert effect.how == "repeats"
    assert effect.difference == pytest.approx(np.mean(means[1]) - np.mean(means[0]))
    errors = [np.var(m, ddof=1) / len(m) for m in means]
    t = abs(effect.difference) / math.sqrt(sum(errors))
    assert (effect.p < 0.05) == (t > 2.8)


@pytest.mark.parametrize(
    ("slower", "gate", "verdict"),
    [
        (1.5, "tbt.mean +5%", "regression"),
        (1.0, "tbt.mean +10%", "equivalent"),
        (1.0, "tbt.mean +0.1%", "not shown"),
        (1.5, "tbt.mean +1s", "equivalent"),
        (1.0, "request_rate -5%", "not shown"),
    ],
)
def test_a_gate_has_three_outcomes(slower, gate, verdict):
    """Proven worse, proven not worse, neither; a figure without an interval proves nothing."""
    b = run_of(1, slower=slower, workload={"fingerprint": "plan-0"})
    found = compare(run_of(), b, gates=[gate])
    assert found.gates[0].verdict == verdict
    assert found.verdict == verdict


def test_the_worst_gate_decides():
    """One regression is one too many."""
    b = run_of(1, slower=1.5, workload={"fingerprint": "plan-0"})
    found = compare(run_of(), b, gates=["tbt.mean +1s", "tbt.mean +5%"])
    assert found.verdict == "regression"


@pytest.mark.parametrize(
    "text",
    ["ttft", "ttft.p99 5%", "nothing.p99 +5%", "ttft.p99 -5%", "token_rate +5%", "ttft.p99 +5tokens"],
)  # fmt: skip
def test_gates_that_mean_nothing_are_refused(text):
    """A gate in the wrong direction would pass everything."""
    with pytest.raises(UserError):
        parse_gate(text)


def test_gates_are_read_with_their_units():
    """Relative, absolute with a unit, and towards less."""
    assert parse_gate("ttft.p99 +5%")[1:] == ("ttft.p99", 1, pytest.approx(0.05), True)
    assert parse_gate("tbt.p99 +3ms")[1:] == ("tbt.p99", 1, pytest.approx(0.003), False)
    assert parse_gate("goodput -2%")[1:] == ("goodput", -1, pytest.approx(0.02), True)


def test_it_is_plain_data():
    """The whole result is JSON without NaN."""
    found = compare(run_of(), run_of(slower=1.1), slo="each: ttft <= 1s", gates=["ttft.p99 +5%"])
    plain = msgspec.json.decode(msgspec.json.encode(found.to_dict()))
    assert plain["effects"]["attainment"]["a"] is not None
    assert "NaN" not in str(found.to_dict()).replace("nan", "NaN")


def test_too_few_requests_are_no_p99():
    """A percentile that the sample cannot carry has no effect, and no p-value enters the adjustment."""
    small = run_of(requests=100)
    effect = named(compare(small, replace(small)), "ttft.p99")
    assert math.isnan(effect.a)
    assert math.isnan(effect.adjusted_p)
