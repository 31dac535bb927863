"""The wire, without I/O: requests as bytes; stamped bytes of a reply to its facts.

Nothing here opens a socket, reads a clock or writes a file, so that whatever a server may send is a unit test.
"""

from inferometer.wire.dialects import DIALECTS, Ask, Dialect
from inferometer.wire.http import ResponseReader, request_bytes
from inferometer.wire.limits import Limits
from inferometer.wire.reply import Reply, ReplyFacts
from inferometer.wire.tokens import CountTokens

__all__ = [
    "DIALECTS",
    "Ask",
    "CountTokens",
    "Dialect",
    "Limits",
    "Reply",
    "ReplyFacts",
    "ResponseReader",
    "request_bytes",
]
