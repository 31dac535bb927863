"""Event streams (WHATWG HTML, 9.2.6): bytes in, events out, however the bytes were split.

An event is the pair (name, data). Lines end in LF, CR or CRLF; several `data:` lines are joined by LF; comments and
unknown fields are skipped; an event that the stream ends inside of is dropped, as the standard says.
`id:` and `retry:` are understood and dropped: an instrument never reconnects.

A line or an event beyond its limit ends the stream: `broken` names the limit, the events before it are still given,
and nothing is kept of what follows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from inferometer.wire.limits import Limits, size

Event = tuple[bytes, bytes]

_BOM = b"\xef\xbb\xbf"
_LF, _CR = 10, 13


class Framing(ABC):
    """What cuts a body into events. Mutable: one for each body. `broken` names the limit that was broken."""

    __slots__ = ("broken",)

    def __init__(self) -> None:
        self.broken: str | None = None

    @abstractmethod
    def feed(self, body: bytes) -> list[Event]:
        """The events that `body` completes."""

    @abstractmethod
    def close(self) -> list[Event]:
        """The events that the end of the body completes."""

    def read(self, times: Sequence[int], bodies: Sequence[bytes]) -> tuple[list[int], list[Event]]:
        """`feed` for each of many stamped pieces: the events, and the stamp of each."""
        times_out: list[int] = []
        events: list[Event] = []
        for t_ns, body in zip(times, bodies, strict=True):
            events += self.feed(body)
            times_out += [t_ns] * (len(events) - len(times_out))
        return times_out, events


class EventStream(Framing):
    """The reader of one event stream."""

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_data",
        "_data_size",
        "_event_limit",
        "_idle",
        "_line_limit",
        "_name",
        "_partial",
    )

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._line_limit, self._event_limit = limits.line_bytes, limits.event_bytes
        self._partial = bytearray()  # the line that has begun
        self._data: list[bytes] = []  # the data lines of the event that has begun
        self._data_size = 0
        self._name = b""
        self._after_cr = False  # the last byte was CR: an LF now belongs to it
        self._at_start = True  # no line yet: a byte order mark may come
        self._idle = False  # between two events, with nothing pending at all

    def read(self, times: Sequence[int], bodies: Sequence[bytes]) -> tuple[list[int], list[Event]]:
        """`feed` for each of many stamped pieces: the events, and the stamp of each."""
        times_out: list[int] = []
        events: list[Event] = []
        limit = self._line_limit
        for t_ns, body in zip(times, bodies, strict=True):
            length = len(body)
            # Nearly every read of a token stream is one whole "data: ...\n\n": its first LF is its last byte but one.
            # (Written for speed: `13 in body` is a memchr, `b"\\r" in body` is not.)
            if (
                self._idle
                and body.find(_LF) == length - 2
                and body[length - 1] == _LF
                and body[:6] == b"data: "
                and _CR not in body
                and length < limit
            ):
                events.append((b"", body[6:-2]))
                times_out.append(t_ns)
            else:
                events += self.feed(body)
                times_out += [t_ns] * (len(events) - len(times_out))
        return times_out, events

    def feed(self, body: bytes) -> list[Event]:
        """The events that `body` completes."""
        if self._after_cr and body:
            self._after_cr = False
            body = body.removeprefix(b"\n")
        if not body or self.broken:
            return []
        lines = body.splitlines()
        rest = b"" if body[-1] in (_LF, _CR) else lines.pop()
        self._after_cr = body[-1] == _CR
        if lines and self._partial:
            lines[0] = bytes(self._partial) + lines[0]
            self._partial.clear()
        events: list[Event] = []
        for line in lines:
            self._take(line, events)
            if self.broken:
                return events
        self._partial += rest
        if len(self._partial) > self._line_limit:
            self._break(f"a line of the stream is longer than {size(self._line_limit)}")
        self._idle = not (self._partial or self._data or self._name or self._after_cr)
        return events

    def close(self) -> list[Event]:
        """Nothing: an event is complete at its blank line, or never was one."""
        return []

    def _take(self, line: bytes, events: list[Event]) -> None:
        if self._at_start:
            line, self._at_start = line.removeprefix(_BOM), False
        if not line:
            if self._data:
                events.append((self._name, b"\n".join(self._data)))
            self._data, self._data_size, self._name = [], 0, b""
        elif len(line) > self._line_limit:
            self._break(f"a line of the stream is longer than {size(self._line_limit)}")
        elif line[:5] == b"data:":
            self._add(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            self._add(b"")
        elif line[:6] == b"event:":
            self._name = line[6:].removeprefix(b" ")

    def _add(self, value: bytes) -> None:
        self._data.append(value)
        self._data_size += len(value) + 1
        if self._data_size > self._event_limit:
            self._break(f"an event of the stream is longer than {size(self._event_limit)}")

    def _break(self, why: str) -> None:
        self.broken, self._idle = why, False
        self._data, self._partial = [], bytearray()
