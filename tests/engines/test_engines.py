"""`inferometer measure` against real engines: what it says must be what the engine did, by the engine's own account.

Servers are started by scripts/engines on loopback, one at a time (pytest runs the tests of one parameter together), and
stopped whatever happens; one that is not installed is skipped loudly. They are not warmed up: a cold server is what
people meet, and the first reply of `transformers serve --continuous-batching` takes 20 s.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts/engines"))

from serve import HOME, Running, missing, running

from inferometer.run import Run, load_run
from inferometer.timeline import Timeline

pytestmark = pytest.mark.engine

TOKENIZER = HOME / "models/target"
REQUESTS, SLOTS, PROMPT, OUTPUT = 32, 4, 96, 48
LOAD = ("--requests", REQUESTS, "--concurrency", SLOTS, "--prompt-tokens", PROMPT)
LOAD = (*map(str, (*LOAD, "--output-tokens", OUTPUT)), "--tokenizer", str(TOKENIZER))
VLLM = ("vllm", "vllm-interval")
COUNTERS = {
    "vllm": ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    "llama": ("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"),
}
IN_FLIGHT = "vllm:num_requests_running"
TRANSFORMERS = ("transformers", "transformers-cb")
COUNTS = ("vllm", "vllm-interval", "llama")  # those that take ignore_eos, and have /metrics


@dataclass(frozen=True)
class Engine:
    """A server that is up: the name of its configuration, of its model, and where it is."""

    name: str
    model: str
    server: Running

    @property
    def url(self) -> str:
        """The base URL."""
        return self.server.url

    def counters(self) -> Counter[str]:
        """What /metrics counts now, by name, summed over labels."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{self.url}/metrics", timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line[:1] != "#"]
        found: Counter[str] = Counter()
        for line in lines:
            series, _, value = line.rpartition(" ")
            found[series.partition("{")[0]] += float(value)
        return found


@dataclass(frozen=True)
class Told:
    """What a call of the command line ended in."""

    code: int
    out: str
    err: str


# configuration -> (engine of scripts/engines, name of its model, options)
CONFIGURATIONS = {
    "vllm": ("vllm", "tiny", ("--enable-log-requests",)),
    "vllm-interval": ("vllm", "tiny", ("--stream-interval", "4")),
    "transformers": ("transformers", "target", ()),
    "transformers-cb": ("transformers-cb", "target", ()),
    "llama": ("llama", "tiny", ()),
}


@pytest.fixture(scope="session", params=CONFIGURATIONS)
def engine(request) -> Engine:
    """Every configuration in turn; `on` names the ones that a test is about."""
    name, model, options = CONFIGURATIONS[request.param]
    if why := missing(name):
        pytest.skip(f"{why} (the engines are in {HOME.name}, or in $INFEROMETER_ENGINES)")
    with running(name, *options) as server:
        yield Engine(request.param, model, server)


def on(*names):
    """The engines that a test is about."""
    return pytest.mark.parametrize("engine", names, indirect=True)


