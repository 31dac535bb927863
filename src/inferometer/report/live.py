"""The live view in a browser: what the terminal shows, served while it happens, and the report at the end.

One small HTTP server on a thread of the parent process (never of a worker, which measures). It listens on loopback
unless told otherwise, answers GET and nothing else, reads nothing from disk, and refuses requests that name another
host than itself (a page on the web cannot reach it through a name of its own that resolves to loopback).
    /         the live page
    /events   server-sent events (WHATWG HTML, 9.2): the latest of everything at once, then each change
    /report   the report, once there is one
A message is one of two kinds, whatever verb is running: `figures` (name -> number, each drawn as a line over time, with
words and a share of the work that is done) and `table` (columns, rows), which replaces the table before it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from inferometer.errors import UserError
from inferometer.report.page import asset, fill

LOOPBACK = "127.0.0.1"
KEPT = 1_200  # messages a late browser is told of
PATIENCE_S = 10.0  # for the browsers that are watching to take the report
BEAT_S = 5.0  # a comment at least so often, so that a gone browser is noticed
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


class Live:
    """What is shown, and who is watching. `tell` and `table` may be called from any thread."""

    def __init__(self, title: str) -> None:
        """Nothing is known yet but the title."""
        self.title = title
        self.url = ""
        self._changed = threading.Condition()
        self._messages: list[bytes] = []
        self._first = 0  # the number of the oldest message that is kept
        self._report: bytes | None = None
        self._watching = 0
        self._taken = 0
        self._over = False

    def tell(
        self, figures: dict[str, float | None], words: str = "", done: float | None = None
    ) -> None:
        """The figures of this moment."""
        self._say("figures", {"at": time.time(), "figures": figures, "words": words, "done": done})

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """The table as it stands now."""
        self._say("table", {"columns": columns, "rows": rows})

    def finish(self, page: str) -> None:
        """There is a report: send every browser there, and wait until those that watch have it (for a few seconds)."""
        with self._changed:
            self._report = page.encode()
        self._say("report", {"path": "/report"})
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while self._taken < self._watching and time.monotonic() < deadline:
                self._changed.wait(0.1)

    def close(self) -> None:
        """End every stream."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    @property
    def report(self) -> bytes | None:
        """The report, once there is one."""
        with self._changed:
            return self._report

    def took(self) -> None:
        """Somebody has the whole report."""
        with self._changed:
            self._taken += 1
            self._changed.notify_all()

    def stream(self) -> Iterator[bytes]:
        """Server-sent events, from the oldest that is kept; ends when the view is closed."""
        with self._changed:
            self._watching += 1
        at = 0
        try:
            while True:
                with self._changed:
                    at = max(at, self._first)
                    new = self._messages[at - self._first :]
                    if not new and not self._over:
                        self._changed.wait(BEAT_S)
                        new = self._messages[max(at, self._first) - self._first :]
                    over = self._over
                    at = self._first + len(self._messages)
                yield b"".join(new) or b": still here\n\n"
                if over:
                    return
        finally:
            with self._changed:
                self._watching -= 1
                self._changed.notify_all()

    def _say(self, kind: str, message: dict[str, Any]) -> None:
        event = b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(message))
        with self._changed:
            self._messages.append(event)
            extra = len(self._messages) - KEPT
            if extra > 0:
                del self._messages[:extra]
                self._first += extra
            self._changed.notify_all()


@contextmanager
def serving(address: str, title: str) -> Iterator[Live]:
    """A live view at `address` ("8000", "0" for any free port, or "HOST:PORT"), as long as the block runs."""
    host, port = _address(address)
    live = Live(title)
    try:
        server = ThreadingHTTPServer((host, port), _answering(live, host))
    except OSError as error:
        raise UserError(
            f"cannot listen there: {error.strerror}",
            where=f"--serve {address}",
            remedy="take 0 for a free port",
        ) from None
    server.daemon_threads = True
    live.url = f"http://{host}:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield live
    finally:
        live.close()
        server.shutdown()
        server.server_close()
        thread.join(5)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65_535:
        raise UserError(
            f"{text!r} is not a port", where="--serve", remedy="write 8000, or HOST:8000"
        )
    return (host if colon and host else LOOPBACK), int(port)


def _answering(live: Live, host: str) -> type[BaseHTTPRequestHandler]:
    """The handler of one view."""

    class Answer(BaseHTTPRequestHandler):
        """GET, and nothing else."""

        protocol_version = "HTTP/1.1"
        server_version = "inferometer"
        sys_version = ""

        def do_GET(self) -> None:
            """Answer one of three paths."""
            if not _is_own(self.headers.get("Host", ""), host):
                self._whole(403, b"another host was asked for", "text/plain")
            elif self.path == "/":
                self._whole(200, _page(live.title), "text/html; charset=utf-8")
            elif self.path == "/events":
                self._events()
            elif self.path == "/report" and (report := live.report) is not None:
                self._report(report)
            else:
                self._whole(404, b"there is no such page", "text/plain")

        def _report(self, report: bytes) -> None:
            self.close_connection = True  # the server is about to go
            with suppress(OSError):  # the browser went away
                self._whole(200, report, "text/html; charset=utf-8")
            live.took()

        def _events(self) -> None:
            self._head(200, "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            with suppress(OSError):  # the browser went away
                for event in live.stream():
                    self.wfile.write(event)
                    self.wfile.flush()

        def _whole(self, status: int, body: bytes, kind: str) -> None:
            self._head(status, kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _head(self, status: int, kind: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, **HEADERS}.items():
                self.send_header(name, value)

        def log_message(self, *_: Any) -> None:
            """Stay silent: the terminal belongs to the run."""

    return Answer


def _is_own(asked: str, host: str) -> bool:
    """Whether a Host header names this server; any will do where a person chose to listen beyond loopback."""
    name = asked.rpartition(":")[0] if asked.rpartition(":")[2].isdigit() else asked
    return host not in (LOOPBACK, "localhost", "::1") or name in (LOOPBACK, "localhost", "[::1]")


def _page(title: str) -> bytes:
    return fill("live.html", title=title, css=asset("page.css"), script=asset("live.js")).encode()
