"""A simulated system behind the emulator: the same tokens at the same times, and what a real server would answer."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from inferometer.emulator import Emulator, Schedule
from inferometer.emulator.dialects import count_words
from inferometer.emulator.player import FAILED
from inferometer.emulator.schedule import Asked
from inferometer.emulator.system import SystemPlayer
from inferometer.plan import build_plan
from inferometer.sim import Deployment, Limits, simulate
from inferometer.sim.live import live
from inferometer.workload import tokenizer
from inferometer.workload.prompts import Prompts

MS = 1_000_000
LATER = 10**15
VLLM = Deployment(system="vllm-v1", model="llama-3-8b")


def player(deployment: Deployment = VLLM, **schedule) -> SystemPlayer:
    """A player of a deployment."""
    return SystemPlayer(Schedule(**schedule), live(deployment))


def simulated_ns(*rows: tuple[int, int, int]) -> list[int]:
    """The token times that `simulate` gives to (intended, prompt, output) rows, in order of time."""
    intended, prompts, outputs = zip(*rows, strict=True)
    plan = build_plan(len(rows), intended_ns=intended, prompt_tokens=prompts, output_tokens=outputs)
    return sorted(simulate(plan, VLLM).timeline.chunk_ns.tolist())


def test_tokens_are_due_when_the_simulated_iterations_end():
    """Counted from the first arrival, rounded up to whole ns; a late caller does not move them."""
    played = player()
    for key, at_ns in enumerate((7 * MS, 12 * MS)):
        played.arrive(key, Asked(prompt_tokens=100, max_tokens=20), at_ns)
    due = list(played.due(LATER))
    expected = simulated_ns((0, 100, 20), (5 * MS, 100, 20))
    assert all(0 <= at - 7 * MS - t <= 1 for (at, *_), t in zip(due, expected, strict=True))
    assert sorted(key for _, key, _, last in due if last) == [0, 1]
    assert played.next_due_ns() is None


def test_nothing_is_due_before_its_time():
    """Asked early, the player names the end of the iteration, and says nothing until then."""
    played = player()
    played.arrive(0, Asked(prompt_tokens=100, max_tokens=2), 0)
    assert list(played.due(0)) == []
    first = played.next_due_ns()
    assert first is not None
    assert list(played.due(first - 1)) == []
    assert list(played.due(first)) == [(first, 0, 1, False)]


def test_a_slice_of_the_tokens_can_be_taken():
    """A caller that stops in the middle of an iteration gets the rest of it next time, at the same due time."""
    played = player()
    for key in range(3):
        played.arrive(key, Asked(prompt_tokens=10, max_tokens=1), 0)
    first = next(played.due(LATER))
    assert played.next_due_ns() == first[0]
    assert [due for due, *_ in played.due(LATER)] == [first[0]] * 2


def test_lengths_are_the_schedules():
    """The cap holds, replies may stop early, and the door judges by what was asked for."""
    played = player(output_tokens=5, default_output_tokens=7)
    played.arrive(0, Asked(max_tokens=50), 0)
    assert len(list(played.due(LATER))) == 5
    stopping = player(early_stop=1.0)
    stopping.arrive(0, Asked(max_tokens=50, request_id="some"), 0)
    assert 1 <= len(list(stopping.due(LATER))) <= 50
    assert "5000 tokens" in (played.refuses(Asked(prompt_tokens=1, max_tokens=5000)) or "")
    assert player(default_output_tokens=100).refuses(Asked(prompt_tokens=3990)) is None
    assert player(default_output_tokens=107).refuses(Asked(prompt_tokens=3990)) is not None


def test_who_leaves_gives_its_memory_back():
    """After the iteration that it is in; leaving twice, or before anything arrived, is no error."""
    played = player()
    played.leave(0, 0)
    played.arrive(0, Asked(prompt_tokens=100, max_tokens=1000), 0)
    list(played.due(200 * MS))
    assert (played.running, played.waiting) == (1, 0)
    played.leave(0, 200 * MS)
    played.leave(0, 201 * MS)
    assert list(played.due(LATER)) == []
    assert (played.running, played.kv_usage) == (0, 0.0)


@pytest.mark.parametrize(
    "deployment",
    [VLLM, Deployment(system="vllm-v1", model="llama-3-8b", replicas=3, router="prefix-affinity")],
    ids=["one", "by-prefix"],
)
def test_prompts_that_begin_alike_share_what_a_plan_says_they_share(deployment):
    """Told by their words alone, they hit the same blocks, and get the same tokens at the same times, as in `simulate`."""
    rng, rows = np.random.default_rng(0), 60
    document = rng.integers(0, 5, rows)
    plan = build_plan(
        rows,
        intended_ns=np.cumsum(rng.integers(1, 200 * MS, rows)),
        prompt_tokens=600 + rng.integers(0, 200, rows),
        output_tokens=rng.integers(5, 60, rows),
        block_offset=np.arange(rows + 1) * 4,
        block_id=[100 * number + block for number in document for block in range(4)],
        block_tokens=128,
    )
    run = simulate(plan, deployment)
    played, said = player(deployment), {row: [] for row in range(rows)}
    texts = Prompts(plan, tokenizer.load()).texts(range(rows))
    for row, text in enumerate(texts):
        at_ns = int(plan.intended_ns[row])
        for due, key, *_ in played.due(at_ns - 1):
            said[key].append(due)
        prompt = [{"role": "user", "content": text}]
        tokens, output = count_words(prompt), int(plan.output_tokens[row])
        played.arrive(row, Asked(prompt=prompt, prompt_tokens=tokens, max_tokens=output), at_ns)
    for due, key, *_ in played.due(LATER):
        said[key].append(due)
    assert run.timeline.cached_tokens.mean() > 300
    assert np.abs(np.concatenate(list(said.values())) - run.timeline.chunk_ns).max() <= 1


# --- behind the server ------------------------------------------------------------------------------------------------


def gauges(served) -> dict[str, float]:
    """The metrics page, by the names' ends."""
    client = served.client()
    client.get("/metrics")
    lines = client.answer().body.decode().splitlines()
    pairs = [line.split() for line in lines if not line.startswith("#")]
    return {name.partition("{")[0].rpartition(":")[2]: float(value) for name, value in pairs}


