"""The truth: when each token was due, and when it was really written, on the clock that all processes share.

Rules: a write's time is read immediately before `send`. A write that the socket did not take whole (its client reads
too slowly) has no exact instant and is ABSENT, never a guess. While the server runs, only four numbers are appended
per write; request ids, token indices and tables are made afterwards. Lateness is always counted, the rows only on demand
(28 bytes each).
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inferometer.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ABSENT = -(1 << 63)  # timeline.ABSENT, without numpy: the server starts in a fifth of the time
LATE_NS = (
    1 << 20
)  # a write that is later than about 1 ms is a late one (where a player does not say otherwise)
MAY_BE_LATE = 0.01  # a server that writes more than this share late could not keep up


class Report(NamedTuple):
    """What a server says of itself. Lateness is `wrote - due`; quantiles are upper edges of power-of-two buckets."""

    requests: int
    tokens: int
    writes: int
    held_back: int  # writes that a full socket delayed
    late_share: float | None  # of the writes, later than a player allows; None: nothing was written
    lateness_p50_ns: int | None
    lateness_p99_ns: int | None
    lateness_max_ns: int | None
    cpu_s: float
    wall_s: float

    @property
    def kept_up(self) -> bool:
        """Whether the schedule was really played; where not, it is the server that was measured."""
        return self.late_share is None or self.late_share <= MAY_BE_LATE

    def summary(self) -> str:
        """One line for a person."""
        if self.lateness_p99_ns is None or self.lateness_max_ns is None:
            return f"{self.requests} requests, no token written"
        late = (
            f"p99 <= {self.lateness_p99_ns / 1e6:.3g} ms, max {self.lateness_max_ns / 1e6:.3g} ms"
        )
        keeps = "" if self.kept_up else f"; COULD NOT KEEP UP ({self.late_share:.1%} late)"
        return f"{self.requests} requests, {self.tokens} tokens, lateness {late}{keeps}"


class Ledger:
    """What the server notes while it runs."""

    def __init__(self, *, rows: bool, late_ns: int = LATE_NS) -> None:
        """`late_ns`: a power of two, from which on a write is late."""
        self.rows = rows
        self._late_bits = late_ns.bit_length()
        self.ids: list[str] = []  # by key
        self.requests = 0
        self.key = array("q")
        self.tokens = array("i")
        self.due = array("q")
        self.wrote = array("q")
        self.prompt_tokens_total = 0
        self.tokens_total = 0
        self.held_back = 0
        self._lateness = [0] * 64  # by the bit length of the lateness
        self._max_ns: int | None = None

    def arrived(self, request_id: str, prompt_tokens: int) -> int:
        """The key of a new request."""
        key, self.requests = self.requests, self.requests + 1
        self.prompt_tokens_total += prompt_tokens
        if self.rows:
            self.ids.append(request_id)
        return key

    def wrote_tokens(self, key: int, tokens: int, due_ns: int, wrote_ns: int, whole: bool) -> None:
        """Note one write of `tokens` tokens; `whole` false: the socket did not take it at once."""
        self.tokens_total += tokens
        late_ns = wrote_ns - due_ns
        self._lateness[late_ns.bit_length()] += 1
        if self._max_ns is None or late_ns > self._max_ns:
            self._max_ns = late_ns
        if not whole:
            self.held_back += 1
            wrote_ns = ABSENT
        if self.rows:
            self.key.append(key)
            self.tokens.append(tokens)
            self.due.append(due_ns)
            self.wrote.append(wrote_ns)

    def report(self, *, cpu_s: float, wall_s: float) -> Report:
        """The figures so far."""
        writes = sum(self._lateness)
        late = sum(self._lateness[self._late_bits :])
        return Report(
            self.requests,
            self.tokens_total,
            writes,
            self.held_back,
            late / writes if writes else None,
            self._quantile(0.5),
            self._quantile(0.99),
            self._max_ns,
            cpu_s,
            wall_s,
        )

    def _quantile(self, q: float) -> int | None:
        need, seen = q * sum(self._lateness), 0
        for bits, count in enumerate(self._lateness):
            seen += count
            if count and seen >= need:
                return min((1 << bits) - 1, self._max_ns or 0)
        return None

    def log(self) -> WriteLog:
        """The rows so far, as columns."""
        import numpy as np

        rows = len(self.wrote)  # what is appended last: the server may be writing meanwhile
        columns = (self.key, self.tokens, self.due, self.wrote)
        kinds = (np.int64, np.int32, np.int64, np.int64)
        # Copied to bytes first: an array whose buffer is lent out cannot grow.
        key, tokens, due, wrote = (
            np.frombuffer(column.tobytes(), dtype=kind)[:rows]
            for column, kind in zip(columns, kinds, strict=True)
        )
        return WriteLog(
            request_ids=np.array(self.ids, dtype=object),
            request=key,
            index=_index(key, tokens),
            tokens=tokens,
            due_ns=due,
            wrote_ns=wrote,
        )


@dataclass(frozen=True, slots=True, eq=False)
class WriteLog:
    """The writes of a server, in their order [W]; times are absolute CLOCK_MONOTONIC nanoseconds."""

    request_ids: NDArray[Any]  # [R] str
    request: NDArray[np.int64]  # which of the request ids
    index: NDArray[np.int64]  # of the first token of the write, in its request
    tokens: NDArray[np.int32]
    due_ns: NDArray[np.int64]
    wrote_ns: NDArray[np.int64]  # ABSENT: held back by a full socket

    def __len__(self) -> int:
        """W, the number of writes."""
        return len(self.tokens)

    def lateness_ns(self) -> NDArray[np.int64]:
        """wrote - due of the writes that have an exact instant."""
        exact = self.wrote_ns != ABSENT
        late: NDArray[np.int64] = self.wrote_ns[exact] - self.due_ns[exact]
        return late

    def save(self, path: str | Path) -> None:
        """Write the log as Parquet: request_id, index, tokens, due_ns, wrote_ns (null: held back)."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        ids = pa.DictionaryArray.from_arrays(
            pa.array(self.request), pa.array(self.request_ids, pa.string())
        )
        table = pa.table(
            {
                "request_id": ids,
                "index": self.index,
                "tokens": self.tokens,
                "due_ns": self.due_ns,
                "wrote_ns": pa.array(self.wrote_ns, mask=self.wrote_ns == ABSENT),
            }
        )
        whole = Path(path)
        beside = whole.with_name(whole.name + ".part")
        try:
            with os.fdopen(
                os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
            ) as file:
                pq.write_table(table, file, compression="zstd")
            beside.replace(whole)
        except OSError as error:
            raise UserError(f"cannot write the log: {error.strerror}", where=str(path)) from None


def read_writes(path: str | Path) -> WriteLog:
    """The log that a server saved."""
    import numpy as np
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except OSError as error:
        raise UserError(f"cannot read the log: {error}", where=str(path)) from None
    ids = table.column("request_id").combine_chunks().dictionary_encode()
    wrote = table.column("wrote_ns").fill_null(ABSENT)
    return WriteLog(
        request_ids=np.array(ids.dictionary.to_pylist(), dtype=object),
        request=np.asarray(ids.indices, dtype=np.int64),
        **{name: table.column(name).to_numpy() for name in ("index", "tokens", "due_ns")},
        wrote_ns=wrote.to_numpy(),
    )


def _index(key: NDArray[np.int64], tokens: NDArray[np.int32]) -> NDArray[np.int64]:
    """The tokens that each request had got before each write."""
    import numpy as np

    order = np.argsort(key, kind="stable")
    before = np.cumsum(tokens[order]) - tokens[order]
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    counts = np.diff(starts, append=len(order))
    index = np.empty(len(key), dtype=np.int64)
    index[order] = before - np.repeat(before[starts], counts)
    return index
