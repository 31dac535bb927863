"""Replies and dialects: the bytes of every protocol, without a socket."""

from __future__ import annotations

import json

import httptools
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.emulator import faults
from inferometer.emulator.dialects import DIALECTS, Facts, count_words, words_of
from inferometer.emulator.faults import AT_END, MID_STREAM, with_fault
from inferometer.emulator.replies import Dribble, Stream, Then, Whole, text_of
from inferometer.emulator.schedule import FAULTS, LIKE, Asked, Schedule, Wire
from inferometer.plan import build_plan
from inferometer.workload import tokenizer
from inferometer.workload.prompts import Prompts

CHAT = DIALECTS["/v1/chat/completions"]
STREAMED = [path for path in DIALECTS if path != "/api/chat"]


class Body:
    """The body of an HTTP response."""

    def __init__(self, data: bytes) -> None:
        self.bytes, self.complete = b"", False
        httptools.HttpResponseParser(self).feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.bytes += body

    def on_message_complete(self) -> None:
        self.complete = True


def facts(wire: Wire = LIKE["vllm"], reasoning: int = 0, **asked) -> Facts:
    """What a test's reply mentions."""
    return Facts("id", 1, 'a "model" able', Asked(**({"max_tokens": 6} | asked)), wire, reasoning)


def whole_stream(reply, sizes=(1, 1, 1, 1, 1, 1)) -> bytes:
    """All bytes of a reply of sum(sizes) tokens."""
    parts = [reply.opening()]
    parts += [reply.say(size, at == len(sizes) - 1) for at, size in enumerate(sizes)]
    return b"".join(parts)


def events(data: bytes) -> list:
    """The JSON of the SSE events or lines; [DONE] as it is."""
    lines = Body(data).bytes.splitlines()
    texts = [line.removeprefix(b"data: ") for line in lines if not line.startswith(b"event:")]
    return [t.decode() if t == b"[DONE]" else json.loads(t) for t in texts if t]


def chat_text(found: list) -> str:
    """The content of the events of a chat."""
    deltas = [c["delta"] for e in found if e != "[DONE]" for c in e["choices"]]
    return "".join(delta.get("content", "") for delta in deltas)


def test_a_text_of_n_tokens_is_n_words():
    """Any slice of the vocabulary has as many words as tokens, and slices join without a seam."""
    assert len(text_of(0, 1000).split()) == 1000
    assert text_of(0, 70) + text_of(70, 30) == text_of(0, 100)
    assert text_of(64, 2) == text_of(0, 2)


def test_a_chat_reads_like_vllm():
    """Role, one event per token, the finish reason in the last, usage on its own, [DONE], and a complete body."""
    data = whole_stream(Stream(CHAT, facts(include_usage=True)))
    found = events(data)
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [e["choices"][0]["finish_reason"] for e in found[1:-2]] == [None] * 5 + ["length"]
    assert found[-2]["choices"] == []
    assert found[-2]["usage"] == {"prompt_tokens": 1, "total_tokens": 7, "completion_tokens": 6}
    assert found[-1] == "[DONE]"
    assert chat_text(found) == text_of(0, 6)
    assert {e["model"] for e in found[:-1]} == {'a "model" able'}
    assert Body(data).complete


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=12),
    burst=st.sampled_from(["merged", "packed"]),
    reasoning=st.integers(0, 40),
    continuous=st.booleans(),
)
def test_every_token_is_said_once_whatever_the_steps(sizes, burst, reasoning, continuous):
    """For any steps, bursts, reasoning and running usage: the channels join to the text, and usage counts it."""
    asked = {"max_tokens": sum(sizes), "include_usage": True, "continuous_usage": continuous}
    reply = Stream(CHAT, facts(Wire(burst=burst), reasoning, **asked))
    found = events(whole_stream(reply, sizes))
    deltas = [c["delta"] for e in found if e != "[DONE]" for c in e["choices"]]
    thoughts = "".join(delta.get("reasoning", "") for delta in deltas)
    assert thoughts + chat_text(found) == text_of(0, sum(sizes))
    assert len(thoughts.split()) == min(reasoning, sum(sizes))
    assert found[-2]["usage"]["completion_tokens"] == reply.written == sum(sizes)
    if continuous:
        counts = [e["usage"]["completion_tokens"] for e in found[:-2]]
        assert counts == sorted(counts)
        assert counts[-1] == sum(sizes)
    assert reply.then is Then.KEEP


