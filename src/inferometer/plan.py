"""The plan: who sends what when, as columns, all of it known before t = 0.

The same plan drives a server and a simulation (common random numbers). It says nothing about what happened: that is
the timeline, joined to the plan by `request_id`.

A row's start is one of three things:
    open loop     `intended_ns` is a time since the run's epoch;
    closed loop   `intended_ns` is ABSENT and the row has no parents: it starts when one of `concurrency` slots is free;
    a later turn  the row has parents: it starts `think_ns` after the last of them has ended.
Prompts are described, not held: a length, a shared prefix as block ids, and the seed from which the text is made.
With `replies` "real", what a later turn repeats of earlier replies is not known before the run: its length is a plan.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferometer.errors import BrokenRun
from inferometer.timeline import ABSENT, Array, Ints, offsets

# name -> (numpy type, may be null); the order is the order on disk and in the fingerprint.
PLAN_COLUMNS: dict[str, tuple[Any, bool]] = {
    "request_id": (object, False),
    "session_id": (object, True),
    "turn": (np.int32, False),
    "app": (object, False),
    "intended_ns": (np.int64, True),
    "think_ns": (np.int64, False),
    "prompt_tokens": (np.int32, False),
    "output_tokens": (np.int32, False),
    "model": (object, True),
    "adapter": (object, True),
    "tenant": (object, True),
    "priority": (np.int32, False),
}
PLANNED = "planned"
RAGGED = (("parent_offset", "parent_row"), ("block_offset", "block_id"))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The columns of a plan. Shapes: every row column [R]; each ragged pair an offset [R+1] and its values.

    `parent_row` holds the indices of the rows that must end first (always smaller than the row's own index).
    `block_id` holds a prompt's leading blocks of `block_tokens` tokens: equal ids are equal tokens, so that prompts
    that begin with the same ids share exactly that prefix. `seed` is where all prompt text comes from.
    """

    request_id: Array
    session_id: Array
    turn: NDArray[np.int32]
    app: Array
    intended_ns: Ints
    think_ns: Ints
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    model: Array
    adapter: Array
    tenant: Array
    priority: NDArray[np.int32]
    parent_offset: Ints
    parent_row: Ints
    block_offset: Ints
    block_id: Ints
    block_tokens: int = 0
    concurrency: int | None = None
    seed: int = 0
    generator: str = ""  # which generator, and which version of it, made the columns
    replies: str = (
        PLANNED  # in the history of later turns: planned text, or the model's own ("real")
    )
    notes: tuple[str, ...] = field(
        default=()
    )  # what a reader must know: de-ticked stamps, an approximate profile, ...

    def __len__(self) -> int:
        """R, the number of requests."""
        return len(self.request_id)

    @property
    def fingerprint(self) -> str:
        """sha-256 over all columns, the seed and the generator's version, as 64 hex digits; the same on every machine."""
        digest = hashlib.sha256()
        for name in _names():
            digest.update(name.encode() + b"\0")
            digest.update(_canonical(getattr(self, name)))
        scalars = f"{self.block_tokens}|{self.concurrency}|{self.seed}|{self.generator}"
        scalars += "" if self.replies == PLANNED else f"|{self.replies}"
        digest.update(scalars.encode())
        return digest.hexdigest()

    def take(self, rows: Array) -> Plan:
        """The plan of some rows (indices or mask), in ascending order; a parent left out makes an error."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else np.unique(rows)
        columns = {name: getattr(self, name)[rows] for name in PLAN_COLUMNS}
        for offset_name, value_name in RAGGED:
            offset, values = _take_ragged(
                getattr(self, offset_name), getattr(self, value_name), rows
            )
            columns |= {offset_name: offset, value_name: values}
        place = np.full(len(self), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        columns["parent_row"] = place[columns["parent_row"]]
        if np.any(columns["parent_row"] < 0):
            raise BrokenRun(
                "a part of a plan leaves out a turn that another turn waits for; split by session"
            )
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in columns}
        return Plan(**columns, **rest)

    def check(self) -> Plan:
        """Return self, or raise BrokenRun naming the first rule of a plan that does not hold."""
        ids = self.request_id.tolist()
        if len(set(ids)) != len(ids):
            raise BrokenRun("request ids must be unique")
        for name in PLAN_COLUMNS:
            if len(getattr(self, name)) != len(self):
                raise BrokenRun(
                    f"column {name!r} has {len(getattr(self, name))} rows, not {len(self)}"
                )
        if len(self) and (self.prompt_tokens.min() < 1 or self.output_tokens.min() < 1):
            raise BrokenRun("a prompt and an output have at least one token")
        has_parent = np.diff(self.parent_offset) > 0
        owner = np.repeat(np.arange(len(self)), np.diff(self.parent_offset))
        if np.any(self.parent_row >= owner):
            raise BrokenRun("a turn must come after the turns that it waits for")
        start = self.intended_ns != ABSENT
        if np.any(start & has_parent):
            raise BrokenRun("a row has either an intended time or parents, not both")
        if self.concurrency is None and np.any(~start & ~has_parent):
            raise BrokenRun(
                "a row without an intended time and without parents needs a concurrency"
            )
        if np.any(self.intended_ns[start] < 0) or np.any(np.diff(self.intended_ns[start]) < 0):
            raise BrokenRun("intended times start at 0 or later and never fall")
        return self


def build_plan(
    rows: int,
    *,
    block_tokens: int = 0,
    concurrency: int | None = None,
    seed: int = 0,
    generator: str = "",
    replies: str = PLANNED,
    notes: tuple[str, ...] = (),
    **columns: Any,
) -> Plan:
    """A checked plan of `rows` requests; columns left out get their neutral value, scalars are broadcast."""
    neutral: dict[str, Any] = {
        "turn": 0,
        "app": "chat",
        "intended_ns": ABSENT,
        "think_ns": 0,
        "priority": 0,
    }
    neutral |= dict.fromkeys(("session_id", "model", "adapter", "tenant"))
    neutral["request_id"] = [f"r{row:08d}" for row in range(rows)]
    table = {
        name: _column(columns.pop(name, neutral.get(name)), dtype, rows)
        for name, (dtype, _) in PLAN_COLUMNS.items()
    }
    for offset_name, value_name in RAGGED:
        table[offset_name] = np.asarray(
            columns.pop(offset_name, np.zeros(rows + 1)), dtype=np.int64
        )
        table[value_name] = np.asarray(columns.pop(value_name, ()), dtype=np.int64)
    if columns:
        raise BrokenRun(f"a plan has no column {sorted(columns)[0]!r}")
    return Plan(
        **table,
        block_tokens=block_tokens,
        concurrency=concurrency,
        seed=seed,
        generator=generator,
        replies=replies,
        notes=notes,
    ).check()


def _names() -> tuple[str, ...]:
    return (*PLAN_COLUMNS, *(name for pair in RAGGED for name in pair))


def _canonical(column: Array) -> bytes:
    if column.dtype == object:
        return "\0".join("\x01" if value is None else str(value) for value in column).encode()
    return np.ascontiguousarray(column).astype(column.dtype.newbyteorder("<")).tobytes()


def _column(value: Any, dtype: Any, rows: int) -> Array:
    if value is None and dtype is not object:
        raise BrokenRun("a plan needs prompt_tokens and output_tokens")
    if dtype is object and (value is None or isinstance(value, str)):
        column = np.empty(rows, dtype=object)
        column[:] = value
        return column
    column = np.array(value, dtype=dtype)
    return np.full(rows, column, dtype=dtype) if column.ndim == 0 else column


def _take_ragged(offset: Ints, values: Ints, rows: Ints) -> tuple[Ints, Ints]:
    counts = np.diff(offset)[rows]
    new = offsets(counts)
    source = np.repeat(offset[rows] - new[:-1], counts) + np.arange(new[-1])
    return new, values[source]
