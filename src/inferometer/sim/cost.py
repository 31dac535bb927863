"""How long an iteration takes: the only place in the simulator where durations come from.

A cost model sees what one iteration computes, never who asked for it: the prefill chunks (tokens, tokens before them),
how many sequences decode, and the sum of their contexts. It answers in whole picoseconds, one duration per pipeline
stage. A policy never supplies a time (implementation fairness).

The law that fast-forwarding rests on: `decode_run(n, context, k)[j] == decode(n, context + n * j)`, to the bit. So both
must do the same floating-point operations in the same order, and the rounding to picoseconds comes last.

Three models:
    VidurTables  operator times in Vidur's format under Vidur's folding rules, for checking mechanics to the digit
    Roofline     an additive roofline with the constants of `devices.py`
    Affine       a + b·tokens + c·sequences + d·context: for tests, closed forms, and `profile`s of the simplest kind
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from inferometer.errors import UserError
from inferometer.sim.devices import Device
from inferometer.sim.kernel import PS_PER_MS, PS_PER_S
from inferometer.sim.models import Model
from inferometer.timeline import Ints

Chunks = Sequence[tuple[int, int]]
"""(tokens, tokens of the same sequence that are already in the cache) of each prefill in an iteration."""

HOST_S = (
    1e-3  # per iteration: scheduling, sampling's bookkeeping, launches (0.5-2 ms seen in vLLM 0.19)
)


class Cost(Protocol):
    """What the engine asks."""

    def step(self, chunks: Chunks, decoders: int, context: int) -> tuple[int, ...]:
        """The duration [ps] of one iteration on each pipeline stage; `context` sums the decoders' cached tokens."""
        ...

    def decode(self, decoders: int, context: int) -> int:
        """The duration [ps] of a pure decode iteration on a pipeline of one stage."""
        ...

    def decode_run(self, decoders: int, context: int, count: int) -> Ints:
        """The durations [ps] of `count` of those in a row [count]: every context grows by one token each time."""
        ...

    def described(self) -> dict[str, Any]:
        """Plain data for the manifest: which model with what constants."""
        ...


@dataclass(frozen=True, slots=True)
class Affine:
    """fixed + per_token·(prefill tokens) + per_sequence·(decoders) + per_context·(their contexts) [ps]."""

    fixed: int
    per_token: int = 0
    per_sequence: int = 0
    per_context: int = 0
    stages: int = 1

    def step(self, chunks: Chunks, decoders: int, context: int) -> tuple[int, ...]:
        """The same on every stage."""
        prefill = self.per_token * sum(tokens for tokens, _ in chunks)
        return (prefill + self.decode(decoders, context),) * self.stages

    def decode(self, decoders: int, context: int) -> int:
        """One pure decode iteration."""
        return self.fixed + self.per_sequence * decoders + self.per_context * context

    def decode_run(self, decoders: int, context: int, count: int) -> Ints:
        """`count` of them."""
        first = self.decode(decoders, context)
        return first + self.per_context * decoders * np.arange(count, dtype=np.int64)

    def described(self) -> dict[str, Any]:
        """The constants."""
        return {"kind": "affine", **{name: getattr(self, name) for name in self.__slots__}}


# --- Vidur's tables ---------------------------------------------------------------------------------------------------

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


# --- the roofline -----------------------------------------------------------------------------------------------------


