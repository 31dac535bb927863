"""The requests of a stripe, encoded before t = 0 into one unlinked file and mapped: sending copies nothing in Python.

The file has no name while it is used, so no prompt outlives the run; its pages are the page cache's, not ours.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferometer.load.options import Target
from inferometer.plan import Plan
from inferometer.timeline import Ints
from inferometer.wire import DIALECTS, Ask, request_bytes
from inferometer.workload.prompts import Prompts
from inferometer.workload.tokenizer import Tokenizer

BATCH = 256


class Requests:
    """Encoded requests by their place in the stripe; `prompt_tokens` [n] are what the tokenizer counts in each."""

    def __init__(
        self, buffer: memoryview, offset: list[int], prompt_tokens: NDArray[np.int32]
    ) -> None:
        self._buffer = buffer
        self._offset = offset
        self.prompt_tokens = prompt_tokens

    def __call__(self, place: int) -> memoryview:
        """The bytes of one request."""
        return self._buffer[self._offset[place] : self._offset[place + 1]]


def _silently() -> None:
    return None


def encode(
    plan: Plan,
    rows: Ints,
    target: Target,
    *,
    tokenizer: Tokenizer,
    folder: Path,
    endpoint_of: Callable[[int], int],
    note: Callable[[], None] = _silently,
) -> Requests:
    """Encode `rows` of the whole `plan` (prompts depend on the whole plan's numbering, so that stripes never collide).

    `endpoint_of` maps a place in `rows` to an endpoint; `note` is called after each batch.
    """
    prompts = Prompts(plan, tokenizer)
    offset, counts = [0], []
    with tempfile.TemporaryFile(dir=folder, prefix=".requests-") as file:
        for begin in range(0, len(rows), BATCH):
            batch = rows[begin : begin + BATCH]
            made = prompts.made(batch.tolist())
            counts.append(made.tokens)
            for place, (row, text) in enumerate(
                zip(batch.tolist(), made.texts, strict=True), begin
            ):
                offset.append(
                    offset[-1] + file.write(_request(plan, row, text, target, endpoint_of(place)))
                )
            note()
        file.flush()
        size = offset[-1]
        buffer = (
            memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))
            if size
            else memoryview(b"")
        )
    tokens = np.concatenate(counts) if counts else np.zeros(0)
    return Requests(buffer, offset, tokens.astype(np.int32))


def _request(plan: Plan, row: int, text: str, target: Target, index: int) -> bytes:
    dialect = DIALECTS[target.dialect]
    endpoint = target.endpoints[index]
    ask = Ask(
        model=plan.adapter[row] or plan.model[row] or target.model,
        prompt=text,
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
