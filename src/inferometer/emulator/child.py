"""An emulator in a process of its own, and the loop around one that a person started.

The child is a fresh interpreter, never a fork. Its orders come as one line of JSON on its standard input, and the pipe
stays open: when it closes, because the parent closed it or because the parent is gone however it went, the child stops.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from inferometer.emulator.player import Player, SchedulePlayer
from inferometer.emulator.schedule import Schedule
from inferometer.emulator.server import Emulator, Tls
from inferometer.emulator.writes import Report
from inferometer.errors import InferometerError, UserError
from inferometer.spec import Spec

STOP_S = 10.0  # a log of some million writes takes seconds to save


class Orders(Spec, frozen=True):
    """What a child needs to know."""

    schedule: Schedule
    host: str = "127.0.0.1"
    port: int = 0
    log: str | None = None
    certificate: str | None = None
    key: str | None = None
    cpus: tuple[int, ...] = ()  # the only ones it may run on; none: all
    system: dict[str, Any] | None = (
        None  # a `sim.Deployment`, to be played instead of the schedule's times
    )

    @property
    def tls(self) -> Tls | None:
        """The two PEM files, if both are given."""
        return Tls(self.certificate, self.key) if self.certificate and self.key else None


def emulate(
    orders: Orders,
    announce: Callable[[Emulator], None],
    *,
    parent_fd: int | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Report:
    """Serve until SIGINT or SIGTERM, or until `parent_fd` ends; save the log; return the report.

    `announce` is called once the server listens, `warn` when it cannot keep up. Belongs to the main thread of a process that does nothing else: it
    takes the signals, and turns the garbage collector off (the server makes no cycles; a pause would make tokens late).
    """
    if orders.log is not None:
        _check_writable(Path(orders.log))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if orders.cpus:
        os.sched_setaffinity(0, orders.cpus)
    server = Emulator(
        orders.schedule,
        orders.host,
        orders.port,
        log=orders.log is not None,
        player=_player(orders),
        tls=orders.tls,
        warn=warn,
    )
    if parent_fd is not None:
        server.watch(parent_fd, lambda _: server.stop())
    before = {kind: signal.signal(kind, lambda *_: server.stop()) for kind in _SIGNALS}
    gc.freeze()
    gc.disable()
    try:
        announce(server)
        server.run()
    finally:
        gc.enable()
        for kind, handler in before.items():
            signal.signal(kind, handler)
    if orders.log is not None:
        server.writes().save(orders.log)
    return server.report()


def _player(orders: Orders) -> Player:
    """What plays; the simulator is only imported where there is a system."""
    if orders.system is None:
        return SchedulePlayer(orders.schedule)
    from inferometer.emulator.system import SystemPlayer
    from inferometer.sim import Deployment
    from inferometer.sim.live import live

    return SystemPlayer(orders.schedule, live(msgspec.convert(orders.system, Deployment)))


@contextmanager
def serve_child(
    schedule: Schedule,
    *,
    system: dict[str, Any] | None = None,
    log: str | Path | None = None,
    tls: Tls | None = None,
    cpus: tuple[int, ...] = (),
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[str]:
    """The base URL of an emulator in a child process, which is stopped whatever happens; `log` is complete after that."""
    pair = tls or Tls("", "")
    orders = Orders(
        schedule=schedule,
        system=system,
        host=host,
        port=port,
        log=None if log is None else str(log),
        certificate=pair.certificate or None,
        key=pair.key or None,
        cpus=cpus,
    )
    command = [sys.executable, "-m", "inferometer.emulator"]
    with subprocess.Popen(  # noqa: S603  ourselves
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # an interrupt at the terminal is the parent's to handle
    ) as child:
        try:
            yield _announced(child, orders)
        finally:
            _stop(child)


def main() -> int:
    """The child's side: orders from standard input, the URL to standard output."""
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    try:
        emulate(orders, lambda server: _say(url=server.url), parent_fd=sys.stdin.fileno())
    except InferometerError as error:
        _say(error=str(error))
        return error.exit_code
    return 0


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _check_writable(log: Path) -> None:
    """Refuse before serving what could only fail after it."""
    if not os.access(log.resolve().parent, os.W_OK):
        raise UserError("cannot write the log there", where=str(log), remedy="name another file")


def _say(**what: str) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


def _announced(child: subprocess.Popen[bytes], orders: Orders) -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(msgspec.json.encode(orders) + b"\n")
    child.stdin.flush()
    said = msgspec.json.decode(child.stdout.readline() or b"{}", type=dict[str, str])
    if "url" not in said:
        raise UserError(said.get("error", "the emulator did not start"), where="emulator")
    return said["url"]


def _stop(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    try:
        child.stdin.close()
        child.wait(STOP_S)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        child.kill()
