"""One HTTP response, in whatever pieces: framing, limits, codings, and everything that is wrong."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.wire import Limits, ResponseReader


def read(pieces, *, end=None, limits=None):
    """A reader fed with `pieces`, and the body it gave."""
    reader = ResponseReader(limits)
    body = b"".join(reader.feed(piece) for piece in pieces)
    if end:
        reader.eof(reset=end == "reset")
    return reader, body


def outcome(pieces, *, end=None, limits=None, at_once=False):
    """All that a reader says at the end."""
    if at_once:
        reader = ResponseReader(limits)
        body = b"".join(reader.read([0] * len(pieces), pieces)[1])
        if end:
            reader.eof(reset=end == "reset")
    else:
        reader, body = read(pieces, end=end, limits=limits)
    return (
        body,
        reader.status,
        reader.headers,
        reader.head_complete,
        reader.complete,
        reader.keep_alive,
        reader.surplus,
        reader.cut,
        reader.error,
    )


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\nX-A: 1\r\nx-a:  2 \r\n\r\n"
WHOLE = {
    "chunked": CHUNKED + b"3\r\nabc\r\nA;ext=1\r\n0123456789\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 9\r\nX-B: c\r\n\r\n",
    "length": HEAD + b"Content-Length: 5\r\n\r\nhello",
    "empty": HEAD + b"Content-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\nx-i: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
    + HEAD
    + b"Content-Length: 2\r\n\r\nok",
    "last of its connection": HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
    "http 1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "gzip": HEAD
    + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    % (len(gzip.compress(b"hello " * 99, mtime=0)), gzip.compress(b"hello " * 99, mtime=0)),
}
BODIES = {
    "chunked": b"abc0123456789",
    "trailers": b"x",
    "length": b"hello",
    "empty": b"",
    "no content": b"",
    "interim": b"ok",
    "last of its connection": b"ok",
    "http 1.0": b"ok",
    "gzip": b"hello " * 99,
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_response_is_complete(name):
    """Body, status and end of every framing."""
    reader, body = read([WHOLE[name]])

    assert (body, reader.complete, reader.error) == (BODIES[name], True, None)
    assert reader.status == (204 if name == "no content" else 200)
    assert not reader.surplus


def test_keep_alive_is_what_the_protocol_says():
    """A connection may be used again unless it says close, is HTTP/1.0, or has nothing but its end to end a body."""
    alive = {name for name, raw in WHOLE.items() if read([raw])[0].keep_alive}

    assert set(WHOLE) - alive == {"last of its connection", "http 1.0"}
    assert not read([HEAD + b"\r\nabc"], end="close")[0].keep_alive
    assert not read([WHOLE["length"][:-1]])[0].keep_alive


def test_headers_are_lower_case_and_repeats_are_joined():
    """Fields of one name are one value; trailers and interim heads leave no trace."""
    assert read([WHOLE["chunked"]])[0].headers == {"transfer-encoding": "chunked", "x-a": "1, 2"}
    assert "x-sum" not in read([WHOLE["trailers"]])[0].headers
    assert read([WHOLE["interim"]])[0].headers == {"content-length": "2"}


@settings(deadline=None, max_examples=100)
@given(
    raw=st.sampled_from(sorted(WHOLE.values())),
    tail=st.sampled_from([b"", b"\r\n", b"junk", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]),
    places=st.lists(st.integers(0, 400), max_size=8),
    bytewise=st.booleans(),
)
def test_any_split_of_the_bytes_gives_the_same(wire, raw, tail, places, bytewise):
    """Rule 1, with and without bytes after the end."""
    raw += tail
    pieces = wire.bytewise(raw) if bytewise else wire.cut(raw, places)

    whole = outcome([raw], end="close")
    assert outcome(pieces, end="close") == whole
    assert outcome(pieces, end="close", at_once=True) == whole


@settings(deadline=None, max_examples=100)
@given(
    raw=st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(CHUNKED.__add__)),
    places=st.lists(st.integers(0, 100), max_size=5),
)
def test_random_bytes_never_raise_and_split_alike(wire, raw, places):
    """Rule 2: garbage ends in an error, wherever the garbage was cut."""
    whole, pieces = outcome([raw], end="close"), wire.cut(raw, places)

    assert outcome(pieces, end="close") == outcome(pieces, end="close", at_once=True) == whole
    assert whole[4] or whole[8]


@pytest.mark.parametrize("name", ["chunked", "trailers", "length", "interim", "gzip"])
def test_a_response_that_is_cut_is_never_complete(name):
    """A body with an end of its own has to come to it, whatever the connection does."""
    raw = WHOLE[name]
    for end in range(len(raw)):
        for how in ("close", "reset"):
            reader, _ = read([raw[:end]] if end else [], end=how)
            assert not reader.complete
            assert reader.cut
            assert reader.error


def test_the_end_of_the_connection_ends_a_body_without_a_length():
    """A clean end completes it, a reset does not."""
    clean, body = read([HEAD + b"\r\nab", b"cd"], end="close")
    reset, _ = read([HEAD + b"\r\nabcd"], end="reset")

    assert (body, clean.complete, clean.error) == (b"abcd", True, None)
    assert not reset.complete
    assert reset.error == "the connection was reset instead of ending the body"


def test_what_comes_after_the_end_is_noted():
    """Surplus bytes are nobody's: the connection is not used again. Line breaks are let pass."""
    for pieces in ([WHOLE["length"] + b"HTTP/1.1 500"], [WHOLE["length"], b"x"]):
        reader, body = read(pieces)
        assert (body, reader.status, reader.surplus, reader.keep_alive) == (
            b"hello",
            200,
            True,
            False,
        )
    assert not read([WHOLE["length"], b"\r\n"])[0].surplus


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"<html>", "not HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "not HTTP/1.1"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP/1.1"),
        (CHUNKED + b"zz\r\n", "the framing of the body is not HTTP/1.1"),
        (CHUNKED + b"3\r\nabcd\r\n", "the framing of the body is not HTTP/1.1"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "not HTTP/1.1"),
        (
            HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "not HTTP/1.1",
        ),
        (HEAD + b"Content-Length: -1\r\n\r\n", "not HTTP/1.1"),
        (HEAD + b"Content-Encoding: br\r\nContent-Length: 1\r\n\r\nx", "'br' was not asked for"),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "'gzip, chunked' is not understood"),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "switched protocols",
        ),
    ],
)
def test_what_is_not_a_response_says_so(raw, why):
    """Each kind of wrong bytes ends in one line, whether read at once or byte by byte."""
    for pieces in ([raw], [raw[n : n + 1] for n in range(len(raw))]):
        reader, _ = read(pieces)
        assert why in reader.error
        assert not reader.cut
        assert not reader.complete


