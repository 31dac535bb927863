"""The same run, scored as other tools would: same words, other formulas, side by side.

Most "tool A does not agree with tool B" threads end here. Each number comes from the one timeline, with the
definitions that the tools' sources have (versions in TOOLS), and carries a sentence on how it differs from ours.
What they have in common: they time from the send, so a late client hides in the load, and they drop failed requests
from the latencies. What cannot be redone from a timeline is what their clients add: event-loop lag in their stamps,
tokens counted by their own tokenizer. So these are their formulas without their instruments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from inferometer.clock import SECOND
from inferometer.metrics import rates, tokens
from inferometer.metrics.scorecard import view_of
from inferometer.metrics.summary import plain
from inferometer.metrics.tokens import Bools, Floats
from inferometer.run import Run
from inferometer.timeline import ABSENT, Array, Ints, Timeline

PERCENTS = (50, 90, 95, 99)


class _Facts:
    """What the formulas are made of, for the requests that completed [R]; seconds as float, from-send throughout."""

    def __init__(self, timeline: Timeline, *, starts: bool = True) -> None:
        """`timeline`: phase measure, only chunks with tokens; `starts`: when requests began is known."""
        self.all, self.starts = timeline, starts
        self.good = timeline.take(timeline.ok & (timeline.output_tokens > 0))

    @cached_property
    def n(self) -> Ints:
        return self.good.output_tokens.astype(np.int64)

    @cached_property
    def sent_ns(self) -> Ints:
        return self.good.sent_ns

    @cached_property
    def posted_ns(self) -> Ints:
        """When a client that connects on demand would have started its clock: before the connection was opened."""
        connect = np.where(self.good.connect_ns == ABSENT, 0, self.good.connect_ns)
        return self.good.sent_ns - connect

    @cached_property
    def first_ns(self) -> Ints:
        return tokens.first_token_ns(self.good)

    @cached_property
    def last_ns(self) -> Ints:
        return tokens.last_token_ns(self.good)

    @cached_property
    def chunky(self) -> Timeline:
        """Those of the requests whose every chunk's time is known."""
        return self.good.take(self.good.knows("chunks"))

    @cached_property
    def chunk_gaps(self) -> Ints:
        """One gap per chunk after the first, however many tokens it holds [ns]."""
        gaps = tokens.chunk_gaps_ns(self.chunky)
        return np.delete(gaps, tokens.starts(self.chunky.chunk_offset))

    @cached_property
    def chunk_sizes(self) -> Array:
        return np.delete(self.chunky.chunk_tokens, tokens.starts(self.chunky.chunk_offset))

    @cached_property
    def duration_s(self) -> float:
        """First send to last end."""
        sent = self.all.sent_ns != ABSENT
        if not sent.any() or not self.starts:
            return math.nan
        window = rates.Window(int(self.all.sent_ns[sent].min()), int(self.all.ended_ns[sent].max()))
        return window.seconds


class _Sample(NamedTuple):
    values: Array  # seconds, or nanoseconds with `scale`
    scale: float = 1.0
    weights: Array | None = None


class _Number(NamedTuple):
    """One of a tool's numbers: how it is computed, and a sentence on how it differs from ours."""

    compute: Callable[[_Facts], _Sample | float]
    differs: str
    unit: str = "s"


def _known(end_ns: Ints, start_ns: Ints) -> Bools:
    return np.asarray((end_ns != ABSENT) & (start_ns != ABSENT))


def _span(end: Callable[[_Facts], Ints], start: Callable[[_Facts], Ints]) -> Any:
    def compute(f: _Facts) -> _Sample:
        some = _known(end(f), start(f))
        return _Sample((end(f) - start(f))[some] / SECOND)

    return compute


def _per_token(end: Callable[[_Facts], Ints], start: Callable[[_Facts], Ints], less: int) -> Any:
    """(end - start) / (n - less), for the requests where that is defined."""

    def compute(f: _Facts) -> _Sample:
        some = (f.n > less) & _known(end(f), start(f))
        return _Sample((end(f) - start(f))[some] / SECOND / (f.n[some] - less))

    return compute


