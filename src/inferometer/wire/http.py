"""HTTP/1.1 as bytes: requests written, one response read. No sockets, no clock.

`request_bytes` is the only writer; it refuses whatever could smuggle in a second header or a second request.
`ResponseReader` reads exactly one response from whatever pieces arrive, on httptools (llhttp, strict): chunked,
delimited by a length or by the end of the connection; interim 1xx responses are skipped; gzip and deflate are undone.

Rules:
1. Any split of the bytes gives the same answer.
2. Nothing that a server sends raises: what is wrong stands in `error`, and nothing is read after it.
3. Redirects, retries and connections are somebody else's; `keep_alive` says whether this one may carry another request.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import httptools

from inferometer.errors import UserError
from inferometer.wire.limits import Limits, size

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_TARGET = re.compile(r"[!-~]+")  # visible ASCII
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_CODINGS = ("gzip", "x-gzip", "deflate")


def request_bytes(
    method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes = b""
) -> bytes:
    """One HTTP/1.1 request; `content-length` is added where there is a body, or the method is meant to carry one.

    UserError for whatever would not arrive as one target, one header, one request. It never repeats the value of a
    header, which may be a secret.
    """
    if not _TOKEN.fullmatch(method):
        raise UserError(f"{method!r} is not an HTTP method")
    if not _TARGET.fullmatch(target):
        raise UserError(f"the request target {target!r} holds a space or a control character")
    lines = [f"{method} {target} HTTP/1.1", *(_header_line(*header) for header in headers)]
    named = {name.lower() for name, _ in headers}
    if (body or method in ("POST", "PUT", "PATCH")) and "content-length" not in named:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def _header_line(name: str, value: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise UserError(f"{name!r} is not a header name")
    if not _VALUE.fullmatch(value):
        what = "the value holds a line break or another character that a header may not hold"
        raise UserError(what, where=f"header {name}")
    return f"{name}: {value}"


class ResponseReader:
    """One response. Mutable: `feed` it what arrives, say `eof` when the connection ends.

    `status` and `headers` (lower-case names, repeated fields joined by ", ") are there once `head_complete` is true,
    everything once `complete` is. `error` is None, or one line saying why it never will be; `cut`: because bytes are
    missing, not because they are wrong. `surplus`: bytes came after the end. `last_ns`: the stamp of the last `read` of it.
    """

    __slots__ = (
        "_feed_data",
        "_fields",
        "_head_size",
        "_inflater",
        "_left",
        "_may_reuse",
        "_parser",
        "_pieces",
        "_sealed",
        "_silent",
        "_steady",
        "complete",
        "cut",
        "error",
        "head_complete",
        "headers",
        "last_ns",
        "limits",
        "on_body",
        "over",
        "status",
        "surplus",
    )

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.head_complete = self.complete = self.cut = self.surplus = False
        self.over = False  # complete or not: nothing more is read
        self.last_ns: int | None = None
        self.error: str | None = None
        self._left = self.limits.response_bytes
        self._head_size = self._fields = 0
        self._silent = 0  # bytes since the last piece of body: chunk extensions, trailers
        self._steady = False  # nothing but body is due: no head, no end, no error, no compression
        self._may_reuse = False
        self._sealed = False  # the body ends by itself (length, chunks), not with the connection
        self._inflater: _Inflater | None = None
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # httptools reads the callbacks once, in the next line
        self._parser = httptools.HttpResponseParser(self)
        self._feed_data = self._parser.feed_data

    def read(self, times: Sequence[int], reads: Sequence[bytes]) -> tuple[list[int], list[bytes]]:
        """`feed` for each of many reads, faster: the pieces of body, and the stamp of each. Notes `last_ns`."""
        times_out, bodies, last_ns = [], [], self.last_ns
        feed_data, pieces = self._feed_data, self._pieces
        for t_ns, data in zip(times, reads, strict=True):
            if self._steady and len(data) <= self._left:
                self._left -= len(data)
                try:
                    feed_data(data)
                except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                    self._stopped(error)
                if len(pieces) == 1:  # the common case: one chunk, or a part of one
                    self._silent = 0
                    body = pieces.pop()
                else:
                    body = self._joined(len(data))
                last_ns = t_ns
            else:
                last_ns = last_ns if self.over else t_ns
                body = self.feed(data)
            if body:
                bodies.append(body)
                times_out.append(t_ns)
        self.last_ns = last_ns
        return times_out, bodies

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body that `data` brings, decompressed; often none."""
        if self.error:
            return b""
        if self.complete:
            return self._note_surplus(data)
        data, beyond = data[: self._left], data[self._left :]
        self._left -= len(data)
        body = self._feed_body(data) if self.head_complete else self._feed_head(data)
        if self.complete:
            return body + self._note_surplus(beyond)
        if beyond:
            self._fail(f"the response is longer than {size(self.limits.response_bytes)}")
        return body

    def eof(self, *, reset: bool = False) -> None:
        """Say that the connection ended, cleanly or (`reset`) not; a body that is delimited by its end is complete."""
        if self.complete or self.error:
            return
        if self.head_complete and not self._sealed and not reset:
            self.complete = self.over = True
            self._check_compressed_end()
            return
        self._fail(f"the connection {'was reset' if reset else 'closed'} {self._place()}", cut=True)

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may carry another request."""
        return self.complete and self._may_reuse and not self.surplus

    def _feed_body(self, data: bytes) -> bytes:
        try:
            self._feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._stopped(error)
        body = self._joined(len(data))
        return body if self._inflater is None else self._decompressed(body)

    def _joined(self, n_bytes: int) -> bytes:
        """The body in `n_bytes` that were read; those that bring none are bounded like the head."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        self._silent = 0 if body else self._silent + n_bytes
        if self._silent > self.limits.head_bytes and self.head_complete and not self.complete:
            self._fail(f"the trailers are longer than {size(self.limits.head_bytes)}")
        return body

    def _feed_head(self, data: bytes) -> bytes:
        # No further than the limit first, so that how the bytes were split does not decide who breaks it.
        room = self.limits.head_bytes - self._head_size
        self._head_size += min(room, len(data))
        body = self._feed_body(data[:room])
        self._silent = 0
        if self.error:
            return body
        self._steady = self.head_complete and not self.complete and self._inflater is None
        if not self.head_complete:
            if self._head_size == self.limits.head_bytes:
                self._fail(f"the headers are longer than {size(self.limits.head_bytes)}")
            return b""
        if self.complete:
            return body + self._note_surplus(data[room:])
        return body + self._feed_body(data[room:])

    def _decompressed(self, body: bytes) -> bytes:
        assert self._inflater is not None
        out = self._inflater.feed(body)
        if self._inflater.error:
            self._fail(self._inflater.error)
        self._check_compressed_end()
        return out

    def _check_compressed_end(self) -> None:
        if self.complete and self._inflater is not None and not self._inflater.finished:
            self._fail("the compressed body ends too early", cut=True)

    def _note_surplus(self, data: bytes) -> bytes:
        self.surplus = self.surplus or bool(data.strip(b"\r\n"))
        return b""

    def _stopped(self, error: Exception) -> None:
        """httptools gave up: in a callback of ours, on bytes after the end, or on bytes that are not HTTP."""
        if self.complete:
            self.surplus = True
        elif self.error is None:
            what = "the framing of the body" if self.head_complete else "the response"
            self._fail(f"{what} is not HTTP/1.1: {error}")

    def _fail(self, why: str, *, cut: bool = False) -> None:
        if self.error is None:
            self.error, self.cut = why, cut
            self.complete = self._steady = False
            self.over = True

    def _place(self) -> str:
        if not self.head_complete:
            return "inside of the headers" if self._head_size else "before any response"
        return "inside of the body" if self._sealed else "instead of ending the body"

    # --- called by httptools ------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Stop at a second message in the same bytes: it is nobody's answer."""
        if self.complete:
            raise _StopReading

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; count, but do not keep, a trailer."""
        self._fields += 1
        if self._fields > self.limits.head_fields:
            self._fail(f"there are more than {self.limits.head_fields} headers")
            raise _StopReading
        if not self.head_complete:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Decide how the body is delimited and coded; forget the head of an interim response."""
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            self.headers.clear()
            return
        self.status, self.head_complete = status, True
        self._may_reuse = self._parser.should_keep_alive()
        transfer = self.headers.get("transfer-encoding", "").lower()
        coding = self.headers.get("content-encoding", "").lower()
        self._sealed = bool(transfer) or "content-length" in self.headers or status in (204, 304)
        if coding in _CODINGS:
            self._inflater = _Inflater(coding, self.limits.decompressed_bytes)
        if status == 101:
            self._fail("the server switched protocols, which nobody asked for")
        elif transfer not in ("", "chunked"):
            self._fail(f"the transfer-encoding {transfer[:80]!r} is not understood")
        elif coding not in ("", "identity", *_CODINGS):
            self._fail(f"the content-encoding {coding[:80]!r} was not asked for")
        if self.error:
            raise _StopReading

    def on_message_complete(self) -> None:
        """Note the end, unless it is the end of an interim response."""
        if self.head_complete:
            self.complete = self.over = True
            self._steady = False