def test_the_head_is_bounded():
    """Size and number of headers, exactly, in one read or in many; interim heads count too."""
    limits = Limits(head_bytes=200, head_fields=3)
    fits = HEAD + b"a: %s\r\nContent-Length: 1\r\n\r\n" % (b"x" * (200 - len(HEAD) - 26))
    assert len(fits) == 200
    longer = fits.replace(b"a: ", b"a: y")
    many = HEAD + b"a: 1\r\n" * 4 + b"\r\n"
    endless = b"HTTP/1.1 100 Continue\r\n\r\n" * 20

    for step in (1, 7, 1000):
        fine, wide, more, never = (
            read([raw[n : n + step] for n in range(0, len(raw), step)], limits=limits)
            for raw in (fits + b"b", longer + b"b", many, endless)
        )
        assert (fine[0].complete, fine[1]) == (True, b"b")
        assert wide[0].error == never[0].error == "the headers are longer than 200 bytes"
        assert more[0].error == "there are more than 3 headers"


def test_trailers_are_bounded():
    """Neither a long trailer nor many of them are collected."""
    start = CHUNKED + b"1\r\nx\r\n0\r\n"
    long = read([start, *[b"a" * 1000] * 100])[0]
    many = read([start + b"a: 1\r\n" * 200])[0]

    assert long.error == "the trailers are longer than 64 KiB"
    assert many.error == "there are more than 100 headers"


def test_framing_between_pieces_of_body_is_not_a_trailer():
    """Chunk sizes that come in reads of their own never add up to the limit of the trailers."""
    pieces = [CHUNKED, *[b"1\r\n", b"x\r\n"] * 200, b"0\r\n\r\n"]
    for at_once in (False, True):
        body, *_, error = outcome(pieces, limits=Limits(head_bytes=200), at_once=at_once)
        assert (body, error) == (b"x" * 200, None)


def test_the_response_is_bounded_to_the_byte(wire):
    """What fits in the limit is given, what does not is not, however it is split."""
    limits = Limits(response_bytes=len(HEAD) + 2 + 10)
    raw = HEAD + b"\r\n" + b"0123456789" + b"more"

    whole = outcome([raw], limits=limits)
    assert whole[0] == b"0123456789"
    assert whole[-1] == f"the response is longer than {limits.response_bytes} bytes"
    for at_once in (False, True):
        assert outcome(wire.bytewise(raw), limits=limits, at_once=at_once) == whole


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:]),
        zlib.compress,
        lambda data: zlib.compress(data)[2:-4],
    ],
    ids=["gzip", "two members", "zlib", "bare deflate"],
)
def test_compressed_bodies_are_undone(pack):
    """gzip, gzip in members, zlib and the bare deflate that some servers mean; in one read or byte by byte."""
    text = b"data: {}\n\n" * 50
    packed = pack(text)
    coding = b"gzip" if packed[:2] == b"\x1f\x8b" else b"deflate"
    raw = HEAD + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        coding,
        len(packed),
        packed,
    )

    for pieces in ([raw], [raw[n : n + 1] for n in range(len(raw))]):
        reader, body = read(pieces)
        assert (body, reader.complete, reader.error) == (text, True, None)


def test_a_compressed_body_must_be_whole_and_sound():
    """Cut short, or followed by something else, it is an error even if the HTTP message is complete."""
    packed = gzip.compress(b"hello")
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    short = read([head % (len(packed) - 1) + packed[:-1]])[0]
    wrong = read([head % (len(packed) + 4) + packed + b"junk"])[0]
    closed = read([HEAD + b"Content-Encoding: gzip\r\n\r\n" + packed[:-1]], end="close")[0]

    assert (short.error, short.cut) == ("the compressed body ends too early", True)
    assert (closed.error, closed.cut) == ("the compressed body ends too early", True)
    assert wrong.error.startswith("the compressed body is corrupt")
    assert not wrong.cut


def test_a_gzip_bomb_ends_at_its_limit_with_bounded_memory():
    """64 MB of zeros in 64 KB stop at 1 MiB, and cost little more than that."""
    packer = zlib.compressobj(9, wbits=31)
    packed = b"".join(packer.compress(bytes(1_000_000)) for _ in range(64)) + packer.flush()
    head = HEAD + b"Content-Encoding: gzip\r\n\r\n"
    reader = ResponseReader(Limits(decompressed_bytes=2**20))
    given_back = 0

    tracemalloc.start()
    for piece in (head, *(packed[n : n + 16384] for n in range(0, len(packed), 16384))):
        given_back += len(reader.feed(piece))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert reader.error == "the decompressed body is longer than 1 MiB"
    assert given_back == 2**20
    assert peak < 5 * 2**20