def test_any_client_talks_to_a_simulated_system(serve):
    """A chat gets its tokens and its usage; each token was due when its iteration ended, first tokens after the prompt."""
    served = serve(player=player())
    client = served.client()
    client.post(max_tokens=4, stream_options={"include_usage": True})
    answer = client.answer()
    served.stop()
    gaps = np.diff(served.emulator.writes().due_ns)
    assert gaps.tolist() == pytest.approx(np.diff(simulated_ns((0, 3, 4))), abs=1)
    assert answer.events[-2]["usage"] == {
        "prompt_tokens": 3,
        "total_tokens": 7,
        "completion_tokens": 4,
    }


def test_a_request_that_is_too_long_is_refused_as_a_server_would(serve):
    """HTTP 400 with the reason, streamed or not, before anything is simulated."""
    served = serve(player=player())
    for stream in (True, False):
        answer = served.chat(max_tokens=9000, stream=stream)
        assert answer.status == 400
        assert "longest request" in json.loads(answer.body)["error"]["message"]
    assert gauges(served)["num_requests_running"] == 0


def test_a_client_that_hangs_up_frees_its_memory(serve):
    """Its sequence held blocks while it was streamed; soon after it is gone nobody holds any."""
    served = serve(player=player())
    client = served.client()
    client.post(max_tokens=3000)
    client.read(b"able")
    held = gauges(served)
    client.sock.close()
    now, deadline = held, time.monotonic() + 5
    while now["num_requests_running"] and time.monotonic() < deadline:
        now = gauges(served)
    assert (held["num_requests_running"], held["num_preemptions_total"]) == (1, 0)
    assert held["kv_cache_usage_perc"] > 0
    assert (now["num_requests_running"], now["kv_cache_usage_perc"]) == (0, 0)
    assert "lag_seconds" in now


def test_preemptions_are_counted(serve):
    """Two requests that do not fit together: both are served, one of them twice."""
    tight = Deployment(
        system="vllm", model="llama-3-8b", limits=Limits(num_blocks=6, max_len=90), host_s=0.0
    )
    served = serve(player=player(tight))
    clients = [served.client() for _ in range(2)]
    for client in clients:
        client.post(max_tokens=60)
    assert [client.answer().text.count(" ") for client in clients] == [60, 60]
    assert gauges(served)["num_preemptions_total"] >= 1


class Behind:
    """A player that is a second late, for ever."""

    running = waiting = preemptions = 0
    late_ns = 1 << 20
    kv_usage = 0.0

    def __init__(self) -> None:
        self.since_ns = time.monotonic_ns() - 1000 * MS

    def next_due_ns(self) -> int:
        return self.since_ns

    def due(self, _now_ns: int):
        return iter(())


def test_a_server_that_falls_behind_says_so_once():
    """And again only when the lag has doubled."""
    said: list[str] = []
    server = Emulator(Schedule(), player=Behind(), warn=said.append)
    server.run(until_ns=time.monotonic_ns() + 20 * MS)
    assert len(said) == 1
    assert said[0].startswith("cannot keep up: 1")


def test_a_request_that_can_never_be_admitted_ends_with_an_error(serve):
    """Its headers are out by then: an error event, and the end of the stream."""

    class Hopeless(Behind):
        def __init__(self) -> None:
            self.key = None

        def refuses(self, _asked):
            return None

        def arrive(self, key, _asked, now_ns):
            self.key = key, now_ns

        def leave(self, *_):
            self.key = None

        def next_due_ns(self):
            return self.key and self.key[1]

        def due(self, _now_ns):
            if self.key:
                yield self.key[1], self.key[0], FAILED, True

    served = serve(player=Hopeless())
    answer = served.chat()
    assert "error" in answer.events[0]
    assert answer.complete
    assert served.chat(stream=False).status == 500
