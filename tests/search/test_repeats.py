from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from inferometer.errors import NotMeasurable, UserError
from inferometer.run import Manifest, Run
from inferometer.search import repeats
from inferometer.slo import parse
from inferometer.stats.intervals import t_quantile
from inferometer.timeline import build


def run_of(median_s, n=200, spread=0.0, seed=0):
    """A run of independent TTFTs around `median_s`."""
    rng = np.random.default_rng(seed)
    ttft = np.maximum(median_s + spread * rng.standard_normal(n), 0.001)
    intended = np.arange(n) * 1_000_000_000
    first = intended + np.rint(ttft * 1e9).astype(np.int64)
    return Run(
        build(
            n,
            request_id=[f"r{i}" for i in range(n)],
            intended_ns=intended,
            sent_ns=intended,
            ended_ns=first,
            status="ok",
            output_tokens=1,
            chunk_offset=np.arange(n + 1),
            chunk_ns=first,
            chunk_tokens=1,
            chunk_channel=0,
        ),
        Manifest(world="simulated", complete=True),
    )


def test_the_interval_of_repeats_is_students():
    """mean ± t s / sqrt(n) of the runs' own results, however sure each run is of itself."""
    medians = (0.10, 0.12, 0.14)
    seen = repeats.repeated("ttft.p50", [run_of(m) for m in medians])
    half = t_quantile(0.975, 2) * 0.02 / math.sqrt(3)
    assert seen.mean == pytest.approx(0.12)
    assert tuple(seen.interval) == pytest.approx((0.12 - half, 0.12 + half))
    assert seen.between_sd == pytest.approx(0.02)
    assert seen.within_sd == pytest.approx(0, abs=1e-6)


def test_scatter_within_runs_is_told_apart():
    """Where runs differ by no more than each believes of itself, nothing is left between them."""
    seen = repeats.repeated("ttft.p50", [run_of(0.5, spread=0.1, seed=s) for s in range(8)])
    assert seen.within_sd == pytest.approx(0.1 * math.sqrt(math.pi / 2 / 200), rel=0.4)
    assert seen.between_sd < 1.5 * seen.within_sd


def test_it_stops_when_it_is_enough():
    """Equal results are precise at the first look; seeds go up by one."""
    seeds = []

    def measure(seed):
        seeds.append(seed)
        return run_of(0.1)

    found = repeats.repeat(measure, until=repeats.parse_until("ttft.p50 ci<5%"), seed=7)
    assert seeds == [7, 8, 9]
    assert found.enough is True


def test_it_stops_when_it_is_too_much():
    """Results that scatter are never precise: the declared most is made, and it says that it was not enough."""
    rng = np.random.default_rng(1)
    until = repeats.parse_until("ttft.p50 ci<1%", most=5)
    found = repeats.repeat(lambda _: run_of(0.1 + 0.05 * rng.random()), until=until)
    assert len(found.runs) == 5
    assert found.enough is False


def test_looks_are_declared_and_hold_together():
    """Every look is stricter than 95 %, and what they spend adds up to the 5 %."""
    levels = repeats.looks_of(repeats.Until("ttft.p50", 0.05, most=10))
    assert list(levels) == list(range(3, 11))
    assert min(levels.values()) > 0.95
    assert sum(1 - level for level in levels.values()) == pytest.approx(0.05)


def test_peeking_does_not_spoil_the_interval():
    """With declared looks, the interval at which a series stops still holds the truth 95 % of the time."""
    rng = np.random.default_rng(3)
    until = repeats.Until("x", 0.2, most=10)
    levels, held = repeats.looks_of(until), 0
    for _ in range(400):
        x = 1 + 0.2 * rng.standard_normal(until.most)
        for n, level in levels.items():
            half = t_quantile((1 + level) / 2, n - 1) * x[:n].std(ddof=1) / math.sqrt(n)
            if half <= until.relative * abs(x[:n].mean()) or n == until.most:
                held += abs(x[:n].mean() - 1) <= half
                break
    assert held >= 0.93 * 400


