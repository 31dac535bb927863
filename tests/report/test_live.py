"""The live view: on loopback, read only, and at its end the report."""

from __future__ import annotations

import http.client
import json
import threading

import pytest

from inferometer.errors import UserError
from inferometer.report.live import Live, serving


@pytest.fixture
def live():
    with serving("0", "<b>A run</b>") as found:
        yield found


def ask(live, path, method="GET", **headers):
    host, port = live.url.removeprefix("http://").rstrip("/").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def test_the_page_is_served_on_loopback(live):
    """The title is text, and nothing may be framed, cached or guessed."""
    status, body, headers = ask(live, "/")
    assert live.url.startswith("http://127.0.0.1:")
    assert status == 200
    assert "&lt;b&gt;A run&lt;/b&gt;" in body
    assert headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(live, method):
    """Any other method is refused."""
    assert ask(live, "/", method)[0] == 501


@pytest.mark.parametrize("path", ["/report", "/../../etc/passwd", "/x"])
def test_there_is_nothing_else(live, path):
    """No file is served, and no report before there is one."""
    assert ask(live, path)[0] == 404


def test_another_name_is_refused(live):
    """A web page whose name resolves to loopback gets nothing (DNS rebinding)."""
    assert ask(live, "/", Host="evil.example")[0] == 403
    assert ask(live, "/", Host="localhost:1234")[0] == 200


def test_events_are_told_and_the_report_is_taken():
    """A late browser is told of everything, then of each change; `finish` waits until it has the report."""
    with serving("0", "run") as live:
        live.tell({"done": 1.0, "ttft": None}, "first", 0.5)
        seen = []

        def browser():
            host, port = live.url.removeprefix("http://").rstrip("/").split(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.request("GET", "/events")
            answer = connection.getresponse()
            for raw in answer:
                line = raw.decode().strip()
                if line.startswith("event: "):
                    seen.append(line.removeprefix("event: "))
                    told.set()
                if line == "event: report":
                    seen.append(ask(live, "/report")[1])
                    return

        told = threading.Event()
        thread = threading.Thread(target=browser)
        thread.start()
        assert told.wait(10)
        live.table(["a"], [["1"]])
        live.finish("<p>the report</p>")
        thread.join(10)
        assert seen == ["figures", "table", "report", "<p>the report</p>"]


def test_nobody_is_left_with_half_a_report():
    """The verb ends only when a browser that watches has all of the page, however large."""
    page = "x" * 30_000_000
    with serving("0", "run") as live:
        host, port = live.url.removeprefix("http://").rstrip("/").split(":")
        events, report = (http.client.HTTPConnection(host, int(port), timeout=10) for _ in "ab")
        live.tell({"done": 1.0})
        events.request("GET", "/events")
        stream = events.getresponse()
        assert stream.readline() == b"event: figures\n"
        ending = threading.Thread(target=live.finish, args=(page,))
        ending.start()
        while stream.readline() != b"event: report\n":
            pass
        report.request("GET", "/report")
        answer = report.getresponse()
        ending.join(0.2)
        assert ending.is_alive()
        assert len(answer.read()) == len(page)
        ending.join(10)
        assert not ending.is_alive()
        events.close()
        report.close()


def test_what_is_kept_is_bounded():
    """Of very many messages the last are kept, and the stream goes on from the oldest kept."""
    live = Live("x")
    for k in range(3_000):
        live.tell({"k": float(k)})
    live.close()
    text = b"".join(live.stream()).decode()
    values = [
        json.loads(line[6:])["figures"]["k"]
        for line in text.splitlines()
        if line.startswith("data: ")
    ]
    assert values == [float(k) for k in range(1_800, 3_000)]


def test_nobody_watching_is_no_wait():
    """Without a browser the verb ends at once."""
    with serving("0", "run") as live:
        live.finish("<p>x</p>")
        assert ask(live, "/report")[1] == "<p>x</p>"


@pytest.mark.parametrize("address", ["banana", "99999999", "1.2.3.4:x"])
def test_a_wrong_address_is_one_line(address):
    """What is not a port is said to be none."""
    with pytest.raises(UserError, match="not a port"), serving(address, "x"):
        pass


def test_a_taken_port_is_one_line(live):
    """A port that somebody listens on already cannot be had."""
    port = live.url.rstrip("/").rpartition(":")[2]
    with pytest.raises(UserError, match="cannot listen"), serving(port, "x"):
        pass
