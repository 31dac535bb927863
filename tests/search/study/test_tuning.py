"""What tuning makes of its trials: the use of an SLO, the choice, its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inferometer.run import Manifest, Run
from inferometer.search.study.tuning import (
    Trial,
    chosen,
    figure,
    inherited,
    objective,
    scored,
    slo_use,
)
from inferometer.slo import parse
from inferometer.timeline import build

MS = 1_000_000


def run_of(ttfts_ms, gap_ms=10, failed=0) -> Run:
    """A request per TTFT, three tokens each; the last `failed` of them did not complete."""
    n = len(ttfts_ms)
    intended = np.arange(n) * 1000 * MS
    first = intended + np.array(ttfts_ms) * MS
    chunk = (first[:, None] + np.arange(3) * gap_ms * MS).ravel()
    timeline = build(
        n,
        request_id=[f"r{k}" for k in range(n)],
        intended_ns=intended,
        sent_ns=intended,
        ended_ns=chunk.reshape(n, 3)[:, -1],
        status=np.array(["ok"] * (n - failed) + ["truncated"] * failed, dtype=object),
        output_tokens=3,
        prompt_tokens=1,
        chunk_offset=np.arange(n + 1) * 3,
        chunk_ns=chunk,
        chunk_tokens=1,
        chunk_channel=0,
    )
    return Run(timeline, Manifest(world="simulated", complete=True))


def use(text: str, run: Run) -> float:
    slo = parse(text)
    return slo_use(run, scored(run, slo), slo)


def test_the_condition_that_is_used_most_decides():
    """1 is at the bound; below saturation it still tells configurations apart."""
    run = run_of([100] * 50)
    assert use("ttft.p50 <= 200ms and tbt.p50 <= 100ms", run) == pytest.approx(0.5)
    assert use("ttft.p50 <= 200ms and tbt.p50 <= 12.5ms", run) == pytest.approx(0.8)
    assert use("ttft.p50 <= 50ms", run) == pytest.approx(2.0)


def test_a_lower_bound_is_used_the_other_way_round():
    """Half of the asked rate is twice the use."""
    run = run_of([100] * 50)
    rate = scored(run, None).value("request_rate").value
    assert use(f"request_rate >= {2 * rate}/s", run) == pytest.approx(2.0)


def test_conditions_on_each_request_count_up_to_the_share_that_must_attain():
    """The slowest tenth may be as slow as it likes where nine in ten are asked for."""
    run = run_of([100] * 45 + [900] * 5)
    assert use("each: ttft <= 200ms; attainment >= 0.9", run) == pytest.approx(0.5)
    assert use("each: ttft <= 200ms; attainment >= 0.95", run) == pytest.approx(4.5)


def test_turning_users_away_is_no_way_to_be_fast():
    """Latencies say nothing about failed requests; the use does."""
    assert use("ttft.p50 <= 1s", run_of([100] * 50)) == pytest.approx(0.1)
    assert use("ttft.p50 <= 1s", run_of([100] * 50, failed=10)) == pytest.approx(1.2)


def test_a_percentile_of_a_small_sample_still_tells_an_order():
    """It is refused as a result, not as a reason to choose."""
    run = run_of(list(range(100, 140)))
    assert math.isnan(figure(run, scored(run, None), "ttft.p99"))
    assert use("ttft.p99 <= 139ms", run) == pytest.approx(1.0, abs=0.01)


def test_an_objective_that_should_be_high_is_turned_round():
    """Lower is better, whatever it is."""
    run = run_of([100] * 50)
    card = scored(run, None)
    assert objective(run, card, "ttft.p50", None) == pytest.approx(0.1)
    assert objective(run, card, "request_rate", None) == -card.value("request_rate").value
    assert objective(run, card, "ttft.p99", None) is None


def trial(value, best, *, valid=True) -> Trial:
    return Trial(config={"chunk": value}, objective=best, valid=valid, cell=f"t{value}")


@pytest.mark.parametrize(
    ("trials", "best", "edges"),
    [
        ([trial(256, 0.5), trial(512, 0.4), trial(1024, 0.6)], 512, ()),
        ([trial(256, 0.3), trial(512, 0.4), trial(1024, 0.6)], 256, ("chunk",)),
        ([trial(256, 0.3, valid=False), trial(512, 0.4)], 512, ()),
        ([trial(256, None), trial(512, None)], None, ()),
        ([trial(256, 0.4), trial(512, 0.4), trial(1024, 0.4)], 512, ()),
        ([trial(256, 0.4), trial(512, 0.403)], 512, ()),
        ([trial(256, 0.4), trial(512, 0.405)], 256, ("chunk",)),
    ],
)
def test_the_choice(study_file, trials, best, edges):
    """The lowest objective of the valid runs, of equals the one inside; its edges are those of the space."""
    choice = chosen(study_file().spec, "b", "", "chat", trials)
    assert (choice.best or {}).get("chunk") == best
    assert choice.edges == edges
    assert len(choice.trials) == len(trials)


def test_an_ablation_takes_the_choice_of_its_base(study_file):
    """And puts its own flags over it."""
    spec = study_file(put={"config: {chunk: 64}": "config: {utilization: 0.8}"}).spec
    choice = chosen(spec, "b", "", "chat", [trial(512, 0.4)])
    assert inherited(spec, "b-small", choice).best == {"chunk": 512, "utilization": 0.8}
