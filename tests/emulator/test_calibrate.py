"""Joining a timeline with the server's log, and what is made of it; one real calibration, tiny."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.agenda import Agenda
from inferometer.clock import MILLISECOND, SECOND
from inferometer.emulator import calibrate as calibrating
from inferometer.emulator.calibrate import (
    CRITERIA,
    LADDER,
    QUICK,
    Load,
    calibrate,
    concluded,
    joined,
    judged,
    merged,
    rung,
    rung_of,
    spread,
)
from inferometer.emulator.writes import ABSENT, Ledger, WriteLog
from inferometer.load.calibration import BELIEVED, DISCARDED, REFUSED, Rung, Spread
from inferometer.run import Manifest, Run
from inferometer.timeline import Timeline, build, offsets

EPOCH, GAP = 1_000 * SECOND, 10 * MILLISECOND
STREAMS, TOKENS = 4, 100
LOAD = Load(streams=STREAMS, gap_s=0.01, ttft_s=0.0, ramp_s=0.0, seconds=10.0)


def timeline(
    ids: list[str], tokens: list[list[int]], stamp_ns: list[list[int]], **rest: Any
) -> Timeline:
    """Requests whose chunks have these tokens at these times since the epoch."""
    return build(
        len(ids),
        request_id=ids,
        intended_ns=0,
        sent_ns=0,
        ended_ns=20 * SECOND,
        status=rest.pop("status", "ok"),
        output_tokens=[sum(each) for each in tokens],
        chunk_offset=offsets(np.array([len(each) for each in tokens])),
        chunk_tokens=[n for each in tokens for n in each],
        chunk_ns=[t for each in stamp_ns for t in each],
        chunk_channel=0,
    )


def log(*writes: tuple[str, int, int, int]) -> WriteLog:
    """The log of writes (request id, tokens, due, lateness), in this order; a lateness below 0: held back."""
    ledger = Ledger(rows=True)
    keys: dict[str, int] = {}
    for name, tokens, due_ns, late_ns in writes:
        key = keys.setdefault(name, -1)
        if key < 0:
            key = keys[name] = ledger.arrived(name, 1)
        due, wrote = EPOCH + due_ns, EPOCH + due_ns + max(0, late_ns)
        ledger.wrote_tokens(key, tokens, due, wrote, whole=late_ns >= 0)
    return ledger.log()


def steady(*, error_ns: Any = 0, late_ns: int = 0, **rest: Any) -> tuple[Run, WriteLog]:
    """4 streams of 100 tokens at 10 ms; each stamp is `error_ns` [4, 100] after its write."""
    ids = [f"c{row}" for row in range(STREAMS)]
    due = np.arange(TOKENS) * GAP + MILLISECOND + np.arange(STREAMS)[:, None] * 1000
    stamps = due + late_ns + np.broadcast_to(error_ns, due.shape)
    writes = [
        (ids[row], 1, int(due[row, index]), late_ns)
        for index in range(TOKENS)
        for row in range(STREAMS)
    ]
    t = timeline(ids, [[1] * TOKENS] * STREAMS, stamps.tolist(), **rest)
    return Run(t, manifest()), log(*writes)


def manifest(**changes: Any) -> Manifest:
    """What the fleet would have written."""
    instrument = {
        "stamps": {"mode": "kernel"},
        "cpu_s": 0.004,
        "cpu_share": 0.1,
        "invalid_reasons": [],
    }
    return Manifest(complete=True, clock={"epoch_ns": EPOCH}, instrument=instrument | changes)


def verdict(run: Run, writes: WriteLog) -> Rung:
    return judged(rung_of(LOAD, run, writes), run, CRITERIA)


# --- joining ----------------------------------------------------------------------------------------------------------


def test_tokens_are_joined_by_request_and_index_whatever_the_order() -> None:
    """Writes interleave and requests end in another order than they began; strangers (a preflight) are left out."""
    t = timeline(["b", "a"], [[1, 1], [1, 1, 1]], [[105, 215], [107, 211, 313]])
    writes = log(
        ("preflight-1", 1, 1, 0),
        ("a", 1, 100, 0),
        ("b", 1, 101, 0),
        ("a", 1, 200, 0),
        ("b", 1, 202, 0),
        ("a", 1, 300, 0),
    )
    tokens = joined(t, writes, EPOCH)
    assert tokens.share == 1.0
    assert tokens.row.tolist() == [0, 0, 1, 1, 1]
    assert tokens.index.tolist() == [0, 1, 0, 1, 2]
    assert tokens.error_ns.tolist() == [4, 13, 7, 11, 13]
    follows, gap_errors = tokens.gap_error_ns()
    assert follows.tolist() == [False, True, False, True, True]
    assert gap_errors.tolist() == [9, 4, 2]


def test_chunks_and_writes_may_hold_several_tokens() -> None:
    """Two writes that were read at once, and one write of three tokens: each token has its own truth."""
    t = timeline(["a"], [[0, 2, 3]], [[90, 230, 305]])
    tokens = joined(t, log(("a", 1, 100, 0), ("a", 1, 200, 0), ("a", 3, 300, 0)), EPOCH)
    assert tokens.share == 1.0
    assert tokens.error_ns.tolist() == [130, 30, 5, 5, 5]


def test_a_write_that_was_held_back_has_no_truth() -> None:
    """Neither it nor a gap beside it is compared, and the share says so."""
    t = timeline(["a"], [[1, 1, 1, 1]], [[105, 205, 305, 405]])
    writes = log(("a", 1, 100, 0), ("a", 1, 200, -1), ("a", 1, 300, 0), ("a", 1, 400, 0))
    tokens = joined(t, writes, EPOCH)
    assert writes.wrote_ns.tolist().count(ABSENT) == 1
    assert tokens.index.tolist() == [0, 2, 3]
    assert tokens.share == 0.75
    assert len(tokens.gap_error_ns()[1]) == 1


def test_tokens_that_only_one_side_knows_are_counted() -> None:
    """One that was written and never seen, and one that was seen and never written."""
    t = timeline(["a", "b"], [[1], [1, 1]], [[105], [106, 206]])
    tokens = joined(t, log(("a", 1, 100, 0), ("a", 1, 200, 0), ("b", 1, 100, 0)), EPOCH)
    assert len(tokens.row) == 2
    assert tokens.share == 2 / 4


def test_the_logs_of_several_servers_are_one() -> None:
    """Each had requests of its own; one server alone is itself."""
    one, two = log(("a", 1, 100, 0), ("a", 1, 200, 0)), log(("b", 2, 150, 0), ("b", 1, 250, 0))
    t = timeline(["b", "a"], [[2, 1], [1, 1]], [[151, 252], [103, 204]])
    tokens = joined(t, merged([one, two]), EPOCH)
    assert tokens.share == 1.0
    assert tokens.error_ns.tolist() == [1, 1, 2, 3, 4]
    assert joined(t, merged([one]), EPOCH).error_ns.tolist() == [3, 4]


def test_nothing_to_join_is_a_share_of_zero() -> None:
    """An empty log, an empty timeline, or both."""
    empty = timeline([], [], [])
    assert joined(empty, log(), EPOCH).share == 0.0
    assert joined(timeline(["a"], [[1]], [[5]]), log(), EPOCH).share == 0.0
    assert joined(empty, log(("a", 1, 100, 0)), EPOCH).share == 0.0


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_a_perfect_instrument_has_no_error(writes: list[list[int]], random: Any) -> None:
    """However the tokens are written and the requests ordered, stamps that are the truth have error 0 and share 1."""
    ids = [f"r{row}" for row in range(len(writes))]
    times = [(np.arange(len(each)) * 1000 + random.randrange(999)).tolist() for each in writes]
    rows = [
        (name, n, t, 0)
        for name, each, at in zip(ids, writes, times, strict=True)
        for n, t in zip(each, at, strict=True)
    ]
    rows.sort(key=lambda write: write[2])
    order = random.sample(range(len(ids)), len(ids))
    t = timeline([ids[k] for k in order], [writes[k] for k in order], [times[k] for k in order])
    tokens = joined(t, log(*rows), EPOCH)
    assert tokens.share == 1.0
    assert len(tokens.row) == sum(map(sum, writes))
    assert not tokens.error_ns.any()
    assert not tokens.gap_error_ns()[1].any()


# --- figures and verdicts ---------------------------------------------------------------------------------------------


def test_a_constant_lag_is_no_gap_error() -> None:
    """Each stamp 3 µs late: the stamp and TTFT errors say 3 µs, gaps are right."""
    found = verdict(*steady(error_ns=3_000))
    assert (found.verdict, found.reasons) == (BELIEVED, ())
    assert found.tokens == STREAMS * TOKENS
    assert found.tokens_per_s == pytest.approx(STREAMS * TOKENS / 10)
    assert found.stamp_error == Spread(400, 3e-6, 3e-6, None, 3e-6)
    assert (found.gap_error.n, found.gap_error.max) == (STREAMS * (TOKENS - 1), 0)
    assert found.ttft_error == Spread(STREAMS, 3e-6, None, None, 3e-6)
    assert found.cpu_us_per_token == pytest.approx(10)
    assert found.shared_stamps == 0


def test_errors_count_on_either_side() -> None:
    """A stamp that is 2 ms early is as wrong as one that is late."""
    early = np.zeros((STREAMS, TOKENS), dtype=np.int64)
    early[:, 1::2] = -2 * MILLISECOND
    found = verdict(*steady(error_ns=early))
    assert found.verdict == REFUSED
    assert found.stamp_error.max == found.gap_error.p99 == pytest.approx(2e-3)


def test_late_stamps_are_refused_with_the_bound() -> None:
    """Every stamp 2 ms late: gaps are right, instants are not."""
    found = verdict(*steady(error_ns=2 * MILLISECOND))
    assert found.verdict == REFUSED
    assert found.reasons == ("stamp error p99 2 ms is above 1 ms",)


def test_tokens_that_share_a_stamp_are_counted() -> None:
    """Every second token was read together with the one after it."""
    error = np.zeros((STREAMS, TOKENS), dtype=np.int64)
    error[:, 0::2] = GAP
    found = verdict(*steady(error_ns=error))
    assert found.shared_stamps == pytest.approx(50 / 99)
    assert found.verdict == REFUSED


def test_only_the_plateau_counts() -> None:
    """Errors of the ramp, where the load was lower, neither help nor hurt."""
    error = np.zeros((STREAMS, TOKENS), dtype=np.int64)
    error[:, :50] = 5 * MILLISECOND
    run, writes = steady(error_ns=error)
    load = msgspec.structs.replace(LOAD, ramp_s=0.51, seconds=0.4)
    found = rung_of(load, run, writes)
    assert found.tokens == STREAMS * 40
    assert found.tokens_per_s == pytest.approx(400)
    assert found.stamp_error.max == found.gap_error.max == 0


def test_missing_tokens_are_refused() -> None:
    """One write in a hundred has no stamp: the worst may be among them."""
    run, writes = steady()
    short = run.timeline.take(np.array([0, 1, 2]))
    found = verdict(Run(short, run.manifest), writes)
    assert found.matched_share == 1.0  # what was never asked for is not missing
    cut = timeline(
        [f"c{row}" for row in range(STREAMS)],
        [[1] * 99] * 4,
        [(np.arange(99) * GAP + MILLISECOND).tolist()] * 4,
    )
    found = verdict(Run(cut, run.manifest), writes)
    assert found.verdict == REFUSED
    assert "99.00%" in found.reasons[0]


def test_an_invalid_or_broken_run_is_refused() -> None:
    """Whatever the errors: the run's own verdict, an early end, failed requests."""
    run, writes = steady()
    invalid = Run(run.timeline, manifest(invalid_reasons=["a worker was busy"]))
    assert verdict(invalid, writes).reasons == ("a worker was busy",)
    stopped = msgspec.structs.replace(run.manifest, stopped="disk full")
    assert "disk full" in verdict(Run(run.timeline, stopped), writes).reasons[0]
    failed, _ = steady(status=["ok", "ok", "ok", "timeout"])
    assert verdict(failed, writes).reasons == ("1 of 4 requests failed",)


