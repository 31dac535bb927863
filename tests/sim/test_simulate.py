"""A plan and a deployment become a Run like any other."""

from __future__ import annotations

import numpy as np
import pytest

from inferometer.agenda import RAN_OUT
from inferometer.errors import UserError
from inferometer.metrics import score
from inferometer.plan import build_plan
from inferometer.run import load_run, write_run
from inferometer.sim import SYSTEMS, Deployment, Limits, simulate
from inferometer.sim.routers import ROUTERS
from inferometer.sim.simulate import Window, simulate_into
from inferometer.timeline import ABSENT, ROW_COLUMNS, offsets

MS = 1_000_000


def some_plan(rows=40, gap_ms=30, **more):
    columns = {"intended_ns": np.arange(rows) * gap_ms * MS} | more
    prompts = 20 + (np.arange(rows) * 37) % 500
    outputs = 1 + (np.arange(rows) * 13) % 60
    return build_plan(rows, prompt_tokens=prompts, output_tokens=outputs, **columns)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_every_system_makes_a_run_that_metrics_can_read(name):
    """All requests end well, with their tokens, and the scorecard has its figures."""
    plan = some_plan()
    run = simulate(plan, Deployment(system=name, model="llama-3-8b"))
    assert set(run.timeline.status) == {"ok"}
    assert run.timeline.output_tokens.tolist() == plan.output_tokens.tolist()
    assert run.manifest.world == "simulated"
    assert (run.timeline.scheduled_ns >= run.timeline.intended_ns).all()
    assert set(run.timeline.token_source) == {"simulated"}
    card = score(run).to_dict()
    assert card["valid"]
    assert card["metrics"]["ttft"]["n"] == len(plan)


def test_a_run_is_written_and_read_back(tmp_path):
    """The directory holds the same timeline, plan and manifest."""
    run = simulate(some_plan(), Deployment(system="vllm", model="llama-3-8b"))
    again = load_run(write_run(run, tmp_path / "run"))
    assert np.array_equal(again.timeline.chunk_ns, run.timeline.chunk_ns)
    assert again.manifest.complete
    assert again.manifest.target["policy"]["name"] == "vllm"


def test_a_run_that_is_written_in_parts_is_the_same_run(tmp_path):
    """Rows, stamps and manifest are those of the run that was made in memory, the plan's order included."""
    plan = some_plan()
    deployment = Deployment(system="vllm-v1", model="llama-3-8b", replicas=2)
    whole = simulate(plan, deployment)
    parts = load_run(simulate_into(plan, deployment, tmp_path / "run", rows=7))
    for name in (*ROW_COLUMNS, "chunk_offset", "chunk_ns", "chunk_tokens"):
        assert np.array_equal(getattr(whole.timeline, name), getattr(parts.timeline, name))
    assert whole.manifest == parts.manifest


def test_memory_is_bounded_because_logs_are_renewed(monkeypatch):
    """A log of 4 entries gives every token the same time as one without an end."""
    plan, deployment = some_plan(), Deployment(system="vllm", model="llama-3-8b")
    whole = simulate(plan, deployment)
    monkeypatch.setattr("inferometer.sim.seqs.LOG_LENGTH", 4)
    assert np.array_equal(whole.timeline.chunk_ns, simulate(plan, deployment).timeline.chunk_ns)


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_the_same_seed_gives_the_same_run(name):
    """Bit for bit, whatever the router."""
    deployment = Deployment(system="vllm-v1", model="llama-3-8b", replicas=3, router=name, seed=7)
    first, second = simulate(some_plan(), deployment), simulate(some_plan(), deployment)
    assert np.array_equal(first.timeline.chunk_ns, second.timeline.chunk_ns)


