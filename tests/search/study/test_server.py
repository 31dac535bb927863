"""Servers that a study starts are up while they are needed, and gone afterwards, with all of their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inferometer.errors import TargetError
from inferometer.search.study.asked import System
from inferometer.search.study.places import Launch
from inferometer.search.study.server import flags_of, free_port, serving


def launcher(folder: Path, line: str):
    """A shell line with {port} in it, as what `serving` asks for."""

    def launch(port: int) -> Launch:
        url = f"http://127.0.0.1:{port}"
        return Launch(line.format(port=port, folder=folder), url, f"{url}/")

    return launch


HTTP = f"exec {sys.executable} -m http.server {{port}} --bind 127.0.0.1 --directory {{folder}}"
WITH_CHILD = "sleep 1000 & echo $! > {folder}/pid; " + HTTP


def test_a_server_is_asked_until_it_answers_and_stopped_with_its_children(tmp_path, waited):
    """The whole process group, and what it said is kept."""
    system = System(command="x", start_s=20, stop_s=5)
    with serving(system, launcher(tmp_path, WITH_CHILD), tmp_path / "s.log") as server:
        child = int((tmp_path / "pid").read_text())
        os.kill(child, 0)
        assert server.gone() is None
        assert server.described(system)["flags"]["bind"] == "127.0.0.1"
    assert waited(child)
    assert "GET / HTTP" in (tmp_path / "s.log").read_text()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_it_is_stopped_whatever_happens(tmp_path, error, waited):
    """An exception of ours, or a person's interrupt."""
    system = System(command="x", start_s=20, stop_s=5)
    with (
        pytest.raises(error),
        serving(system, launcher(tmp_path, WITH_CHILD), tmp_path / "s.log"),
    ):
        raise error
    assert waited(int((tmp_path / "pid").read_text()))


def test_one_that_ignores_being_told_is_killed(tmp_path, waited):
    """After `stop_s`."""
    code = "import signal, runpy; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    code += "runpy.run_module('http.server', run_name='__main__', alter_sys=True)"
    line = f'echo $$ > {{folder}}/pid; exec {sys.executable} -c "{code}" {{port}} --bind 127.0.0.1'
    system = System(command="x", start_s=20, stop_s=0.1)
    with serving(system, launcher(tmp_path, line), tmp_path / "s.log"):
        pid = int((tmp_path / "pid").read_text())
    assert waited(pid)


def test_one_that_ends_is_told_with_its_last_words(tmp_path, waited):
    """Its children are stopped, too."""
    line = "sleep 1000 & echo $! > {folder}/pid; echo no weights here; exit 3"
    with (
        pytest.raises(TargetError, match=r"ended with code 3; .*s\.log.*no weights here"),
        serving(System(command="x"), launcher(tmp_path, line), tmp_path / "s.log"),
    ):
        pytest.fail("it is not up")
    assert waited(int((tmp_path / "pid").read_text()))


def test_one_that_never_answers_is_told_and_stopped(tmp_path, waited):
    """After `start_s`, with the reason of the last try."""
    line = "echo loading; echo $$ > {folder}/pid; exec sleep 1000"
    with (
        pytest.raises(TargetError, match=r"not healthy within 0\.5 s \(.*refused.*loading"),
        serving(
            System(command="x", start_s=0.5, stop_s=1),
            launcher(tmp_path, line),
            tmp_path / "s.log",
        ),
    ):
        pytest.fail("it is not up")
    assert waited(int((tmp_path / "pid").read_text()))


def test_a_program_that_does_not_exist_is_told(tmp_path):
    """By its name."""
    launch = Launch(("/no/such/engine",), "http://127.0.0.1:1", "http://127.0.0.1:1/")
    with (
        pytest.raises(TargetError, match="cannot start /no/such/engine"),
        serving(System(command="x"), lambda _: launch, tmp_path / "s.log"),
    ):
        pytest.fail("it is not up")


def test_a_port_that_is_taken_is_told(tmp_path):
    """Or the wrong server would be measured."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        with (
            pytest.raises(TargetError, match="listens there already"),
            serving(System(command="x"), lambda _: Launch("x", url, url), tmp_path / "s.log"),
        ):
            pytest.fail("it is not ours")


def test_the_server_is_gone_after_the_study_was_killed(tmp_path, waited):
    """SIGKILL leaves no time to clean up; the keeper sees its pipe end."""
    code = f"""
import sys
from pathlib import Path
from inferometer.search.study.asked import System
from inferometer.search.study.places import Launch
from inferometer.search.study.server import serving
def launch(port):
    line = {WITH_CHILD!r}.format(port=port, folder={str(tmp_path)!r})
    return Launch(line, f"http://127.0.0.1:{{port}}", f"http://127.0.0.1:{{port}}/")
with serving(System(command="x", stop_s=5), launch, Path({str(tmp_path / "s.log")!r})):
    print("up", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as study:
        assert study.stdout.readline() == b"up\n"
        child = int((tmp_path / "pid").read_text())
        study.send_signal(signal.SIGKILL)
    assert waited(child)


def test_flags_of_a_command_line():
    """Both spellings, switches, negative numbers, short ones."""
    words = ["serve", "m", "--a", "1", "--b=2", "--c", "--d", "-1", "-np", "8", "--last"]
    assert flags_of(words) == {
        "a": "1",
        "b": "2",
        "c": "true",
        "d": "-1",
        "np": "8",
        "last": "true",
    }


def test_free_ports_are_free():
    """One can listen there."""
    import socket

    with socket.create_server(("127.0.0.1", free_port())):
        pass
