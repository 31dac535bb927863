"""The server's side of each protocol, as one table: a path, how its requests are read, and what its events say.

Pure: plain data in, plain data out, no sockets and no clock. A `Dialect` gives the events of a stream in four
places (opening, token, change of channel, ending) and the whole body of a reply that is not streamed; `replies.py`
makes bytes of them. Only text of our own vocabulary is ever put into an event, so it needs no escaping.

Sources: the shapes are those of vLLM 0.32 (OpenAI paths), of the Anthropic and OpenAI API references (messages,
responses), and of TGI, Ollama and llama-server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from inferometer.emulator.schedule import Asked, Wire

Json = dict[str, Any]
Event = tuple[str, Json]  # (name of the SSE event, or "", its data)


class Facts(NamedTuple):
    """What every event of one reply may mention."""

    id: str
    created: int
    model: str
    asked: Asked
    wire: Wire
    reasoning: int  # the first so many tokens go to the reasoning channel


class Piece(NamedTuple):
    """One token event: its text, its channel, and where in the reply it stands."""

    text: str
    said: int  # tokens said, this piece included
    thinks: bool = False
    first: bool = False
    finish: str | None = None  # the finish reason, in the piece that ends the reply


class Dialect(NamedTuple):
    """One protocol. The functions return what is sent in each place, in order."""

    prefix: str  # of the ids
    media: bytes  # the content type of a stream
    read: Callable[[Json], Asked]
    opening: Callable[[Facts], list[Event]]
    token: Callable[[Facts, Piece], Event]
    turn: Callable[[Facts], list[Event]]  # between the reasoning and the answer
    ending: Callable[[Facts, int, str], list[Event]]
    whole: Callable[[Facts, str, str, int, str], Json]  # (thoughts, text, said, finish)
    error: Event
    done: bytes = b""  # the end mark, where the protocol has one
    one_by_one: bool = False  # an event never holds more than one token
    counts: bool = False  # every event carries a running number


def count_words(value: Any) -> int:
    """The tokens of a prompt as the emulator counts them, of whatever shape it came in: words and full stops, or ids."""
    if isinstance(value, str):
        text = value.strip()
        words = text.count(" ") + (not text.startswith("."))
        return words + text.count(".") if text else 0
    if isinstance(value, list):
        if value and isinstance(value[0], int):
            return len(value)
        return sum(map(count_words, value))
    if isinstance(value, dict):
        return count_words(value.get("content") or value.get("text"))
    return 0


def words_of(value: Any) -> list[Any]:
    """The tokens that `count_words` counts, one by one."""
    if isinstance(value, str):
        text = value.strip()
        return text.replace(".", " .").strip().split(" ") if text else []
    if isinstance(value, list):
        if value and isinstance(value[0], int):
            return value
        return [word for part in value for word in words_of(part)]
    if isinstance(value, dict):
        return words_of(value.get("content") or value.get("text"))
    return []


def _prompted(asked: Asked, prompt: Any) -> Asked:
    return asked._replace(prompt=prompt, prompt_tokens=count_words(prompt))


def _nothing(*_: Any) -> list[Event]:
    return []


def _usage(f: Facts, said: int) -> Json:
    prompt = f.asked.prompt_tokens
    return {"prompt_tokens": prompt, "total_tokens": prompt + said, "completion_tokens": said}


def _read_openai(body: Json) -> Asked:
    options = body.get("stream_options") or {}
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    asked = Asked(
        model=body.get("model") or "emulated",
        max_tokens=int(limit or 0),
        stream=bool(body.get("stream", False)),
        include_usage=bool(options.get("include_usage", False)),
        continuous_usage=bool(options.get("continuous_usage_stats", False)),
        ignore_eos=bool(body.get("ignore_eos", False)),
    )
    return _prompted(asked, body.get("messages") or body.get("prompt"))


# --- OpenAI chat completions and completions --------------------------------------------------------------------------


def wants_usage(f: Facts) -> bool:
    """Whether a stream ends with usage."""
    return f.wire.usage == "always" or (f.wire.usage == "asked" and f.asked.include_usage)


def counts_usage(f: Facts) -> bool:
    """Whether every event of a stream carries usage."""
    return f.asked.continuous_usage and f.wire.continuous_usage and wants_usage(f)


def _openai_event(f: Facts, kind: str, choice: Json | None, usage: Json | None = None) -> Event:
    event: Json = {"id": f.id, "object": kind, "created": f.created, "model": f.model}
    event["choices"] = [] if choice is None else [choice]
    return "", event if usage is None else event | {"usage": usage}


def _chat_chunk(f: Facts, delta: Json, said: int, finish: str | None = None) -> Event:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    usage = _usage(f, said) if counts_usage(f) else None
    return _openai_event(f, "chat.completion.chunk", choice, usage)


def _with_last(f: Facts, p: Piece) -> str | None:
    return p.finish if f.wire.finish == "with-last" else None


def _chat_opening(f: Facts) -> list[Event]:
    merged = f.wire.role == "merged"
    return [] if merged else [_chat_chunk(f, {"role": "assistant", "content": ""}, 0)]


def _chat_token(f: Facts, p: Piece) -> Event:
    delta: Json = {f.wire.reasoning_field if p.thinks else "content": p.text}
    if p.first and f.wire.role == "merged":
        delta = {"role": "assistant"} | delta
    return _chat_chunk(f, delta, p.said, _with_last(f, p))


def _chat_ending(f: Facts, said: int, finish: str) -> list[Event]:
    own = [] if f.wire.finish == "with-last" else [_chat_chunk(f, {}, said, finish)]
    return _with_usage(f, said, own, "chat.completion.chunk")


def _with_usage(f: Facts, said: int, own: list[Event], kind: str) -> list[Event]:
    if not wants_usage(f):
        return own
    if own and f.wire.usage_in == "finish":
        own[0][1]["usage"] = _usage(f, said)
        return own
    return [*own, _openai_event(f, kind, None, _usage(f, said))]


def _chat_whole(f: Facts, thoughts: str, text: str, said: int, finish: str) -> Json:
    message: Json = {"role": "assistant", "content": text}
    if thoughts:
        message[f.wire.reasoning_field] = thoughts
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    usage = None if f.wire.usage == "never" else _usage(f, said)
    return _openai_event(f, "chat.completion", choice, usage)[1]


def _text_chunk(f: Facts, text: str, said: int, finish: str | None = None) -> Event:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    usage = _usage(f, said) if counts_usage(f) else None
    return _openai_event(f, "text_completion", choice, usage)


def _text_token(f: Facts, p: Piece) -> Event:
    return _text_chunk(f, p.text, p.said, _with_last(f, p))


def _text_ending(f: Facts, said: int, finish: str) -> list[Event]:
    own = [] if f.wire.finish == "with-last" else [_text_chunk(f, "", said, finish)]
    return _with_usage(f, said, own, "text_completion")


def _text_whole(f: Facts, thoughts: str, text: str, said: int, finish: str) -> Json:
    choice = {"index": 0, "text": thoughts + text, "logprobs": None, "finish_reason": finish}
    usage = None if f.wire.usage == "never" else _usage(f, said)
    return _openai_event(f, "text_completion", choice, usage)[1]


_OPENAI_ERROR: Event = (
    "",
    {"error": {"message": "the engine died", "type": "InternalServerError", "code": 500}},
)

# --- OpenAI responses -------------------------------------------------------------------------------------------------


def _read_responses(body: Json) -> Asked:
    asked = _read_openai(body)._replace(
        max_tokens=int(body.get("max_output_tokens") or 0), include_usage=True
    )
    return _prompted(asked, body.get("input"))


def _response(f: Facts, status: str, output: list[Json], said: int | None = None) -> Json:
    out: Json = {"id": f.id, "object": "response", "created_at": f.created, "status": status}
    out |= {"model": f.model, "output": output}
    if said is not None and f.wire.usage != "never":
        prompt = f.asked.prompt_tokens
        out["usage"] = {
            "input_tokens": prompt,
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": min(said, f.reasoning)},
            "total_tokens": prompt + said,
        }
    return out


def _named(kind: str, number: int, **rest: Any) -> Event:
    return kind, {"type": kind, **rest, "sequence_number": number}


def _responses_item(f: Facts) -> list[Event]:
    item = {"id": f"msg_{f.id}", "type": "message", "status": "in_progress", "role": "assistant"}
    number = 2 + f.reasoning
    return [
        _named("response.output_item.added", number, output_index=0, item=item | {"content": []})
    ]


def _responses_opening(f: Facts) -> list[Event]:
    begun = _response(f, "in_progress", [])
    opening = [
        _named("response.created", 0, response=begun),
        _named("response.in_progress", 1, response=begun),
    ]
    return opening if f.reasoning else opening + _responses_item(f)


def _responses_token(f: Facts, p: Piece) -> Event:
    channel = "reasoning_text" if p.thinks else "output_text"
    number = p.said + (1 if p.thinks else 2)
    place = {"item_id": f"msg_{f.id}", "output_index": 0, "content_index": 0, "delta": p.text}
    return _named(f"response.{channel}.delta", number, **place)


def _responses_ending(f: Facts, said: int, finish: str) -> list[Event]:
    short = finish == "length"
    response = _response(f, "incomplete" if short else "completed", [], said)
    if short:
        response["incomplete_details"] = {"reason": "max_output_tokens"}
    return [
        _named("response.output_text.done", said + 3, item_id=f"msg_{f.id}", output_index=0),
        _named(f"response.{response['status']}", said + 4, response=response),
    ]


def _responses_whole(f: Facts, thoughts: str, text: str, said: int, finish: str) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    output: list[Json] = [{"type": "message", "role": "assistant", "content": content}]
    if thoughts:
        thought = {"type": "reasoning_text", "text": thoughts}
        output.insert(0, {"type": "reasoning", "content": [thought]})
    return _response(f, "incomplete" if finish == "length" else "completed", output, said)


# --- Anthropic messages -----------------------------------------------------------------------------------------------


def _read_messages(body: Json) -> Asked:
    prompt = [body.get("system"), body.get("messages")]
    return _prompted(_read_openai(body)._replace(include_usage=True), prompt)


def _typed(kind: str, **rest: Any) -> Event:
    return kind, {"type": kind, **rest}


def _stop_reason(finish: str) -> str:
    return "max_tokens" if finish == "length" else "end_turn"


def _block(index: int, thinks: bool) -> Event:
    block = {"type": "thinking", "thinking": ""} if thinks else {"type": "text", "text": ""}
    return _typed("content_block_start", index=index, content_block=block)


def _messages_opening(f: Facts) -> list[Event]:
    message = _messages_whole(f, "", "", 0, "") | {"content": [], "stop_reason": None}
    return [_typed("message_start", message=message), _block(0, f.reasoning > 0), _typed("ping")]


def _messages_token(f: Facts, p: Piece) -> Event:
    index = 1 if f.reasoning and not p.thinks else 0
    name = "thinking" if p.thinks else "text"
    return _typed("content_block_delta", index=index, delta={"type": f"{name}_delta", name: p.text})


def _messages_turn(_: Facts) -> list[Event]:
    return [_typed("content_block_stop", index=0), _block(1, thinks=False)]


def _messages_ending(f: Facts, said: int, finish: str) -> list[Event]:
    delta = {"stop_reason": _stop_reason(finish), "stop_sequence": None}
    last = 1 if 0 < f.reasoning < said else 0
    return [
        _typed("content_block_stop", index=last),
        _typed("message_delta", delta=delta, usage={"output_tokens": said}),
        _typed("message_stop"),
    ]


def _messages_whole(f: Facts, thoughts: str, text: str, said: int, finish: str) -> Json:
    content: list[Json] = [{"type": "text", "text": text}]
    if thoughts:
        content.insert(0, {"type": "thinking", "thinking": thoughts})
    return {
        "id": f.id,
        "type": "message",
        "role": "assistant",
        "model": f.model,
        "content": content,
        "stop_reason": _stop_reason(finish),
        "stop_sequence": None,
        "usage": {"input_tokens": f.asked.prompt_tokens, "output_tokens": said},
    }


# --- TGI, Ollama, llama-server ----------------------------------------------------------------------------------------


def _read_tgi(body: Json) -> Asked:
    parameters = body.get("parameters") or {}
    limit = int(parameters.get("max_new_tokens") or 0)
    return _prompted(Asked(max_tokens=limit, include_usage=True), body.get("inputs"))


def _tgi_token(f: Facts, p: Piece) -> Event:
    event: Json = {"index": p.said, "generated_text": None, "details": None}
    event["token"] = {"id": p.said, "text": p.text, "logprob": -0.5, "special": False}
    if p.finish:
        reason = "length" if p.finish == "length" else "eos_token"
        event["generated_text"] = p.text
        event["details"] = {
            "finish_reason": reason,
            "generated_tokens": p.said,
            "input_length": f.asked.prompt_tokens,
        }
    return "", event


def _tgi_whole(f: Facts, thoughts: str, text: str, said: int, finish: str) -> Json:
    details = _tgi_token(f, Piece("", said, finish=finish))[1]["details"]
    return {"generated_text": thoughts + text, "details": details}


def _read_ollama(body: Json) -> Asked:
    options = body.get("options") or {}
    asked = Asked(
        model=body.get("model") or "emulated",
        max_tokens=int(options.get("num_predict") or 0),
        stream=bool(body.get("stream", True)),
        include_usage=True,
    )
    return _prompted(asked, body.get("messages"))


def _ollama_token(f: Facts, p: Piece) -> Event:
    said = {"content": "", "thinking": p.text} if p.thinks else {"content": p.text}
    message = {"role": "assistant", **said}
    return "", {
        "model": f.model,
        "created_at": _iso(f.created),
        "message": message,
        "done": False,
    }


def _ollama_ending(f: Facts, said: int, finish: str) -> list[Event]:
    return [("", _ollama_whole(f, "", "", said, finish))]


def _ollama_whole(f: Facts, thoughts: str, text: str, said: int, finish: str) -> Json:
    counts = {"prompt_eval_count": f.asked.prompt_tokens, "eval_count": said}
    thinking = {"thinking": thoughts} if thoughts else {}
    return {
        "model": f.model,
        "created_at": _iso(f.created),
        "message": {"role": "assistant", "content": text, **thinking},
        "done": True,
        "done_reason": finish,
        **counts,
    }


def _iso(unix_s: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_llama(body: Json) -> Asked:
    return _read_openai(body)._replace(
        max_tokens=max(0, int(body.get("n_predict") or 0)), include_usage=True
    )


def _llama_token(f: Facts, p: Piece) -> Event:
    counts = {"tokens_predicted": p.said, "tokens_evaluated": f.asked.prompt_tokens}
    return "", {"index": 0, "content": p.text, "tokens": [p.said], "stop": False, **counts}


def _llama_ending(f: Facts, said: int, finish: str) -> list[Event]:
    return [("", _llama_whole(f, "", "", said, finish))]


def _llama_whole(f: Facts, thoughts: str, text: str, said: int, finish: str) -> Json:
    return {
        "index": 0,
        "content": thoughts + text,
        "model": f.model,
        "stop": True,
        "stop_type": "limit" if finish == "length" else "eos",
        "tokens_predicted": said,
        "tokens_evaluated": f.asked.prompt_tokens,
    }


# --- the table --------------------------------------------------------------------------------------------------------

SSE = b"text/event-stream; charset=utf-8"
NDJSON = b"application/x-ndjson"
_DONE = b"data: [DONE]\n\n"

_CHAT = Dialect(
    "chatcmpl-", SSE, _read_openai, _chat_opening, _chat_token, _nothing, _chat_ending, _chat_whole,
    _OPENAI_ERROR, done=_DONE,
)  # fmt: skip
_TEXT = Dialect(
    "cmpl-", SSE, _read_openai, _nothing, _text_token, _nothing, _text_ending, _text_whole,
    _OPENAI_ERROR, done=_DONE,
)  # fmt: skip
_RESPONSES = Dialect(
    "resp_", SSE, _read_responses, _responses_opening, _responses_token, _responses_item,
    _responses_ending, _responses_whole,
    ("error", {"type": "error", "code": "server_error", "message": "the engine died"}), counts=True,
)  # fmt: skip
_MESSAGES = Dialect(
    "msg_", SSE, _read_messages, _messages_opening, _messages_token, _messages_turn,
    _messages_ending, _messages_whole,
    ("error", {"type": "error", "error": {"type": "api_error", "message": "the engine died"}}),
)  # fmt: skip
_TGI = Dialect(
    "", SSE, _read_tgi, _nothing, _tgi_token, _nothing, _nothing, _tgi_whole,
    ("", {"error": "the engine died", "error_type": "generation"}), one_by_one=True, counts=True,
)  # fmt: skip
_OLLAMA = Dialect(
    "", NDJSON, _read_ollama, _nothing, _ollama_token, _nothing, _ollama_ending, _ollama_whole,
    ("", {"error": "the engine died"}), one_by_one=True,
)  # fmt: skip
_LLAMA = Dialect(
    "", SSE, _read_llama, _nothing, _llama_token, _nothing, _llama_ending, _llama_whole,
    _OPENAI_ERROR, one_by_one=True, counts=True,
)  # fmt: skip

DIALECTS: dict[str, Dialect] = {
    "/v1/chat/completions": _CHAT,
    "/v1/completions": _TEXT,
    "/v1/responses": _RESPONSES,
    "/v1/messages": _MESSAGES,
    "/generate_stream": _TGI,
    "/api/chat": _OLLAMA,
    "/completion": _LLAMA,
}
