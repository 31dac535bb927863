"""What each protocol is asked, and how its events are read, hostile ones included."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.wire import DIALECTS, Ask
from inferometer.wire.transcript import (
    CONTENT,
    MESSAGE_LENGTH,
    REASONING,
    TOOL,
    Counts,
    Delta,
    Transcript,
    body_message,
    message_of,
    one_line,
)

NAMES = sorted(DIALECTS)
ASK = Ask(model="m", prompt="hi", output_tokens=7, ignore_eos=True, temperature=0.5, seed=3)


def read(name, *events):
    """The transcript after these events (JSON values or raw bytes)."""
    transcript = Transcript()
    for event in events:
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        DIALECTS[name].read(data, transcript)
    return transcript


def body(name):
    """The JSON body of ASK."""
    return json.loads(DIALECTS[name].encode(ASK))


# --- asking -----------------------------------------------------------------------------------------------------------


def test_chat_completions_are_asked_for():
    """Every field of the ask, the running usage included."""
    assert body("openai-chat") == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "temperature": 0.5,
        "seed": 3,
        "ignore_eos": True,
    }


def test_what_is_not_asked_is_not_sent():
    """Servers that answer 422 to unknown fields get none."""
    bare = Ask(model="m", prompt="hi", usage="none")

    assert set(json.loads(DIALECTS["openai-chat"].encode(bare))) == {
        "model",
        "messages",
        "max_tokens",
        "stream",
    }


@pytest.mark.parametrize("name", ["openai-chat", "openai-completions"])
def test_usage_is_asked_for_in_three_ways(name):
    """Running, final, none; and never of a reply that is not streamed."""

    def options(**changes):
        return json.loads(DIALECTS[name].encode(Ask(model="m", prompt="p", **changes))).get(
            "stream_options"
        )

    assert options(usage="final") == {"include_usage": True}
    assert options(usage="none") is None
    assert options(usage="continuous", stream=False) is None
    assert options() == {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize(
    ("name", "length", "prompt"),
    [
        ("openai-chat", "max_tokens", ("messages", [{"role": "user", "content": "hi"}])),
        ("openai-completions", "max_tokens", ("prompt", "hi")),
        ("openai-responses", "max_output_tokens", ("input", "hi")),
        ("anthropic-messages", "max_tokens", ("messages", [{"role": "user", "content": "hi"}])),
        ("llamacpp", "n_predict", ("prompt", "hi")),
    ],
)
def test_each_protocol_has_its_own_words(name, length, prompt):
    """The length and the prompt under the protocol's names, streamed."""
    said = body(name)

    assert (said[length], said[prompt[0]], said["stream"]) == (7, prompt[1], True)
    assert said["ignore_eos"] is True


def test_tgi_is_asked_in_parameters():
    """A temperature of 0 is greedy decoding; the end token has its own option."""
    assert body("tgi") == {
        "inputs": "hi",
        "parameters": {
            "max_new_tokens": 7,
            "details": True,
            "do_sample": True,
            "temperature": 0.5,
            "seed": 3,
            "ignore_eos_token": True,
        },
        "stream": True,
    }
    greedy = json.loads(DIALECTS["tgi"].encode(Ask(model="m", prompt="hi", temperature=0)))
    assert greedy["parameters"] == {"max_new_tokens": 16, "details": True, "do_sample": False}


def test_ollama_is_asked_in_options():
    """The length and the sampling are options; there is none for the end token."""
    assert body("ollama") == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "options": {"num_predict": 7, "temperature": 0.5, "seed": 3},
    }


def test_messages_take_the_place_of_the_prompt():
    """As messages, as one text, or with the system's part on its own, as the protocol has it."""
    ask = Ask(model="m", messages=(("system", "be brief"), ("user", "hi")))
    said = {name: json.loads(DIALECTS[name].encode(ask)) for name in NAMES}
    pair = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]

    assert said["openai-chat"]["messages"] == said["ollama"]["messages"] == pair
    assert said["openai-responses"]["input"] == pair
    assert said["anthropic-messages"]["messages"] == pair[1:]
    assert said["anthropic-messages"]["system"] == "be brief"
    for name, field in (
        ("openai-completions", "prompt"),
        ("llamacpp", "prompt"),
        ("tgi", "inputs"),
    ):
        assert said[name][field] == "be brief\n\nhi"