def _weighted(of: Callable[[_Facts], _Sample], less: int) -> Any:
    """The same values, each request weighing as much as the tokens that it is a mean of."""

    def compute(f: _Facts) -> _Sample:
        known = _known(f.last_ns, f.first_ns)
        return of(f)._replace(weights=f.n[(f.n > less) & known] - less)

    return compute


def _sent(f: _Facts) -> Ints:
    return f.sent_ns


def _posted(f: _Facts) -> Ints:
    return f.posted_ns


def _first(f: _Facts) -> Ints:
    return f.first_ns


def _last(f: _Facts) -> Ints:
    return f.last_ns


def _ended(f: _Facts) -> Ints:
    return f.good.ended_ns


def _chunk_gaps(f: _Facts) -> _Sample:
    return _Sample(f.chunk_gaps, 1 / SECOND)


def _smeared_gaps(f: _Facts) -> _Sample:
    return _Sample(np.repeat(f.chunk_gaps / f.chunk_sizes, f.chunk_sizes), 1 / SECOND)


def _token_gaps(f: _Facts) -> _Sample:
    return _Sample(tokens.gaps_ns(f.good).values, 1 / SECOND)


def _streamed_ttft(f: _Facts) -> _Sample:
    return _Sample((f.first_ns - f.posted_ns)[(f.n > 1) & (f.first_ns != ABSENT)] / SECOND)


def _output_rate(f: _Facts) -> float:
    return int(f.n.sum()) / f.duration_s


def _request_rate(f: _Facts) -> float:
    return len(f.n) / f.duration_s


_FROM_POST = (
    "from before the connection is opened, not from the intended time; failed requests are left out"
)
_FROM_SEND = "from the moment the request is written, connection already open, not from the intended time; failed requests are left out"
_RATES = {
    "request_rate": _Number(
        _request_rate,
        "completed requests / (first send to last end): ramp and drain included; ours starts at the first intended time",
        "requests/s",
    ),
    "output_token_rate": _Number(
        _output_rate,
        "output tokens of completed requests / (first send to last end): ramp and drain included",
        "tokens/s",
    ),
}
_TRIMMED = "; it trims ramp and drain only where the user gives warm-up and cool-down"

