"""`vllm bench serve --save-result --save-detailed` (read from 0.32): one JSON document, parallel lists.

Its clocks start before the request is posted. `itls` has a gap for each chunk after the first, whatever it holds; up
to 0.32 the role event of a chat counts as its first chunk, so that such a reply has one chunk more than tokens.
`queue_times`, where it is there, is how long a request waited for one of `--max-concurrency`, so that it was due so much earlier.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from inferometer.importers import files
from inferometer.importers.rows import (
    Count,
    Row,
    Rows,
    Stream,
    chunks,
    last_line,
    ns,
    running,
    status_of,
    whole,
)
from inferometer.importers.tool import Part, Tool

_SETTINGS = (
    "request_rate",
    "burstiness",
    "max_concurrency",
    "num_prompts",
    "backend",
    "duration",
    "label",
)
_REMEDY = "run it again with --save-result --save-detailed: without, only summaries are kept"


class _Record(msgspec.Struct):
    input_lens: Count
    output_lens: Count
    ttfts: float
    itls: list[float]
    latencies: float | None = None
    start_times: float | None = None
    queue_times: float | None = None
    errors: str | None = None


def read(path: Path) -> list[Part]:
    """The one benchmark of a result file."""
    found = files.document(path)
    needed = ("input_lens", "output_lens", "ttfts", "itls")
    optional = ("latencies", "start_times", "queue_times", "errors")
    records = files.columns(path, found, needed, optional, remedy=_REMEDY)
    rows = Rows(path.name)
    chat = "chat" in str(found.get("backend"))
    for place, record in enumerate(records):
        rows.read(f"[{place}]", record, _Record, partial(_row, chat=chat))
    note = "output tokens are the server's count where it sent one, else the tool's tokenizer's: the file does not tell"
    about = files.picked(found, *_SETTINGS)
    return [Part(rows, None, files.word(found, "model_id"), about=about, notes=(note,))]


def _row(r: _Record, *, chat: bool) -> Row:
    sent = None if r.start_times is None else ns(r.start_times)
    queued = None if r.queue_times is None or sent is None else sent - max(0, ns(r.queue_times))
    began = r.ttfts != 0
    row = Row(Stream(), sent, queued, prompt_tokens=r.input_lens)
    if r.errors or not (began or r.output_lens):
        after = running(r.ttfts, r.itls) if began else ()
        told = r.errors or "no token came"
        return row._replace(
            stream=chunks(after, 0),
            status=status_of(told, began=began),
            error=last_line(told),
        )
    if not began:  # not streamed
        ended = None if r.latencies is None else ns(r.latencies)
        return row._replace(
            stream=whole(ended, r.output_lens, streamed=ended is None), ended_ns=ended
        )
    return row._replace(stream=_stream(running(r.ttfts, r.itls), r.output_lens, chat=chat))


def _stream(after: tuple[int, ...], tokens: int, *, chat: bool) -> Stream:
    if chat and len(after) == tokens + 1 > 1:  # the first is the role event
        return Stream(after, (0, *[1] * tokens))
    return chunks(after, tokens)


TOOL = Tool(
    "vllm",
    "the JSON of vllm bench serve --save-result --save-detailed",
    (),
    lambda head: head.has('"backend"', '"model_id"', '"tokenizer_id"'),
    read,
)
