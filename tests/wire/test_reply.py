"""A reply from its stamped bytes to its facts: what is measured, and every way to fail."""

import gzip
import json
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.timeline import STATUSES, TOKEN_SOURCES
from inferometer.wire import DIALECTS, Limits, Reply
from inferometer.wire.reply import RECOUNTED, SURPLUS, UNSTREAMED
from inferometer.wire.tokens import SPLIT

FIVE = [{"choices": [{"index": 0, "delta": {"content": " w"}, "finish_reason": None}]}] * 5


def good(wire, tokens=3):
    """A whole chat reply of `tokens` tokens, one event per read, with a role event and usage at the end."""
    events = [wire.chat("", role="assistant"), *([wire.chat(" w")] * (tokens - 1))]
    events += [wire.chat(" w", finish="length"), wire.final_usage(tokens), "[DONE]"]
    head = wire.head("content-type: text/event-stream", "transfer-encoding: chunked")
    parts = [wire.sse(event) for event in events]
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    return [head, *chunks, b"0\r\n\r\n"]


# --- what is measured -------------------------------------------------------------------------------------------------


def test_a_good_reply(wire):
    """All facts of one."""
    reply, facts = wire.read(good(wire), end=None)

    assert (facts.status, facts.error, facts.http_status) == ("ok", None, 200)
    assert (facts.first_byte_ns, facts.last_byte_ns) == (1000, 1007)
    assert facts.chunk_ns == [1001, 1002, 1003, 1004]
    assert facts.chunk_tokens == [0, 1, 1, 1]
    assert facts.chunk_channel == [0, 0, 0, 0]
    assert (facts.prompt_tokens, facts.output_tokens, facts.token_source) == (10, 3, "server")
    assert (facts.cached_tokens, facts.reasoning_tokens) == (None, None)
    assert (facts.finish_reason, facts.notes) == ("length", ())
    assert facts.text == (" w w w", "", "")
    assert (reply.complete, reply.keep_alive, reply.broken) == (True, True, False)


def test_text_is_kept_only_if_asked(wire):
    """Prompts and outputs of people are not kept by default."""
    reply = Reply(DIALECTS["openai-chat"], Limits(), 3)
    reply.read(range(8), good(wire))

    assert reply.facts(lambda texts: [1] * len(texts)).text is None


def test_events_of_one_read_share_its_stamp(wire):
    """Nothing finer was seen: the burst is one instant, whatever the number of events."""
    head, *chunks = good(wire, tokens=6)

    assert wire.facts([head, chunks[0], b"".join(chunks[1:])]).chunk_ns == [1001] + [1002] * 6


def test_an_event_over_many_reads_has_the_stamp_that_completed_it(wire):
    """A token is there when it is whole, down to its blank line; the last byte is another matter."""
    raw = wire.head("content-type: text/event-stream") + wire.sse(wire.chat("a", finish="stop"))
    reads = [raw[:70], raw[70:-1], raw[-1:], b": ping\n\n"]
    facts = wire.facts(reads)

    assert (facts.status, facts.chunk_ns) == ("ok", [1002])
    assert (facts.first_byte_ns, facts.last_byte_ns) == (1000, 1003)


def test_a_burst_is_one_chunk_of_many_tokens(wire):
    """Several tokens in one event (speculation) are one chunk, counted by the server's usage."""
    events = [
        wire.chat("a", usage=1),
        wire.chat("b c d e", usage=5),
        wire.chat("f", usage=6, finish="stop"),
    ]

    assert wire.facts(wire.streamed(*events, "[DONE]")).chunk_tokens == [1, 4, 1]


def test_four_tokens_per_chunk_with_usage_at_the_end(wire):
    """Sixteen tokens in four events, and an end token in a fifth: the tokenizer says how they lie."""
    events = [wire.chat(" a b c d")] * 4 + [wire.chat(finish="stop"), wire.final_usage(17)]
    facts = wire.facts(wire.streamed(*events, "[DONE]"))

    assert (facts.chunk_tokens, facts.output_tokens) == ([4, 4, 4, 4, 1], 17)
    assert (facts.token_source, facts.notes) == ("server", (SPLIT,))