def test_what_can_never_be_served_is_dropped_with_the_reason():
    """Too long for the model, or for the pool: a row with a status, and the others are served."""
    plan = build_plan(
        3,
        intended_ns=[0, MS, 2 * MS],
        prompt_tokens=[9000, 700, 10],
        output_tokens=[10, 10, 10],
    )
    deployment = Deployment(system="vllm", model="llama-3-8b", limits=Limits(num_blocks=40))
    timeline = simulate(plan, deployment).timeline
    assert timeline.status.tolist() == ["dropped", "dropped", "ok"]
    assert "more than the longest request, 8192" in timeline.error[0]
    assert "needs 45 KV blocks, and there are 40" in timeline.error[1]
    assert timeline.sent_ns[0] == ABSENT


def test_a_closed_loop_keeps_its_slots_busy():
    """With 4 in flight, the next request starts when one ends."""
    plan = some_plan(20, intended_ns=ABSENT, concurrency=4)
    timeline = simulate(plan, Deployment(system="vllm", model="llama-3-8b")).timeline
    assert set(timeline.status) == {"ok"}
    for start in timeline.intended_ns:
        flying = (timeline.intended_ns <= start) & (timeline.ended_ns > start)
        assert flying.sum() <= 4
    assert set(timeline.intended_ns[4:]) <= set(timeline.ended_ns)


def test_a_closed_loop_stops_when_its_time_is_up(tmp_path):
    """Nothing starts after the duration, what runs is finished, and what began before the warm-up's end says so."""
    plan = some_plan(400, intended_ns=ABSENT, concurrency=4)
    deployment = Deployment(system="vllm", model="llama-3-8b")
    window = Window(duration_s=2.0, warmup_s=0.5)
    timeline = simulate(plan, deployment, window=window).timeline
    everything = simulate(plan, deployment).timeline
    count = int((everything.intended_ns < 2000 * MS).sum())
    assert timeline.request_id.tolist() == plan.request_id[:count].tolist()
    known = timeline.chunk_ns[timeline.chunk_ns < 2000 * MS]
    same = everything.take(np.arange(count)).chunk_ns
    assert known.tolist() == same[same < 2000 * MS].tolist()
    assert ((timeline.phase == "warmup") == (timeline.intended_ns < 500 * MS)).all()
    parts = load_run(simulate_into(plan, deployment, tmp_path / "run", window=window, rows=10))
    assert np.array_equal(parts.timeline.chunk_ns, timeline.chunk_ns)


def test_a_plan_that_ran_out_says_so():
    """Twenty requests are not two seconds of load."""
    plan = some_plan(20, intended_ns=ABSENT, concurrency=4)
    run = simulate(
        plan, Deployment(system="vllm", model="llama-3-8b"), window=Window(duration_s=60.0)
    )
    assert RAN_OUT in run.manifest.notes


def test_later_turns_wait_for_earlier_ones():
    """A turn starts its pause after its parent ended; after one that was dropped it never does."""
    plan = build_plan(
        4,
        intended_ns=[0, ABSENT, MS, ABSENT],
        prompt_tokens=[10, 20, 9000, 20],
        output_tokens=[5, 5, 5, 5],
        think_ns=[0, 7 * MS, 0, 7 * MS],
        parent_offset=[0, 0, 1, 1, 2],
        parent_row=[0, 2],
    )
    timeline = simulate(plan, Deployment(system="sarathi-serve", model="llama-3-8b")).timeline
    assert timeline.intended_ns[1] == timeline.ended_ns[0] + 7 * MS
    assert timeline.status.tolist() == ["ok", "ok", "dropped", "dropped"]
    assert timeline.error[3] == "an earlier turn failed (r00000002)"


def test_replicas_share_the_load():
    """Twice the replicas, shorter waits, the same tokens."""
    plan = some_plan(60, gap_ms=1)
    one, two = (
        simulate(plan, Deployment(system="orca", model="llama-3-8b", replicas=n)).timeline
        for n in (1, 2)
    )
    wait = [float((t.scheduled_ns - t.intended_ns).mean()) for t in (one, two)]
    assert wait[1] < wait[0] / 2
    assert np.array_equal(one.output_tokens, two.output_tokens)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"system": "nope"}, "no such system"),
        ({"cost": "magic"}, "no such cost model"),
        ({"router": "nope", "replicas": 2}, "no such router"),
        ({"model": "llama-2-70b"}, "does not fit"),
        ({"tp": 3}, "does not divide"),
        ({"limits": Limits(prefix_caching=True)}, "no prefix cache.*vllm-v1"),
        ({"system": "orca", "limits": Limits(preemption="swap")}, "recompute only"),
    ],
)
def test_bad_questions_end_before_the_run(change, complaint):
    """One line each."""
    asked = {"system": "vllm", "model": "llama-3-8b"} | change
    with pytest.raises(UserError, match=complaint):
        simulate(some_plan(2), Deployment(**asked))


