"""The spool: what arrived, in raw form, appended as it ends. The only thing written while the clock runs.

A record is one ended request, or a segment of a live one whose backlog grew large: the bytes of every read, and the
stamp of every read. Nothing is parsed here. Records are appended with one `write` each, so that whatever ends a
worker (SIGKILL included) leaves all requests that had ended readable; a record cut short by the end is dropped.

Layout of a record: HEADER, then packed with LZ4 (a stream of events repeats itself: about 20 bytes a token are left,
and packing costs a tenth of what writing the difference would): the error text (utf-8), the length of each read
(uint32[n]), its stamp (int64[n, 2]: seconds, ns), and the bytes.
Stamps are kept as the kernel gave them (CLOCK_REALTIME); `offset_ns` leads to the run's monotonic clock.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inferometer.timeline import Ints, offsets

MAGIC = b"IFS1"
HEADER = struct.Struct(
    "<4sBBhqqqqqqIIQQ"
)  # ..., length of the error text, reads, size unpacked, size packed

# How a request ended, as the driver saw it; what the reply itself says is found when the spool is digested.
DONE, CLOSED, RESET, NO_CONNECTION, TIMEOUT, LIMIT, CANCELLED, DROPPED, SEGMENT = range(9)


class Ending(NamedTuple):
    """What the driver knows of a request beside its bytes. Times are monotonic ns; ABSENT where it did not happen."""

    row: int
    cause: int
    error: str
    attempts: int
    intended_ns: int
    sent_ns: int
    connect_ns: int
    ended_ns: int
    offset_ns: int


class Record(NamedTuple):
    """One record read back: `stamps_ns` [n] on the monotonic clock, `reads` [n]."""

    ending: Ending
    stamps_ns: Ints
    reads: list[bytes]


class Spool:
    """An append-only spool file."""

    def __init__(self, path: Path) -> None:
        _codec()  # importing it takes 20 ms: not while the clock runs
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, ending: Ending, stamps: Sequence[bytes], reads: Sequence[bytes]) -> None:
        """Write one record; raises OSError when the disk is full."""
        record = pack(ending, stamps, reads)
        written = os.write(self._fd, record)
        while written < len(record):  # a signal or a nearly full disk may cut a write short
            written += os.write(self._fd, record[written:])

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def pack(ending: Ending, stamps: Sequence[bytes], reads: Sequence[bytes]) -> bytes:
    """One record as bytes; `stamps` are packed timespecs (two int64), one per read."""
    error = ending.error.encode("utf-8", "replace")[:4096]
    lengths = array("I", map(len, reads))
    body = b"".join((error, lengths.tobytes(), *stamps, *reads))
    packed = _codec().compress(body, asbytes=True) if body else b""
    head = HEADER.pack(
        MAGIC,
        ending.cause,
        0,
        ending.attempts,
        ending.row,
        ending.intended_ns,
        ending.sent_ns,
        ending.connect_ns,
        ending.ended_ns,
        ending.offset_ns,
        len(error),
        len(reads),
        len(body),
        len(packed),
    )
    return head + packed


def read_spool(path: Path) -> Iterator[Record]:
    """The records of a spool in the order of their ends; segments are joined to the request that they belong to."""
    segments: dict[int, list[Record]] = {}
    for record in _records(path):
        row = record.ending.row
        if record.ending.cause == SEGMENT:
            segments.setdefault(row, []).append(record)
        else:
            yield _joined([*segments.pop(row, ()), record])


def _joined(parts: list[Record]) -> Record:
    if len(parts) == 1:
        return parts[0]
    stamps = np.concatenate([part.stamps_ns for part in parts])
    return Record(parts[-1].ending, stamps, [read for part in parts for read in part.reads])


def _records(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        while len(head := file.read(HEADER.size)) == HEADER.size:
            record = _record(head, file.read)
            if record is None:
                return
            yield record


def _record(head: bytes, read: Callable[[int], bytes]) -> Record | None:
    magic, cause, _, attempts, row, intended, sent, connect, ended, offset, e, n, size, packed = (
        HEADER.unpack(head)
    )
    rest = read(packed) if magic == MAGIC else b""
    if magic != MAGIC or len(rest) < packed:
        return None
    body = _codec().decompress(rest, decompressed_size=size, asbytes=True) if size else b""
    error = body[:e].decode("utf-8", "replace")
    lengths = np.frombuffer(body, dtype="<u4", count=n, offset=e)
    stamps = np.frombuffer(body, dtype="<i8", count=2 * n, offset=e + 4 * n).reshape(n, 2)
    edges = (e + 20 * n + offsets(lengths)).tolist()
    reads = [body[a:b] for a, b in pairwise(edges)]
    ending = Ending(row, cause, error, attempts, intended, sent, connect, ended, offset)
    return Record(ending, stamps[:, 0] * 1_000_000_000 + stamps[:, 1] - offset, reads)


@cache
def _codec() -> Any:
    import pyarrow as pa

    return pa.Codec("lz4_raw")