def test_a_saturated_emulator_is_not_the_drivers_fault() -> None:
    """Half of the writes later than 1 ms is a queue at the server: the rung is discarded, however small the errors."""
    found = verdict(*steady(late_ns=3 * MILLISECOND))
    assert found.verdict == DISCARDED
    assert "saturated, not the driver" in found.reasons[0]
    assert found.emulator_late_share == 1.0


def test_an_interrupted_emulator_matters_only_beside_large_errors() -> None:
    """2 % of late writes: with small errors the rung stands, with large ones nobody can tell whose they are."""
    figures = rung_of(LOAD, *steady())
    late = msgspec.structs.replace(figures, emulator_late_share=0.02)
    run, _ = steady()
    assert judged(late, run, CRITERIA).verdict == BELIEVED
    wrong = msgspec.structs.replace(late, gap_error=Spread(400, 1e-6, 5e-3, None, 9e-3))
    found = judged(wrong, run, CRITERIA)
    assert found.verdict == DISCARDED
    assert "interrupted" in found.reasons[0]
    assert "gap error p99 5 ms" in found.reasons[1]
    alone = msgspec.structs.replace(wrong, emulator_late_share=0.001)
    assert judged(alone, run, CRITERIA).verdict == REFUSED


def test_too_few_tokens_decide_nothing() -> None:
    """99 values have no p99, and a rung without one is not believed."""
    assert spread(np.arange(99)).p99 is None
    assert spread(np.arange(100)).p99 == pytest.approx(98.01e-9)
    assert spread(np.arange(999)).p999 is None
    assert spread(np.array([], dtype=np.int64)) == Spread()
    figures = msgspec.structs.replace(rung_of(LOAD, *steady()), gap_error=Spread(20, 0.0))
    assert "too few" in judged(figures, steady()[0], CRITERIA).reasons[0]


