"""genai-perf's profile_export.json (Perf Analyzer's): experiments, each with its requests, in ns.

Field names as genai-perf 0.0.16 reads them. It keeps what the server wrote, with the time of each piece: that is read
as our own wire is (`wire.Reply`), so that tokens are the server's count where it sent one, and else an estimate.
Only OpenAI's protocols; when requests were due is not recorded, and a request that fails ends the tool.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from inferometer.errors import UserError
from inferometer.importers import files
from inferometer.importers.rows import Row, Rows, Stream, Unreadable
from inferometer.importers.tool import Part, Tool
from inferometer.wire import DIALECTS, Dialect, Limits, Reply
from inferometer.workload import tokenizer

_DIALECTS = {"v1/chat/completions": "openai-chat", "v1/completions": "openai-completions"}
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_ENOUGH = 1 << 24  # tokens: a file has an end, so that a reply needs no bound of its own


class _Output(msgspec.Struct):
    response: str = ""


class _Record(msgspec.Struct):
    timestamp: int
    response_timestamps: list[int]
    response_outputs: list[_Output]


def read(path: Path) -> list[Part]:
    """A part for each experiment."""
    found = files.document(path)
    endpoint = str(found.get("endpoint", "")).strip("/")
    if found.get("service_kind") != "openai" or endpoint not in _DIALECTS:
        what = f"service_kind {found.get('service_kind')!r} and endpoint {endpoint!r} are not read"
        raise UserError(what, where=str(path), remedy=f"read are openai and {', '.join(_DIALECTS)}")
    experiments = found.get("experiments")
    if not isinstance(experiments, list) or not experiments:
        raise UserError("no experiments in it", where=str(path))
    dialect = DIALECTS[_DIALECTS[endpoint]]
    return [_part(path, n, one, dialect) for n, one in enumerate(experiments)]


def _part(path: Path, number: int, found: Any, dialect: Dialect) -> Part:
    rows = Rows(path.name)
    requests = found.get("requests") if isinstance(found, dict) else None
    if not isinstance(requests, list):
        raise UserError(f"experiment {number} has no requests", where=str(path))
    for place, record in enumerate(requests):
        rows.read(
            f"experiments[{number}].requests[{place}]",
            record,
            _Record,
            partial(_row, dialect=dialect),
        )
    about = files.picked(found.get("experiment"), "mode", "value")
    label = f"{about.get('mode', 'experiment')}@{about.get('value', number)}"
    return Part(rows, None, None, label, frozenset({"intended", "failures"}), about)


def _row(r: _Record, *, dialect: Dialect) -> Row:
    stamps = [at - r.timestamp for at in r.response_timestamps]
    if len(stamps) != len(r.response_outputs) or not stamps:
        raise Unreadable(
            "as many response_timestamps as response_outputs are wanted, and one at least"
        )
    if stamps[0] < 0 or any(later < earlier for earlier, later in pairwise(stamps)):
        raise Unreadable("response_timestamps run backwards, or begin before the request")
    reply = Reply(dialect, Limits(), _ENOUGH)
    reply.read([stamps[0], *stamps], [_HEAD, *_pieces(r.response_outputs)])
    reply.eof(stamps[-1])
    facts = reply.facts(tokenizer.load().count)
    return Row(
        Stream(
            tuple(facts.chunk_ns), tuple(facts.chunk_tokens), channel=tuple(facts.chunk_channel)
        ),
        r.timestamp,
        None,
        stamps[-1],
        prompt_tokens=facts.prompt_tokens,
        counted_by=facts.token_source,
        status=facts.status,
        error=facts.error,
        cached_tokens=facts.cached_tokens,
        finish_reason=facts.finish_reason,
    )


def _pieces(outputs: list[_Output]) -> list[bytes]:
    """What arrived with each stamp; a blank line where the tool cut off the one that ends an event."""
    texts = [output.response for output in outputs]
    ended = [not later or later.startswith("data:") for later in (*texts[1:], "")]
    return [
        (text.rstrip("\r\n") + "\n\n" if end and text.strip() else text).encode("utf-8", "replace")
        for text, end in zip(texts, ended, strict=True)
    ]


TOOL = Tool(
    "genai-perf",
    "profile_export.json",
    ("profile_export.json",),
    lambda head: head.has('"experiments"', '"response_timestamps"'),
    read,
)
