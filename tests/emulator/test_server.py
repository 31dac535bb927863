"""The server on real sockets: what a well-behaved client sees."""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from errno import EMFILE

import numpy as np
import pytest
import trustme

from inferometer.emulator import Emulator, Schedule, Tls, Wire
from inferometer.emulator.replies import text_of
from inferometer.errors import UserError

END = b"0\r\n\r\n"
MS = 1_000_000


def test_a_stream_is_played_and_its_true_times_are_kept(serve):
    """Eight tokens arrive, due exactly one gap apart, written not before they were due, joined by the request's id."""
    served = serve(gap_s=0.005)
    client = served.client()
    client.post(headers="X-Request-Id: mine\r\n", stream_options={"include_usage": True})
    answer = client.answer()
    served.stop()
    writes = served.emulator.writes()
    assert answer.text == text_of(0, 8)
    assert answer.events[-2]["usage"]["completion_tokens"] == 8
    assert writes.request_ids.tolist() == ["mine"]
    assert writes.index.tolist() == list(range(8))
    assert np.diff(writes.due_ns).tolist() == [5 * MS] * 7
    assert (writes.wrote_ns >= writes.due_ns).all()


def test_the_report_counts_what_was_written(serve):
    """Two replies of 8 tokens: 16 tokens, a lateness with p50 <= p99 <= max, and CPU time."""
    served = serve()
    served.chat()
    served.chat()
    served.stop()
    report = served.emulator.report()
    assert (report.requests, report.tokens, report.writes, report.held_back) == (2, 16, 16, 0)
    assert 0 <= report.lateness_p50_ns <= report.lateness_p99_ns <= report.lateness_max_ns
    assert 0 < report.cpu_s < report.wall_s
    assert "2 requests, 16 tokens" in report.summary()


def test_a_connection_serves_one_request_after_another(serve):
    """Three requests on one connection, the last two pipelined behind it, are answered in order."""
    client = serve().client()
    client.post(max_tokens=2)
    assert client.answer().text == text_of(0, 2)
    client.post(max_tokens=3)
    client.post(max_tokens=1)
    client.get("/version")
    data = client.read(b'emulated"}').data
    first, second, third = data.split(b"HTTP/1.1 200 OK")[1:]
    assert (first.count(b"content"), second.count(b"content")) == (1 + 3, 1 + 1)
    assert b"version" in third


def test_a_client_that_wants_to_close_is_closed(serve):
    """`Connection: close` in the request ends the connection after the reply, as does a server that says so."""
    client = serve().client()
    client.post(headers="Connection: close\r\n")
    assert client.read().end == "eof"
    client = serve(wire=Wire(keep_alive=False)).client()
    client.post()
    heard = client.read()
    assert heard.end == "eof"
    assert b"Connection: close" in heard.data


def test_a_whole_body_comes_after_the_whole_time(serve):
    """Without `stream` the response is one body of 8 words, logged as one write of 8 tokens at the last due time."""
    served = serve(gap_s=0.005)
    answer = served.chat(stream=False, max_tokens=8)
    served.stop()
    writes = served.emulator.writes()
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == text_of(0, 8)
    assert writes.tokens.tolist() == [8]


def test_bodies_may_be_chunked_slow_and_announced(serve):
    """A body in chunks over several packets, after `Expect: 100-continue`, is one request."""
    client = serve().client()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.sock.sendall(head.encode())
    assert client.read(b"\r\n\r\n").data == b"HTTP/1.1 100 Continue\r\n\r\n"
    body = json.dumps({"prompt": "word " * 40, "max_tokens": 1}).encode()
    for part in (body[:10], body[10:]):
        client.sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
    client.sock.sendall(END)
    assert json.loads(client.answer().body)["usage"]["prompt_tokens"] == 40


def test_the_slots_are_a_queue(serve):
    """With one slot the second of two requests gets its first token one service time after the first."""
    served = serve(slots=1, ttft_s=0.03)
    clients = [served.client() for _ in range(2)]
    for at, client in enumerate(clients):
        client.post(headers=f"X-Request-Id: r{at}\r\n", max_tokens=1)
    for client in clients:
        client.read(END)
    served.stop()
    due = served.emulator.writes().due_ns
    assert due[1] - due[0] == 30 * MS


def test_the_metrics_page_tells_the_state(serve):
    """With one running and one waiting request the gauges say 1 and 1, and the prompt tokens are counted."""
    served = serve(slots=1, ttft_s=10.0, kv_tokens=30)
    clients = [served.client() for _ in range(2)]
    for client in clients:
        client.post()
        client.read(b"\r\n\r\n")  # the headers: it has arrived
    page = urllib.request.urlopen(f"{served.emulator.url}/metrics", timeout=1).read().decode()
    values = dict(line.split() for line in page.splitlines() if not line.startswith("#"))
    label = '{model_name="emulated"}'
    assert values[f"vllm:num_requests_running{label}"] == "1.0"
    assert values[f"vllm:num_requests_waiting{label}"] == "1.0"
    assert values[f"vllm:kv_cache_usage_perc{label}"] == "0.1"
    assert values[f"vllm:prompt_tokens_total{label}"] == "6.0"
    assert values[f"vllm:generation_tokens_total{label}"] == "0.0"
    assert float(values["process_cpu_seconds_total"]) > 0


