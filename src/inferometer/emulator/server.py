"""The emulated server: an HTTP/1.1 server on one thread that plays what a `Player` decides.

It knows paths, requests and exchanges; the bytes come from replies, the times from the player. Rules:
1. A token's write is noted with the time read immediately before it; a token that is late stays late, and is counted.
2. Tokens come first: whatever else there is to do is done in small slices, and due tokens are played between them.
3. One exchange at a time per connection; a request that is pipelined behind it waits.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from inferometer.clock import SECOND
from inferometer.emulator.connection import Connection, Request, Socket
from inferometer.emulator.dialects import DIALECTS, Dialect, Facts
from inferometer.emulator.faults import (
    ENDLESS,
    ON_ACCEPT,
    ON_HEADERS,
    instead,
    refusal,
    with_fault,
)
from inferometer.emulator.loop import Loop
from inferometer.emulator.player import Player, SchedulePlayer
from inferometer.emulator.replies import JSON, Answer, Reply, Stream, Then, Whole, encode, response
from inferometer.emulator.schedule import FOREVER, Asked, Schedule, check_fault, fault_of
from inferometer.emulator.writes import Ledger, Report, WriteLog
from inferometer.errors import UserError

now_ns = time.monotonic_ns

BACKLOG = 4096
LAG_NS = SECOND // 20  # still being so far behind after a slice of work is worth a remark
SLICE = 128  # tokens played, or connections accepted, before the sockets get their turn
READY = 64  # ready sockets served before the clock is looked at
VERSION = "0.32.0+emulated"


class Tls(NamedTuple):
    """Two PEM files."""

    certificate: str
    key: str


@dataclass(slots=True, eq=False)
class Exchange:
    """A request that is being answered."""

    key: int
    asked: Asked
    connection: Connection
    reply: Reply
    keep_alive: bool


class Emulator:
    """A server on loopback. It listens from its construction on; `run` serves until `stop`."""

    def __init__(
        self,
        schedule: Schedule,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        log: bool = True,
        player: Player | None = None,
        tls: Tls | None = None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`warn` is told when the server falls behind what it plays, and whenever that has doubled."""
        self.schedule = schedule
        self._warn, self._remarkable_ns = warn, LAG_NS
        self._player: Player = player or SchedulePlayer(schedule)
        self._ledger = Ledger(rows=log, late_ns=self._player.late_ns)
        self._exchanges: dict[int, Exchange] = {}
        self._connections: set[Connection] = set()
        self._wrap = _wrapper(tls)
        self._listener = _listen(host, port)
        self._host, self.port = host, int(self._listener.getsockname()[1])
        self._scheme = "https" if tls else "http"
        self._created = int(time.time())
        self._cpu_s = self._wall_s = 0.0
        self._accepted = self._heard = 0
        self._full = False  # no descriptor is left: the listener waits
        self._loop = Loop()
        self._loop.add(self._listener.fileno(), self._accept)
        self._pages: dict[str, Callable[[], bytes]] = {
            "/v1/models": self._models_page,
            "/version": lambda: encode({"version": VERSION}),
            "/health": lambda: b"",
            "/metrics": self._metrics_page,
        }

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{self._scheme}://{self._host}:{self.port}"

    def run(self, until_ns: int | None = None) -> None:
        """Serve until `stop`, or until a monotonic time; then close everything. Runs once."""
        cpu_s, started_ns = time.thread_time(), now_ns()
        try:
            while not self._loop.stopped and (until_ns is None or now_ns() < until_ns):
                self._turn(until_ns)
        finally:
            self._cpu_s = time.thread_time() - cpu_s
            self._wall_s = (now_ns() - started_ns) / SECOND
            self._close()

    def stop(self) -> None:
        """End `run`; safe from a signal handler and from another thread."""
        self._loop.stop()

    def watch(self, fd: int, call: Callable[[int], None]) -> None:
        """Have the server's thread call `call(mask)` when `fd` is readable (a parent's pipe, a test's)."""
        self._loop.add(fd, call)

    def writes(self) -> WriteLog:
        """Every write of tokens so far; needs `log`."""
        return self._ledger.log()

    def report(self) -> Report:
        """How much was written, and how late; its CPU and wall time are known when `run` has ended."""
        return self._ledger.report(cpu_s=self._cpu_s, wall_s=self._wall_s)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _turn(self, until_ns: int | None) -> None:
        self._play()
        due_ns = self._player.next_due_ns()
        if due_ns is not None:
            self._watch_lag(due_ns)
        if due_ns is None or (until_ns is not None and until_ns < due_ns):
            due_ns = until_ns
        for call, mask in self._loop.ready(due_ns, READY):
            call(mask)
            due_ns = self._player.next_due_ns()
            if due_ns is not None and due_ns <= now_ns():
                self._play()

    def _play(self) -> None:
        """Write what is due, at most a slice of it. The hot path: everything here is paid for by every token."""
        exchanges, note = self._exchanges, self._ledger.wrote_tokens
        for due_ns, key, tokens, last in islice(self._player.due(now_ns()), SLICE):
            exchange = exchanges.get(key)
            if exchange is None:
                continue
            reply = exchange.reply
            before = reply.written
            data = reply.say(tokens, last)
            if data:
                wrote_ns = now_ns()
                whole = exchange.connection.send(data)
                if fresh := reply.written - before:
                    note(key, fresh, due_ns, wrote_ns, whole)
            if reply.then is not None:
                self._end(exchange, reply.then)

    def _watch_lag(self, due_ns: int) -> None:
        """Say so where what is next, after all that was done in this turn, was due long ago."""
        lag_ns = now_ns() - due_ns
        if lag_ns > self._remarkable_ns:
            self._remarkable_ns = 2 * lag_ns
            self._warn(f"cannot keep up: {lag_ns / SECOND:.3g} s behind; its clients see that, too")

    def _end(self, exchange: Exchange, then: Then) -> None:
        self._forget(exchange)
        if then is Then.KEEP and not exchange.keep_alive:
            then = Then.CLOSE
        _AFTERWARDS[then](exchange.connection)

    def _forget(self, exchange: Exchange) -> None:
        if self._exchanges.pop(exchange.key, None):
            self._player.leave(exchange.key, now_ns())

    def _close(self) -> None:
        for connection in tuple(self._connections):
            connection.close()
        self._loop.remove(self._listener.fileno())
        self._listener.close()
        self._loop.close()

    # --- connections --------------------------------------------------------------------------------------------------

    def _accept(self, _: int) -> None:
        for _lap in range(READY):
            try:
                plain, _peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _SCARCE:
                    continue  # that client is gone already
                self._pause_listening()
                return
            plain.setblocking(False)
            try:
                connection = Connection(self._wrap(plain), self._loop, self)
            except OSError:  # TLS looks at the peer, which may be gone already
                plain.close()
                continue
            self._connections.add(connection)
            self._accepted += 1
            fault = fault_of(self.schedule, f"connection {self._accepted}")
            if fault in ON_ACCEPT:
                self._give(connection, ON_ACCEPT[fault])

    def _pause_listening(self) -> None:
        """Without descriptors: accept again when a connection gives one back."""
        if self._connections:
            self._loop.remove(self._listener.fileno())
            self._full = True

    def lost(self, connection: Connection) -> None:
        """A connection is closed: so is what was being served on it."""
        self._connections.discard(connection)
        if connection.serving is not None:
            self._forget(connection.serving)
            connection.serving = None
        if self._full:
            self._full = False
            self._loop.add(self._listener.fileno(), self._accept)

    def refused(self, connection: Connection, status: int, why: str) -> None:
        """Say what is wrong; in the middle of a reply there is no place for it."""
        if connection.serving is None:
            connection.send(refusal(status, why, keep_alive=False))

    # --- requests -----------------------------------------------------------------------------------------------------

    def heard_headers(self, connection: Connection, headers: dict[bytes, bytes]) -> None:
        """Give the request an id, and let the faults strike that do not wait for its body."""
        self._heard += 1
        request_id = headers.setdefault(b"x-request-id", b"emulated-%08d" % self._heard).decode(
            "latin-1"
        )
        fault = headers.get(b"x-fault", b"").decode("latin-1") or fault_of(
            self.schedule, request_id
        )
        if fault in ON_HEADERS and connection.serving is None:
            connection.deaf = True
            self._give(connection, ON_HEADERS[fault])

    def heard(self, connection: Connection, request: Request) -> None:
        """Answer at once, or begin an exchange."""
        arrived_ns = now_ns()
        try:
            self._check_key(request)
            answer = self._page(request) or self._serve(connection, request, arrived_ns)
        except _Refused as refused:
            answer = Answer(refusal(refused.status, str(refused)), Then.KEEP)
        if answer is not None:
            self._give(connection, answer, keep_alive=request.keep_alive)

    def _give(self, connection: Connection, answer: Answer, *, keep_alive: bool = True) -> None:
        if answer.data:
            connection.send(answer.data)
        then = answer.then if keep_alive or answer.then is not Then.KEEP else Then.CLOSE
        if then is not Then.KEEP:
            _AFTERWARDS[then](connection)

    def _serve(self, connection: Connection, request: Request, arrived_ns: int) -> Answer | None:
        dialect = DIALECTS.get(request.path)
        if dialect is None:
            raise _Refused(404, f"no such path: {request.path}")
        if request.method != "POST":
            raise _Refused(405, f"{request.path} wants POST")
        request_id = request.headers[b"x-request-id"].decode("latin-1")
        session = request.headers.get(b"x-session-id", b"").decode("latin-1") or None
        asked = self._asked(dialect, request.body)
        asked = asked._replace(request_id=request_id, session_id=session)
        fault = self._fault(request, asked)
        if answer := instead(fault, self.schedule):
            return answer
        if fault == ENDLESS:
            asked = asked._replace(max_tokens=FOREVER)
        if why := self._player.refuses(asked):
            raise _Refused(400, why)
        keep_alive = request.keep_alive and self.schedule.wire.keep_alive
        reply = with_fault(self._reply(dialect, asked, keep_alive), fault, self.schedule, dialect)
        key = self._ledger.arrived(request_id, asked.prompt_tokens)
        self._begin(Exchange(key, asked, connection, reply, keep_alive), arrived_ns)
        return None

    def _asked(self, dialect: Dialect, body: bytes) -> Asked:
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
            asked = dialect.read(fields)
        except (msgspec.MsgspecError, TypeError, ValueError, AttributeError) as error:
            raise _Refused(400, f"not a request: {error}") from None
        for name in self.schedule.wire.refused_fields:
            if name in fields:
                raise _Refused(422, f"Unexpected fields: {name}")
        return asked

    def _fault(self, request: Request, asked: Asked) -> str | None:
        named = request.headers.get(b"x-fault", b"").decode("latin-1")
        if not named and asked.model.startswith("fault:"):
            named = asked.model.removeprefix("fault:")
        elif self.schedule.models and asked.model not in self.schedule.models:
            raise _Refused(404, f"The model `{asked.model}` does not exist.")
        if not named:
            return fault_of(self.schedule, asked.request_id)
        try:
            return check_fault(named, "X-Fault")
        except UserError as error:
            raise _Refused(400, str(error)) from None

    def _reply(self, dialect: Dialect, asked: Asked, keep_alive: bool) -> Stream | Whole:
        schedule = self.schedule
        reasoning = round(
            schedule.wire.reasoning_share * (asked.max_tokens or schedule.default_output_tokens)
        )
        name = dialect.prefix + asked.request_id
        facts = Facts(name, self._created, asked.model, asked, schedule.wire, reasoning)
        return (Stream if asked.stream else Whole)(dialect, facts, keep_alive=keep_alive)

    def _begin(self, exchange: Exchange, arrived_ns: int) -> None:
        self._exchanges[exchange.key] = exchange
        exchange.connection.serving = exchange
        if opening := exchange.reply.opening():
            exchange.connection.send(opening)
        if not exchange.connection.closed:
            self._player.arrive(exchange.key, exchange.asked, arrived_ns)

    # --- pages --------------------------------------------------------------------------------------------------------

    def _check_key(self, request: Request) -> None:
        key = self.schedule.api_key
        given = request.headers.get(b"authorization", b"").decode("latin-1")
        if key is not None and request.path not in _OPEN_PAGES and given != f"Bearer {key}":
            raise _Refused(401, "the API key is missing or wrong")

    def _page(self, request: Request) -> Answer | None:
        page = self._pages.get(request.path)
        if page is None:
            return None
        if request.method != "GET":
            raise _Refused(405, f"{request.path} wants GET")
        media = b"text/plain; version=0.0.4" if request.path == "/metrics" else JSON
        return Answer(response(200, page(), media=media, keep_alive=request.keep_alive), Then.KEEP)

    def _models_page(self) -> bytes:
        card = {"object": "model", "created": self._created, "owned_by": "inferometer"}
        names = self.schedule.models or (Asked().model,)
        return encode({"object": "list", "data": [{"id": name} | card for name in names]})

    def _metrics_page(self) -> bytes:
        """Prometheus text: the gauges that vLLM has under its names, and the emulator's own truth about itself."""
        player, ledger = self._player, self._ledger
        name = encode((self.schedule.models or (Asked().model,))[0]).decode()
        report = ledger.report(cpu_s=0.0, wall_s=0.0)
        model = f"{{model_name={name}}}"
        due_ns = player.next_due_ns()
        lag_ns = 0 if due_ns is None else max(0, now_ns() - due_ns)
        lines = [
            _metric("vllm:num_requests_running", "gauge", player.running, model),
            _metric("vllm:num_requests_waiting", "gauge", player.waiting, model),
            _metric("vllm:kv_cache_usage_perc", "gauge", player.kv_usage, model),
            _metric("vllm:num_preemptions_total", "counter", player.preemptions, model),
            _metric("vllm:prompt_tokens_total", "counter", ledger.prompt_tokens_total, model),
            _metric("vllm:generation_tokens_total", "counter", ledger.tokens_total, model),
            _metric("process_cpu_seconds_total", "counter", time.process_time()),
            _metric("emulator:writes_total", "counter", report.writes),
            _metric("emulator:writes_held_back_total", "counter", report.held_back),
            _metric("emulator:lag_seconds", "gauge", lag_ns / SECOND),
        ]
        if report.lateness_p99_ns is not None and report.lateness_max_ns is not None:
            p99_s, max_s = report.lateness_p99_ns / SECOND, report.lateness_max_ns / SECOND
            lines.append(_metric("emulator:lateness_p99_seconds", "gauge", p99_s))
            lines.append(_metric("emulator:lateness_max_seconds", "gauge", max_s))
            lines.append(_metric("emulator:late_share", "gauge", report.late_share or 0.0))
        return "".join(lines).encode()


def _metric(name: str, kind: str, value: float, labels: str = "") -> str:
    return f"# TYPE {name} {kind}\n{name}{labels} {float(value)}\n"


class _Refused(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_OPEN_PAGES = frozenset({"/health", "/version", "/metrics"})
_AFTERWARDS: dict[Then, Callable[[Connection], None]] = {
    Then.KEEP: Connection.next_request,
    Then.CLOSE: Connection.close_when_written,
    Then.RESET: Connection.reset,
    Then.HANG: lambda _: None,
}


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # inherited by what is accepted
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UserError(f"cannot listen: {error.strerror}", where=f"{host}:{port}") from None
    listener.setblocking(False)
    return listener


def _wrapper(tls: Tls | None) -> Callable[[socket.socket], Socket]:
    if tls is None:
        return lambda plain: plain
    from inferometer.emulator.tls import TlsSocket, server_context

    context = server_context(tls.certificate, tls.key)
    return lambda plain: TlsSocket(plain, context)
