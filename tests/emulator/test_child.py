"""The emulator as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from inferometer.emulator import Orders, Schedule, emulate, read_writes, serve_child
from inferometer.errors import UserError

QUICK = Schedule(ttft_s=0.01, gap_s=0.002)


def connect(url: str) -> socket.socket:
    """A connection to the server, which reads b"" when the server is gone."""
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def test_a_child_serves_and_leaves_its_log(tmp_path):
    """A request to the URL is answered; after the block the log is there and the server is gone."""
    log = tmp_path / "writes.parquet"
    with serve_child(QUICK, log=log) as url:
        body = b'{"prompt": "a b", "max_tokens": 3, "stream": true}'
        request = urllib.request.Request(f"{url}/v1/completions", body, {"X-Request-Id": "one"})
        assert b"[DONE]" in urllib.request.urlopen(request, timeout=5).read()
    writes = read_writes(log)
    assert writes.request_ids.tolist() == ["one"]
    assert writes.index.tolist() == [0, 1, 2]
    with pytest.raises(ConnectionRefusedError):
        connect(url)


def test_a_child_stops_when_the_block_fails():
    """An exception in the block passes through, and the server is gone."""
    with pytest.raises(ZeroDivisionError), serve_child(QUICK) as url:
        raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        connect(url)


def test_a_child_dies_with_its_parent():
    """A parent that is killed without a chance to clean up takes the server with it."""
    code = (
        "from inferometer.emulator import Schedule, serve_child\n"
        "with serve_child(Schedule()) as url:\n"
        "    print(url, flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        connection = connect(parent.stdout.readline().decode().strip())
        os.kill(parent.pid, signal.SIGKILL)
        with connection:
            assert connection.recv(1) == b""


def test_a_child_that_cannot_start_says_why():
    """A port that is taken is one line of the parent's error."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"127.0.0.1:{port}: cannot listen"),
            serve_child(QUICK, port=port),
        ):
            pass


def test_a_log_that_could_not_be_written_is_refused_before_serving(tmp_path):
    """A folder that does not exist is named at the start, not after an hour of serving."""
    with (
        pytest.raises(UserError, match=r"nowhere/log\.parquet: cannot write"),
        serve_child(QUICK, log=tmp_path / "nowhere" / "log.parquet"),
    ):
        pass


def test_emulate_stops_on_a_signal_and_gives_the_handlers_back():
    """SIGTERM ends the serving in order: the report comes back and the handlers are the old ones."""
    before = signal.getsignal(signal.SIGTERM)
    report = emulate(Orders(schedule=QUICK), lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert report.requests == 0
    assert signal.getsignal(signal.SIGTERM) is before
