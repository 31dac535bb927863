"""Every reply under fixtures/, captured from a real engine or written by hand, however its bytes are split."""

import itertools
import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.timeline import CHANNELS, STATUSES, TOKEN_SOURCES
from inferometer.wire import DIALECTS, Limits, Reply, ResponseReader

FOLDER = Path(__file__).parent / "fixtures"
NAMES = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.http"))


@cache
def fixture(name):
    """The raw bytes and the sidecar of one fixture."""
    path = FOLDER / f"{name}.http"
    return path.read_bytes(), json.loads(path.with_suffix(".json").read_text())


def one_each(texts):
    return [1] * len(texts)


def expected_tokens(side):
    body = side["request"]["body"]
    asked = (
        body.get("max_tokens") or body.get("max_output_tokens") or body.get("max_completion_tokens")
    )
    return (asked if isinstance(asked, int) else 64) * body.get("n", 1)


def read(name, pieces, stamps=None):
    """The reply and its facts, all pieces stamped 7 unless told."""
    _, side = fixture(name)
    reply = Reply(DIALECTS[side["dialect"]], Limits(), expected_tokens(side), keep_text=True)
    reply.read(stamps or [7] * len(pieces), pieces)
    if side["end"]:
        reply.eof(7, reset=side["end"] == "reset")
    return reply, reply.facts(one_each)


def pieces_as_read(name):
    raw, side = fixture(name)
    edges = [0]
    for size in side.get("reads", [len(raw)]):
        edges.append(edges[-1] + size)
    assert edges[-1] == len(raw)
    return [raw[a:b] for a, b in itertools.pairwise(edges)]


REPLIES = [name for name in NAMES if fixture(name)[1]["dialect"] in DIALECTS]
OTHERS = [name for name in NAMES if name not in REPLIES]


def test_there_are_fixtures_of_every_dialect():
    """Each dialect is held to at least one reply."""
    assert {fixture(name)[1]["dialect"] for name in REPLIES} == set(DIALECTS)


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_says_what_its_sidecar_says(name):
    """The facts of the sidecar, and the laws that hold for all facts."""
    pieces, (_, side) = pieces_as_read(name), fixture(name)
    reply, facts = read(name, pieces, stamps=list(range(len(pieces))))

    for key, expected in side["facts"].items():
        check(key, expected, reply, facts)
    if "keep_alive" in side:
        assert reply.keep_alive == side["keep_alive"]
    assert facts.status in STATUSES
    assert facts.token_source in TOKEN_SOURCES
    assert (facts.error is None) == (facts.status == "ok")
    assert sum(facts.chunk_tokens) == facts.output_tokens
    assert len(facts.chunk_ns) == len(facts.chunk_tokens) == len(facts.chunk_channel)
    assert facts.chunk_ns == sorted(facts.chunk_ns)


def check(key, expected, reply, facts):
    if key == "error" and expected:
        assert " ".join(expected.split()) in facts.error
    elif key == "text":
        assert {c: t for c, t in zip(CHANNELS, facts.text, strict=True) if t} == expected
    elif key == "text_events":
        said = sum(bool(delta.text) for delta in reply.transcript.deltas)
        assert said == expected or (expected is None and said <= 1)
    elif key == "done_marker":
        assert reply.transcript.ended or not expected
    elif not (key == "output_tokens" and expected is None):  # the sidecar knows of no usage
        value = getattr(facts, key)
        assert (list(value) if isinstance(value, tuple) else value) == expected


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_read_byte_by_byte_is_the_same(name):
    """Reads of one byte give the facts of one read."""
    raw, _ = fixture(name)

    bytewise = read(name, [raw[n : n + 1] for n in range(len(raw))])

    assert bytewise[1] == read(name, [raw])[1]


@settings(deadline=None, max_examples=80)
@given(name=st.sampled_from(REPLIES), data=st.data())
def test_a_reply_split_anywhere_is_the_same(name, data):
    """Any split gives the facts of one read."""
    raw, _ = fixture(name)
    places = data.draw(st.lists(st.integers(1, len(raw) - 1), max_size=12))
    edges = sorted({0, len(raw), *places})
    pieces = [raw[a:b] for a, b in itertools.pairwise(edges)]

    assert read(name, pieces)[1] == read(name, [raw])[1]


@settings(deadline=None, max_examples=80)
@given(name=st.sampled_from(REPLIES), data=st.data())
def test_a_reply_cut_anywhere_is_never_a_success(name, data):
    """Bytes missing at the end make every reply something else than ok, and raise nothing."""
    raw, _ = fixture(name)
    end = data.draw(st.integers(0, len(raw) - 1))
    whole, cut = read(name, [raw])[1], read(name, [raw[:end]] if end else [])[1]

    assert cut.output_tokens <= max(whole.output_tokens, len(cut.chunk_ns))
    if b"content-length" in raw.lower() or b"chunked" in raw.lower():
        assert cut.status != "ok"


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_reply_is_at_least_http(name):
    """Models, metrics, versions and wrong paths are complete responses."""
    raw, side = fixture(name)
    reader = ResponseReader()
    body = b"".join(reader.feed(raw[n : n + 1]) for n in range(len(raw)))

    assert (reader.complete, reader.error) == (True, None)
    assert reader.status == side["facts"]["http_status"]
    assert raw.endswith(body) or b"chunked" in raw
