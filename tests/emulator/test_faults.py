"""Each fault on a real socket: what exactly a client sees, byte for byte and in how the connection ends."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from inferometer.emulator.replies import text_of

END = b"0\r\n\r\n"

ENDS = {"reset-mid": "reset", "close-mid": "eof", "half-chunk": "eof", "bad-chunk": "eof"}


@pytest.mark.parametrize("fault", list(ENDS))
def test_a_stream_breaks_after_five_tokens(serve, fault):
    """The tokens before the fault arrive, then the connection ends as the fault says; no token or finish is after."""
    client = serve().client()
    client.post(model=f"fault:{fault}")
    heard = client.read()
    assert heard.end == ENDS[fault]
    assert text_of(4, 1).encode() in heard.data
    assert text_of(5, 1).encode() not in heard.data
    assert b'"finish_reason":"' not in heard.data


def test_a_stream_may_stall_for_ever(serve):
    """Five tokens arrive, and then nothing, on a connection that stays open."""
    client = serve().client()
    client.post(model="fault:stall")
    client.read(text_of(4, 1).encode())
    assert client.is_silent()


def test_a_truncated_stream_is_a_whole_message_without_an_end(serve):
    """The HTTP body is complete, without finish reason and [DONE], and the connection serves the next request."""
    client = serve().client()
    client.post(model="fault:truncate")
    answer = client.answer()
    assert answer.complete
    assert answer.text == text_of(0, 5)
    assert "[DONE]" not in answer.events
    client.post()
    assert client.answer().text == text_of(0, 8)


def test_an_error_in_the_stream_is_an_event_then_done(serve):
    """HTTP 200, an error object after five tokens, [DONE], and a complete body."""
    answer = serve().chat(model="fault:error-event")
    assert (answer.status, answer.complete) == (200, True)
    assert answer.events[-2]["error"]["code"] == 500
    assert answer.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("fault", "last"),
    [("bad-chunk", b"many\r\ndata: {}\n\n\r\n"), ("half-chunk", b'[{"index"')],
)
def test_a_chunk_may_be_broken(serve, fault, last):
    """The last bytes are no chunk."""
    client = serve().client()
    client.post(model=f"fault:{fault}")
    assert client.read().data.endswith(last)


def test_one_event_is_not_json_and_the_stream_goes_on(serve):
    """All eight tokens and [DONE] arrive, with one event among them that cannot be parsed."""
    client = serve().client()
    client.post(model="fault:bad-json")
    data = client.read(END).data
    assert b'data: {"choices": [{"index": 0, "delta": {"cont\n\n' in data
    assert data.count(b'"content":"') == 1 + 8
    assert b"[DONE]" in data


def test_a_line_may_be_very_long(serve):
    """The declared number of bytes comes in one line, the rest of the stream after it."""
    client = serve(long_line_bytes=3 << 20).client()
    client.post(model="fault:long-line")
    data = client.read(END).data
    assert max(map(len, data.split(b"\n"))) > 3 << 20
    assert b"[DONE]" in data


def test_an_endless_stream_ends_with_its_client(serve):
    """Far more tokens come than were asked for; when the client goes, the server stops writing."""
    served = serve(gap_s=0.0001)
    client = served.client()
    client.post(model="fault:endless", max_tokens=2)
    data = b""
    while data.count(b'"content"') < 100:
        data += client.sock.recv(65536)
    client.sock.close()
    other = served.client()
    deadline, page = time.monotonic() + 5, b"1"
    while (
        b'num_requests_running{model_name="emulated"} 0.0' not in page
        and time.monotonic() < deadline
    ):
        other.get("/metrics")
        page = other.answer().body
    assert b'num_requests_running{model_name="emulated"} 0.0' in page


@pytest.mark.parametrize(
    ("fault", "end"),
    [("reset-request", "reset"), ("close-request", "eof"), ("reset-headers", "reset")],
)
def test_a_connection_may_end_before_a_reply(serve, fault, end):
    """After nothing, or after the headers only, the connection ends as the fault says."""
    client = serve().client()
    client.post(model=f"fault:{fault}")
    heard = client.read()
    assert heard.end == end
    assert heard.data.startswith(b"HTTP/1.1 200 OK") == ("headers" in fault)
    assert heard.data.endswith(b"\r\n\r\n") == ("headers" in fault)


def test_a_request_may_stay_without_a_reply(serve):
    """Nothing comes, or nothing after the headers, and the connection stays."""
    served = serve()
    silent, stalled = served.client(), served.client()
    silent.post(model="fault:silent")
    stalled.post(model="fault:stall-headers")
    assert stalled.read(b"\r\n\r\n").data.startswith(b"HTTP/1.1 200 OK")
    assert silent.is_silent()
    assert stalled.is_silent()


@pytest.mark.parametrize("status", [400, 401, 404, 429, 499, 500, 503])
@pytest.mark.parametrize("empty", ["", "-empty"])
def test_any_error_status_with_and_without_a_body(serve, status, empty):
    """The status comes with an error object or with nothing; 429 says when to come back; the connection stays."""
    client = serve().client()
    client.post(model=f"fault:http-{status}{empty}")
    answer = client.answer()
    assert answer.status == status
    assert answer.complete
    assert (answer.headers.get(b"retry-after") == b"1") == (status == 429)
    if empty:
        assert answer.body == b""
    else:
        assert json.loads(answer.body)["error"]["code"] == status
    client.post()
    assert client.answer().status == 200


def test_a_redirect_leads_to_another_host(serve):
    """307 with a Location elsewhere."""
    answer = serve(redirect_to="http://10.0.0.1").chat(model="fault:redirect", stream=False)
    assert answer.status == 307
    assert answer.headers[b"location"] == b"http://10.0.0.1/v1/chat/completions"


def test_a_stream_may_be_a_web_page(serve):
    """200, but text/html."""
    answer = serve().chat(model="fault:html", stream=False)
    assert (answer.status, answer.headers[b"content-type"]) == (200, b"text/html")


def test_the_gzip_bomb_is_small_and_grows(serve):
    """Some kilobytes on the wire are a valid gzip stream, checksum included, of 8 MiB."""
    client = serve(bomb_mebibytes=8).client()
    client.post(model="fault:gzip-bomb", headers="Connection: close\r\n")
    answer = client.answer()
    assert answer.complete
    assert answer.headers[b"content-encoding"] == b"gzip"
    assert len(answer.body) < 10_000
    assert len(gzip.decompress(answer.body)) == 8 << 20


@pytest.mark.parametrize("fault", ["early-answer", "early-close"])
def test_an_answer_may_come_before_the_request_is_complete(serve, fault):
    """A 413 arrives while the body is still to be sent; the server closes at once, or when it has read the rest."""
    client = serve().client()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Fault: {fault}\r\nContent-Length: 1000\r\n\r\n"
    client.sock.sendall(head.encode())
    assert client.answer().status == 413
    if fault == "early-answer":
        assert client.is_silent()
        client.sock.sendall(b"x" * 1000)
    assert client.read() == (b"", "eof")


def test_a_reset_may_come_while_the_request_is_sent(serve):
    """After the headers of the request the connection is reset."""
    client = serve().client()
    client.sock.sendall(
        b"POST /v1/completions HTTP/1.1\r\nX-Fault: reset-body\r\nContent-Length: 9\r\n\r\n"
    )
    assert client.read() == (b"", "reset")


def test_connections_may_be_reset_on_accept(serve):
    """With a share of 1 every connection is reset before a byte is read: while it opens, or at the first read."""
    served = serve(faults={"reset-accept": 1.0})
    with pytest.raises(ConnectionResetError):
        served.client().sock.recv(1)


def test_a_connection_may_close_after_a_good_reply(serve):
    """The reply is whole and promises to keep the connection, which then closes."""
    client = serve().client()
    client.post(model="fault:close-after")
    heard = client.read()
    assert heard.end == "eof"
    assert heard.data.endswith(END)
    assert b"Connection: close" not in heard.data


@pytest.mark.parametrize(("fault", "end"), [("reset-mid", "reset"), ("truncate", "eof")])
def test_a_whole_body_breaks_in_its_middle(serve, fault, end):
    """Without streaming half of the body comes, and then the end that the fault says."""
    client = serve().client()
    client.post(model=f"fault:{fault}", stream=False)
    heard = client.read()
    assert heard.end == end
    assert heard.data.startswith(b"HTTP/1.1 200")
    assert not heard.data.endswith(b"}")


def test_a_header_asks_for_a_fault_and_rates_give_them(serve):
    """`X-Fault` works for any model, and a rate of 1 meets every request."""
    client = serve().client()
    client.post(headers="X-Fault: http-500\r\n", model="any")
    assert client.answer().status == 500
    assert serve(faults={"http-503": 1.0}).chat(stream=False).status == 503
