"""A TLS socket with the manners of a plain one: BlockingIOError where it would wait, b"" at the end.

Imported only where TLS is asked for. The handshake happens inside the first reads.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

_WAIT = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """The context of a server with a certificate chain and its key, both PEM files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


class TlsSocket:
    """The server's side of one TLS connection over a non-blocking socket."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        self._tls = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self.fileno = self._tls.fileno
        self.setsockopt = self._tls.setsockopt

    def recv(self, size: int, /) -> bytes:
        """All that is there: epoll does not see what the TLS layer has already read, so none may be left behind."""
        parts = []
        try:
            while part := self._tls.recv(size):
                parts.append(part)
        except _WAIT:
            if not parts:
                raise BlockingIOError from None
        return b"".join(parts)

    def send(self, data: bytes, /) -> int:
        """The bytes that were taken; what was not must be offered again, first."""
        try:
            return self._tls.send(data)
        except _WAIT:
            raise BlockingIOError from None

    def close(self) -> None:
        """Say goodbye (close_notify) where that is possible at once, and close."""
        with contextlib.suppress(OSError, ValueError):
            self._tls.unwrap()
        self._tls.close()