def test_no_tokens_and_a_finish_reason_are_a_success(wire):
    """The model had nothing to say; that is an answer."""
    facts = wire.facts(wire.streamed(wire.chat(finish="stop"), wire.final_usage(0), "[DONE]"))

    assert (facts.status, facts.output_tokens, facts.chunk_tokens) == ("ok", 0, [0])


@pytest.mark.parametrize("ending", ["close", None])
def test_done_may_be_missing(wire, ending):
    """A finish reason and the end of the message are enough (transformers)."""
    assert wire.facts(wire.streamed(wire.chat("a", finish="stop")), end=ending).status == "ok"


def test_a_reply_that_was_not_streamed_is_one_chunk(wire):
    """All tokens at the last byte, which is noted."""
    document = {"choices": [{"message": {"content": "a b c"}, "finish_reason": "stop"}]}
    raw = wire.sized(
        json.dumps(document | wire.final_usage(5) | document).encode(),
        "content-type: application/json",
    )
    facts = wire.facts([raw[:90], raw[90:-1], raw[-1:]])

    assert (facts.status, facts.chunk_ns, facts.chunk_tokens) == ("ok", [1002], [5])
    assert facts.notes == (UNSTREAMED,)


def test_a_stream_without_a_type_is_read_as_its_dialect_streams(wire):
    """No content type, or an untyped one; capital letters and parameters are no matter."""
    body = wire.sse(wire.chat("a", finish="stop"))
    for line in (
        "x: y",
        "content-type: text/plain",
        "Content-Type: Text/Event-Stream ; charset=utf-8",
    ):
        assert wire.facts(wire.sized(body, line)).status == "ok"
    lines = b'{"message":{"content":"a"},"done":false}\n{"done":true,"done_reason":"stop","eval_count":1}'
    assert wire.facts(wire.sized(lines, "x: y"), dialect=DIALECTS["ollama"]).status == "ok"


def test_the_tokenizer_can_be_asked_beside_the_server(wire):
    """What it counts in the whole text is a figure of its own; a difference is noted."""
    reply = Reply(DIALECTS["openai-chat"], Limits(), 3)
    reply.read(range(8), good(wire))
    same, other = (reply.facts(lambda texts, n=n: [n] * len(texts), compare=True) for n in (3, 4))

    assert (same.tokenizer_tokens, same.notes) == (3, ())
    assert (other.tokenizer_tokens, other.output_tokens, other.notes) == (4, 3, (RECOUNTED,))


def test_bytes_after_the_end_are_noted_and_close_the_connection(wire):
    """They are nobody's answer, and no token of this one."""
    reply, facts = wire.read([*good(wire), b"HTTP/1.1 200 OK\r\n"], end=None)

    assert (facts.status, facts.notes, reply.keep_alive) == ("ok", (SURPLUS,), False)
    assert facts.last_byte_ns == 1007


def test_compressed_streams_are_read(wire):
    """A server that compresses although asked not to: the same events."""
    body = gzip.compress(
        wire.sse(wire.chat("a"), wire.chat("b", finish="stop"), wire.final_usage(2))
    )
    facts = wire.facts(
        wire.sized(body, "content-type: text/event-stream", "content-encoding: gzip")
    )

    assert (facts.status, facts.chunk_tokens) == ("ok", [1, 1])


def test_reading_at_once_is_reading_one_by_one(wire):
    """`read` is `feed` for each."""
    for reads in (good(wire), [*good(wire), b"more"], good(wire)[:-1], [b"x"], []):
        assert wire.facts(reads) == wire.facts(reads, one_by_one=True)


# --- faults: the rows of the table that bytes can show ----------------------------------------------------------------


def test_a_stream_cut_after_five_of_32_tokens_is_not_a_success(wire):
    """A clean end of the connection or of the message, no finish reason, no [DONE]: truncated, five tokens."""
    endless = wire.head("content-type: text/event-stream") + wire.sse(*FIVE)
    for raw in (endless, wire.streamed(*FIVE)):
        facts = wire.facts(raw)
        assert (facts.status, facts.error) == (
            "truncated",
            "the reply ended after 5 events, not finished",
        )
        assert (facts.output_tokens, facts.token_source) == (5, "tokenizer")


