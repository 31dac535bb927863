"""Etalon's request_level_metrics.json (the paper's tool, formerly Metron): requests as parallel lists.

Field names as written by project-etalon/etalon, `metrics/request_level_metrics.py`. `tbt` has a gap for each token
after the first; tokens of one chunk have gaps of 0, so that chunks can be told. Requests that failed are rows without
tokens (or with those that had come), and do not say so; when requests were sent is not in the file.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import msgspec

from inferometer.importers import files
from inferometer.importers.rows import Count, Row, Rows, Stream, chunks, each, running
from inferometer.importers.tool import Part, Tool

_NOTES = (
    "a request that failed after its first token looks like one that completed: Etalon does not tell them apart",
    "Etalon counts output tokens by its own tokenizer, over a window of the last five chunks",
)


class _Record(msgspec.Struct):
    num_prompt_tokens: Count
    num_output_tokens: Count
    ttft: float
    tbt: list[float]


def read(path: Path) -> list[Part]:
    """The one benchmark of the file."""
    rows = Rows(path.name)
    needed = ("num_prompt_tokens", "num_output_tokens", "ttft", "tbt")
    found = files.columns(
        path, files.document(path), needed, remedy="name request_level_metrics.json"
    )
    for place, record in enumerate(found):
        rows.read(f"[{place}]", record, _Record, _row)
    return [Part(rows, lacks=frozenset({"channels", "starts", "intended"}), notes=_NOTES)]


def _row(r: _Record) -> Row:
    row = Row(Stream(), prompt_tokens=r.num_prompt_tokens, counted_by="tokenizer")
    if not r.num_output_tokens or not r.ttft:
        return row._replace(
            status="protocol_error", error="no token came; Etalon does not keep why"
        )
    after = running(r.ttft, r.tbt)
    told = len(after) == r.num_output_tokens
    return row._replace(stream=_merged(after) if told else chunks(after, r.num_output_tokens))


def _merged(after: tuple[int, ...]) -> Stream:
    """One stamp per token as chunks: equal stamps are one."""
    held = Counter(after)
    return each(tuple(held), tuple(held.values()))


TOOL = Tool(
    "etalon",
    "request_level_metrics.json",
    ("request_level_metrics.json",),
    lambda head: re.match(rb'\s*\{\s*"num_prompt_tokens"\s*:\s*\[', head.raw) is not None,
    read,
)
