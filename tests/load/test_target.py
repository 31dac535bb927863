"""Targets: URLs, proxies, TLS, several servers, and what the preflight finds out."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from contextlib import contextmanager

import pytest
import trustme

from inferometer.emulator import LIKE, Schedule, Tls, Wire, serve_child
from inferometer.errors import TargetError, UserError
from inferometer.load.fleet import measure
from inferometer.load.options import Drive, Endpoint, Trust, endpoint, login
from inferometer.load.preflight import find
from inferometer.plan import build_plan

QUICK = Schedule(ttft_s=0.01, gap_s=0.002)
CHAT = "/v1/chat/completions"


def plan(rows=4):
    return build_plan(rows, prompt_tokens=8, output_tokens=4, concurrency=2, seed=1)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:8000", ("h", 8000, False, CHAT)),
        ("h:8000", ("h", 8000, False, CHAT)),
        ("http://h:8000/", ("h", 8000, False, CHAT)),
        ("http://h:8000/v1", ("h", 8000, False, CHAT)),
        ("http://h:8000/v1/chat/completions", ("h", 8000, False, CHAT)),
        ("https://h/base", ("h", 443, True, "/base" + CHAT)),
        ("http://[::1]:9/?k=v", ("::1", 9, False, CHAT + "?k=v")),
    ],
)
def test_base_urls_and_whole_endpoints(url, expected):
    """Whatever a person pastes leads to the dialect's path, once."""
    found = endpoint(url, CHAT, environ={})

    assert (found.host, found.port, found.tls, found.path) == expected


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:99999999"])
def test_what_is_not_a_url(url):
    """One clear line."""
    with pytest.raises(UserError):
        endpoint(url, CHAT, environ={})


def test_proxies_come_from_the_environment():
    """http_proxy, https_proxy and no_proxy, in either case; the login becomes a header."""
    environ = {"HTTP_PROXY": "http://user:pw@p:3128", "no_proxy": "near.example"}

    far = endpoint("http://far.example", CHAT, environ=environ)
    near = endpoint("http://near.example", CHAT, environ=environ)

    assert far.proxy == ("p", 3128)
    assert far.proxy_headers == (("Proxy-Authorization", "Basic dXNlcjpwdw=="),)
    assert far.target == "http://far.example" + CHAT
    assert near.proxy is None
    assert endpoint("https://far.example", CHAT, environ=environ).proxy is None


def test_the_login_of_a_url_is_a_header_and_no_part_of_the_endpoint():
    """Credentials leave the URL at once."""
    assert login("http://u:p@h") == (("Authorization", "Basic dTpw"),)
    assert login("http://h") == ()
    assert endpoint("http://u:p@h", CHAT, environ={}) == Endpoint("h", 80, False, CHAT)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate for localhost, and the authority that made it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return folder


def test_tls_is_verified_and_measured(tmp_path, pair):
    """With the authority it works; without, it is one clear line; insecure is said in the manifest."""
    tls = Tls(str(pair / "cert.pem"), str(pair / "key.pem"))
    with serve_child(QUICK, tls=tls) as address:
        url = address.replace("127.0.0.1", "localhost")
        with pytest.raises(TargetError, match=r"TLS.*--ca"):
            find([url])
        trusted = find([url], trust=Trust(ca=str(pair / "ca.pem")))
        run = measure(plan(), trusted, Drive(), tmp_path / "a", asked={})
        loose = find([url], trust=Trust(insecure=True))
        careless = measure(plan(), loose, Drive(), tmp_path / "b", asked={})

    assert run.timeline.ok.all()
    assert run.manifest.target["tls"] == {"ca": str(pair / "ca.pem"), "insecure": False}
    assert careless.timeline.ok.all()
    assert careless.manifest.target["tls"]["insecure"] is True


def test_a_plain_port_is_not_a_tls_port():
    """https to an http port ends before any load."""
    with serve_child(QUICK) as url, pytest.raises(TargetError, match="TLS"):
        find([url.replace("http:", "https:")])