def test_the_end_marker_alone_does_not_finish_a_reply_that_has_reasons(wire):
    """[DONE] after five tokens, without a finish reason, is an end, but not of the reply."""
    assert wire.facts(wire.streamed(*FIVE, "[DONE]")).status == "truncated"


def test_a_terminal_event_is_enough_where_it_says_as_much(wire):
    """message_stop, done: true and response.completed complete a reply without a reason."""
    stop = wire.streamed(
        {"type": "content_block_delta", "delta": {"text": "a"}}, {"type": "message_stop"}
    )
    done = wire.sized(b'{"response":"a","done":true}\n', "content-type: application/x-ndjson")

    assert wire.facts(stop, dialect=DIALECTS["anthropic-messages"]).status == "ok"
    assert wire.facts(done, dialect=DIALECTS["ollama"]).status == "ok"


def test_an_error_after_five_tokens_is_not_a_success(wire):
    """HTTP 200, five tokens, an error object, [DONE]: the server's own word, one line of it."""
    facts = wire.facts(wire.streamed(*FIVE, {"error": {"message": "engine\ndied"}}, "[DONE]"))

    assert (facts.status, facts.http_status) == ("protocol_error", 200)
    assert facts.error == "the server reported: engine died"
    assert facts.output_tokens == 5


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (b'event: error\ndata: {"code": 500, "message": "boom"}\n\n', "the server reported: boom"),
        (b"event: error\ndata: Internal failure\n\n", "the server reported: Internal failure"),
        (b'event: error\ndata: {"error": "boom"}\n\n', "the server reported: boom"),
    ],
)
def test_an_event_named_error_is_one(wire, event, error):
    """Whatever its data look like."""
    body = wire.sse(*FIVE) + event + wire.sse(wire.chat(finish="stop"))
    facts = wire.facts(wire.sized(body, "content-type: text/event-stream"))

    assert (facts.status, facts.error) == ("protocol_error", error)


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_finish_reasons_that_mean_failure_are_failures(wire, reason):
    """The server gave up on the request, and said so in the place of a reason."""
    facts = wire.facts(wire.streamed(*FIVE, wire.chat(finish=reason), "[DONE]"))

    assert (facts.status, facts.finish_reason) == ("protocol_error", reason)


def test_a_reset_in_the_middle_is_truncated(wire):
    """In the head, in the body, in a body that only the connection ends; also after a finish reason."""
    whole = b"".join(good(wire))
    endless = wire.head("content-type: text/event-stream") + wire.sse(wire.chat("a", finish="stop"))
    for raw in (whole[:30], whole[:400], whole[:-1], endless):
        facts = wire.facts(raw, end="reset")
        assert facts.status == "truncated"
        assert facts.error.startswith("the connection was reset")
    assert wire.facts(whole, end="reset").status == "ok"


def test_a_chunk_cut_in_half_is_truncated(wire):
    """The framing of the message is not whole, even if the connection ends cleanly."""
    facts = wire.facts(b"".join(good(wire))[:-20])

    assert (facts.status, facts.error) == ("truncated", "the connection closed inside of the body")
    assert facts.output_tokens == 3


def test_no_answer_at_all_is_truncated(wire):
    """Nothing happened, and nothing is invented."""
    facts = wire.facts([])

    assert (facts.status, facts.error) == ("truncated", "the connection closed before any response")
    assert (facts.http_status, facts.first_byte_ns, facts.last_byte_ns) == (None, None, None)
    assert (facts.chunk_ns, facts.output_tokens, facts.prompt_tokens) == ([], 0, None)