def test_of_a_prompt_and_messages_each_protocol_sends_what_it_knows():
    """Protocols of messages send these; protocols of text the prompt, to the letter."""
    ask = Ask(model="m", prompt="be brief hi", messages=(("user", "be brief"), ("user", "hi")))
    said = {name: json.loads(DIALECTS[name].encode(ask)) for name in NAMES}

    assert [m["content"] for m in said["openai-chat"]["messages"]] == ["be brief", "hi"]
    for name, field in (
        ("openai-completions", "prompt"),
        ("llamacpp", "prompt"),
        ("tgi", "inputs"),
    ):
        assert said[name][field] == "be brief hi"


def test_extra_is_merged_into_the_body_at_every_depth():
    """What a user adds lies over what the ask says, and beside it."""
    extra = {"top_p": 0.9, "model": "other", "stream_options": {"include_usage": False}}
    said = json.loads(DIALECTS["openai-chat"].encode(Ask(model="m", prompt="p", extra=extra)))
    options = json.loads(
        DIALECTS["ollama"].encode(Ask(model="m", prompt="p", extra={"options": {"top_k": 1}}))
    )["options"]

    assert (said["top_p"], said["model"]) == (0.9, "other")
    assert said["stream_options"] == {"include_usage": False, "continuous_usage_stats": True}
    assert options == {"num_predict": 16, "top_k": 1}


@pytest.mark.parametrize("name", NAMES)
def test_a_key_is_sent_once_and_only_if_there_is_one(name):
    """As a bearer token, or in Anthropic's header beside its version; no compression is ever asked for."""
    with_key, without = dict(DIALECTS[name].headers("k")), dict(DIALECTS[name].headers(None))
    own = {"x-api-key": "k"} if name == "anthropic-messages" else {"authorization": "Bearer k"}

    assert with_key == without | own
    assert without["accept-encoding"] == "identity"
    assert without["content-type"] == "application/json"
    assert ("anthropic-version" in without) == (name == "anthropic-messages")


def test_the_table_is_by_name():
    """A dialect is found under its own name."""
    assert {name: dialect.name for name, dialect in DIALECTS.items()} == {n: n for n in DIALECTS}
    assert all(dialect.path.startswith("/") for dialect in DIALECTS.values())


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_chat_event_may_speak_on_several_channels():
    """Reasoning, content and tool calls of one event, in that order; the counts stand at the last."""
    call = {"function": {"name": "f", "arguments": "{}"}}
    delta = {"content": "b", "reasoning": "a", "reasoning_content": "a", "tool_calls": [call]}
    said = read("openai-chat", {"choices": [{"delta": delta, "token_ids": [1, 2, 3]}]})

    assert said.deltas == [
        Delta(REASONING, "a", more=True),
        Delta(CONTENT, "b", more=True),
        Delta(TOOL, "f{}", tokens=3),
    ]


def test_chat_events_without_a_token_are_empty_deltas_or_none():
    """A role and an empty event are steps; usage, an empty object and no choices are not."""
    steps = [
        {"choices": [{"delta": d}]}
        for d in ({"role": "assistant"}, {"content": ""}, {"content": None}, {})
    ]
    others = [
        {},
        {"choices": []},
        {"choices": [], "usage": {"completion_tokens": 3}},
        {"choices": None},
    ]

    assert read("openai-chat", *steps).deltas == [Delta(CONTENT, "")] * 4
    assert read("openai-chat", *others).deltas == []


def test_usage_is_read_with_its_details():
    """Prompt, completion, cached and reasoning; nulls are absent."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    told = read("openai-chat", {"choices": [], "usage": usage}).usage
    bare = read("openai-chat", {"choices": [], "usage": {"prompt_tokens_details": None}}).usage

    assert (told.prompt, told.completion, told.cached, told.reasoning) == (10, 5, 4, 2)
    assert (bare.prompt, bare.completion, bare.cached, bare.reasoning) == (None,) * 4


def test_anthropic_usage_is_laid_together_from_two_events():
    """Cached tokens are part of the prompt; the last word on the output is message_delta's."""
    start = {
        "input_tokens": 5,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 2,
        "output_tokens": 1,
    }
    said = read(
        "anthropic-messages",
        {"type": "message_start", "message": {"usage": start}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens"},
            "usage": {"output_tokens": 9},
        },
    )

    assert said.usage == Counts(10, 9, 3)
    assert said.finish_reason == "max_tokens"