def test_pipeline_stages_overlap():
    """Under load, two stages of two micro-batches each make more tokens per second than their sum in sequence."""
    plan = some_plan(60, gap_ms=1)
    run = simulate(plan, Deployment(system="sarathi-serve", model="llama-2-70b", tp=2, pp=2))
    assert set(run.timeline.status) == {"ok"}
    assert run.manifest.target["iterations"] > 0


def test_iterations_come_in_parts_of_one_table(monkeypatch, tmp_path):
    """However small the parts that are handed on, the file holds the same rows; so memory can be bounded."""
    import pyarrow.parquet as pq

    deployment = Deployment(system="sarathi-serve", model="llama-2-70b", tp=2, pp=2, replicas=2)
    tables = []
    for rows in (1 << 16, 5):
        monkeypatch.setattr("inferometer.sim.iterations.PART_ROWS", rows)
        path = simulate_into(some_plan(), deployment, tmp_path / f"{rows}", iterations=True)
        tables.append(pq.read_table(path / "iterations.parquet"))
        assert not list(path.glob("*.part"))
    assert tables[0].equals(tables[1])
    assert set(tables[0]["stage"].to_pylist()) == {0, 1}
    assert set(tables[0]["replica"].to_pylist()) == {0, 1}


def test_who_waits_is_told_how_far_it_is(tmp_path):
    """Rows that are over, part by part, up to all of them."""
    told: list[int] = []
    deployment = Deployment(system="vllm", model="llama-3-8b")
    simulate_into(some_plan(40), deployment, tmp_path / "run", rows=15, told=told.append)
    assert told == sorted(told)
    assert told[-1] == 40


def sessions(turns=4, count=12):
    """Conversations whose every prompt is all that was said before and 200 tokens more, a second apart."""
    prompt = [300 + turn * 240 for _ in range(count) for turn in range(turns)]
    rows = len(prompt)
    session, turn = np.divmod(np.arange(rows), turns)
    chain = [
        [s * 100 + block for block in range(-(-p // 64))]
        for s, p in zip(session, prompt, strict=True)
    ]
    return build_plan(
        rows,
        session_id=[f"s{s}" for s in session],
        turn=turn,
        intended_ns=np.where(turn == 0, session * 200 * MS, ABSENT),
        think_ns=np.where(turn == 0, 0, 1000 * MS),
        prompt_tokens=prompt,
        output_tokens=[40] * rows,
        parent_offset=offsets(turn > 0),
        parent_row=np.flatnonzero(turn > 0) - 1,
        block_offset=offsets(np.array([len(each) for each in chain])),
        block_id=[one for each in chain for one in each],
        block_tokens=64,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["session-affinity", "prefix-affinity"])
def test_affinity_finds_what_turns_left_behind(name):
    """A later turn finds the earlier one's prompt and reply (to a block); on a random one of six it mostly does not."""
    plan = sessions()
    found = {}
    for route in (name, "random"):
        deployment = Deployment(
            system="vllm-v1", model="llama-3.1-8b", device="h100", replicas=6, router=route
        )
        found[route] = simulate(plan, deployment).timeline.cached_tokens
    said = plan.prompt_tokens.astype(int) + plan.output_tokens - 1
    whole = np.where(plan.turn > 0, np.roll(said, 1) // 16 * 16, 0)
    assert found[name].tolist() == whole.tolist()
    assert found["random"].sum() < 0.6 * whole.sum()
