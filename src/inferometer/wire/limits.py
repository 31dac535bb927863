"""How much a server may say before it is not listened to any more.

Every bound is on by default; breaking one ends the reply as a protocol error that names the bound, and what the
server says after it is dropped unread. So memory is bounded whatever the other side does.
"""

from __future__ import annotations

from inferometer.spec import Spec

KIB = 1024
MIB = 1024 * KIB


class Limits(Spec, frozen=True):
    """The bounds of one reply. `head_*`: the header section, trailers included; `response_bytes`: all of it as sent;
    `decompressed_bytes`: after gzip or deflate; `line_bytes`, `event_bytes`: of an event stream, as is
    `events_per_token` x the tokens asked for + `events_beside`.
    """

    head_bytes: int = 64 * KIB
    head_fields: int = 100
    response_bytes: int = 64 * MIB
    decompressed_bytes: int = 64 * MIB
    line_bytes: int = MIB
    event_bytes: int = 4 * MIB
    events_per_token: int = 8
    events_beside: int = 64

    def events(self, expected_tokens: int) -> int:
        """How many events a reply of `expected_tokens` may have; no count of tokens beyond it is believed either."""
        return self.events_per_token * expected_tokens + self.events_beside


def size(n_bytes: int) -> str:
    """ "64 KiB", "1 MiB", "37 bytes"."""
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if n_bytes >= unit and n_bytes % unit == 0:
            return f"{n_bytes // unit} {name}"
    return f"{n_bytes} bytes"
