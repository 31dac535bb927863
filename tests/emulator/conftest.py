"""An emulator on a thread, and a client that notices exactly how a connection ends."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httptools
import pytest

from inferometer.emulator import Emulator, Schedule

QUICK = {"ttft_s": 0.01, "gap_s": 0.002}
PATIENCE_S = 10.0  # how long a client waits for what must come
SILENCE_S = 0.1  # how long it listens for what must not


class Response:
    """One HTTP response, taken apart by httptools as it comes."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.complete = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True

    @property
    def status(self) -> int:
        return self._parser.get_status_code()

    @property
    def events(self) -> list[Any]:
        """The data of the SSE events, as JSON; [DONE] as it is."""
        lines = [line for line in self.body.splitlines() if line.startswith(b"data: ")]
        texts = [line.removeprefix(b"data: ").decode() for line in lines]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]

    @property
    def text(self) -> str:
        """The text of a streamed chat."""
        events = [event for event in self.events if isinstance(event, dict)]
        choices = [choice for event in events for choice in event.get("choices", ())]
        return "".join(choice["delta"].get("content", "") for choice in choices)


class Heard(NamedTuple):
    """What a client got: the bytes, and "eof", "reset", or "more" where it stopped listening."""

    data: bytes
    end: str


class Client:
    """A raw connection."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)

    def post(self, path: str = "/v1/chat/completions", headers: str = "", **body: Any) -> None:
        """Send one request; a streamed chat of 8 tokens unless told otherwise."""
        fields = {"messages": [{"role": "user", "content": "a b c"}], "stream": True}
        content = json.dumps(fields | {"max_tokens": 8} | body)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(content)}\r\n\r\n"
        self.sock.sendall((head + content).encode())

    def get(self, path: str, headers: str = "") -> None:
        """Send a GET."""
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())

    def read(self, until: bytes | None = None) -> Heard:
        """All that comes, up to `until` or to the end of the connection."""
        data, part = bytearray(), b""
        while until is None or until not in data[-len(part) - len(until) :]:
            try:
                part = self.sock.recv(1 << 16)
            except ConnectionResetError:
                return Heard(bytes(data), "reset")
            if not part:
                return Heard(bytes(data), "eof")
            data += part
        return Heard(bytes(data), "more")

    def answer(self) -> Response:
        """The next response, as far as it comes."""
        response = Response()
        while not response.complete:
            part = self.sock.recv(1 << 16)
            if not part:
                break
            response.feed(part)
        return response

    def is_silent(self) -> bool:
        """Whether nothing comes for a while, and the connection stays."""
        self.sock.settimeout(SILENCE_S)
        try:
            self.sock.recv(1)
        except TimeoutError:
            return True
        else:
            return False
        finally:
            self.sock.settimeout(PATIENCE_S)


class Served:
    """A running emulator, and its clients."""

    def __init__(self, schedule: Schedule, **options: Any) -> None:
        self.emulator = Emulator(schedule, **options)
        self.port = self.emulator.port
        self._thread = threading.Thread(target=self.emulator.run)
        self._clients: list[Client] = []
        self._thread.start()

    def client(self) -> Client:
        """A new connection."""
        self._clients.append(Client(self.port))
        return self._clients[-1]

    def chat(self, **body: Any) -> Response:
        """One chat on a connection of its own."""
        client = self.client()
        client.post(**body)
        return client.answer()

    def stop(self) -> None:
        """Stop the server and wait for its thread."""
        for client in self._clients:
            client.sock.close()
        self.emulator.stop()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """`serve(**schedule)`: a quick emulator on a thread, stopped after the test."""
    running: list[Served] = []

    def start(*, tls: Any = None, log: bool = True, player: Any = None, **schedule: Any) -> Served:
        running.append(Served(Schedule(**(QUICK | schedule)), tls=tls, log=log, player=player))
        return running[-1]

    yield start
    for served in running:
        served.stop()