def inferometer(*words: str, limit_s: float = 120) -> Told:
    """Call the command line as a person would."""
    done = subprocess.run(
        [sys.executable, "-m", "inferometer", *words],
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    return Told(done.returncode, done.stdout, done.stderr)


def measure(engine: Engine, folder: Path, *words: str, at: str = "") -> Run:
    """The run that `inferometer measure` makes of an engine.

    A machine that is busy (the engine itself may take all of it) makes a run invalid, and rightly so; what these tests
    ask is whether it is *right*, so both ends are good, if exit code and verdict agree.
    """
    where = (engine.url + at, "--model", engine.model, "--json", "-o", str(folder))
    told = inferometer("measure", *where, *words)
    assert told.code in {0, 3}, told.err
    assert json.loads(told.out)["valid"] == (told.code == 0)
    return load_run(folder)


@pytest.fixture(scope="session")
def measured(engine, tmp_path_factory):
    """One run per engine, which most tests look at."""
    return measure(engine, tmp_path_factory.mktemp(engine.name) / "run", *LOAD)


def first_token_ns(timeline: Timeline):
    """When the first chunk with a token came, per request."""
    starts = timeline.chunk_offset
    return np.array(
        [
            next(
                t
                for t, k in zip(timeline.chunk_ns[a:b], timeline.chunk_tokens[a:b], strict=True)
                if k
            )
            for a, b in pairwise(starts)
        ]
    )


def test_every_request_is_ok_and_counted_by_the_server(measured):
    """All requests complete, with the server's own usage as their token counts."""
    timeline = measured.timeline
    assert measured.manifest.complete
    assert len(timeline) == REQUESTS
    assert set(timeline.status) == {"ok"}
    assert set(timeline.token_source) == {"server"}
    assert (timeline.output_tokens >= 1).all()


@on(*COUNTS)
def test_outputs_are_as_long_as_asked_where_eos_is_ignored(measured):
    """With ignore_eos every reply has exactly the planned tokens, and ends because of that."""
    assert set(measured.timeline.output_tokens) == {OUTPUT}
    assert set(measured.timeline.finish_reason) == {"length"}


@on(*TRANSFORMERS)
def test_a_server_that_refuses_ignore_eos_is_asked_without_it(measured):
    """transformers serve answers ignore_eos with 422; the preflight finds that out, and replies may end early."""
    timeline = measured.timeline
    assert measured.manifest.target["accepts"]["ignore_eos"] is False
    full = timeline.output_tokens == OUTPUT
    assert (timeline.output_tokens <= OUTPUT).all()
    assert set(timeline.finish_reason[full]) <= {"length", "stop"}
    assert set(timeline.finish_reason[~full]) <= {"stop"}


def test_prompts_are_as_long_as_asked(measured):
    """With the server's own tokenizer file, the prompt that the server counts has the planned number of tokens."""
    assert set(measured.plan.prompt_tokens) == {PROMPT}
    assert set(measured.timeline.prompt_tokens) == {PROMPT}


def test_times_are_in_order_and_tokens_take_time(measured):
    """Sent, first byte, first token, end: in that order, and none at once."""
    timeline = measured.timeline
    first = first_token_ns(timeline)
    assert (timeline.first_byte_ns > timeline.sent_ns).all()
    assert (first >= timeline.first_byte_ns).all()
    assert (first - timeline.sent_ns > 1_000_000).all()
    assert (timeline.ended_ns >= first).all()


@on(*TRANSFORMERS)
def test_the_role_event_is_not_the_first_token(engine, tmp_path):
    """transformers serve sends the role before it has read the prompt; the first token comes much later."""
    words = ("--requests", "4", "--concurrency", "1", "--prompt-tokens", "1200")
    timeline = measure(engine, tmp_path / "run", *words, "--output-tokens", "4").timeline
    bytes_ns = timeline.first_byte_ns - timeline.sent_ns
    tokens_ns = first_token_ns(timeline) - timeline.sent_ns
    assert np.median(tokens_ns) > 3 * np.median(bytes_ns)


@on("transformers")
def test_a_server_that_does_not_batch_makes_requests_wait(measured):
    """One reply after the other: with four in flight, the wait for the first token is about three whole replies."""
    timeline = measured.timeline
    first = first_token_ns(timeline)
    served_ns = np.median(timeline.ended_ns - first)
    steady = timeline.sent_ns > np.sort(timeline.sent_ns)[2 * SLOTS]
    assert np.median((first - timeline.sent_ns)[steady]) > 2 * served_ns


@on(*COUNTS)
def test_counts_are_those_of_the_servers_own_counters(engine, tmp_path):
    """The tokens of the run, asked and answered, are what /metrics went up by."""
    prompts, outputs = COUNTERS[engine.name.partition("-")[0]]
    before = engine.counters()
    timeline = measure(engine, tmp_path / "run", *LOAD, "--no-preflight").timeline
    after = engine.counters()
    assert after[outputs] - before[outputs] == timeline.output_tokens.sum() == REQUESTS * OUTPUT
    assert after[prompts] - before[prompts] == timeline.prompt_tokens.sum() == REQUESTS * PROMPT


@on(*VLLM)
def test_latency_is_the_servers_own_plus_little(engine, tmp_path):
    """The client sees no reply end before the server does, nor much later."""
    before = engine.counters()
    timeline = measure(engine, tmp_path / "run", *LOAD, "--no-preflight").timeline
    after = engine.counters()
    name = "vllm:e2e_request_latency_seconds_sum"
    theirs_s = (after[name] - before[name]) / REQUESTS
    ours_s = (timeline.ended_ns - timeline.sent_ns).mean() / 1e9
    assert theirs_s - 0.005 < ours_s < 2 * theirs_s + 0.25


@on(*VLLM)
def test_telemetry_has_queue_running_and_cache(measured):
    """telemetry.parquet holds the series that explain a latency, and they are of this run."""
    names, values = measured.telemetry["name"], measured.telemetry["value"]
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert (names == f"vllm:{name}").sum() >= 2, name
    assert values[names == "vllm:num_requests_running"].max() <= SLOTS
    generated = values[names == "vllm:generation_tokens_total"]
    assert generated[-1] - generated[0] <= measured.timeline.output_tokens.sum()
    assert generated[-1] >= measured.timeline.output_tokens.sum()


@on(*VLLM)
def test_the_manifest_names_the_engine_and_its_version(measured):
    """vLLM tells its name and version; both are in the manifest."""
    assert measured.manifest.target["engine"] == "vllm"
    assert measured.manifest.target["version"] == {"version": "0.32.0"}


@on("llama")
def test_a_server_that_says_what_it_is_by_its_model_list_is_named(measured):
    """llama-server has no /version; the owner of its model is enough for a name. Its /metrics are scraped."""
    assert measured.manifest.target["engine"] == "llamacpp"
    assert "llamacpp:requests_processing" in set(measured.telemetry["name"])


@on(*TRANSFORMERS)
def test_an_engine_that_does_not_tell_its_name_is_not_given_one(measured):
    """transformers serve says nowhere what it is; the manifest invents nothing."""
    assert measured.manifest.target.get("engine") is None
    assert "version" not in measured.manifest.target
    assert measured.telemetry == {}


@on("vllm")
def test_request_ids_are_in_the_servers_log(engine, measured):
    """Every X-Request-Id is in the log that the server writes, so that log and timeline can be joined."""
    said = engine.server.said()
    assert [name for name in measured.timeline.request_id if name not in said] == []


@on("vllm-interval")
def test_four_tokens_in_an_event_are_four_tokens(measured):
    """With --stream-interval 4 most chunks hold four tokens; they are counted as four, and none is lost."""
    timeline = measured.timeline
    tokens = timeline.chunk_tokens[timeline.chunk_tokens > 0]
    assert np.median(tokens) == 4
    assert tokens.sum() == REQUESTS * OUTPUT


def test_completions_are_measured_as_chat_is(engine, tmp_path):
    """The other endpoint, open loop: as many requests as planned, on time, all of them whole."""
    words = ("--rate", "8", "--arrivals", "constant", "--requests", "12", "--output-tokens", "8")
    timeline = measure(engine, tmp_path / "run", *words, at="/v1/completions").timeline
    assert list(timeline.status) == ["ok"] * 12
    assert (timeline.output_tokens <= 8).all()
    np.testing.assert_array_equal(timeline.intended_ns, np.arange(12) * 125_000_000)


@on("vllm", "transformers", "llama")
def test_a_connection_that_the_server_closed_is_not_a_failed_request(engine, tmp_path):
    """All of them close a connection after 5 s without a request; the next request goes over a new one.

    (uvicorn does so once the connection was used, llama-server also before, where it was opened ahead.)
    """
    words = ("--rate", "0.18", "--arrivals", "constant", "--requests", "2", "--output-tokens", "4")
    timeline = measure(engine, tmp_path / "run", *words).timeline
    assert set(timeline.status) == {"ok"}
    assert timeline.sent_ns[1] - timeline.sent_ns[0] > 5_500_000_000


@on("llama")
def test_a_server_that_closes_a_connection_now_and_then_fails_no_request(engine, tmp_path):
    """llama-server ends a connection after 100 requests (`Keep-Alive: max=100`)."""
    words = ("--requests", "230", "--concurrency", "1", "--prompt-tokens", "8")
    timeline = measure(engine, tmp_path / "run", *words, "--output-tokens", "2").timeline
    assert list(timeline.status) == ["ok"] * 230


@on("vllm")
def test_an_interrupted_measurement_leaves_nothing_running(engine, tmp_path):
    """After SIGINT the engine has no request left, and the run says that it is not whole."""
    where = (engine.url, "--model", engine.model, "--quiet", "-o", str(tmp_path / "run"))
    load = ("--concurrency", "4", "--requests", "40", "--output-tokens", "1500")
    words = [sys.executable, "-m", "inferometer", "measure", *where, *load]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as call:
        assert until(lambda: engine.counters()[IN_FLIGHT] >= 4)
        call.send_signal(signal.SIGINT)
        assert call.wait(timeout=30) == 130
    assert until(lambda: engine.counters()[IN_FLIGHT] == 0)
    run = load_run(tmp_path / "run")
    assert run.manifest.stopped
    assert "ok" not in set(run.timeline.status)


def until(holds, limit_s: float = 30) -> bool:
    """Whether a condition that asks a server comes to hold in time."""
    give_up = time.monotonic() + limit_s
    while not (held := holds()) and time.monotonic() < give_up:
        pass
    return held


@on("vllm", "transformers")
def test_an_unknown_model_ends_in_one_line_before_any_load(engine, tmp_path):
    """vLLM answers 404, transformers serve 400; for a person it is the same mistake."""
    folder = tmp_path / "run"
    told = inferometer("measure", engine.url, "--model", "nobody", "-o", str(folder))
    assert told.code == 4, told.err
    assert len(told.err.strip().splitlines()) == 1
    assert "nobody" in told.err
    assert not folder.exists()


@on("transformers")
def test_a_server_that_does_not_list_its_models_needs_a_model(engine, tmp_path):
    """The list of transformers serve is no list of what it serves (HTTP 500, or empty): the name is asked for."""
    told = inferometer("measure", engine.url, "-o", str(tmp_path / "run"))
    assert told.code == 2, told.err
    assert "--model" in told.err


@on("vllm")
def test_prompts_that_do_not_fit_are_failures_with_the_servers_words(engine, tmp_path):
    """A context of 2,048 tokens refuses 3,000: every request is an http_error that says so, and the run is invalid."""
    words = ("--requests", "2", "--prompt-tokens", "3000", "--tokenizer", str(TOKENIZER))
    folder = tmp_path / "run"
    told = inferometer(
        "measure", engine.url, "--model", engine.model, "-o", str(folder), "--json", *words
    )
    scored = json.loads(told.out)
    assert told.code == 3
    assert scored["requests"]["by_status"] == {"http_error": 2}
    timeline = load_run(folder).timeline
    assert set(timeline.http_status) == {400}
    assert all("maximum context length is 2048" in error for error in timeline.error)
