"""Starts one real engine on loopback, with a tiny model.

    python scripts/engines/serve.py vllm --port 18631 [--model target] [the engine's own options]

becomes the engine (exec), so that it is stopped as any process is; `running` does the same for a `with` block.
Knows how each engine is started and what it needs not to harm the machine (one thread, no downloads, no telemetry of
its own, loopback only). Engines and models come from `install.py`; one that is not there ends in exit code 3 and one line.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

HOME = Path(os.environ.get("INFEROMETER_ENGINES") or Path.home() / ".cache/inferometer-engines")
NOT_INSTALLED = 3


@dataclass(frozen=True, slots=True)
class Engine:
    """How to start one: a program under HOME and its arguments; `{model}` and `{port}` are filled in."""

    program: str
    arguments: str
    model_file: str = "{model}/model.safetensors"
    environment: dict[str, str] = field(default_factory=dict)


TRANSFORMERS = (
    "serve {model} --device cpu --dtype float32 --host 127.0.0.1 --port {port} --log-level warning"
)
ENGINES = {
    "vllm": Engine(
        "vllm/bin/python",
        # The wheel's `vllm` program asks for a distribution of that name and dies; its module does not.
        "-m vllm.entrypoints.openai.api_server --model {model} --served-model-name tiny"
        " --host 127.0.0.1 --port {port} --dtype float32 --max-model-len 2048 --max-num-seqs 64"
        " --enforce-eager",
        environment={
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
        },
    ),
    "transformers": Engine("tf/bin/transformers", TRANSFORMERS),
    "transformers-cb": Engine("tf/bin/transformers", TRANSFORMERS + " --continuous-batching"),
    "llama": Engine(
        "llama/build/bin/llama-server",
        "-m {model}.gguf --alias tiny --host 127.0.0.1 --port {port} --offline -t 1 -tb 1 -np 8"
        " -c 16384 --metrics --slots --no-cache-prompt",
        model_file="{model}.gguf",
    ),
}
# Two OpenMP threads that spin on a shared machine burn five times the CPU of one.
COMMON = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HOME": str(
        HOME / "hf"
    ),  # not the caller's: what is cached there changes what /v1/models says
}


def missing(name: str, model: str = "target") -> str:
    """Why engine `name` cannot be started here, in one line; empty where it can."""
    engine = ENGINES[name]
    for needed in (HOME / engine.program, models() / engine.model_file.format(model=model)):
        if not needed.exists():
            return f"{name}: no {needed.relative_to(HOME)}; run scripts/engines/install.py"
    return ""


def models() -> Path:
    """The folder of the tiny models; servers run in it, so that a model's name is no path of this machine."""
    return HOME / "models"


def command(name: str, *, port: int, model: str = "target", extra: list[str]) -> list[str]:
    """The argument vector that starts engine `name`."""
    engine = ENGINES[name]
    filled = [word.format(model=model, port=port) for word in engine.arguments.split()]
    return [str(HOME / engine.program), *filled, *extra]


def environment(name: str) -> dict[str, str]:
    """What a server sees: the caller's environment and the engine's own needs; the caller's choice wins."""
    return COMMON | ENGINES[name].environment | dict(os.environ)


class NotStarted(Exception):
    """A server that did not come up: why, and the end of what it said."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is up: its base URL, and the file that its output goes to."""

    url: str
    output: Path

    def said(self) -> str:
        """All that the server has written so far."""
        return self.output.read_text(errors="replace")


@contextmanager
def running(name: str, *extra: str, limit_s: float = 240.0) -> Iterator[Running]:
    """Engine `name`, started with `extra` options on a free port of loopback, and stopped whatever happens."""
    port = free_port()
    with tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".log") as output:
        up = Running(f"http://127.0.0.1:{port}", Path(output.name))
        server = subprocess.Popen(
            command(name, port=port, extra=list(extra)),
            cwd=models(),
            env=environment(name),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its children (vLLM has two) are stopped with it
        )
        try:
            if not wait_until_healthy(up.url, server, limit_s):
                gone = server.poll() is not None
                how = f"ended with code {server.returncode}" if gone else "is not healthy"
                raise NotStarted(f"{name} {how}; it said ...{up.said()[-2000:]}")
            yield up
        finally:
            stop(server)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(url: str, server: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Whether `/health` answers 200 before the limit, and before the server is gone."""
    give_up = time.monotonic() + limit_s
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < give_up and server.poll() is None:
        with suppress(OSError), direct.open(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        time.sleep(0.5)
    return False


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server and its children: first as asked by a terminal, then for good."""
    for how, patience_s in ((signal.SIGINT, 15), (signal.SIGKILL, 15)):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, how)
        with suppress(subprocess.TimeoutExpired):
            server.wait(patience_s)


def main() -> None:
    """Become the engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="target")
    asked, extra = parser.parse_known_args()
    if why := missing(asked.engine, asked.model):
        print(why, file=sys.stderr)
        sys.exit(NOT_INSTALLED)
    argv = command(asked.engine, port=asked.port, model=asked.model, extra=extra)
    os.chdir(models())
    os.execve(argv[0], argv, environment(asked.engine))


if __name__ == "__main__":
    main()
