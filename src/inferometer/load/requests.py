"""The requests of a stripe, encoded before t = 0 into one unlinked file and mapped: sending copies nothing in Python.

The file has no name while it is used, so no prompt outlives the run; its pages are the page cache's, not ours.

A turn that goes on from an earlier one is a conversation: its history is sent as messages, or, in dialects that know
none, as one text. Where the plan wants the model's real replies in it, `replies` encodes it when they are there.

A closed loop with a time limit is planned for more requests than it is likely to need. Only the likely ones are
encoded ahead; one beyond them is encoded when it is sent (about 20 µs, which its send lag then holds).
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from inferometer.load.options import Target
from inferometer.load.replies import Replies
from inferometer.plan import Plan
from inferometer.timeline import Ints
from inferometer.wire import DIALECTS, Ask, request_bytes
from inferometer.workload.prompts import Message, Prompts
from inferometer.workload.tokenizer import Tokenizer

BATCH = 256

EndpointOf = Callable[[int], int]


class Requests:
    """Encoded requests by their place in the stripe; `prompt_tokens` [n] are what the tokenizer counts in each."""

    def __init__(
        self, plan: Plan, rows: Ints, target: Target, tokenizer: Tokenizer, endpoint_of: EndpointOf
    ) -> None:
        self._plan, self._rows, self._target = plan, rows, target
        self._endpoint_of = endpoint_of
        self._prompts = Prompts(plan, tokenizer)
        self.replies = self._repeated() if plan.replies == "real" else None
        self._buffer = memoryview(b"")
        self._offset = [0]
        self.prompt_tokens = plan.prompt_tokens[rows].astype(np.int32)

    def __call__(self, place: int) -> memoryview:
        """The bytes of one request."""
        if self.replies is not None and self.replies.repeats(place):
            return memoryview(self.replies.request(place))
        if place + 1 < len(self._offset):
            return self._buffer[self._offset[place] : self._offset[place + 1]]
        return memoryview(self._encoded(place, place + 1)[0])

    def encode(self, count: int, folder: Path, note: Callable[[], None]) -> None:
        """Encode the first `count` ahead; `note` is called after each batch."""
        with tempfile.TemporaryFile(dir=folder, prefix=".requests-") as file:
            for begin in range(0, count, BATCH):
                for place, request in enumerate(
                    self._encoded(begin, min(begin + BATCH, count)), begin
                ):
                    later = self.replies is not None and self.replies.repeats(place)
                    self._offset.append(self._offset[-1] + (0 if later else file.write(request)))
                note()
            file.flush()
            if size := self._offset[-1]:
                self._buffer = memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))

    def _encoded(self, begin: int, end: int) -> list[bytes]:
        rows = self._rows[begin:end].tolist()
        made = self._prompts.made(rows)
        self.prompt_tokens[begin:end] = made.tokens
        return [
            self._request(place, self._talk(row, text))
            for place, (row, text) in enumerate(zip(rows, made.texts, strict=True), begin)
        ]

    def _talk(self, row: int, text: str) -> tuple[Message, ...]:
        """The planned conversation that a prompt's text is."""
        if self._prompts.goes_on_from(row) < 0:
            return (Message("user", text),)
        *history, _ = self._prompts.messages(row)
        said = sum(len(message.text) for message in history)
        return (*history, Message("user", text[said:]))

    def _repeated(self) -> Replies:
        """The turns of this stripe that repeat real replies."""
        place = {row: index for index, row in enumerate(self._rows.tolist())}
        lines = {
            index: [place[earlier] for earlier in self._prompts.line(row)[:-1]]
            for row, index in place.items()
            if self._prompts.goes_on_from(row) >= 0
        }
        plan, rows = self._plan, self._rows
        return Replies(
            lines,
            DIALECTS[self._target.dialect],
            lambda index: int(plan.output_tokens[rows[index]]),
            self._repeating,
        )

    def _repeating(self, place: int, replies: dict[int, str]) -> bytes:
        """A request whose history holds these replies, by place."""
        by_row = {int(self._rows[index]): text for index, text in replies.items()}
        return self._request(place, self._prompts.messages(int(self._rows[place]), by_row))

    def _request(self, place: int, talk: tuple[Message, ...]) -> bytes:
        row, index = int(self._rows[place]), self._endpoint_of(place)
        return _request(self._plan, row, talk, self._target, index)


def encode(
    plan: Plan,
    rows: Ints,
    target: Target,
    *,
    tokenizer: Tokenizer,
    folder: Path,
    endpoint_of: EndpointOf,
    ahead: int | None = None,
    note: Callable[[], None] = lambda: None,
) -> Requests:
    """The requests of `rows` of the whole `plan` (prompts hang on its numbering, so that stripes never collide).

    `endpoint_of` maps a place in `rows` to an endpoint. `ahead`: how many to encode now; None: all.
    """
    requests = Requests(plan, rows, target, tokenizer, endpoint_of)
    requests.encode(len(rows) if ahead is None else min(ahead, len(rows)), folder, note)
    return requests


def _request(plan: Plan, row: int, talk: tuple[Message, ...], target: Target, index: int) -> bytes:
    dialect = DIALECTS[target.dialect]
    endpoint = target.endpoints[index]
    ask = Ask(
        model=plan.adapter[row] or plan.model[row] or target.model,
        prompt="".join(message.text for message in talk),
        messages=tuple(talk) if len(talk) > 1 else (),
        output_tokens=int(plan.output_tokens[row]),
        ignore_eos=target.ignore_eos,
        stream=target.stream,
        usage=target.usage,
        extra=target.extra,
    )
    headers = [
        ("Host", endpoint.authority),
        *request_headers(target),
        ("X-Request-Id", plan.request_id[row]),
    ]
    if plan.session_id[row] is not None:
        headers.append(("X-Session-Id", plan.session_id[row]))
    if endpoint.proxy and not endpoint.tls:
        headers += endpoint.proxy_headers
    return request_bytes("POST", endpoint.target, headers, dialect.encode(ask))


def request_headers(target: Target) -> list[tuple[str, str]]:
    """The headers that every request to `target` carries; a user's header replaces a default of the same name."""
    own = {name.lower() for name, _ in target.headers}
    defaults = [*DIALECTS[target.dialect].headers(None), ("user-agent", "inferometer")]
    return [pair for pair in defaults if pair[0].lower() not in own] + list(target.headers)