@pytest.mark.parametrize(
    ("status", "lines", "body", "error"),
    [
        (
            "429 Too Many",
            ["retry-after: 1"],
            b'{"error":{"message":"slow down"}}',
            "HTTP 429, retry after 1: slow down",
        ),
        ("429 Too Many", [], b"", "HTTP 429"),
        (
            "503 No",
            ["content-type: text/html"],
            b"<h1>Down</h1>\n<p>for now",
            "HTTP 503: Down for now",
        ),
        (
            "500 X",
            ["content-type: text/event-stream"],
            b'data: {"error":{}}\n\n',
            'HTTP 500: data: {"error":{}}',
        ),
        ("401 X", [], b'{"detail":"no key sk-abcdefgh1234"}', "HTTP 401: no key [redacted]"),
        ("400 X", ["content-type: application/json"], b'{"broken', 'HTTP 400: {"broken'),
        (
            "307 X",
            ["location: https://me:pw@elsewhere/v1"],
            b"",
            "HTTP 307, a redirect to https://[redacted]@elsewhere/v1 that is not followed",
        ),
        ("304 Not Modified", [], b"", "HTTP 304"),
    ],
)
def test_a_status_that_is_no_success_is_an_http_error(wire, status, lines, body, error):
    """4xx, 5xx and redirects, with and without a body, with their message and without their secrets."""
    reply, facts = wire.read(wire.sized(body, *lines, status=status), end=None)

    assert (facts.status, facts.error) == ("http_error", error)
    assert facts.http_status == int(status[:3])
    assert (facts.chunk_ns, facts.output_tokens) == ([], 0)
    assert reply.keep_alive


def test_an_error_response_that_is_cut_is_still_what_it_says(wire):
    """The status line was enough."""
    facts = wire.facts(wire.head("content-length: 100", status="500 X") + b"Internal")

    assert (facts.status, facts.error) == ("http_error", "HTTP 500: Internal")


def test_a_long_error_body_is_cut_to_one_line(wire):
    """Megabytes of stack trace cost neither memory nor a screen."""
    facts = wire.facts(wire.sized(b"trace\n" * 500_000, status="500 X"))

    assert len(facts.error) == 300
    assert facts.error.endswith("…")


def test_a_wrong_content_type_is_a_protocol_error(wire):
    """200 with a web page: somebody else answered."""
    facts = wire.facts(wire.sized(b"<title>Login</title>", "content-type: text/html"))

    assert facts.status == "protocol_error"
    assert facts.error == "the content type is 'text/html', which no reply has: Login"


@pytest.mark.parametrize(
    "event",
    [
        "{nonsense",
        "7",
        '{"choices": [{"delta": {"content": 7}}]}',
        '{"choices": {}, "usage": "x"}',
        "[" * 9999,
    ],
)
def test_one_malformed_event_fails_the_reply(wire, event):
    """It is neither skipped in silence nor an exception; the tokens beside it are still counted."""
    events = [*FIVE[:2], event, *FIVE[:2], wire.chat(" w", finish="stop"), "[DONE]"]
    facts = wire.facts(wire.streamed(*events))

    assert facts.status == "protocol_error"
    assert facts.error.startswith("an event is not what the protocol says: ")
    assert (facts.output_tokens, facts.finish_reason) == (5, "stop")


def test_empty_events_are_no_fault(wire):
    """Keep-alives of every form."""
    body = b": ping\n\ndata:\n\ndata: \n\n" + wire.sse(wire.chat("a", finish="stop"))

    assert wire.facts(wire.sized(body, "content-type: text/event-stream")).status == "ok"


@pytest.mark.parametrize(
    "raw", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"]
)
def test_what_is_not_http_is_a_protocol_error(wire, raw):
    """Another protocol on the port, or chunks that are none; the rest is dropped."""
    reply, facts = wire.read([raw, b"x" * 1000, b"y" * 1000], end=None)

    assert facts.status == "protocol_error"
    assert "not HTTP/1.1" in facts.error
    assert (reply.broken, reply.complete, reply.keep_alive) == (True, False, False)


