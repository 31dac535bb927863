"""One client's connection: bytes in become requests, bytes out go at once or wait until the socket takes them.

It knows HTTP's grammar (through httptools) and the socket's moods; what a request means is the owner's business.
Rules: nothing here blocks; nothing is raised into httptools' callbacks; a closed connection does nothing more, so that
an event that was already under way when it closed is harmless.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import Any, NamedTuple, Protocol

import httptools

from inferometer.emulator.loop import READ, WRITE, Loop

RECEIVE_BYTES = 1 << 18
BODY_LIMIT = 64 << 20
OUT_LIMIT = 64 << 20  # a client that reads so much too slowly is dropped
_LINGER_RESET = struct.pack("ii", 1, 0)


class Request(NamedTuple):
    """One complete request. Header names are lower-case."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool


class Socket(Protocol):
    """What is asked of a socket, plain or TLS: non-blocking, BlockingIOError where it would have to wait."""

    def recv(self, size: int, /) -> bytes: ...  # noqa: D102
    def send(self, data: bytes, /) -> int: ...  # noqa: D102
    def setsockopt(self, level: int, name: int, value: bytes, /) -> None: ...  # noqa: D102
    def fileno(self) -> int: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Owner(Protocol):
    """Who is told what happens on a connection."""

    def heard_headers(self, connection: Connection, headers: dict[bytes, bytes]) -> None:
        """A request has begun; its body is still to come."""
        ...

    def heard(self, connection: Connection, request: Request) -> None:
        """A request is complete."""
        ...

    def refused(self, connection: Connection, status: int, why: str) -> None:
        """What comes is not a request, or too much of one; it will be ignored and the connection closed."""
        ...

    def lost(self, connection: Connection) -> None:
        """The connection is closed, by whomever."""
        ...


class Connection:
    """A connection, and the one exchange on it that is being served (`serving`, the owner's to set)."""

    __slots__ = (
        "_backlog", "_body", "_body_bytes", "_fd", "_headers", "_loop", "_out", "_owner", "_parser",
        "_socket", "_url", "closed", "closing", "deaf", "serving",
    )  # fmt: skip

    def __init__(self, sock: Socket, loop: Loop, owner: Owner) -> None:
        self._socket, self._fd = sock, sock.fileno()
        self._loop, self._owner = loop, owner
        self._parser: Any = httptools.HttpRequestParser(self)
        self._out = bytearray()
        self._backlog: deque[Request] = (
            deque()
        )  # pipelined behind the exchange that is being served
        self.closed = False
        self.closing = False  # close once all is written
        self.deaf = False  # the request that is coming in has had its answer: ignore it, then close
        self.serving: Any = None
        self._begin()
        loop.add(self._fd, self.on_ready)

    # --- in -----------------------------------------------------------------------------------------------------------

    def on_ready(self, mask: int) -> None:
        """The socket is readable, writable, or broken."""
        if self.closed:
            return
        if mask & WRITE:
            self._flush()
        if mask & ~WRITE and not self.closed:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing is offered to upgrade to; the request itself has been heard
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, Exception):
                raise error.__context__ from None  # a bug of ours, inside a callback
            if not self.closed:
                self._owner.refused(self, 400, str(error))
                self.close_when_written()

    def next_request(self) -> None:
        """The exchange is over: go on with the requests behind it, if there are any."""
        self.serving = None
        while self._backlog and not (self.serving or self.closed or self.closing):
            self._owner.heard(self, self._backlog.popleft())

    # --- what httptools calls -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin()

    def on_url(self, url: bytes) -> None:
        """Its target, or a part of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Its headers are there."""
        if self.closed:
            return
        self._owner.heard_headers(self, self._headers)
        if b"expect" in self._headers and not (self.closed or self.deaf):
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self._body_bytes += len(body)
        if self.deaf or self.closed:
            return
        if self._body_bytes > BODY_LIMIT:
            self.deaf = True  # closing now, with data unread, would be a reset that eats the answer
            self._body.clear()
            self._owner.refused(self, 413, "the body is larger than 64 MiB")
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        """It is complete."""
        if self.closed or self.closing:
            return
        if self.deaf:
            self.close_when_written()
            return
        request = Request(
            self._parser.get_method().decode(),
            self._url.decode("latin-1").partition("?")[0],
            self._headers,
            b"".join(self._body),
            self._parser.should_keep_alive(),
        )
        if self.serving is None:
            self._owner.heard(self, request)
        else:
            self._backlog.append(request)

    # --- out ----------------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> bool:
        """Write `data`, or what the socket takes of it, and the rest when it can; True where all went at once."""
        if self._out:
            self._keep(data)
            return False
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return False
        if sent == len(data):
            return True
        self._keep(data[sent:])
        self._loop.watch(self._fd, READ | WRITE)
        return False

    def _keep(self, data: bytes) -> None:
        self._out += data
        if len(self._out) > OUT_LIMIT:
            self.reset()

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._socket.send(bytes(memoryview(self._out)[: 1 << 20]))
                del self._out[:sent]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._loop.watch(self._fd, READ)
        if self.closing:
            self.close()

    def close_when_written(self) -> None:
        """Close in order (FIN), after what is still to be written."""
        self.closing = True
        if not self._out:
            self.close()

    def reset(self) -> None:
        """Close with a reset (RST): linger with a time of 0."""
        if not self.closed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            self.close()

    def close(self) -> None:
        """Close at once, and tell the owner."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove(self._fd)
        self._socket.close()
        self._parser = (
            None  # it refers back to us; without the cycle no garbage collector is needed
        )
        self._owner.lost(self)
