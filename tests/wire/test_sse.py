"""Event streams after the WHATWG rules, split anywhere, within their limits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.wire import Limits
from inferometer.wire.ndjson import JsonDocument, JsonLines
from inferometer.wire.sse import EventStream


def events(pieces, *, limits=None, reader=EventStream):
    """The events of `pieces`, end of stream included, and what was broken."""
    stream = reader(limits or Limits())
    out = [event for piece in pieces for event in stream.feed(piece)]
    return out + stream.close(), stream.broken


def at_once(pieces, *, limits=None, reader=EventStream):
    """The same by `read`, stamps left out."""
    stream = reader(limits or Limits())
    _, out = stream.read([0] * len(pieces), pieces)
    return out + stream.close(), stream.broken


def data(raw):
    """Only the data of the events of one read."""
    return [value for _, value in events([raw])[0]]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [b"a", b"b", b"c"]),
        (b"data: a\ndata: b\r\ndata:\rdata: c\n\n", [b"a\nb\n\nc"]),
        (b": comment\n\n:\n\ndata: a\n: comment\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"data\n\ndata:\n\n", [b"", b""]),
        (b"id: 1\nretry: 10\nfoo: x\nbar\ndata: a\n\n", [b"a"]),
        (b"event: x\n\ndata: a\n\n", [b"a"]),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
        (b"dataa: x\ndat: y\ndata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: lost\n", [b"a"]),
        (b"data: \xff\xfe\n\n", [b"\xff\xfe"]),
        (b"", []),
    ],
)
def test_lines_make_events_as_the_standard_says(raw, expected):
    """Line ends, multi-line data, comments, the byte order mark, unknown fields, an end inside of an event."""
    assert data(raw) == expected


def test_an_event_has_its_name():
    """`event:` names one event, not the next."""
    assert events([b"event: error\ndata: x\n\ndata: y\n\n"])[0] == [(b"error", b"x"), (b"", b"y")]


def test_many_pieces_are_read_as_each_of_them_would_be():
    """One whole event per piece, the common case, takes a shorter way to the same events; stamps go with them."""
    pieces = [
        b"data: first\n\n",
        b'data: {"a": 1}\n\n',
        b"data: x\n",
        b"data: y\n\n",
        b"data: a\rb\n\n",
        b"data: p\n\ndata: q\n\n",
    ]
    times, read = EventStream(Limits()).read(range(6), pieces)

    assert [data for _, data in read] == [b"first", b'{"a": 1}', b"x\ny", b"a", b"p", b"q"]
    assert times == [0, 1, 3, 4, 5, 5]


lines = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data",
        b"event: e",
        b"id: 3",
        b": c",
        b"",
        b"",
        b"x",
        b"\xef\xbb\xbf",
        b"data: long " * 3,
    ]
)
streams = st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=14).map(
    lambda pairs: b"".join(line + end for line, end in pairs)
)


@settings(deadline=None, max_examples=100)
@given(
    raw=st.one_of(streams, st.binary(max_size=60)),
    places=st.lists(st.integers(0, 200), max_size=10),
    bytewise=st.booleans(),
    tight=st.booleans(),
)
def test_any_split_gives_the_same_events(wire, raw, places, bytewise, tight):
    """Splits between CR and LF, inside of the byte order mark, at a limit: none is seen."""
    limits = Limits(line_bytes=12, event_bytes=20) if tight else Limits()
    pieces = wire.bytewise(raw) if bytewise else wire.cut(raw, places)

    for reader in (EventStream, JsonLines, JsonDocument):
        whole = events([raw], limits=limits, reader=reader)
        assert events(pieces, limits=limits, reader=reader) == whole
        assert at_once(pieces, limits=limits, reader=reader) == whole


def test_a_line_is_bounded():
    """The events before the long line are given; nothing is kept of it, or of what follows."""
    limits = Limits(line_bytes=100)
    fits, longer = b"data: %s\n\n" % (b"x" * 94), b"data: %s\n\n" % (b"x" * 95)

    assert events([b"data: a\n\n", fits], limits=limits) == ([(b"", b"a"), (b"", b"x" * 94)], None)
    for pieces in (
        [b"data: a\n\n" + longer + b"data: b\n\n"],
        [b"data: a\n\n", longer, b"data: b\n\n"],
    ):
        assert events(pieces, limits=limits) == (
            [(b"", b"a")],
            "a line of the stream is longer than 100 bytes",
        )


def test_a_line_without_an_end_is_bounded_while_it_grows():
    """A line that never ends breaks the limit as soon as it is longer, and is let go."""
    stream = EventStream(Limits())
    for _ in range(64):
        stream.feed(b"data: " + b"x" * 16384)

    assert stream.broken == "a line of the stream is longer than 1 MiB"
    assert stream.feed(b"\n\ndata: a\n\n") == []


def test_an_event_is_bounded():
    """Many short lines cannot make an event longer than its limit."""
    out, broken = events([b"data: 0123456789\n"] * 10, limits=Limits(event_bytes=50))

    assert out == []
    assert broken == "an event of the stream is longer than 50 bytes"


def test_a_line_of_json_is_an_event_even_the_last_one():
    """Newline-delimited JSON: blank lines are nothing, the last line needs no line break."""
    raw = b'{"a":1}\r\n\n  \n{"b":2}\n{"c":3}'

    assert [value for _, value in events([raw], reader=JsonLines)[0]] == [
        b'{"a":1}\r',
        b'{"b":2}',
        b'{"c":3}',
    ]


def test_a_line_of_json_has_the_stamp_that_completed_it():
    """As an event of an event stream has."""
    read = JsonLines(Limits()).read([1, 2, 3], [b"{}\n{", b"}", b"\n{}\n"])

    assert read == ([1, 3, 3], [(b"", b"{}")] * 3)


def test_a_line_of_json_is_bounded():
    """Like an event of an event stream."""
    limits = Limits(event_bytes=10)
    broken = "a line of the stream is longer than 10 bytes"

    assert events([b"{}\n", b"x" * 11], limits=limits, reader=JsonLines) == ([(b"", b"{}")], broken)
    assert events([b"{}\n" + b"x" * 11 + b"\n{}\n"], limits=limits, reader=JsonLines) == (
        [(b"", b"{}")],
        broken,
    )


def test_a_document_is_one_event_at_its_end():
    """Nothing before the end, everything then."""
    assert events([b'{"a":', b"\n\n 1}"], reader=JsonDocument)[0] == [(b"", b'{"a":\n\n 1}')]
    assert events([b" \n"], reader=JsonDocument)[0] == []
