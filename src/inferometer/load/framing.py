"""Where a response ends: just enough HTTP to hand a connection on while the clock runs.

Decided once per response, on its first bytes, and then checked per read by comparing its last bytes: nothing here
costs anything per token. It is a hint, never the verdict: the verdict is the full parse of `wire.Reply`, after the
run. Where the two disagree (a chunk that happens to end like a last chunk, cut exactly there by TCP), the request
ends as a protocol error and not as a number.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LAST_CHUNK = b"0\r\n\r\n"
NEVER = b"\0inferometer: no response ends like this\0"

_STATUS = re.compile(rb"HTTP/1\.(\d) (\d\d\d)[^\r\n]*\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r\n")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked[ \t]*\r\n")
_CLOSE = re.compile(rb"\r\nconnection:[^\r\n]*close[^\r\n]*\r\n")
_TRAILERS = re.compile(rb"(?:^|\r\n)0+(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n\Z")


class Framing(NamedTuple):
    """How one response is framed.

    `tail`: the response has ended when a read ends with these bytes (empty: look at `total`).
    `total`: bytes from the first of the response to its last, head included; None where unknown.
    """

    status: int
    tail: bytes
    total: int | None
    reusable: bool


def framing(data: bytes) -> Framing | None:
    """The framing of the response that begins `data`; None while its head is not complete. Skips 1xx responses.

    What is not HTTP/1.x counts as delimited by the end of the connection.
    """
    start = 0
    while True:
        match = _STATUS.match(data, start)
        if match is None:
            return (
                None if _may_become_http(data, start) else Framing(0, NEVER, None, reusable=False)
            )
        end = data.find(b"\r\n\r\n", match.end() - 2)
        if end < 0:
            return None
        status = int(match[2])
        if status >= 200 or status == 101:
            return _framing(data[match.end() - 2 : end + 2].lower(), match, end + 4)
        start = end + 4


def ended_with_trailers(last_bytes: bytes) -> bool:
    """Whether a chunked response ends here with trailers, which `LAST_CHUNK` does not recognise."""
    return _TRAILERS.search(last_bytes) is not None


def _framing(head: bytes, match: re.Match[bytes], head_end: int) -> Framing:
    status = int(match[2])
    reusable = match[1] == b"1" and not _CLOSE.search(head)
    if status in (204, 304):
        return Framing(status, b"", head_end, reusable)
    if _CHUNKED.search(head):
        return Framing(status, LAST_CHUNK, None, reusable)
    if length := _LENGTH.search(head):
        return Framing(status, b"", head_end + int(length[1]), reusable)
    return Framing(status, NEVER, None, reusable=False)


def _may_become_http(data: bytes, start: int) -> bool:
    seen = data[start : start + 9]
    return (
        b"HTTP/1.1 ".startswith(seen)
        or b"HTTP/1.0 ".startswith(seen)
        or (seen[:7] == b"HTTP/1." and b"\n" not in data[start:] and len(data) - start < 65536)
    )