class Roofline:
    """An additive roofline: every kernel of a layer, the head, sampling, links and the host, each with its few constants.

    GEMMs go by the tokens of the batch; prefill attention by each chunk and its past; decode attention by the exact sum
    of contexts (at its own, lower, bandwidth beside prefills). Experts: the expected number that a batch touches is read
    from memory. Sliding windows bound the context of their layers by n·window (exact while all are above or below).
    Formulas and fits: `devices.py`.
    """

    def __init__(
        self, model: Model, device: Device, *, tp: int = 1, pp: int = 1, host_s: float = HOST_S
    ) -> None:
        self._m, self._d, self._tp, self._pp, self._host_s = model, device, tp, pp, host_s
        self._linear: dict[tuple[int, int], tuple[float, float]] = {}
        kernels = device.kernels
        kv = (
            2.0
            * (1 if model.latent else 2)
            * (model.latent or -(-model.kv_heads // tp) * model.head_dim)
        )
        self._per_context = kv / (device.bandwidth * kernels.decode_bandwidth)
        self._per_context_mixed = kv / (
            device.bandwidth * min(kernels.decode_bandwidth, kernels.mixed_bandwidth)
        )
        qo = 4.0 * model.head_dim * model.heads / tp
        self._per_sequence = qo / (device.bandwidth * kernels.decode_qo_bandwidth)

    def step(self, chunks: Chunks, decoders: int, context: int) -> tuple[int, ...]:
        """Layers on every stage; the head on the last; the host's time on the first."""
        if not chunks and self._pp == 1:
            return (self.decode(decoders, context),)
        tokens = decoders + sum(chunk for chunk, _ in chunks)
        layers, head = self._fixed(tokens, decoders + len(chunks))
        attention = sum(self._prefill_s(chunk, past) for chunk, past in chunks)
        if decoders:
            attention += self._decode_s(decoders, context, mixed=bool(chunks))
        stage = (layers + attention * self._m.layers) / self._pp
        if self._pp == 1:
            return (round((stage + head) * PS_PER_S),)
        alpha, rate = self._d.hop
        hop = stage + alpha + 2.0 * tokens * self._m.hidden / rate
        first, last = hop + self._host_s, stage + head - self._host_s
        times = [first, *[hop] * (self._pp - 2), last]
        return tuple(round(time * PS_PER_S) for time in times)

    def decode(self, decoders: int, context: int) -> int:
        """One pure decode iteration: affine in the sum of contexts."""
        layers, head = self._fixed(decoders, decoders)
        attention = self._decode_s(decoders, context, mixed=False)
        total: float = (layers + attention * self._m.layers + head) * PS_PER_S
        return round(total)

    def decode_run(self, decoders: int, context: int, count: int) -> Ints:
        """The same operations on a vector of contexts."""
        layers, head = self._fixed(decoders, decoders)
        contexts = context + decoders * np.arange(count, dtype=np.int64)
        attention = self._decode_s(decoders, contexts, mixed=False)
        total = (layers + attention * self._m.layers + head) * PS_PER_S
        return np.asarray(np.rint(total), dtype=np.int64)

    def described(self) -> dict[str, Any]:
        """The constants, and from whom they are borrowed."""
        import msgspec

        return {
            "kind": "roofline",
            "host_s": self._host_s,
            "kernels": msgspec.to_builtins(self._d.kernels),
            "borrowed": self._d.borrowed,
        }

    def _fixed(self, tokens: int, sampled: int) -> tuple[float, float]:
        """What does not depend on contexts [s]: all layers, and the head with the host."""
        found = self._linear.get((tokens, sampled))
        if found is None:
            layers = self._layers_s(tokens)
            head = self._gemm(sampled, self._m.hidden, self._m.vocab / self._tp) + self._host_s
            found = self._linear[tokens, sampled] = layers, head
        return found

    def _layers_s(self, tokens: int) -> float:
        m = self._m
        attention = self._attention_gemms_s(tokens)
        dense = attention + self._dense_mlp_s(tokens, m.dense_mlp or m.mlp)
        sparse = attention + (self._experts_s(tokens) if m.experts else 0.0)
        around = self._elementwise_s(tokens) + 2 * self._all_reduce_s(tokens)
        plain = m.dense_layers if m.experts else m.layers
        return plain * dense + (m.layers - plain) * sparse + m.layers * around

    def _attention_gemms_s(self, tokens: int) -> float:
        m, tp = self._m, self._tp
        wide = m.heads * m.head_dim / tp
        if m.latent:
            weights = m.attention_params / tp / m.hidden
            return self._gemm(tokens, m.hidden, weights - wide) + self._gemm(tokens, wide, m.hidden)
        qkv = wide + 2 * -(-m.kv_heads // tp) * m.head_dim
        return self._gemm(tokens, m.hidden, qkv) + self._gemm(tokens, wide, m.hidden)

    def _dense_mlp_s(self, tokens: int, width: int) -> float:
        m, wide = self._m, width / self._tp
        up = (2 if m.gated else 1) * wide
        return self._gemm(tokens, m.hidden, up) + self._gemm(tokens, wide, m.hidden)

    def _experts_s(self, tokens: int) -> float:
        """Routed experts: the work of `active` MLPs per token, the weights of those that the batch touches."""
        m = self._m
        touched = m.experts * (1.0 - (1.0 - m.active_experts / m.experts) ** tokens)
        wide = m.mlp / self._tp
        rows = tokens * m.active_experts
        up = self._gemm(rows, m.hidden, (2 if m.gated else 1) * wide, copies=touched)
        down = self._gemm(rows, wide, m.hidden, copies=touched)
        shared = self._dense_mlp_s(tokens, m.shared_mlp) if m.shared_mlp else 0.0
        return up + down + shared

    def _gemm(self, rows: int, inner: float, columns: float, *, copies: float = 1.0) -> float:
        d, k = self._d, self._d.kernels
        compute = 2.0 * rows * inner * columns / (d.peak_flops * k.gemm_flops)
        weights = self._m.dtype_bytes * copies * inner * columns
        moved = (weights + 2.0 * rows * (inner + columns)) / (d.bandwidth * k.gemm_bandwidth)
        return float(k.gemm_t0_s + (compute**k.gemm_k + moved**k.gemm_k) ** (1.0 / k.gemm_k))

    def _elementwise_s(self, tokens: int) -> float:
        """Activation, two norms, rotary embedding, two residual additions."""
        m, k = self._m, self._d.kernels
        width = m.active_experts * m.mlp if m.experts else m.mlp
        heads = (m.heads + m.kv_heads) * m.head_dim / self._tp
        moved = tokens * (6.0 * width / self._tp + 20.0 * m.hidden + 4.0 * heads)
        return 6 * k.elementwise_t0_s + moved / (self._d.bandwidth * k.elementwise_bandwidth)

    def _all_reduce_s(self, tokens: int) -> float:
        if self._tp == 1:
            return 0.0
        alpha, rate = self._d.link(self._tp)
        return alpha + 2.0 * tokens * self._m.hidden / rate

    def _prefill_s(self, chunk: int, past: int) -> float:
        """One layer's attention of a chunk, averaged over layers with and without a window."""
        m = self._m
        full = self._prefill_layer_s(chunk, past)
        if not m.window_layers or chunk + past <= m.window:
            return full
        near = self._prefill_layer_s(chunk, min(past, m.window))
        return (m.window_layers * near + (m.layers - m.window_layers) * full) / m.layers

    def _prefill_layer_s(self, chunk: int, past: int) -> float:
        m, d, k = self._m, self._d, self._d.kernels
        heads, kv_heads = m.heads / self._tp, -(-m.kv_heads // self._tp)
        flops = 4.0 * heads * m.head_dim * (chunk * past + k.prefill_beta * chunk * chunk)
        tiles = heads * -(-chunk // 128)
        compute = flops / (d.peak_flops * k.prefill_flops) * (1.0 + k.prefill_fill * d.sms / tiles)
        moved = 4.0 * m.head_dim * (heads * chunk + kv_heads * (chunk + past))
        memory = moved / (d.bandwidth * k.prefill_bandwidth)
        return float(
            k.prefill_t0_s + (compute**k.prefill_k + memory**k.prefill_k) ** (1.0 / k.prefill_k)
        )

    def _decode_s(self, decoders: int, context: Any, *, mixed: bool) -> Any:
        """One layer's attention; `context` is a number or a vector, and the operations are the same for both."""
        m = self._m
        per_context = self._per_context_mixed if mixed else self._per_context
        seen = context
        if m.window_layers:
            near = np.minimum(context, decoders * m.window)
            share = m.window_layers / m.layers
            seen = near * share + context * (1.0 - share)
        return self._d.kernels.decode_t0_s + seen * per_context + decoders * self._per_sequence