def test_the_quick_way_says_what_the_slow_way_says():
    """The prebuilt bytes of an ordinary token are those that JSON encoding gives, beyond a lap of the vocabulary."""
    quick, slow = Stream(CHAT, facts(max_tokens=200)), Stream(CHAT, facts(max_tokens=200))
    slow._plain = 10**9
    assert whole_stream(quick, [1] * 200) == whole_stream(slow, [1] * 200)


@pytest.mark.parametrize("path", list(DIALECTS))
@pytest.mark.parametrize("reasoning", [0, 2])
def test_every_dialect_says_all_tokens_and_counts_them(path, reasoning):
    """Each protocol carries the same six words, ends its body, and states the number of tokens where it has a place."""
    wire = Wire(reasoning_field="reasoning_content")
    data = whole_stream(Stream(DIALECTS[path], facts(wire, reasoning, include_usage=True)))
    said = Body(data).bytes.decode()
    words = [
        said.index(f'"{word}"') for word in (" able", " also", " area", " away", " back", " base")
    ]
    assert words == sorted(words)
    assert Body(data).complete
    number = {
        "/v1/responses": "output_tokens",
        "/v1/messages": "output_tokens",
        "/api/chat": "eval_count",
    }
    number |= {"/generate_stream": "generated_tokens", "/completion": "tokens_predicted"}
    assert f'"{number.get(path, "completion_tokens")}":6' in said


@pytest.mark.parametrize("path", list(DIALECTS))
def test_a_reply_that_is_not_streamed_holds_the_same_text(path):
    """Nothing until the last token, then one body with all the words, the reasoning first."""
    reply = Whole(DIALECTS[path], facts(reasoning=2))
    assert reply.opening() == reply.say(5, False) == b""
    assert reply.written == 0
    body = Body(reply.say(1, True))
    text = json.dumps(json.loads(body.bytes))
    assert body.complete
    assert reply.written == 6
    assert "able also" in text
    assert "area away back base" in text


def test_the_wires_of_other_engines_have_their_habits():
    """transformers: role at once, usage in the finish event, no [DONE]; llama-server: a finish event of its own."""
    reply = Stream(CHAT, facts(LIKE["transformers"]))
    assert b'"role":"assistant"' in reply.opening()
    found = events(whole_stream(Stream(CHAT, facts(LIKE["transformers"]))))
    assert found[-1]["choices"][0] | {"logprobs": None} == {
        "index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"
    }  # fmt: skip
    assert found[-1]["usage"]["completion_tokens"] == 6
    found = events(whole_stream(Stream(CHAT, facts(LIKE["llama-server"]))))
    assert [e["choices"][0]["finish_reason"] for e in found[-3:-1]] == [None, "length"]
    assert found[-1] == "[DONE]"


def test_the_role_may_come_with_the_first_token_and_usage_may_be_refused():
    """`role="merged"` has no event without text; `usage="never"` gives none though it is asked for."""
    wire = Wire(role="merged", usage="never")
    found = events(
        whole_stream(Stream(CHAT, facts(wire, include_usage=True, continuous_usage=True)))
    )
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": " able"}
    assert not any("usage" in e for e in found[:-1])


