"""Vidur's way of timing an iteration: operator times in its format, under its folding rules (`--cost vidur:FILE.npz`).

For checking the simulator's mechanics to the digit against Vidur's own results; nothing here is how we would model time.
The rules are those of microsoft/vidur 7d47513; what they leave out (head, sampling, host) is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from inferometer.errors import UserError
from inferometer.sim.cost import Chunks
from inferometer.sim.kernel import PS_PER_MS
from inferometer.sim.models import Model
from inferometer.timeline import Ints

_GRAIN = 64  # KV lengths are rounded up to this
_TOKEN_GRAIN = 8  # and token counts to this
_PER_TOKEN = (
    "attn_pre_proj",
    "attn_post_proj",
    "attn_rope",
    "input_layernorm",
    "mlp_up_proj",
    "mlp_down_proj",
    "mlp_act",
    "post_attention_layernorm",
    "add",
)
_LAUNCH_MS = 0.02  # Vidur's NCCL launch overhead, per all-reduce
_BATCHING = (
    1.1  # its overhead of more than one sequence in an attention kernel, for models with GQA
)


class VidurTables:
    """Operator times [ms] of one layer, folded as Vidur folds them (microsoft/vidur 7d47513).

    A layer is the sum of its operators at the token count rounded up to 8; the KV save goes by the exact count. Prefills
    fold into one: their rounded caches add up, their chunks as the root of the sum of squares. Decodes fold into
    (how many, mean context rounded up to 64). A count beyond the table takes the table's last entry, where Vidur raises
    a KeyError: its forests are constant beyond what they were trained on.
    """

    def __init__(self, path: str | Path, model: Model, *, tp: int = 1, pp: int = 1) -> None:
        self.path = Path(path)
        tables = _read_tables(self.path)
        linear = sum(_dense(tables, name) for name in _PER_TOKEN)
        if tp > 1:
            linear = linear + 2 * (_dense(tables, "all_reduce") + _LAUNCH_MS)
        self._layers = model.layers // pp
        self._pp = pp
        self._linear: list[float] = linear[_TOKEN_GRAIN - 1 :: _TOKEN_GRAIN].tolist()
        self._save: list[float] = _dense(tables, "attn_kv_cache_save").tolist()
        hop = _dense(tables, "send_recv") if pp > 1 else np.zeros(1)
        self._hop: list[float] = hop[_TOKEN_GRAIN - 1 :: _TOKEN_GRAIN].tolist()
        self._batching = _BATCHING if model.gqa else 1.0
        self._prefill = _grid(tables, "attn_prefill", _squares)
        self._decode = _grid(tables, "attn_decode", None)
        self._pure: dict[tuple[int, int], tuple[int, ...]] = {}
        self._rows: dict[int, tuple[list[int], Ints]] = {}

    def step(self, chunks: Chunks, decoders: int, context: int) -> tuple[int, ...]:
        """Every stage but the last also sends its result on."""
        bucket = (context // decoders + _GRAIN - 1) // _GRAIN if decoders else 0
        if chunks:
            return self._stages(chunks, decoders, bucket)
        found = self._pure.get((decoders, bucket))
        if found is None:
            found = self._pure[decoders, bucket] = self._stages((), decoders, bucket)
        return found

    def decode(self, decoders: int, context: int) -> int:
        """One pure decode iteration: constant while the mean context stays within 64 tokens."""
        row = self._rows.get(decoders) or self._row(decoders)
        return _at_int(row[0], (context // decoders + _GRAIN - 1) // _GRAIN)

    def decode_run(self, decoders: int, context: int, count: int) -> Ints:
        """The same, for means that grow by one."""
        row = self._rows.get(decoders) or self._row(decoders)
        means = context // decoders + np.arange(_GRAIN - 1, _GRAIN - 1 + count)
        return row[1][np.minimum(means // _GRAIN, len(row[1]) - 1)]

    def described(self) -> dict[str, Any]:
        """Which file."""
        return {"kind": "vidur", "file": self.path.name}

    def _stages(self, chunks: Chunks, decoders: int, bucket: int) -> tuple[int, ...]:
        tokens = decoders
        for chunk, _ in chunks:
            tokens += chunk
        rounded = (tokens - 1) // _TOKEN_GRAIN
        layer = _at(self._linear, rounded) + _at(self._save, tokens - 1)
        if chunks:
            layer += self._prefill_ms(chunks)
        if decoders:
            layer += self._decode_ms(decoders, bucket)
        stage = layer * self._layers
        if self._pp == 1:
            return (round(stage * PS_PER_MS),)
        hop = round((stage + _at(self._hop, rounded)) * PS_PER_MS)
        return (hop,) * (self._pp - 1) + (round(stage * PS_PER_MS),)

    def _row(self, decoders: int) -> tuple[list[int], Ints]:
        """The iteration's time for `decoders` sequences, by mean context / 64."""
        buckets = self._decode.shape[1]
        times = [self._stages((), decoders, bucket)[0] for bucket in range(buckets)]
        row = self._rows[decoders] = times, np.array(times, dtype=np.int64)
        return row

    def _prefill_ms(self, chunks: Chunks) -> float:
        if len(chunks) == 1:
            chunk, past = chunks[0]
            caches, factor = (past + _GRAIN - 1) // _GRAIN, 1.0
        else:
            caches = sum((past + _GRAIN - 1) // _GRAIN for _, past in chunks)
            chunk = round(sum(chunk**2 for chunk, _ in chunks) ** 0.5)
            factor = self._batching
        grid = self._prefill
        rows, columns = grid.shape
        return float(grid[min(caches, rows - 1), min(chunk, columns) - 1]) * factor

    def _decode_ms(self, decoders: int, bucket: int) -> float:
        rows, columns = self._decode.shape
        time = float(self._decode[min(decoders, rows) - 1, min(bucket, columns - 1)])
        return time * (self._batching if decoders > 1 else 1.0)


def _read_tables(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise UserError(
            f"not a readable .npz of operator times ({error})", where=str(path)
        ) from None


def _dense(tables: dict[str, Any], name: str) -> Any:
    """The times [ms] for 1, 2, 3, ... tokens [N]."""
    key, ms = _pair(tables, name)
    if not np.array_equal(key[:, 0], np.arange(1, len(key) + 1)):
        raise UserError(f"{name} does not hold every token count from 1 up", where="--cost")
    return ms


def _grid(tables: dict[str, Any], name: str, second: Any) -> Any:
    """The times [ms] of a table with two keys, as [first key, second key]; both are dense and in order."""
    key, ms = _pair(tables, name)
    columns = int(np.argmax(key[:, 0] != key[0, 0])) or len(key)
    grid = ms.reshape(-1, columns)
    want = second(columns) if second else np.arange(columns) * _GRAIN
    if not np.array_equal(key[:columns, 1], want):
        raise UserError(f"{name} does not hold a dense grid", where="--cost")
    return grid


def _squares(columns: int) -> Ints:
    return np.arange(1, columns + 1, dtype=np.int64) ** 2


def _pair(tables: dict[str, Any], name: str) -> tuple[Any, Any]:
    try:
        return tables[f"{name}__key"], tables[f"{name}__ms"]
    except KeyError:
        raise UserError(
            f"no table {name!r} in it", where="--cost", remedy="take the file of this tp and pp"
        ) from None


def _at(table: list[float], place: int) -> float:
    return table[place] if place < len(table) else table[-1]


def _at_int(table: list[int], place: int) -> int:
    return table[place] if place < len(table) else table[-1]
