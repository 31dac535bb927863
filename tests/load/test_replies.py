"""The model's own words in the turns that follow: kept apart, and on a real socket."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from inferometer.emulator import Schedule, serve_child
from inferometer.load.fleet import measure
from inferometer.load.options import Drive
from inferometer.load.preflight import find
from inferometer.load.replies import Replies
from inferometer.metrics import score
from inferometer.timeline import ABSENT
from inferometer.wire import DIALECTS
from inferometer.workload import WorkloadSpec, make_plan
from inferometer.workload.sessions import Sessions

CHAT = DIALECTS["openai-chat"]


def _said(text, *, finish="stop", channel="content"):
    """The bytes of a whole reply that streams `text`, one word an event."""
    events = [{"delta": {channel: f"{word} "}} for word in text.split()]
    events.append({"delta": {}, "finish_reason": finish})
    body = "".join(f"data: {json.dumps({'choices': [event]})}\n\n" for event in events)
    body += "data: [DONE]\n\n"
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def _replies(lines):
    seen = []

    def encode(row, replies):
        seen.append((row, dict(replies)))
        return f"{row}".encode()

    return Replies(lines, CHAT, lambda row: 64, encode), seen


def test_a_turn_is_encoded_once_its_parent_has_ended():
    """With all that was said before it; nothing is parsed before somebody has time."""
    replies, seen = _replies({1: [0], 2: [0, 1]})
    assert [replies.repeats(row) for row in (0, 1, 2)] == [False, True, True]
    replies.ended(0, [_said("one two")], ok=True)
    assert (replies.waiting, seen) == (True, [])
    replies.work()
    assert seen == [(1, {0: "one two "})]
    assert replies.refusal(1) is None
    assert replies.request(1) == b"1"
    replies.ended(1, [_said("three")], ok=True)
    assert replies.refusal(2) is None  # nobody had time: it is done now
    assert seen[1] == (2, {0: "one two ", 1: "three "})


def test_what_is_not_needed_any_more_is_forgotten():
    """A session that is over, or failed, or had its replies written out early, leaves nothing behind."""
    replies, _ = _replies({1: [0], 2: [0, 1], 4: [3], 6: [5]})
    reads = _said("one two three")
    replies.set_aside(0, [reads[:90]])
    replies.ended(0, [reads[90:]], ok=True)
    replies.work()
    replies.ended(1, [_said("four")], ok=True)
    replies.work()
    replies.ended(2, [_said("five")], ok=True)
    replies.ended(3, [b"half of something"], ok=False)
    replies.ended(4, [], ok=False)
    replies.ended(6, [], ok=False)
    held = (replies._needed, replies._early, replies._text, replies._encoded, replies._open)
    assert [len(one) for one in held] == [0, 0, 0, 0, 0]


def test_a_reply_that_was_none_is_repeated_by_nobody():
    """A stream that breaks off in an error ends its session, with the reason."""
    replies, _ = _replies({1: [0], 2: [0, 1]})
    replies.ended(0, [_said("one", finish="error")], ok=True)
    assert "an earlier turn failed (row 0)" in replies.refusal(1)


def test_where_only_thoughts_came_they_are_what_was_said():
    """A budget that ends within the reasoning leaves no answer; an empty turn would be refused by some servers."""
    replies, seen = _replies({1: [0]})
    replies.ended(0, [_said("hm", channel="reasoning_content")], ok=True)
    replies.work()
    assert seen == [(1, {0: "hm "})]


# --- on a socket ------------------------------------------------------------------------------------------------------


class _Recorder(BaseHTTPRequestHandler):
    """Keeps what it is asked, and answers with words that no plan knows: "reply-N-K" for its N-th request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer("application/json", b'{"data": [{"id": "m"}]}')

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            number = len(server.asked)
            server.asked.append((dict(self.headers), body))
        words = [f"reply-{number}-{k} " for k in range(3)]
        if number == server.broken:
            return self._answer("text/event-stream", b'data: {"error": {"message": "no"}}\n\n')
        field = "text" if "prompt" in body else "delta"
        events = [
            {"choices": [{field: word if field == "text" else {"content": word}}]} for word in words
        ]
        events[-1]["choices"][0]["finish_reason"] = "length"
        prompt = body.get("prompt") or " ".join(m["content"] for m in body["messages"])
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": 3}
        events.append({"choices": [], "usage": usage})
        data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return self._answer("text/event-stream", data.encode())

    def _answer(self, kind, data):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def _recording(broken=-1):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Recorder)
    server.asked, server.lock, server.broken = [], threading.Lock(), broken
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _talks(replies, **more):
    spec = WorkloadSpec(
        arrivals="closed:concurrency=2",
        prompt_tokens=20,
        output_tokens=3,
        sessions=Sessions(turns=3, think_s=0),
        requests=6,
        replies=replies,
        **more,
    )
    return make_plan(spec)


