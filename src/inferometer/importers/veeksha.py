"""Veeksha's request_level_metrics.jsonl (project-vajra/veeksha): a record per request that completed.

Field names as written by `evaluator/performance/text.py`. Seconds since the benchmark's start, rounded to 10 us; `tbc`
has a gap for each chunk after the first. A request was due when the scheduler had it ready, and is sent when a client
picks it up (`ttfc` counts from there). Requests that failed, or were cancelled, are not in the file.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from inferometer.importers import files
from inferometer.importers.rows import Count, Row, Rows, Stream, chunks, ns, running, whole
from inferometer.importers.tool import Part, Tool


class _Record(msgspec.Struct):
    ttfc: float
    tbc: list[float]
    end_to_end_latency: float
    num_output_tokens: Count
    scheduler_dispatched_at: float
    scheduler_ready_at: float | None = None
    client_picked_up_at: float | None = None
    request_id: int | str | None = None
    session_id: int | str | None = None
    num_total_prompt_tokens: Count | None = None
    num_delta_prompt_tokens: Count | None = None
    is_stream: bool = True


def read(path: Path) -> list[Part]:
    """The one benchmark of the file."""
    rows = Rows(path.name)
    for line, found in files.lines(path, rows):
        rows.read(line, found, _Record, _row)
    return [Part(rows, lacks=frozenset({"channels", "failures"}))]


def _row(r: _Record) -> Row:
    sent = r.scheduler_dispatched_at if r.client_picked_up_at is None else r.client_picked_up_at
    prompt = (
        r.num_delta_prompt_tokens
        if r.num_total_prompt_tokens is None
        else r.num_total_prompt_tokens
    )
    ended = ns(r.end_to_end_latency)
    row = Row(
        Stream(),
        ns(sent),
        ns(r.scheduler_dispatched_at if r.scheduler_ready_at is None else r.scheduler_ready_at),
        prompt_tokens=prompt,
        counted_by="tokenizer",
        request_id=None if r.request_id is None else str(r.request_id),
        session_id=None if r.session_id is None else str(r.session_id),
    )
    if r.is_stream and (r.ttfc or r.tbc):
        return row._replace(stream=chunks(running(r.ttfc, r.tbc), r.num_output_tokens))
    return row._replace(
        stream=whole(ended, r.num_output_tokens, streamed=r.is_stream), ended_ns=ended
    )


TOOL = Tool(
    "veeksha",
    "request_level_metrics.jsonl",
    ("request_level_metrics.jsonl",),
    lambda head: head.has('"scheduler_dispatched_at"', '"ttfc"', '"tbc"'),
    read,
)