def test_a_reply_that_stops_before_what_was_asked_says_stop():
    """Three of six tokens, or an unknown number: the finish reason is "stop"."""
    assert (
        events(whole_stream(Stream(CHAT, facts()), [3]))[1]["choices"][0]["finish_reason"] == "stop"
    )
    found = events(whole_stream(Stream(CHAT, facts(max_tokens=0)), [3]))
    assert found[1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
def test_lines_may_end_otherwise(line_end):
    """With another line end the body holds no other one, and the same events."""
    plain = Body(whole_stream(Stream(CHAT, facts()))).bytes
    other = Body(whole_stream(Stream(CHAT, facts(Wire(line_end=line_end))))).bytes
    assert other == plain.replace(b"\n", line_end.encode())


def test_a_body_may_end_with_the_connection():
    """Without chunks the same events follow the headers as they are, and the connection is to be closed."""
    reply = Stream(CHAT, facts(Wire(framing="close")))
    head, _, body = whole_stream(reply).partition(b"\r\n\r\n")
    assert body == Body(whole_stream(Stream(CHAT, facts()))).bytes
    assert b"Connection: close" in head
    assert b"chunked" not in head
    assert reply.then is Then.CLOSE


def test_dribbled_events_are_the_same_bytes_in_other_pieces():
    """Every write ends in the middle of an event, the whole is unchanged, and a token counts when it is complete."""
    reply = Dribble(Stream(CHAT, facts()))
    parts = [reply.opening()]
    counts = []
    for at in range(6):
        parts.append(reply.say(1, at == 5))
        counts.append(reply.written)
    assert b"".join(parts) == whole_stream(Stream(CHAT, facts()))
    assert counts == [0, 1, 2, 3, 4, 6]
    assert not any(part.endswith(b"\n\n\r\n") for part in parts[1:-1])


def test_the_tables_of_faults_name_each_fault_once():
    """Every declared fault strikes at exactly one moment."""
    tables = (faults.ON_ACCEPT, faults.ON_HEADERS, faults.ON_REQUEST, MID_STREAM, AT_END)
    named = [name for table in (*tables, [faults.ENDLESS]) for name in table]
    assert sorted(named) == sorted(FAULTS)


@pytest.mark.parametrize("fault", [*MID_STREAM, *AT_END])
@pytest.mark.parametrize("kind", [Stream, Whole])
def test_a_broken_reply_counts_only_what_was_said(fault, kind):
    """Three tokens before a cut after 3 are counted, a stream that goes on counts all, a cut body counts none."""
    schedule = Schedule(fault_after=3, long_line_bytes=1000)
    reply = with_fault(kind(CHAT, facts()), fault, schedule, CHAT)
    reply.opening()
    for at in range(6):
        reply.say(1, at == 5)
        if reply.then:
            break
    goes_on = fault in {"bad-json", "long-line"} and kind is Stream
    expected = 6 if goes_on or fault in AT_END else 3 if kind is Stream else 0
    assert reply.written == expected
    assert reply.then is not None


def test_prompts_are_counted_in_words_or_ids():
    """Text, messages, parts of messages, token ids and batches are counted; what is none of these is 0."""
    assert count_words(" two words ") == 2
    assert count_words("Two. And three.") == 5
    assert count_words(". and so on") == 4
    assert count_words([{"role": "user", "content": "a b"}, {"role": "user", "content": "c"}]) == 3
    assert count_words([{"content": [{"type": "text", "text": "a b"}, {"type": "image_url"}]}]) == 2
    assert count_words(". two stops.") == 4
    assert count_words([5, 6, 7]) == 3
    assert count_words(["a b", "c"]) == 3
    assert count_words(None) == count_words("") == 0


@settings(deadline=None, max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    shared=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_the_prompts_of_a_plan_are_counted_exactly(lengths, shared, seed):
    """Whatever their lengths and what they share, the emulator's count is the plan's."""
    blocks = [min(shared, (length - 1) // 16) for length in lengths]
    plan = build_plan(
        len(lengths),
        prompt_tokens=lengths,
        output_tokens=1,
        intended_ns=0,
        block_offset=np.concatenate([[0], np.cumsum(blocks)]),
        block_id=[block for count in blocks for block in range(count)],
        block_tokens=16,
        seed=seed,
    )
    texts = Prompts(plan, tokenizer.load()).texts(range(len(plan)))
    messages = [[{"role": "user", "content": text}] for text in texts]
    assert [count_words(prompt) for prompt in messages] == lengths
    assert [len(words_of(prompt)) for prompt in messages] == lengths