def test_fixed_repeats():
    """So many runs as were asked for, with no word on whether they are enough, as plain data."""
    found = repeats.repeat(lambda s: run_of(0.1 + s / 100), times=2)
    plain = found.to_dict()
    assert plain["repeats"] == 2
    assert plain["enough"] is None
    assert plain["metrics"]["ttft.p50"]["results"] == pytest.approx([0.1, 0.11])


@pytest.mark.parametrize(
    "text", ["5%", "ci<0%", "nothing.p50 ci<5%", "ttft ci<5%", "ttft.p75 ci<5%", "ttft.p99"]
)
def test_precisions_that_mean_nothing(text):
    """Refused before anything is measured."""
    with pytest.raises(UserError):
        repeats.parse_until(text)


def test_a_precision_that_no_run_can_reach_costs_one_run():
    """p99 of 200 requests is refused in every run; attainment without an SLO is refused before any."""
    seeds = []

    def measure(seed):
        seeds.append(seed)
        return run_of(0.1)

    with pytest.raises(NotMeasurable, match="needs 368 values in a run, and the first has 200"):
        repeats.repeat(measure, until=repeats.parse_until("ttft.p99 ci<5%"))
    assert seeds == [0]
    with pytest.raises(UserError, match="attainment needs an SLO"):
        repeats.repeat(measure, until=repeats.parse_until("attainment ci<5%"))


def test_arms_take_turns_in_random_blocks():
    """Each block holds every arm once, with one seed for all of them; the order changes from block to block."""
    turns = list(repeats.blocks(("a", "b", "c"), 12, seed=4))
    for block in range(12):
        of = [t for t in turns if t.block == block]
        assert Counter(t.arm for t in of) == {"a": 1, "b": 1, "c": 1}
        assert {t.seed for t in of} == {4 + block}
    assert len({tuple(t.arm for t in turns[k : k + 3]) for k in range(0, 36, 3)}) > 1


def arm(name, order, median_s=0.1, complete=True):
    """An arm that notes when it was run on what."""

    def run(plan, seed, folder):
        order.append((name, plan, seed, folder))
        made = run_of(median_s + seed)
        manifest = msgspec.structs.replace(made.manifest, complete=complete)
        return replace(made, manifest=manifest)

    return run


def test_interleaved_runs_come_by_arm_and_block(tmp_path):
    """What was run in a random order comes back in that of the blocks; the arms of a block share a plan."""
    order = []
    arms = {"a": arm("a", order), "b": arm("b", order)}
    found = repeats.interleave(arms, lambda seed: f"plan {seed}", tmp_path, repeats=3, seed=1)
    assert sorted(map(str, order)) == sorted(
        str((name, f"plan {seed}", seed, tmp_path / name / f"{seed - 1:03d}"))
        for name in "ab"
        for seed in (1, 2, 3)
    )
    for runs in found.values():
        medians = [repeats.repeated("ttft.p50", [run]).results[0] for run in runs]
        assert medians == pytest.approx([1.1, 2.1, 3.1])


def test_an_interrupted_run_ends_the_turns_and_the_repeats(tmp_path):
    """A person's Ctrl-C is not the first of many: turns end at once; repeats keep what was whole."""
    with pytest.raises(KeyboardInterrupt):
        repeats.interleave({"a": arm("a", [], complete=False)}, str, tmp_path, repeats=2)
    whole, cut = arm("a", []), arm("a", [], complete=False)
    found = repeats.repeat(lambda seed: (cut if seed == 2 else whole)(None, seed, None), times=5)
    assert len(found.runs) == 2
    with pytest.raises(KeyboardInterrupt):
        repeats.repeat(lambda seed: cut(None, seed, None), times=5)


def test_repeats_that_are_there_already():
    """Scored together they say what they would have said when they were made, with each run's doubts."""
    runs = [run_of(m) for m in (0.10, 0.12, 0.14)]
    found = repeats.together(runs, parse("ttft.p50 <= 0.13s"))
    assert found.enough is None
    assert found.met == (True, True, False)
    assert found.valid == (True, True, True)
    assert found.steady == ("steady",) * 3
    assert next(row for row in found.rows if row.name == "ttft.p50").mean == pytest.approx(0.12)
