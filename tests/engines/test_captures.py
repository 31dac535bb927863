"""What real engines sent (tests/wire/fixtures, recorded by scripts/engines/capture.py), with the times at which it came.

That every reply is read for what it was is tested beside the wire; here it is about *when*, and about /metrics.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from inferometer.load.telemetry import samples
from inferometer.wire import DIALECTS, Limits, Reply, ReplyFacts

FIXTURES = Path(__file__).parents[1] / "wire/fixtures"
BURSTS = ("vllm-interval-burst", "vllm-speculation-burst-running-usage")
MILLISECOND = 1_000_000


def replayed(name: str) -> ReplyFacts:
    """A capture, fed read by read with the stamps that the reads had."""
    story = json.loads((FIXTURES / f"{name}.json").read_text())
    raw = (FIXTURES / f"{name}.http").read_bytes()
    edges = np.cumsum([0, *story["reads"]])
    reply = Reply(DIALECTS[story["dialect"]], Limits(), expect=64)
    for (start, end), t_ms in zip(pairwise(edges), story["times_ms"], strict=True):
        reply.feed(round(t_ms * MILLISECOND), raw[start:end])
    reply.eof(round(t_ms * MILLISECOND))
    return reply.facts(lambda texts: [1] * len(texts))


def first_token_ns(facts: ReplyFacts) -> int:
    """The stamp of the first chunk with a token."""
    return next(t for t, tokens in zip(facts.chunk_ns, facts.chunk_tokens, strict=True) if tokens)


@pytest.mark.parametrize(
    "name", ["transformers-chat-long-prompt", "transformers-cb-chat-long-prompt"]
)
def test_a_role_sent_before_the_prompt_was_read_is_no_first_token(name):
    """transformers serve sends its role event at once, and the first token only after the prefill of 1,500 tokens."""
    facts = replayed(name)
    assert facts.chunk_ns[0] < 30 * MILLISECOND
    assert first_token_ns(facts) > 100 * MILLISECOND


def test_head_and_first_token_of_vllm_are_far_apart():
    """vLLM sends the head of its response at once; role and first token come together, after the prefill."""
    facts = replayed("vllm-chat-long-prompt")
    assert facts.first_byte_ns < 30 * MILLISECOND
    assert first_token_ns(facts) - facts.chunk_ns[0] < 5 * MILLISECOND
    assert first_token_ns(facts) > 100 * MILLISECOND


@pytest.mark.parametrize("name", BURSTS)
def test_a_burst_is_one_instant_with_several_tokens(name):
    """One event with k tokens is one chunk of k, whether the server counts along or only at the end."""
    facts = replayed(name)
    story = json.loads((FIXTURES / f"{name}.json").read_text())
    assert facts.token_source == "server"
    assert sum(facts.chunk_tokens) == story["facts"]["output_tokens"]
    assert max(facts.chunk_tokens) >= 3
    assert len(set(facts.chunk_ns)) == len([tokens for tokens in facts.chunk_tokens if tokens])


def test_a_burst_of_single_events_keeps_its_tiny_gaps():
    """llama-server sends the tokens of one speculative step as events of their own, some 0.03 ms apart."""
    facts = replayed("llama-speculation-burst")
    gaps_ns = np.diff([t for t, k in zip(facts.chunk_ns, facts.chunk_tokens, strict=True) if k])
    assert facts.chunk_tokens.count(1) == facts.output_tokens == 16
    assert (gaps_ns < 0.3 * MILLISECOND).sum() > 6
    assert (gaps_ns > 1 * MILLISECOND).sum() > 2


def test_tokens_without_text_are_tokens():
    """Halves of characters stream as empty texts, but the running usage counts them; so do we."""
    assert replayed("vllm-half-characters").chunk_tokens == [1] * 6


def test_the_metrics_page_of_vllm_is_read():
    """Queue, running, cache and token counters are found, each with its labels; buckets are left out."""
    page = (FIXTURES / "vllm-metrics.http").read_text().partition("\n\n")[2]
    found = {sample.name: sample for sample in samples(page)}
    assert found["vllm:num_requests_running"].value == 0
    assert 'model_name="tiny"' in found["vllm:kv_cache_usage_perc"].labels
    assert found["vllm:generation_tokens_total"].value > 100
    assert "vllm:request_queue_time_seconds_count" in found
    assert not any(name.endswith("_bucket") for name in found)