def _by_session(asked):
    sessions = {}
    for headers, body in asked:
        sessions.setdefault(headers.get("X-Session-Id"), []).append(body)
    return {name: bodies for name, bodies in sessions.items() if name is not None}


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions"])
def test_the_next_turn_repeats_what_the_model_said(tmp_path, dialect):
    """Two conversations of three turns: every later request holds the words that came back before, in order."""
    with _recording() as (url, asked):
        found = find([url], dialect=dialect, probe=False, model="m")
        run = measure(_talks("real"), found, Drive(), tmp_path / "run", asked={})
    assert run.timeline.ok.all()
    numbers = {id(body): number for number, (_, body) in enumerate(asked)}
    sessions = _by_session(asked)
    assert [len(bodies) for bodies in sessions.values()] == [3, 3]
    for bodies in sessions.values():
        for turn, body in enumerate(bodies):
            before = [
                "".join(f"reply-{numbers[id(earlier)]}-{k} " for k in range(3))
                for earlier in bodies[:turn]
            ]
            if dialect == "openai-completions":
                places = [body["prompt"].index(text) for text in before]
                assert places == sorted(places)
                continue
            roles = [message["role"] for message in body["messages"]]
            assert roles == ["user", "assistant"] * turn + ["user"]
            assert [m["content"] for m in body["messages"][1::2]] == before
            asked_before = [m["content"] for m in bodies[turn - 1]["messages"]] if turn else []
            assert [m["content"] for m in body["messages"]][: len(asked_before)] == asked_before


def test_planned_replies_are_the_same_for_every_server(tmp_path):
    """The other choice: the history is the plan's own, known before the run, and sent as messages too."""
    bodies = []
    for name in ("a", "b"):
        with _recording() as (url, asked):
            found = find([url], dialect="openai-chat", probe=False, model="m")
            measure(_talks("planned"), found, Drive(), tmp_path / name, asked={})
        bodies.append(sorted(json.dumps(body) for _, body in asked))
    assert bodies[0] == bodies[1]
    assert not any("reply-" in body for body in bodies[0])
    assert sum('"assistant"' in body for body in bodies[0]) == 4


def test_a_turn_whose_reply_breaks_ends_its_session_and_says_so(tmp_path):
    """The error came inside of a stream with status 200: no later turn is sent, and each says why."""
    with _recording(broken=0) as (url, asked):
        found = find([url], dialect="openai-chat", probe=False, model="m")
        run = measure(_talks("real"), found, Drive(), tmp_path / "run", asked={})
    t = run.timeline
    assert sorted(t.status.tolist()) == ["dropped"] * 2 + ["ok"] * 3 + ["protocol_error"]
    assert all("an earlier turn failed" in e for e in t.error[t.status == "dropped"])
    assert len(asked) == 4
    assert np_all_absent(t.sent_ns[t.status == "dropped"])


def np_all_absent(times):
    return bool((times == ABSENT).all())


def test_real_replies_on_the_emulator_are_told_on_the_scorecard(tmp_path):
    """The plan says what it is, prompt lengths are the server's, and fidelity says what is repeated."""
    with serve_child(Schedule(ttft_s=0.01, gap_s=0.001), log=None) as url:
        run = measure(_talks("real"), find([url]), Drive(workers=2), tmp_path / "run", asked={})
    assert run.timeline.ok.all()
    assert run.plan.replies == "real"
    assert run.plan.fingerprint != _talks("planned").fingerprint
    lines = {line["name"]: line for line in run.manifest.workload["fidelity"]["lines"]}
    assert "real replies" in lines["prompt p50"]["why"]
    assert score(run).requests.ok == 6
