"""The two framings beside event streams: one JSON text per line, and one JSON text in all.

Both have the shape of `sse.EventStream`: `feed` and `close` give (name, data) pairs, `broken` names a broken limit.
Unlike there, what stands after the last line break is an event too.
"""

from __future__ import annotations

from inferometer.wire.limits import Limits, size
from inferometer.wire.sse import Event, Framing


class JsonLines(Framing):
    """Newline-delimited JSON (Ollama). A line is an event, and is bounded like one; blank lines are skipped."""

    __slots__ = ("_limit", "_partial")

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limit = limits.event_bytes
        self._partial = bytearray()

    def feed(self, body: bytes) -> list[Event]:
        """The lines that `body` completes."""
        if self.broken:
            return []
        lines = body.split(b"\n")
        rest = lines.pop()
        if lines and self._partial:
            lines[0] = bytes(self._partial) + lines[0]
            self._partial.clear()
        self._partial += rest
        for n, line in enumerate(lines):
            if len(line) > self._limit:
                return self._break(lines[:n])
        if len(self._partial) > self._limit:
            return self._break(lines)
        return _events(lines)

    def close(self) -> list[Event]:
        """The last line, where it did not end in a line break."""
        line, self._partial = bytes(self._partial), bytearray()
        return _events([line])

    def _break(self, before: list[bytes]) -> list[Event]:
        self.broken = f"a line of the stream is longer than {size(self._limit)}"
        self._partial = bytearray()
        return _events(before)


class JsonDocument(Framing):
    """One JSON text: the reply that was not streamed. The limit of the response bounds it."""

    __slots__ = ("_text",)

    def __init__(self, _limits: Limits) -> None:
        super().__init__()
        self._text = bytearray()

    def feed(self, body: bytes) -> list[Event]:
        """Nothing yet."""
        self._text += body
        return []

    def close(self) -> list[Event]:
        """The whole text."""
        return _events([bytes(self._text)])


def _events(lines: list[bytes]) -> list[Event]:
    return [(b"", line) for line in lines if line and not line.isspace()]
