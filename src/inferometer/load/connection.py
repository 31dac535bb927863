"""One connection: a non-blocking socket, TLS and proxy included, that stamps what it reads.

`receive` has the shape of `socket.recvmsg` in every mode, so that the driver's loop is the same in all:
    kernel stamps    the socket's own recvmsg; the stamp is the kernel's, taken when the packet arrived
    user stamps      recv, and a stamp read just before it, packed alike
With TLS the stamp belongs to the encrypted record, and the plain bytes are what is returned.
Errors of the network are OSError (ssl.SSLError is one) and are the driver's to record.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

from inferometer.load.framing import Framing
from inferometer.load.options import Endpoint, Trust

SO_TIMESTAMPNS = 35  # linux/socket.h (64-bit: the "old" layout of two longs)
READ_BYTES = 16_384
ANCILLARY_BYTES = 64
TIMESPEC = struct.Struct("@qq")

Received = tuple[bytes, list[Any], int, Any]


class Connection:
    """One socket and the request that it carries. Mutable, owned by one driver; the driver's loop reads its fields."""

    __slots__ = (
        "budget",
        "connect_ns",
        "fd",
        "frame",
        "host",
        "index",
        "intended_ns",
        "limit",
        "opened_ns",
        "outgoing",
        "plain",
        "reads",
        "receive",
        "row",
        "sent_ns",
        "sock",
        "spooled",
        "stamps",
        "state",
        "tail",
        "tls",
    )
    row: int  # the plan's row, while state is BUSY
    intended_ns: int
    sent_ns: int
    connect_ns: int  # how long the row waited for this connection; ABSENT where it stood ready
    limit: int  # bytes that the response may have
    budget: int  # bytes that it still may have
    tail: bytes  # a read that ends like this may be the last one
    frame: Framing | None
    receive: Callable[[int, int], Received]

    def __init__(
        self, index: int, endpoint: Endpoint, address: tuple[Any, ...], family: int, now_ns: int
    ) -> None:
        self.index = index  # of the endpoint, in the target's list
        self.host = endpoint.host
        self.sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.fd = self.sock.fileno()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened_ns = now_ns
        self.state = CONNECTING
        self.plain = False  # carries a request over plain TCP: the loop's fast path
        self.row = -1
        self.outgoing: memoryview | None = None
        self.tls: _Tls | None = None
        self.stamps: list[bytes] = []
        self.reads: list[bytes] = []
        self.spooled = 0
        code = self.sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self.sock.close()
            raise OSError(code, os.strerror(code))

    def use_stamps(self, mode: str) -> None:
        """Choose the stamping mode."""
        if mode == "kernel":
            self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self.receive = self.sock.recvmsg
        else:
            self.receive = user_stamped(self.sock)

    def connected(self) -> None:
        """Raise the OSError that the connect ended in, if it did."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Begin TLS on the established connection; `handshake` carries it on."""
        self.tls = _Tls(context, self.host)

    def handshake(self) -> bool:
        """Carry the TLS handshake on; True once it is done. Call it again when the socket is readable."""
        assert self.tls is not None
        done = self.tls.handshake(self._available)
        self._push(self.tls.outgoing.read())
        return done

    def send(self, request: memoryview) -> bool:
        """Send as much as fits; True when all of it went, else the rest waits in `outgoing` for `flush`."""
        if self.tls is not None:
            self.tls.object.write(request)
            request = memoryview(self.tls.outgoing.read())
        return self._push(request)

    def flush(self) -> bool:
        """Send more of `outgoing`; True when nothing is left."""
        rest, self.outgoing = self.outgoing, None
        return rest is None or self._push(rest)

    def decrypted(self, record: bytes) -> bytes:
        """The plain bytes that a piece of the encrypted stream completes (maybe none)."""
        assert self.tls is not None
        return self.tls.feed(record)

    def close(self) -> None:
        """Close the socket, without waiting."""
        self.sock.close()

    def _push(self, data: memoryview | bytes) -> bool:
        view = memoryview(data)
        if self.outgoing is not None:
            view = memoryview(bytes(self.outgoing) + bytes(view))
            self.outgoing = None
        while view.nbytes:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                self.outgoing = view
                return False
        return True

    def _available(self) -> bytes | None:
        try:
            return self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return None


CONNECTING, TUNNEL, HANDSHAKE, IDLE, BUSY = range(5)


class _Tls:
    """The sans-I/O half of TLS (RFC 8446 through OpenSSL's memory BIOs)."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=host)

    def handshake(self, available: Callable[[], bytes | None]) -> bool:
        while True:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                if self.outgoing.pending:
                    return False  # ours to send first
                data = available()
                if data is None:
                    return False
                if not data:
                    raise ConnectionResetError(
                        errno.ECONNRESET, "closed during the TLS handshake"
                    ) from None
                self.incoming.write(data)
            else:
                return True

    def feed(self, record: bytes) -> bytes:
        self.incoming.write(record)
        plain = []
        try:
            while data := self.object.read(READ_BYTES):
                plain.append(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            pass
        return b"".join(plain)


def tls_context(trust: Trust) -> ssl.SSLContext:
    """A client context: verified against the system's authorities or `ca`, unless told to be insecure."""
    context = ssl.create_default_context(cafile=trust.ca)
    context.set_alpn_protocols(["http/1.1"])
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def user_stamped(sock: socket.socket) -> Callable[[int, int], Received]:
    """A `receive` that reads the time itself, for systems without kernel stamps."""
    recv, now, pack = sock.recv, time.time_ns, TIMESPEC.pack

    def receive(size: int, _ancillary: int) -> Received:
        stamp = pack(*divmod(now(), 1_000_000_000))
        return recv(size), [(0, 0, stamp)], 0, None

    return receive


def kernel_stamps_work() -> bool:
    """Whether this host stamps received TCP data (tried on a loopback pair)."""
    if not hasattr(socket.socket, "recvmsg"):
        return False
    try:
        client, peer = _loopback_pair()
        with client, peer:
            client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            return _stamped(client, peer)
    except OSError:
        return False


def _loopback_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=2)
        return client, server.accept()[0]


def _stamped(client: socket.socket, peer: socket.socket) -> bool:
    for _ in range(20):  # the kernel turns stamping on lazily: the first packets may come without
        peer.sendall(b"x")
        _, ancillary, _, _ = client.recvmsg(16, ANCILLARY_BYTES)
        if ancillary and len(ancillary[0][2]) == TIMESPEC.size:
            seconds, ns = TIMESPEC.unpack(ancillary[0][2])
            return bool(abs(seconds * 1_000_000_000 + ns - time.time_ns()) < 1_000_000_000)
        time.sleep(0.001)
    return False