def test_a_ten_megabyte_line_ends_at_its_limit(wire):
    """One line that does not end: an error after 1 MiB, and no memory beyond it."""
    head = wire.head("content-type: text/event-stream", "transfer-encoding: chunked")
    part = b"x" * 16384
    reads = [
        head,
        wire.chunked(wire.sse(*FIVE) + b"data: ")[:-5],
        *[b"4000\r\n%s\r\n" % part] * 640,
    ]

    tracemalloc.start()
    reply, facts = wire.read(reads, one_by_one=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (facts.status, facts.error) == (
        "protocol_error",
        "a line of the stream is longer than 1 MiB",
    )
    assert (reply.broken, facts.output_tokens) == (True, 5)
    assert peak < 5 * 2**20


def test_a_never_ending_stream_ends_at_its_limit(wire):
    """More events than 8 per token asked for, and 64: an error, and no memory beyond it."""
    limits = Limits()
    head = wire.head("content-type: text/event-stream")
    reads = [head, *[wire.sse(FIVE[0])] * 2000]

    tracemalloc.start()
    reply, facts = wire.read(reads, expect=32, one_by_one=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (facts.status, facts.error) == ("protocol_error", "the stream has more than 320 events")
    assert (reply.broken, len(facts.chunk_ns)) == (True, limits.events(32))
    assert peak < 2**20
    assert wire.facts(reads, expect=32) == facts


def test_a_response_without_end_ends_at_its_limit(wire):
    """Comments for ever are no events, but they are bytes."""
    limits = Limits(response_bytes=100_000)
    reads = [wire.head("content-type: text/event-stream"), *[b": ping\n\n" * 100] * 300]
    reply, facts = wire.read(reads, limits=limits)

    assert facts.error == "the response is longer than 100000 bytes"
    assert (facts.status, reply.broken) == ("protocol_error", True)


def test_a_gzip_bomb_ends_at_a_limit_with_bounded_memory(wire):
    """64 MB of one line in 64 KB: stopped by the line's limit."""
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"x" * 1_000_000) for _ in range(64)) + packer.flush()
    head = wire.head("content-type: text/event-stream", "content-encoding: gzip")
    limits = Limits(decompressed_bytes=8 * 2**20)

    tracemalloc.start()
    reply, facts = wire.read(
        [head, *(bomb[n : n + 1024] for n in range(0, len(bomb), 1024))],
        limits=limits,
        one_by_one=True,
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (facts.status, reply.broken) == ("protocol_error", True)
    assert facts.error == "a line of the stream is longer than 1 MiB"
    assert peak < 12 * 2**20


def test_facts_before_the_end_say_so(wire):
    """A request that was given up has what arrived until then."""
    facts = wire.facts(good(wire)[:3], end=None)

    assert (facts.status, facts.error) == ("truncated", "the response was not read to its end")
    assert facts.output_tokens == 1


KINDS = ["text/event-stream", "application/x-ndjson", "application/json", "text/html", ""]
SCRAPS = [
    b"data: ",
    b'{"choices":',
    b"[",
    b"]",
    b"{",
    b"}",
    b"\n",
    b"\r",
    b'"',
    b"error",
    b":",
    b"[DONE]",
]


@st.composite
def responses(draw, wire):
    """A response with a head that makes sense and a body that need not."""
    body = draw(
        st.binary(max_size=60) | st.lists(st.sampled_from(SCRAPS), max_size=20).map(b"".join)
    )
    lines = [f"content-type: {draw(st.sampled_from(KINDS))}"]
    if draw(st.booleans()) and body:
        lines.append("transfer-encoding: chunked")
        body = wire.chunked(body)
    return wire.head(*lines, status=draw(st.sampled_from(["200 OK", "500 X", "307 X"]))) + body


@settings(deadline=None, max_examples=120)
@given(name=st.sampled_from(sorted(DIALECTS)), data=st.data())
def test_no_bytes_raise_and_no_split_matters(wire, name, data):
    """Whatever a server sends becomes facts that obey the timeline's vocabulary, however it is cut."""
    raw = data.draw(responses(wire))
    how = {"dialect": DIALECTS[name], "end": data.draw(st.sampled_from(["close", "reset", None]))}
    pieces = wire.cut(raw, data.draw(st.lists(st.integers(0, 200), max_size=6)))
    facts, split = wire.facts(raw, **how), wire.facts(pieces, **how, one_by_one=True)

    assert facts.status in STATUSES
    assert facts.token_source in TOKEN_SOURCES
    assert (facts.error is None) == (facts.status == "ok")
    assert sum(facts.chunk_tokens) == facts.output_tokens
    stamps = {"chunk_ns": [], "last_byte_ns": 0}
    assert replace(facts, **stamps) == replace(split, **stamps)