TOOLS: dict[str, tuple[str, dict[str, _Number]]] = {
    "vllm bench": (
        "vllm bench serve 0.33",
        {
            "ttft": _Number(
                _span(_first, _posted),
                f"TTFT {_FROM_POST}; up to 0.32 a role-only event counted as the first token, and added a gap",
            ),
            "tpot": _Number(
                _per_token(_last, _first, 1),
                "(E2EL - TTFT) / (n - 1), with E2EL at the last token: ours, but 1-token replies count as TPOT 0 in its goodput",
            ),
            "itl": _Number(
                _chunk_gaps,
                "one sample per chunk, however many tokens it holds: with k tokens per chunk about k times our tbt",
            ),
            "e2el": _Number(_span(_last, _posted), f"ends at the last token; {_FROM_POST}"),
            **_RATES,
        },
    ),
    "sglang": (
        "sglang.bench_serving 0.5.23",
        {
            "ttft": _Number(_span(_first, _posted), f"TTFT {_FROM_POST}"),
            "tpot": _Number(
                _per_token(_ended, _first, 1),
                "(E2E - TTFT) / (n - 1), with E2E at the last chunk, usage and [DONE] included: never below ours",
            ),
            "itl": _Number(
                _chunk_gaps, "OpenAI backends: one sample per chunk, however many tokens it holds"
            ),
            "itl_native": _Number(
                _smeared_gaps,
                "native backend: the gap of a chunk divided by its k tokens and counted k times: stalls are smeared out",
            ),
            "e2e": _Number(
                _span(_ended, _posted),
                f"ends at the last chunk, usage and [DONE] included; {_FROM_POST}",
            ),
            **_RATES,
        },
    ),
    "aiperf": (
        "aiperf 0.13",
        {
            "ttft": _Number(_span(_first, _posted), f"TTFT {_FROM_POST}"),
            "itl": _Number(
                _per_token(_last, _first, 1),
                "a mean per request, (latency - TTFT) / (n - 1): what we call tpot; no stall shows in it",
            ),
            "icl": _Number(
                _chunk_gaps,
                "inter-chunk latency: one sample per chunk, however many tokens it holds",
            ),
            "request_latency": _Number(
                _span(_last, _posted), f"ends at the last response with content; {_FROM_POST}"
            ),
            **_RATES,
        },
    ),
    "guidellm": (
        "guidellm 0.8.1",
        {
            "ttft": _Number(_span(_first, _sent), f"TTFT {_FROM_SEND}"),
            "tpot": _Number(
                _weighted(_per_token(_last, _sent, 0), 0),
                "(last token - start) / n: it includes the TTFT, so it is our normalized_latency (from send), weighted by n",
            ),
            "itl": _Number(
                _weighted(_per_token(_last, _first, 1), 1),
                "a mean per request, (last - first) / (n - 1), weighted by n - 1: what we call tpot; gaps are never kept",
            ),
            "request_latency": _Number(
                _span(_ended, _sent), f"ends at the end of the stream; {_FROM_SEND}"
            ),
            **{
                name: number._replace(differs=number.differs + _TRIMMED)
                for name, number in _RATES.items()
            },
        },
    ),
    "inference-perf": (
        "inference-perf 0.7",
        {
            "ttft": _Number(
                _streamed_ttft, f"TTFT {_FROM_POST}; only replies of at least 2 tokens have one"
            ),
            "tpot": _Number(
                _per_token(_last, _first, 1),
                "(last - first) / (n - 1): ours, but n is its own tokenizer's count by default",
            ),
            "ntpot": _Number(
                _per_token(_ended, _posted, 0),
                "E2E / n to the end of the stream: our normalized_latency from send",
            ),
            "itl": _Number(
                _token_gaps,
                "k tokens of a chunk are one gap and k - 1 zeros: our tbt, but k is its own tokenizer's count",
            ),
            "request_latency": _Number(
                _span(_ended, _posted), f"ends at the end of the stream; {_FROM_POST}"
            ),
            **_RATES,
        },
    ),
}


def conventions(run: Run) -> dict[str, dict[str, dict[str, Any]]]:
    """What each tool would print for this run: {tool: {number: {"unit", "n", "mean", "p50", ..., "max", "differs"}}}.

    Rates have "value" instead of percentiles. Undefined is None. Phase measure only, like the scorecard.
    """
    facts = _Facts(view_of(run).timeline, starts="starts" not in run.manifest.missing)
    return {
        tool: {
            name: {"unit": number.unit}
            | _stats(number.compute(facts), tool)
            | {"differs": number.differs}
            for name, number in numbers.items()
        }
        for tool, (_, numbers) in TOOLS.items()
    }


def _stats(got: _Sample | float, tool: str) -> dict[str, Any]:
    if not isinstance(got, _Sample):
        return {"value": plain(got)}
    n = len(got.values)
    names = [f"p{percent}" for percent in PERCENTS]
    if not n:
        return {"n": 0, "mean": None, **dict.fromkeys(names), "max": None}
    found = _inverse_cdf(got) if tool == "guidellm" else np.percentile(got.values, PERCENTS)
    mean = np.average(got.values, weights=got.weights)
    return {
        "n": n,
        "mean": plain(mean * got.scale),
        **{name: plain(q * got.scale) for name, q in zip(names, found, strict=True)},
        "max": plain(got.values.max() * got.scale),
    }


def _inverse_cdf(got: _Sample) -> Floats:
    """Percentiles as GuideLLM takes them: the first value at which the weighted CDF reaches p; no interpolation."""
    order = np.argsort(got.values, kind="stable")
    weights = np.ones(len(order)) if got.weights is None else got.weights[order]
    reached = np.cumsum(weights)
    place = np.searchsorted(reached, np.asarray(PERCENTS) / 100 * reached[-1])
    return np.asarray(got.values[order][np.minimum(place, len(order) - 1)], dtype=float)