# --- the ladder -------------------------------------------------------------------------------------------------------


def ladder(*rungs: tuple[float, str]) -> list[Rung]:
    good = rung_of(LOAD, *steady(error_ns=3_000))
    return [msgspec.structs.replace(good, tokens_per_s=rate, verdict=how) for rate, how in rungs]


def test_the_highest_believed_rung_is_the_verdict() -> None:
    """Not the highest rung, and not the first failure."""
    idle = {"load_average": [0.1, 0, 0], "cpus": 2}
    rungs = ladder((1e3, BELIEVED), (3e3, DISCARDED), (1e4, BELIEVED), (3e4, REFUSED))
    found = concluded(rungs, host=idle, criteria=CRITERIA)
    assert found.believed_tokens_per_s == 1e4
    assert found.stamp_error_p99_s == 3e-6
    assert found.criteria["gap_error_p99_s"] == 1e-3
    assert found.notes == ()


def test_without_a_believed_rung_there_is_no_number() -> None:
    """Null, never 0."""
    idle = {"load_average": [0.1, 0, 0], "cpus": 2}
    found = concluded(ladder((1e3, REFUSED)), host=idle, criteria=CRITERIA)
    assert (found.believed_tokens_per_s, found.gap_error_p99_s) == (None, None)


def test_what_a_reader_must_know_is_noted() -> None:
    """A busy machine, and a ladder that ended too soon."""
    busy = {"load_average": [3.0, 0, 0], "cpus": 2}
    notes = concluded(ladder((1e3, BELIEVED)), host=busy, criteria=CRITERIA).notes
    assert "other work was running (load average 3.0 on 2 cores)" in notes[0]
    assert "--rungs" in notes[1]