def test_an_anthropic_message_that_is_not_streamed():
    """The content blocks of the whole message, joined by channel."""
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "name": "f", "input": {"x": 1}},
        {"type": "text", "text": "b"},
    ]
    usage = {"input_tokens": 1, "output_tokens": 2}
    said = read(
        "anthropic-messages",
        {"type": "message", "content": blocks, "stop_reason": "tool_use", "usage": usage},
    )

    assert [(d.channel, d.text) for d in said.deltas] == [
        (REASONING, "hm"),
        (CONTENT, "ab"),
        (TOOL, 'f{"x":1}'),
    ]
    assert (said.finish_reason, said.usage) == ("tool_use", Counts(1, 2))


def test_a_response_that_is_not_streamed():
    """The items of the whole response, joined by channel."""
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "content": None},
        {"type": "message", "content": [{"type": "output_text", "text": "a"}, {"refusal": "b"}]},
        {"type": "function_call", "name": "f", "arguments": "{}"},
    ]
    said = read(
        "openai-responses",
        {"object": "response", "status": "completed", "output": output, "error": None},
    )

    assert [(d.channel, d.text) for d in said.deltas] == [
        (REASONING, "hm"),
        (CONTENT, "ab"),
        (TOOL, "f{}"),
    ]
    assert (said.finish_reason, said.ended, said.fault) == ("completed", True, None)


def test_tgi_counts_every_event_and_shows_no_special_token():
    """One event is one token; a list of one document is a reply too."""
    said = read("tgi", {"token": {"text": "a"}}, {"token": {"text": "</s>", "special": True}})
    whole = read(
        "tgi",
        [{"generated_text": "a b", "details": {"finish_reason": "length", "generated_tokens": 2}}],
    )

    assert said.deltas == [Delta(CONTENT, "a", tokens=1), Delta(CONTENT, "", tokens=1)]
    assert (whole.deltas, whole.finish_reason) == ([Delta(CONTENT, "a b")], "length")
    assert whole.usage.completion == 2


def test_both_replies_of_ollama_are_read():
    """/api/chat with thinking and tools, /api/generate with thinking."""
    chat = read(
        "ollama",
        {"message": {"content": "a", "thinking": "t", "tool_calls": [{"function": {"name": "f"}}]}},
    )
    generate = read(
        "ollama",
        {"response": "", "thinking": "t"},
        {"response": "a"},
        {"response": "", "done": True},
    )

    assert [(d.channel, d.text) for d in chat.deltas] == [
        (REASONING, "t"),
        (CONTENT, "a"),
        (TOOL, '[{"function":{"name":"f"}}]'),
    ]
    assert [(d.channel, d.text) for d in generate.deltas] == [
        (REASONING, "t"),
        (CONTENT, "a"),
        (CONTENT, ""),
    ]
    assert generate.ended


def test_llamacpp_says_why_it_stopped_in_old_and_new_words():
    """A stop type, or one of three flags; empty token ids are no count."""
    old = read(
        "llamacpp",
        {"content": "a", "tokens": []},
        {"content": "", "stop": True, "stopped_limit": True},
    )
    new = read("llamacpp", {"content": "", "stop": True, "stop_type": "word"})

    assert old.deltas == [Delta(CONTENT, "a"), Delta(CONTENT, "")]
    assert (old.finish_reason, new.finish_reason) == ("limit", "word")


ERRORS = {
    "openai-chat": [
        {"error": {"message": "boom"}},
        {"object": "error", "message": "boom", "code": 500},
    ],
    "openai-completions": [{"error": "boom"}, {"object": "error", "message": "boom"}],
    "openai-responses": [
        {"type": "error", "message": "boom", "code": "x"},
        {"type": "response.failed", "response": {"status": "failed", "error": {"message": "boom"}}},
        {"error": {"message": "boom"}},
    ],
    "anthropic-messages": [
        {"type": "error", "error": {"type": "overloaded_error", "message": "boom"}}
    ],
    "tgi": [{"error": "boom", "error_type": "generation"}],
    "ollama": [{"error": "boom"}],
    "llamacpp": [{"error": {"code": 500, "message": "boom"}}],
}


@pytest.mark.parametrize("name", NAMES)
def test_an_error_object_is_a_fault(name):
    """In every form that the protocol has; the first one stays."""
    for error in ERRORS[name]:
        assert read(name, error, ERRORS[name][0]).fault == "the server reported: boom"


