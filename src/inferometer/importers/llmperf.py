"""LLMPerf's *_individual_responses.json (ray-project/llmperf): an array of requests, durations in seconds.

Field names as in `common_metrics.py`. `inter_token_latency_s` is the time to the last token divided by the output
tokens, so that their product is when the last one came; gaps are not kept. Output tokens are counted by one tokenizer
for all models, and nothing says when requests were sent.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from inferometer.importers import files
from inferometer.importers.rows import (
    Count,
    Row,
    Rows,
    Stream,
    Unreadable,
    ends,
    first,
    last_line,
    ns,
    status_of,
)
from inferometer.importers.tool import Part, Tool


class _Record(msgspec.Struct):
    ttft_s: float
    end_to_end_latency_s: float
    number_input_tokens: Count
    number_output_tokens: Count
    inter_token_latency_s: float | list[float] = 0.0
    error_code: int | str | None = None
    error_msg: str | None = None


def read(path: Path) -> list[Part]:
    """The one benchmark of the file."""
    rows = Rows(path.name)
    for place, record in enumerate(files.array(path)):
        rows.read(f"[{place}]", record, _Record, _row)
    return [Part(rows, lacks=frozenset({"channels", "starts", "intended"}))]


def _row(r: _Record) -> Row:
    row = Row(Stream(), prompt_tokens=r.number_input_tokens, counted_by="tokenizer")
    if r.error_code is not None or r.error_msg:
        told = r.error_msg or f"error {r.error_code}"
        code = (
            r.error_code if isinstance(r.error_code, int) and 100 <= r.error_code < 1000 else None
        )
        status = status_of(told, code=code, began=r.ttft_s > 0)
        return row._replace(status=status, error=last_line(told), http_status=code)
    if not r.ttft_s:
        raise Unreadable("a request without an error has no time to its first token")
    begin, ended, tokens = ns(r.ttft_s), ns(r.end_to_end_latency_s), r.number_output_tokens
    mean = r.inter_token_latency_s
    last = ns(mean * tokens) if isinstance(mean, float) else 0
    known = begin <= last <= ended
    stream = ends(begin, last, tokens) if known else first(begin, max(begin, ended), tokens)
    return row._replace(stream=stream, ended_ns=ended)


TOOL = Tool(
    "llmperf",
    "the *_individual_responses.json of token_benchmark_ray.py",
    (),
    lambda head: head.has('"ttft_s"', '"end_to_end_latency_s"', '"number_output_tokens"'),
    read,
)