@pytest.mark.parametrize("load", [*LADDER, *QUICK, Load(streams=3, gap_s=0.5)])
def test_a_load_lasts_to_its_end_however_short_its_outputs(load: Load) -> None:
    """Each stream is a chain; played at the shortest outputs, every stream still has a turn when the load is over."""
    plan = load.plan()
    chains = {row: row % load.streams for row in range(len(plan))}
    parents = plan.parent_row.tolist()
    assert all(
        chains[parent] == chains[row]
        for parent, row in zip(parents, range(load.streams, len(plan)), strict=True)
    )
    assert plan.output_tokens.min() >= load.least_tokens
    assert plan.output_tokens.max() <= load.most_tokens
    first = Agenda(plan).due(int(load.ramp_s * SECOND))
    assert len(first) == load.streams
    turns = len(plan) // load.streams
    assert turns * (load.least_tokens - 1) * load.gap_s > load.ramp_s + load.seconds


def test_user_stamps_are_compared_at_the_believed_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ladder is climbed in order, then the best rung is made once more; where the kernel gives no stamps, not."""
    made: list[tuple[int, str]] = []
    good = rung_of(LOAD, *steady(error_ns=3_000))

    def kernel_or_not(mode: str) -> Any:
        def fake(load: Load, criteria: Any, *, stamps: str = "kernel") -> Rung:
            made.append((load.streams, stamps))
            how = REFUSED if load.streams > 64 else BELIEVED
            stamps = mode if stamps == "kernel" else stamps
            change = {
                "streams": load.streams,
                "tokens_per_s": 50.0 * load.streams,
                "stamps": stamps,
            }
            return msgspec.structs.replace(good, verdict=how, **change)

        return fake

    monkeypatch.setattr(calibrating, "rung", kernel_or_not("kernel"))
    found = calibrate(LADDER[:3], watch=(seen := []).append)
    assert made == [(20, "kernel"), (64, "kernel"), (256, "kernel"), (64, "user")]
    assert seen == [*found.rungs, *found.beside]
    assert [rung.stamps for rung in found.beside] == ["user"]
    assert found.believed_tokens_per_s == 3_200
    monkeypatch.setattr(calibrating, "rung", kernel_or_not("user"))
    assert calibrate(LADDER[:1]).beside == ()


def test_cores_are_shared_out_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one core all share it; with two the emulator has one; with more there are two emulators."""
    given: list[list[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: given.append(sorted(cores)))
    for cores, emulators, ours in (
        ({3}, ((),), []),
        ({0, 1}, ((1,),), [[0], [0, 1]]),
        ({0, 1, 2}, ((1,), (2,)), [[0], [0, 1, 2]]),
        ({0, 1, 2, 5}, ((2,), (5,)), [[0, 1], [0, 1, 2, 5]]),
    ):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        given.clear()
        with calibrating._apart() as found:
            assert found == emulators
        assert given == ours


def test_a_real_rung_in_miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four streams at two emulators for less than half a second: every figure is there and sane."""
    tiny = Load(
        streams=4, gap_s=0.01, ttft_s=0.02, least_tokens=10, most_tokens=20, ramp_s=0.1, seconds=0.3
    )
    monkeypatch.setattr(calibrating, "_apart", lambda: nullcontext(((), ())))
    found = rung(tiny)
    assert found.matched_share == 1.0
    assert found.tokens == found.stamp_error.n > 40
    assert 30 < found.gap_error.n < found.tokens
    assert found.ttft_error.n >= 2
    assert found.send_lag.n >= 4
    assert found.cpu_us_per_token is not None
    assert found.stamp_error.p50 is not None
    assert found.stamp_error.p50 < 0.05
    assert found.stamps in ("kernel", "user")