HOSTILE = {
    "openai-chat": [
        {"choices": {}},
        {"choices": [7]},
        {"choices": [{"delta": []}]},
        {"choices": [{"delta": {"content": 7}}]},
        {"choices": [{"delta": {}, "finish_reason": 1}]},
        {"choices": [], "usage": "x"},
        {"choices": [], "usage": {"completion_tokens": -1}},
        {"choices": [], "usage": {"completion_tokens": 2**31}},
        {"choices": [], "usage": {"completion_tokens": 10**400}},
        {"choices": [], "usage": {"completion_tokens": True}},
        {"choices": [], "usage": {"completion_tokens": "5"}},
    ],
    "openai-completions": [
        {"choices": {}},
        {"choices": [{"text": []}]},
        {"choices": [], "usage": 1},
    ],
    "openai-responses": [
        {"type": 1},
        {"type": "response.output_text.delta", "delta": {}},
        {"type": "response.completed", "response": []},
    ],
    "anthropic-messages": [
        {"type": "content_block_delta", "delta": "x"},
        {"type": "content_block_delta", "delta": {"text": 1}},
        {"type": "message_start", "message": 3},
    ],
    "tgi": [{"token": "x"}, {"token": {"text": {}}}, "x"],
    "ollama": [{"message": "x"}, {"done": "yes"}, {"eval_count": 1.5}],
    "llamacpp": [{"content": {}}, {"tokens": "x"}, {"stop": 1}],
}


@pytest.mark.parametrize("name", NAMES)
def test_what_has_the_wrong_shape_is_refused(name):
    """Wrong types, and JSON that is none, are a DecodeError: the reader's one way to say so."""
    raw = [
        b"",
        b"{",
        b"nonsense",
        b"[]" if name != "tgi" else b"7",
        b"null",
        b'{"a":1}x',
        b"\xff\xfe",
        b'{"x":"\xff"',
    ]
    for event in [*HOSTILE[name], *raw]:
        with pytest.raises(msgspec.DecodeError):
            read(name, event)


@settings(deadline=None, max_examples=100)
@given(name=st.sampled_from(NAMES), data=st.data())
def test_no_json_at_all_raises_anything_else(name, data):
    """Arbitrary JSON, and a good event with one part replaced, read or are refused."""
    junk = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=6,
    )
    good = {
        "openai-chat": {"choices": [{"delta": {"content": "a", "tool_calls": []}}], "usage": {}},
        "openai-completions": {"choices": [{"text": "a"}], "usage": {}},
        "openai-responses": {
            "type": "response.completed",
            "response": {"status": "completed"},
            "delta": "",
        },
        "anthropic-messages": {
            "type": "content_block_delta",
            "delta": {"text": "a"},
            "message": {},
        },
        "tgi": {"token": {"text": "a"}, "details": {}},
        "ollama": {"message": {"content": "a"}, "done": True},
        "llamacpp": {"content": "a", "tokens": [], "timings": {}, "stop": True},
    }[name]
    key = data.draw(st.sampled_from(["error", *good]))
    event = data.draw(junk | junk.map(lambda value: good | {key: value}))
    try:
        said = read(name, event)
    except msgspec.DecodeError:
        return
    assert all(isinstance(delta.text, str) for delta in said.deltas)


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"error": {"message": "a", "code": 1}}, "a"),
        ({"error": "a"}, "a"),
        ({"detail": [{"loc": ["body"], "msg": "a"}]}, "a"),
        ({"object": "error", "message": "a"}, "a"),
        ({"errors": ["a", "b"]}, "a"),
        ({"code": 5}, '{"code":5}'),
        ([], "[]"),
        (None, "null"),
        ("a\n  b", "a b"),
    ],
)
def test_the_message_is_found_in_every_shape_of_error(value, message):
    """The sentence for a person, wherever the API puts it; else the value itself."""
    assert message_of(value) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "a"}}', "a"),
        (
            b"<html><head><title>502</title><style>x{}</style></head><body>Bad\ngateway</body>",
            "502 Bad gateway",
        ),
        (b"plain", "plain"),
        (b"", ""),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        (b"[" * 100_000, "[" * (MESSAGE_LENGTH - 1) + "…"),
    ],
)
def test_the_body_of_an_error_becomes_one_line(body, message):
    """JSON, HTML, text, nothing, and bytes that are none of these."""
    assert body_message(body) == message


@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=700))
def test_one_line_is_one_printable_line(text):
    """Short, printable, without a line break of any kind."""
    line = one_line(text)

    assert len(line) <= MESSAGE_LENGTH
    assert line.isprintable()


def test_one_line_shows_no_credentials():
    """Servers like to repeat the key that they refuse."""
    assert "sk-abcdefgh12345" not in one_line("Incorrect API key: sk-abcdefgh12345")
    assert "hunter2" not in one_line("see http://me:hunter2@host/")