def test_a_client_that_goes_away_frees_its_slot(serve):
    """The one slot is taken for ten seconds; when its client leaves, the next is served at once."""
    served = serve(slots=1, gap_s=10.0)
    first, second = served.client(), served.client()
    first.post()
    first.read(b"able")
    second.post(max_tokens=1)
    second.read(b"\r\n\r\n")
    first.sock.close()
    assert b"[DONE]" in second.read(END).data


def test_models_are_listed_and_unknown_ones_refused(serve):
    """With declared models another name is 404, and the list holds the declared ones."""
    served = serve(models=("one", "two"))
    client = served.client()
    client.get("/v1/models")
    listed = json.loads(client.answer().body)
    assert [card["id"] for card in listed["data"]] == ["one", "two"]
    assert served.chat(model="three", stream=False).status == 404
    assert served.chat(model="two").status == 200


def test_a_key_is_asked_for(serve):
    """Without the key, or with another, the answer is 401; with it, 200; the health page is open."""
    served = serve(api_key="abc")
    client = served.client()
    for path, headers, status in (
        ("/v1/models", "", 401),
        ("/v1/models", "Authorization: Bearer abd\r\n", 401),
        ("/v1/models", "Authorization: Bearer abc\r\n", 200),
        ("/health", "", 200),
    ):
        client.get(path, headers)
        assert client.answer().status == status


@pytest.mark.parametrize(
    ("request_line", "body", "status"),
    [
        ("POST /v1/chat/completions", b"{", 400),
        ("POST /v1/chat/completions", b"[]", 400),
        ("POST /v1/chat/completions", b'{"max_tokens": "many"}', 400),
        ("POST /v1/chat/completions", b'{"model": "fault:nonsense"}', 400),
        ("POST /v1/chat/completions", b'{"ignore_eos": true}', 422),
        ("POST /nowhere", b"{}", 404),
        ("GET /v1/chat/completions", b"", 405),
        ("POST /v1/models", b"{}", 405),
        ("POST", b"", 400),
    ],
)
def test_what_cannot_be_served_is_refused_in_json(serve, request_line, body, status):
    """A bad request gets its status and an error object, and (where it was HTTP) the connection stays usable."""
    client = serve(wire=Wire(refused_fields=("ignore_eos",))).client()
    head = f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sock.sendall(head.encode() + body)
    heard = client.answer()
    assert heard.status == status
    assert json.loads(heard.body)["error"]["code"] == status


def test_a_body_that_is_too_large_is_refused(serve):
    """A body of 65 MiB is answered with 413 once it passes 64 MiB, read to its end, and the connection is closed."""
    client = serve().client()
    size = 65 << 20
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
    client.sock.sendall(head.encode() + bytes(size))
    heard = client.read()
    assert heard.data.startswith(b"HTTP/1.1 413")
    assert heard.end == "eof"


def test_a_client_that_reads_too_slowly_holds_writes_back(serve):
    """10 MB to a client that does not read fill its socket: those writes have no exact instant, and none is lost."""
    served = serve(ttft_s=0.0, gap_s=0.0, tokens_per_step=2000)
    slow, other = served.client(), served.client()
    slow.post(max_tokens=2_000_000)
    held_back, deadline = 0.0, time.monotonic() + 5
    while not held_back and time.monotonic() < deadline:
        other.get("/metrics")
        page = other.answer().body.decode()
        held_back = float(page.rpartition("held_back_total ")[2].split()[0])
    answer = slow.answer()
    served.stop()
    report, writes = served.emulator.report(), served.emulator.writes()
    assert held_back > 0
    assert answer.text == text_of(0, 2_000_000)
    assert len(writes.lateness_ns()) == len(writes) - report.held_back


def test_tls_carries_the_same_stream(serve, tmp_path):
    """Over TLS a verified client gets the tokens, twice on one connection, and a plain client gets nothing."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    pem.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    served = serve(tls=Tls(str(pem), str(key)))
    assert served.emulator.url.startswith("https://")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    client = served.client()
    client.sock = context.wrap_socket(client.sock, server_hostname="127.0.0.1")
    for _ in range(2):
        client.post()
        assert client.answer().text == text_of(0, 8)
    plain = served.client()
    plain.post()
    assert b"HTTP" not in plain.read().data  # a TLS alert, and the end


def test_a_port_that_is_taken_is_said_in_one_line(serve):
    """The error names host and port."""
    port = serve().port
    with pytest.raises(UserError, match=f"127.0.0.1:{port}: cannot listen: Address already in use"):
        Emulator(Schedule(), port=port)


def test_out_of_descriptors_the_listener_waits_for_one(serve):
    """An accept that fails stops the listening, not the server, until a connection closes; then it goes on."""
    served = serve()
    first = served.client()
    first.get("/health")
    assert first.answer().status == 200

    class Full:
        def __init__(self, listener):
            self.fileno, self.close, self.accept_really = (
                listener.fileno,
                listener.close,
                listener.accept,
            )
            self.full = True

        def accept(self):
            if self.full:
                self.full = False
                raise OSError(EMFILE, "too many open files")
            return self.accept_really()

    served.emulator._listener = Full(served.emulator._listener)
    second = served.client()
    second.get("/health")
    assert second.is_silent()
    first.sock.close()
    assert second.answer().status == 200


def test_it_stops_at_a_given_time():
    """`run(until)` returns by itself, and closes its port."""
    emulator = Emulator(Schedule())
    emulator.run(until_ns=time.monotonic_ns() + 20 * MS)
    assert emulator.report().wall_s >= 0.02
    Emulator(Schedule(), port=emulator.port).run(until_ns=0)
