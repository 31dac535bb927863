"""A server that a study starts: on a free port, asked until it answers, and stopped whatever happens.

Its output is kept in a log, the end of which is told where it does not come up. Between the study and the server stands
a keeper (see `keeper`), which stops the server's process group once the study lets go of it or is no more.
"""

from __future__ import annotations

import http.client
import os
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from inferometer.clock import MILLISECOND, SECOND, Clock, RealClock
from inferometer.errors import TargetError
from inferometer.run import redact_text
from inferometer.search.study import keeper
from inferometer.search.study.asked import START_S, STOP_S, System
from inferometer.search.study.places import Launch

LAST_WORDS = 400  # bytes of a log that are told
LOOK_S = 0.1
SEEN_S = 2.0
ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is up. `url`: its base; `log`: what it says."""

    url: str
    launch: Launch
    log: Path
    process: subprocess.Popen[bytes]  # its keeper's
    stop_s: float

    def ended(self) -> str | None:
        """How it ended, if its keeper has seen that already."""
        code = self.process.poll()
        if code is None:
            return None
        return f"the server ended with code {code}; {last_words(self.log)}"

    def gone(self) -> str | None:
        """How it ended, if it did; one that refuses connections is given the time to be seen."""
        if self.process.poll() is None and not _refuses(self.url):
            return None
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(self.stop_s + SEEN_S)
        return self.ended() or f"the server does not listen any more; {last_words(self.log)}"

    def described(self, system: System) -> dict[str, Any]:
        """How it was started, for the manifest."""
        command = self.launch.command
        words = shlex.split(command) if isinstance(command, str) else list(command)
        return {
            "command": command if isinstance(command, str) else words,
            "flags": flags_of(words),
            "env": dict(system.env),
        }


@contextmanager
def serving(
    system: System, launch: Callable[[int], Launch], log: Path, clock: Clock | None = None
) -> Iterator[Server]:
    """The server of a system while inside. `launch` makes its command for a port.

    Raises TargetError where it does not come up; it is stopped then, too.
    """
    started, stop_s = launch(free_port()), STOP_S if system.stop_s is None else system.stop_s
    _refuse_taken(started.url)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = _spawn(system, started, output, stop_s)
    try:
        server = Server(started.url, started, log, process, stop_s)
        limit_s = START_S if system.start_s is None else system.start_s
        _wait(server, limit_s, clock or RealClock())
        yield server
    finally:
        stop(process, stop_s)


def stop(process: subprocess.Popen[bytes], stop_s: float) -> None:
    """Let go of the server, and wait until its group is gone."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.wait(stop_s + 30)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def flags_of(words: list[str]) -> dict[str, str]:
    """The flags of a command line: {"max-num-seqs": "64", "enable-x": "true"}."""
    flags: dict[str, str] = {}
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if not word.startswith("-") or _number(word):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        bare = not after or (after.startswith("-") and not _number(after))
        flags[name] = value if equals else "true" if bare else after
    return flags


def last_words(log: Path) -> str:
    """The end of a log, in one line."""
    try:
        said = log.read_bytes()[-LAST_WORDS:].decode("utf-8", "replace")
    except OSError:
        said = ""
    told = redact_text(" ".join(said.split()))
    return f"its last words (in {log.name}): {told}" if told else f"it said nothing ({log.name})"


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _spawn(system: System, launch: Launch, output: Any, stop_s: float) -> subprocess.Popen[bytes]:
    command = launch.command
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    keep = [sys.executable, "-I", "-S", str(Path(keeper.__file__)), str(stop_s), "--", *words]
    try:
        return subprocess.Popen(  # noqa: S603  what the study's author wrote
            keep,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=system.folder,
            env=os.environ | system.env,
            start_new_session=True,  # an interrupt at the terminal is the study's to handle
        )
    except OSError as error:
        what = f"it cannot be started: {error.strerror}"
        raise TargetError(what, where=str(error.filename or words[0])) from None


def _refuses(url: str) -> bool:
    """Whether nobody listens there."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), 1.0).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _refuse_taken(url: str) -> None:
    """A server that is there already would be measured in place of the one that is to be started."""
    if not _refuses(url):
        raise TargetError(
            "somebody listens there already",
            where=url,
            remedy="stop it, or use {port} in the command",
        )


def _wait(server: Server, limit_s: float, clock: Clock) -> None:
    """Ask until it answers with a 2xx."""
    deadline = clock.now_ns() + round(limit_s * SECOND)
    said = "no answer"
    while clock.now_ns() < deadline:
        if (how := server.ended()) is not None:
            raise TargetError(how, where=server.launch.health)
        said = _answer(server.launch.health)
        if said.startswith("2"):
            return
        clock.sleep_until(clock.now_ns() + round(LOOK_S * 1000) * MILLISECOND)
    what = f"not healthy within {limit_s:g} s ({said}); {last_words(server.log)}"
    raise TargetError(what, where=server.launch.health, remedy="give it longer with start_s")


def _answer(url: str) -> str:
    """The status that a server answers with, or why there is none."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=ANSWER_S) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    except http.client.HTTPException as error:
        return type(error).__name__
