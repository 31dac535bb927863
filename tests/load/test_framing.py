"""Where a response ends, decided on its first bytes."""

import pytest

from inferometer.load.framing import LAST_CHUNK, NEVER, Framing, ended_with_trailers, framing

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_head_that_is_not_whole_is_not_judged():
    """Every proper prefix of a head gives None, and never a wrong answer."""
    assert [framing(CHUNKED[:n]) for n in range(len(CHUNKED))] == [None] * len(CHUNKED)


def test_chunked():
    """A chunked response ends with its last chunk, and its connection can be used again."""
    assert framing(CHUNKED) == Framing(200, LAST_CHUNK, None, reusable=True)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 3\r\n\r\n", (500, 43, True)),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", (200, 57, False)),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n", (200, 39, False)),
        (b"HTTP/1.1 204 No Content\r\nserver: x\r\n\r\n", (204, 38, True)),
    ],
)
def test_content_length(head, expected):
    """The total counts the head too."""
    found = framing(head)

    assert (found.status, found.total, found.reusable) == expected


def test_without_framing_the_connection_ends_it():
    """Neither length nor chunks: until the server closes."""
    assert framing(b"HTTP/1.1 200 OK\r\n\r\ndata") == Framing(200, NEVER, None, reusable=False)


def test_what_is_not_http_is_read_to_its_end():
    """Garbage is kept for the digest to judge."""
    assert framing(b"SSH-2.0-OpenSSH\r\n") == Framing(0, NEVER, None, reusable=False)


def test_interim_responses_are_skipped():
    """100 Continue is not the answer."""
    assert framing(b"HTTP/1.1 100 Continue\r\n\r\n") is None
    assert framing(b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED).tail == LAST_CHUNK


@pytest.mark.parametrize(
    ("last_bytes", "ended"),
    [
        (b"x\r\n0\r\n\r\n", True),
        (b"0\r\n\r\n", True),
        (b"x\r\n0\r\nX-Sum: 1\r\n\r\n", True),
        (b"x\r\n000;ext=1\r\n\r\n", True),
        (b'{"n": 10\r\n\r\n', False),
        (b"data: 0\r\n\r\n", False),
        (b"x\r\n0\r\n", False),
    ],
)
def test_a_last_chunk_is_a_line_of_its_own(last_bytes, ended):
    """A payload that merely ends in 0 is not the end; trailers are."""
    assert ended_with_trailers(last_bytes) is ended
