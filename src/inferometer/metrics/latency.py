"""Latencies per request: what one user waited, and for what.

Every function takes a timeline and gives float seconds [R] (or counts), NaN where the thing did not happen: the
request failed, was never sent, had too few tokens; or where it was not recorded (`Timeline.knows`). Nothing is ever 0
for want of data. A failed request is NaN here and +inf in `with_failures`: a percentile over survivors alone flatters
a server that drops its hardest work.

The clock starts at the *intended* time unless the name says otherwise: a load generator that falls behind must not
make the server look fast (coordinated omission). `*_from_sent` is the other number, for comparison with other tools.
A request is one user: these are functions of single requests; summaries over requests are the scorecard's.
"""

from __future__ import annotations

import numpy as np

from inferometer.clock import SECOND
from inferometer.metrics import tokens
from inferometer.metrics.tokens import Bools, Floats
from inferometer.timeline import ABSENT, CHANNELS, Array, Ints, Timeline

# A stall is a gap longer than a reader at typical speed takes for one token: 6 tokens/s, Agrawal et al. 2025, section
# 2.2. (What the reader has in hand may bridge it: that is what the fluidity-index asks, with its slack.)
STALL_NS = SECOND // 6
REASONING = CHANNELS.index("reasoning")


def ttft(timeline: Timeline) -> Floats:
    """Time to first token: first chunk with a token, on any channel, since the intended time."""
    return _since(timeline, tokens.first_token_ns(timeline), timeline.intended_ns)


def ttfat(timeline: Timeline) -> Floats:
    """Time to first answer token: the first on another channel than reasoning (content or tool call)."""
    return _since(timeline, _first_answer_ns(timeline), timeline.intended_ns)


def ttlt(timeline: Timeline) -> Floats:
    """Time to last token, since the intended time."""
    return _since(timeline, tokens.last_token_ns(timeline), timeline.intended_ns)


def ttft_from_sent(timeline: Timeline) -> Floats:
    """Time to first token since the request was sent, as most tools count it."""
    return _since(timeline, tokens.first_token_ns(timeline), timeline.sent_ns)


def ttlt_from_sent(timeline: Timeline) -> Floats:
    """Time to last token since the request was sent."""
    return _since(timeline, tokens.last_token_ns(timeline), timeline.sent_ns)


def tpot(timeline: Timeline) -> Floats:
    """Time per output token: (last - first) / (n - 1); undefined for n < 2. An average: it hides stalls."""
    decode = _since(timeline, tokens.last_token_ns(timeline), tokens.first_token_ns(timeline))
    return _over(decode, timeline.output_tokens - 1)


def normalized_latency(timeline: Timeline) -> Floats:
    """Time to last token / n (Yu et al. 2022, Orca). It dilutes the wait before the first token by the length."""
    return _over(ttlt(timeline), timeline.output_tokens)


def ttst(timeline: Timeline) -> Floats:
    """Second-token delay: the gap between token 1 and token 2, where a prefill/decode hand-over shows."""
    timeline = tokens.token_chunks(timeline)
    first = timeline.chunk_offset[:-1]
    two = (timeline.output_tokens >= 2) & timeline.knows("tokens")
    bundled = np.zeros(len(timeline), dtype=np.int64)
    bundled[two] = timeline.chunk_tokens[first[two]] >= 2
    second_ns = tokens.at(timeline, first + 1 - bundled, two)
    return _since(timeline, second_ns, tokens.first_token_ns(timeline))


def max_gap(timeline: Timeline) -> Floats:
    """The longest gap between two tokens; undefined for n < 2."""
    timeline = tokens.token_chunks(timeline)
    longest = np.zeros(len(timeline), dtype=np.int64)
    if timeline.chunks:
        gaps = tokens.chunk_gaps_ns(timeline)
        begins = tokens.starts(timeline.chunk_offset)
        longest[tokens.nonempty(timeline.chunk_offset)] = np.maximum.reduceat(gaps, begins)
    return _seconds(longest, _has_gaps(timeline))


def stalls(timeline: Timeline, threshold_ns: int = STALL_NS) -> Floats:
    """How many gaps between tokens are longer than the threshold; undefined for n < 2."""
    timeline = tokens.token_chunks(timeline)
    late = np.flatnonzero(tokens.chunk_gaps_ns(timeline) > threshold_ns)
    found = np.diff(np.searchsorted(late, timeline.chunk_offset))
    return np.where(_has_gaps(timeline), found, np.nan)


def stall_time(timeline: Timeline, threshold_ns: int = STALL_NS) -> Floats:
    """The summed length of the gaps that are longer than the threshold; undefined for n < 2."""
    timeline = tokens.token_chunks(timeline)
    gaps = tokens.chunk_gaps_ns(timeline)
    late = np.flatnonzero(gaps > threshold_ns)
    spent = tokens.sums(gaps[late], np.searchsorted(late, timeline.chunk_offset))
    return _seconds(spent, _has_gaps(timeline))


def scheduling_delay(timeline: Timeline) -> Floats:
    """Prefill began - intended, where the server (or the simulator) says when it began.

    From outside it can only be estimated, against a zero-load prefill curve; without one it is undefined.
    """
    return _since(timeline, timeline.scheduled_ns, timeline.intended_ns)


def send_lag(timeline: Timeline) -> Floats:
    """Sent - intended: how late the instrument itself was, for every request that was sent, failed or not."""
    return _seconds(timeline.sent_ns - timeline.intended_ns, timeline.sent_ns != ABSENT)


def connect(timeline: Timeline) -> Floats:
    """How long a request waited for a connection to open; undefined where one stood ready."""
    return _seconds(timeline.connect_ns, timeline.connect_ns != ABSENT)


def with_failures(values: Floats, timeline: Timeline) -> Floats:
    """`values` [R] with +inf for each request that failed; undefined values of good requests stay NaN."""
    return np.where(timeline.ok, values, np.inf)


def _first_answer_ns(timeline: Timeline) -> Ints:
    timeline = tokens.token_chunks(timeline)
    answer = timeline.chunk_channel != REASONING
    if answer.all():
        return tokens.first_token_ns(timeline)
    chunk = np.append(np.flatnonzero(answer), timeline.chunks)
    first = chunk[np.searchsorted(chunk[:-1], timeline.chunk_offset[:-1])]
    return tokens.at(
        timeline, first, (first < timeline.chunk_offset[1:]) & timeline.knows("chunks")
    )


def _has_gaps(timeline: Timeline) -> Bools:
    return timeline.ok & (timeline.output_tokens >= 2) & timeline.knows("chunks")


def _since(timeline: Timeline, end_ns: Ints, start_ns: Ints) -> Floats:
    """end - start in seconds for the requests that completed and have both."""
    return _seconds(end_ns - start_ns, timeline.ok & (end_ns != ABSENT) & (start_ns != ABSENT))


def _seconds(ns: Ints, defined: Bools) -> Floats:
    return np.where(defined, ns / SECOND, np.nan)


def _over(seconds: Floats, count: Array) -> Floats:
    out = np.full(len(seconds), np.nan)
    np.divide(seconds, count, out=out, where=count > 0)
    return out
