"""A process that keeps a server: it starts it, waits, and stops all of its process group when its own input ends.

Run as a file of its own by a bare interpreter, so it imports nothing of ours. Its standard input is a pipe whose other end
only the study holds: the pipe ends when the study stops the server, and also when the study is gone, however it went
(SIGKILL included). So there is one way in which a server is stopped, and no way in which it stays.
    keeper.py STOP_S -- COMMAND...       exit code: that of the server, if it ended by itself
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

LOOK_S = 0.2


def main() -> int:
    """Start the command, and wait for its end or ours."""
    _adopt()
    stop_s, command = float(sys.argv[1]), sys.argv[3:]
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(
            kind, lambda *_: None
        )  # the pipe decides; exec gives the server its defaults back
    try:
        server = subprocess.Popen(  # noqa: S603  what the study's author wrote
            command, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        return 127
    try:
        while server.poll() is None:
            if select.select([sys.stdin], [], [], LOOK_S)[0]:
                break
        return server.returncode or 0
    finally:
        end(server, stop_s)


def end(server: subprocess.Popen[bytes], stop_s: float) -> None:
    """Stop the whole group of a server: ask, wait, kill; also where the server itself is gone already."""
    deadline = time.monotonic() + stop_s
    _tell(server.pid, signal.SIGTERM)
    while _alive(server) and time.monotonic() < deadline:
        time.sleep(0.02)
    _tell(server.pid, signal.SIGKILL)
    server.wait()


def _alive(server: subprocess.Popen[bytes]) -> bool:
    """Whether anybody of the group is left; those who have ended are waited for first, or they would count."""
    if server.poll() is not None:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
    try:
        os.killpg(server.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _adopt() -> None:
    """Become the parent of orphans below (Linux: PR_SET_CHILD_SUBREAPER), as not every container has an init that waits."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def _tell(group: int, kind: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, kind)


if __name__ == "__main__":
    sys.exit(main())