class _StopReading(Exception):
    """Thrown through httptools to stop it; the reason was noted before."""


class _Inflater:
    """gzip or deflate undone, up to a size. ("deflate" is zlib's format; some servers send it bare.)

    The output of one call is at most the limit; what a corrupt stream gives before its first wrong byte is undefined.
    """

    def __init__(self, coding: str, limit: int) -> None:
        self._limit = self._left = limit
        self._coding = coding
        self._start = b""
        self._zlib = None if coding == "deflate" else zlib.decompressobj(wbits=31)
        self.error: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the data came to its own end, or never began."""
        return self._zlib.eof if self._zlib is not None else not self._start

    def feed(self, data: bytes) -> bytes:
        """What `data` expands to; stops, with `error` set, at the limit or at corrupt data."""
        out: list[bytes] = []
        try:
            self._expand(data, out)
        except zlib.error as error:
            self.error = f"the compressed body is corrupt: {error}"
        return b"".join(out)

    def _expand(self, data: bytes, out: list[bytes]) -> None:
        if self._zlib is None:
            self._start = data = self._start + data
            if len(data) < 2:
                return
            zlib_format = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._zlib = zlib.decompressobj(wbits=15 if zlib_format else -15)
        while data:
            if self._zlib.eof:  # gzip allows one member after another (RFC 1952, 2.2)
                self._zlib = zlib.decompressobj(wbits=31)
            piece = self._zlib.decompress(data, self._left + 1)
            out.append(piece[: self._left])
            if len(piece) > self._left:
                self.error = f"the decompressed body is longer than {size(self._limit)}"
                return
            self._left -= len(piece)
            data = self._zlib.unused_data
