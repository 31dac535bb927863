"""Requests as bytes: what is written, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import UserError
from inferometer.wire import request_bytes


def test_a_request_is_a_line_headers_and_a_body():
    """The exact bytes of a POST; the length is added."""
    written = request_bytes("POST", "/v1/x?y=1", [("Host", "h:1"), ("X-Request-Id", "r1")], b"{}")

    expected = (
        b"POST /v1/x?y=1 HTTP/1.1\r\nHost: h:1\r\nX-Request-Id: r1\r\ncontent-length: 2\r\n\r\n{}"
    )
    assert written == expected


def test_a_length_is_said_where_one_is_expected():
    """GET has none, an empty POST says 0, a length that was given is not doubled."""
    assert request_bytes("GET", "/", []) == b"GET / HTTP/1.1\r\n\r\n"
    assert b"content-length: 0\r\n" in request_bytes("POST", "/", [])
    assert request_bytes("PUT", "/", [("Content-Length", "1")], b"x").lower().count(b"length") == 1


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\nX: y", "\x7f", "\u2028"])
def test_nothing_can_be_smuggled_in(bad):
    """Line breaks and control characters are refused in every part of the head."""
    for method, target, name, value in [
        ("GE" + bad, "/", "a", "b"),
        ("GET", "/" + bad, "a", "b"),
        ("GET", "/", "a" + bad, "b"),
        ("GET", "/", "a", "b" + bad),
    ]:
        with pytest.raises(UserError):
            request_bytes(method, target, [(name, value)])


def test_a_refused_header_does_not_show_its_value():
    """A key with a line break in it is a secret all the same."""
    with pytest.raises(UserError) as caught:
        request_bytes("GET", "/", [("Authorization", "Bearer secret\n")])

    assert "secret" not in str(caught.value)
    assert "Authorization" in str(caught.value)


@settings(deadline=None, max_examples=100)
@given(value=st.text(max_size=20), name=st.text(max_size=8), target=st.text(max_size=8))
def test_a_head_has_exactly_the_lines_that_were_asked_for(value, name, target):
    """Whatever is not refused makes one request line, one header and one blank line."""
    try:
        written = request_bytes("GET", target, [(name, value)])
    except UserError:
        return
    assert written.count(b"\r\n") == 3
    assert written.count(b"\n") == 3
    assert written.count(b"\r") == 3