def test_several_servers_share_the_load(tmp_path):
    """Rows go to the base URLs in turn."""
    with serve_child(QUICK, log=tmp_path / "a.parquet") as one, serve_child(QUICK) as two:
        run = measure(plan(8), find([one, two]), Drive(), tmp_path / "run", asked={})

    assert run.timeline.ok.all()
    assert len(run.manifest.target["urls"]) == 2
    import pyarrow.parquet as pq

    first = set(pq.read_table(tmp_path / "a.parquet").column("request_id").to_pylist())
    assert {r for r in first if r.startswith("r")} == {f"r{row:08d}" for row in range(0, 8, 2)}


def test_the_preflight_steps_down_to_what_a_server_accepts(tmp_path):
    """transformers serve answers 422 to ignore_eos: it is left out, and a note says so."""
    picky = Schedule(ttft_s=0.01, gap_s=0.002, wire=LIKE["transformers"])
    with serve_child(picky) as url:
        found = find([url])
        run = measure(plan(), found, Drive(), tmp_path / "run", asked={})

    assert found.target.ignore_eos is False
    assert any("422" in note for note in found.notes)
    assert run.timeline.ok.all()


def test_a_struggling_server_is_measured_all_the_same():
    """503 on the trial request is a note, not a refusal."""
    with serve_child(Schedule(faults={"http-503": 1.0})) as url:
        found = find([url], model="any")

    assert any("503" in note for note in found.notes)


class Proxy(socketserver.BaseRequestHandler):
    """Forwards CONNECT and absolute targets; the method of each connection is noted in `server.seen`."""

    def handle(self):
        head = b""
        while b"\r\n\r\n" not in head and (data := self.request.recv(65536)):
            head += data
        if not head:
            return
        method, target, _ = head.split(b" ", 2)
        self.server.seen.append(method.decode())
        where = target if method == b"CONNECT" else target.split(b"/")[2]
        host, port = where.decode().rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as upstream:
            if method == b"CONNECT":
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                upstream.sendall(head.replace(b"http://" + where, b""))
            self.carry(upstream)

    def carry(self, upstream):
        other = {self.request: upstream, upstream: self.request}
        while True:
            for end in select.select(list(other), [], [], 5)[0]:
                data = end.recv(65536)
                if not data:
                    return
                other[end].sendall(data)


@contextmanager
def proxy():
    """A proxy on loopback: its URL, and the methods that it saw."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", server.seen
        finally:
            server.shutdown()
            thread.join()


def test_https_goes_through_a_tunnel(tmp_path, pair, monkeypatch):
    """CONNECT first, then TLS to the server itself."""
    tls = Tls(str(pair / "cert.pem"), str(pair / "key.pem"))
    with proxy() as (address, seen), serve_child(QUICK, tls=tls) as url:
        monkeypatch.setenv("https_proxy", address)
        monkeypatch.delenv("no_proxy", raising=False)
        found = find([url.replace("127.0.0.1", "localhost")], trust=Trust(ca=str(pair / "ca.pem")))
        run = measure(plan(), found, Drive(), tmp_path / "run", asked={}, telemetry=False)

    assert run.timeline.ok.all()
    assert set(seen) == {"CONNECT"}


def test_http_goes_through_a_proxy_with_absolute_targets(tmp_path, monkeypatch):
    """The server closes after each answer, since the test's proxy rewrites only the first target of a connection."""
    short = Schedule(ttft_s=0.01, gap_s=0.002, wire=Wire(keep_alive=False))
    with proxy() as (address, seen), serve_child(short) as url:
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.delenv("no_proxy", raising=False)
        run = measure(plan(), find([url]), Drive(), tmp_path / "run", asked={}, telemetry=False)

    assert run.timeline.ok.all()
    assert run.manifest.target["proxy"] == [address.removeprefix("http://")]
    assert "POST" in seen
