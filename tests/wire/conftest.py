"""What the tests of the wire share: building responses, and reading them in pieces."""

import itertools
import json
from collections.abc import Sequence

import pytest

from inferometer.wire import DIALECTS, Limits, Reply, ReplyFacts

CHAT = DIALECTS["openai-chat"]


class Wire:
    """Builders of raw responses, and the reader that most tests use."""

    @staticmethod
    def head(*lines: str, status: str = "200 OK") -> bytes:
        """A status line and headers."""
        return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")

    @staticmethod
    def chunked(*parts: bytes) -> bytes:
        """A chunked body of these chunks."""
        return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"

    @staticmethod
    def sse(*events) -> bytes:
        """An event stream of these JSON values (or raw strings)."""
        texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
        return "".join(f"data: {text}\n\n" for text in texts).encode()

    def streamed(self, *events) -> bytes:
        """A whole chunked response with one event per chunk."""
        head = self.head("content-type: text/event-stream", "transfer-encoding: chunked")
        return head + self.chunked(*(self.sse(event) for event in events))

    def sized(self, body: bytes, *lines: str, status: str = "200 OK") -> bytes:
        """A response delimited by its length."""
        return self.head(*lines, f"content-length: {len(body)}", status=status) + body

    @staticmethod
    def chat(text=None, *, finish=None, usage=None, **delta) -> dict:
        """A chat completions event; `usage` is the count of completion tokens."""
        delta = delta if text is None else {"content": text, **delta}
        event = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        return event | ({} if usage is None else {"usage": counts(usage)})

    @staticmethod
    def final_usage(tokens: int) -> dict:
        """The event with the usage of the whole reply and no choices."""
        return {"choices": [], "usage": counts(tokens)}

    @staticmethod
    def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
        """`data` cut at `places` (any order, repeats allowed); no piece is empty."""
        edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
        return [data[a:b] for a, b in itertools.pairwise(edges)]

    @staticmethod
    def bytewise(data: bytes) -> list[bytes]:
        """`data` in reads of one byte."""
        return [data[n : n + 1] for n in range(len(data))]

    def read(
        self,
        reads: bytes | Sequence[bytes],
        *,
        dialect=CHAT,
        expect: int = 32,
        end: str | None = "close",
        limits: Limits | None = None,
        one_by_one: bool = False,
    ) -> tuple[Reply, ReplyFacts]:
        """The reply in `reads` (stamped 1000, 1001, ...), and its facts; every text counts one token per word."""
        reads = [reads] if isinstance(reads, bytes) else list(reads)
        reply = Reply(dialect, limits or Limits(), expect, keep_text=True)
        stamps = range(1000, 1000 + len(reads))
        if one_by_one:
            for t_ns, data in zip(stamps, reads, strict=True):
                reply.feed(t_ns, data)
        else:
            reply.read(stamps, reads)
        if end:
            reply.eof(5000, reset=end == "reset")
        return reply, reply.facts(words)

    def facts(self, reads: bytes | Sequence[bytes], **more) -> ReplyFacts:
        """Only the facts of `read`."""
        return self.read(reads, **more)[1]


def counts(tokens: int) -> dict:
    return {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}


def words(texts: list[str]) -> list[int]:
    """A tokenizer: one token per word, at least one per text."""
    return [max(1, len(text.split())) for text in texts]


@pytest.fixture(scope="session")
def wire() -> Wire:
    """The builders."""
    return Wire()
