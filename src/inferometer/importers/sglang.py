"""SGLang's bench_serving with `--output-details` (read from 0.5.23): JSON Lines, a benchmark in each line.

When requests were sent is not in it. The native backend divides each gap by the tokens that came in its chunk and
repeats it: k equal gaps in a row are one chunk of k tokens after k such gaps, and are read so. Other backends record
a gap per chunk; their `output_lens` is the number that was asked for, unless the server puts usage into its events.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from inferometer.importers import files
from inferometer.importers.rows import (
    Count,
    Row,
    Rows,
    Stream,
    chunks,
    each,
    last_line,
    running,
    status_of,
)
from inferometer.importers.tool import Part, Tool

_SETTINGS = ("backend", "dataset_name", "request_rate", "max_concurrency", "duration", "tag")
_REMEDY = "run it again with --output-details: without, only summaries are kept"
_NATIVE = ("sglang", "sglang-native")
_ASKED = "output tokens may be the number asked for: this backend counts only where the server puts usage into its events"


class _Record(msgspec.Struct):
    input_lens: Count
    output_lens: Count
    ttfts: float
    itls: list[float]
    errors: str | None = None
    cached_tokens: Count | None = None


def read(path: Path) -> list[Part]:
    """A benchmark for each line of the file."""
    spare = Rows(path.name)
    return [*(_part(path, line, found) for line, found in files.lines(path, spare)), Part(spare)]


def _part(path: Path, line: str, found: dict[str, Any]) -> Part:
    needed, optional = ("input_lens", "output_lens", "ttfts", "itls"), ("errors", "cached_tokens")
    rows = Rows(path.name)
    native = found.get("backend") in _NATIVE
    for place, record in enumerate(files.columns(path, found, needed, optional, remedy=_REMEDY)):
        rows.read(f"{line}[{place}]", record, _Record, partial(_row, native=native))
    lacks = frozenset({"channels", "starts", "intended"})
    about = files.picked(found, *_SETTINGS)
    model = files.word(found, "server_info", "model_path")
    return Part(rows, None, model, lacks=lacks, about=about, notes=() if native else (_ASKED,))


def _row(r: _Record, *, native: bool) -> Row:
    row = Row(Stream(), prompt_tokens=r.input_lens, cached_tokens=r.cached_tokens)
    began = r.ttfts != 0
    if r.errors or not began:
        told = r.errors or "no token came"
        after = running(r.ttfts, r.itls) if began else ()
        return row._replace(
            stream=chunks(after, 0), status=status_of(told, began=began), error=last_line(told)
        )
    if native and len(r.itls) == r.output_lens - 1:
        return row._replace(stream=_unsmeared(r.ttfts, r.itls), counted_by="server")
    return row._replace(stream=chunks(running(r.ttfts, r.itls), r.output_lens))


def _unsmeared(first: float, gaps: Sequence[float]) -> Stream:
    groups = [(gap, len(list(same))) for gap, same in groupby(gaps)]
    after = running(first, [gap * k for gap, k in groups])
    return each(after, (1, *(k for _, k in groups)))


TOOL = Tool(
    "sglang",
    "the JSON Lines of sglang.bench_serving --output-details",
    (),
    lambda head: head.has('"backend"', '"dataset_name"', '"sharegpt_output_len"'),
    read,
)
