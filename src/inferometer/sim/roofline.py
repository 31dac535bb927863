"""An additive roofline: every kernel of a layer, the head, sampling, links and the host, each with its few constants.

The constants and where they come from: `devices.py`. What is added to a textbook roofline, because measured kernels ask
for it:
    GEMMs          go by the tokens of the batch and the precision of the weights; the head is never quantised; a precision
                   that a device has no kernels for is of the weights alone, and computes at the next wider one
    prefills       of one iteration are one kernel; few blocks leave multiprocessors idle (`fill`)
    decodes        alone read the exact sum of contexts, or compute with it, whichever takes longer
    mixed batches  where one kernel serves both (FlashAttention-2 without a split over the context: `waves`) a decode is a
                   block of 64 query rows of which one is real, so its time goes by query heads and arithmetic, not by KV
                   heads and bandwidth; elsewhere it reads its cache at a lower bandwidth than alone
    experts        the weights of those that a batch is expected to touch, the work of those that are active
    links          two all-reduces a layer; among expert-parallel replicas a dispatch and a combine
Sliding windows bound the context of their layers by n·window (exact while all are above or below it).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import numpy as np

from inferometer.sim.cost import HOST_S, Chunks
from inferometer.sim.devices import Device, Gemm
from inferometer.sim.kernel import PS_PER_S
from inferometer.sim.models import Model
from inferometer.timeline import Ints

# FlashAttention-2's blocks on compute capabilities 8.6, 8.9 and 12.0 at head size 128: query rows of a block; what starting
# one costs, in tokens of context; the share of a chunk that its mean row sees; the share of the last wave that is idle.
# Fitted to 27,000 mixed batches of two devices (mean error 6.7 and 7.8 %).
WAVE_ROWS, WAVE_START, WAVE_BETA, WAVE_TAIL = 64, 195.0, 0.55, 0.565
# Fused experts beside dense GEMMs: what routing, sorting and summing up take, and their share of the dense arithmetic rate
# (medians over 40,000 profiled kernels of five devices; single ones are off by -30 to +100 %).
EXPERTS_T0_S, EXPERTS_FLOPS = 25e-6, 0.65
SAMPLING_S, SAMPLING_BYTES = (
    25e-6,
    6.0,
)  # a batch's sampling: fixed, and per number of the vocabulary and sequence


class Roofline:
    """The model on `tp` x `pp` devices of a kind; `ep` replicas share their experts, each computing its own part of them."""

    def __init__(
        self,
        model: Model,
        device: Device,
        *,
        tp: int = 1,
        pp: int = 1,
        ep: int = 1,
        host_s: float = HOST_S,
    ) -> None:
        self._m, self._d, self._tp, self._pp, self._ep = model, device, tp, pp, ep
        self._host_s = host_s
        self._layer_gemm = gemm = device.kernels.gemm_of(model.precision)
        self._expert_gemm = msgspec.structs.replace(gemm, flops=gemm.flops * EXPERTS_FLOPS)
        self._linear: dict[tuple[int, int], tuple[float, float]] = {}
        kernels = device.kernels
        own = model.latent or -(-model.kv_heads // tp) * model.head_dim
        read = model.kv_bytes * (1 if model.latent else 2) * own
        deep = 2 * model.latent if model.latent else 2 * model.head_dim
        work = 2.0 * deep * model.heads / tp / (device.peak_flops * kernels.prefill_flops)
        self._per_context = max(read / (device.bandwidth * kernels.decode_bandwidth), work)
        mixed = min(kernels.decode_bandwidth, kernels.mixed_bandwidth)
        self._per_context_mixed = max(read / (device.bandwidth * mixed), work)
        qo = 4.0 * model.head_dim * model.heads / tp
        self._per_sequence = qo / (device.bandwidth * kernels.decode_qo_bandwidth)

    def step(self, chunks: Chunks, decoders: int, context: int) -> tuple[int, ...]:
        """Layers on every stage; the head on the last; the host's time on the first."""
        if not chunks and self._pp == 1:
            return (self.decode(decoders, context),)
        tokens = decoders + sum(chunk for chunk, _ in chunks)
        layers, head = self._fixed(tokens, decoders + len(chunks))
        stage = (layers + self._attention_s(chunks, decoders, context)) / self._pp
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
        attention = self._decode_s(decoders, context, self._per_context)
        total: float = (layers + attention * self._m.layers + head) * PS_PER_S
        return round(total)

    def decode_run(self, decoders: int, context: int, count: int) -> Ints:
        """The same operations on a vector of contexts."""
        layers, head = self._fixed(decoders, decoders)
        contexts = context + decoders * np.arange(count, dtype=np.int64)
        attention = self._decode_s(decoders, contexts, self._per_context)
        total = (layers + attention * self._m.layers + head) * PS_PER_S
        return np.asarray(np.rint(total), dtype=np.int64)

    def described(self) -> dict[str, Any]:
        """The constants, and from whom they are borrowed."""
        return {
            "kind": "roofline",
            "host_s": self._host_s,
            "precision": self._m.precision,
            "kernels": msgspec.to_builtins(self._d.kernels),
            "borrowed": self._d.borrowed,
        }

    # --- what goes by tokens ------------------------------------------------------------------------------------------

    def _fixed(self, tokens: int, sampled: int) -> tuple[float, float]:
        """What does not depend on contexts [s]: all layers, and the head with the host."""
        found = self._linear.get((tokens, sampled))
        if found is None:
            layers = self._layers_s(tokens)
            found = self._linear[tokens, sampled] = layers, self._head_s(sampled) + self._host_s
        return found

    def _head_s(self, sampled: int) -> float:
        """The head, one GEMM over the vocabulary, unquantised; its logits gathered from `tp` devices; sampling."""
        m, tp = self._m, self._tp
        columns = m.vocab / tp
        gemm = self._gemm_s(
            sampled, m.hidden, columns, self._d.kernels.gemm, weights=max(m.dtype_bytes, 2.0)
        )
        sampling = SAMPLING_S + SAMPLING_BYTES * sampled * m.vocab / self._d.bandwidth
        if tp == 1:
            return gemm + sampling
        alpha, rate = self._d.link(tp)
        return gemm + sampling + alpha + 2.0 * sampled * m.vocab * (tp - 1) / tp / rate

    def _layers_s(self, tokens: int) -> float:
        m = self._m
        attention = self._attention_gemms_s(tokens)
        dense = attention + self._mlp_s(tokens, m.dense_mlp or m.mlp)
        sparse = attention + (self._experts_s(tokens) if m.experts else 0.0)
        around = self._elementwise_s(tokens) + 2 * self._all_reduce_s(tokens)
        plain = m.dense_layers if m.experts else m.layers
        return plain * dense + (m.layers - plain) * sparse + m.layers * around

    def _attention_gemms_s(self, tokens: int) -> float:
        m, tp = self._m, self._tp
        wide = m.heads * m.head_dim / tp
        if m.latent:
            weights = m.attention_params / tp / m.hidden
            down = self._layer_s(tokens, wide, m.hidden)
            return self._layer_s(tokens, m.hidden, weights - wide) + down
        qkv = wide + 2 * -(-m.kv_heads // tp) * m.head_dim
        return self._layer_s(tokens, m.hidden, qkv) + self._layer_s(tokens, wide, m.hidden)

    def _mlp_s(self, tokens: int, width: int) -> float:
        m, wide = self._m, width / self._tp
        up = (2 if m.gated else 1) * wide
        return self._layer_s(tokens, m.hidden, up) + self._layer_s(tokens, wide, m.hidden)

    def _experts_s(self, tokens: int) -> float:
        """Routed experts: `active` MLPs per token, the weights of those that are touched; `ep` groups as busy as this one."""
        m, together = self._m, tokens * self._ep
        touched = m.experts * (1.0 - (1.0 - m.active_experts / m.experts) ** together)
        copies, wide, rows = touched / self._ep, m.mlp / self._tp, tokens * m.active_experts
        gemm, width = self._expert_gemm, m.dtype_bytes
        up_columns = (2 if m.gated else 1) * wide
        up = self._gemm_s(rows, m.hidden, up_columns, gemm, weights=width * copies)
        down = self._gemm_s(rows, wide, m.hidden, gemm, weights=width * copies)
        shared = self._mlp_s(tokens, m.shared_mlp) if m.shared_mlp else 0.0
        return EXPERTS_T0_S + up + down + shared + self._exchange_s(tokens)

    def _exchange_s(self, tokens: int) -> float:
        """Dispatch and combine among expert-parallel replicas: what leaves is (ep − 1)/ep of every active copy."""
        if self._ep == 1:
            return 0.0
        alpha, rate = self._d.link(self._ep)
        moved = 2.0 * tokens * self._m.hidden * min(self._m.active_experts, self._ep - 1)
        return 2 * (alpha + moved / rate)

    def _layer_s(self, rows: float, inner: float, columns: float) -> float:
        """One GEMM of a layer's weights."""
        return self._gemm_s(rows, inner, columns, self._layer_gemm, weights=self._m.dtype_bytes)

    def _gemm_s(
        self, rows: float, inner: float, columns: float, gemm: Gemm, *, weights: float
    ) -> float:
        """One GEMM of `rows` x `inner` x `columns`; `weights`: bytes that are read per entry of the weight matrix."""
        d = self._d
        compute = 2.0 * rows * inner * columns / (d.peak_flops * gemm.flops)
        moved = weights * inner * columns + 2.0 * rows * (inner + columns)
        memory = moved / (d.bandwidth * gemm.bandwidth)
        return float(gemm.t0_s + (compute**gemm.k + memory**gemm.k) ** (1.0 / gemm.k))

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

    # --- what goes by contexts ----------------------------------------------------------------------------------------

    def _attention_s(self, chunks: Chunks, decoders: int, context: int) -> float:
        """All layers' attention [s] of an iteration."""
        m = self._m
        apart = self._per_context_mixed
        if not chunks:
            return m.layers * float(self._decode_s(decoders, context, self._per_context))
        if self._d.kernels.waves is None:
            total = self._by_window(partial(self._prefills_s, chunks))
            decodes = self._decode_s(decoders, context, apart) if decoders else 0.0
            return total + m.layers * float(decodes)
        return self._by_window(partial(self._waves_s, chunks, decoders, context))

    def _by_window(self, layer: Callable[[int], float]) -> float:
        """All layers of a kernel whose time depends on the window (0: none)."""
        m = self._m
        if not m.window_layers:
            return m.layers * layer(0)
        return m.window_layers * layer(m.window) + (m.layers - m.window_layers) * layer(0)

    def _prefills_s(self, chunks: Chunks, window: int) -> float:
        """One layer's attention of the chunks: one kernel, its blocks spread over the device."""
        m, d, k = self._m, self._d, self._d.kernels
        heads, kv_heads = m.heads / self._tp, -(-m.kv_heads // self._tp)
        seen = tiles = moved = 0.0
        for chunk, past in chunks:
            near, own = _seen(past, k.prefill_beta * chunk, window)
            seen += chunk * (near + own)
            tiles += heads * -(-chunk // 128)
            moved += heads * chunk + kv_heads * (chunk + near)
        compute = 4.0 * heads * m.head_dim * seen / (d.peak_flops * k.prefill_flops)
        compute *= 1.0 + k.prefill_fill * d.sms / tiles
        memory = 2.0 * m.head_dim * moved * m.kv_bytes / (d.bandwidth * k.prefill_bandwidth)
        power = k.prefill_k
        return float(k.prefill_t0_s + (compute**power + memory**power) ** (1.0 / power))

    def _waves_s(self, chunks: Chunks, decoders: int, context: int, window: int) -> float:
        """One layer's attention of chunks and decoders in one kernel: waves of blocks, the last of them half full.

        The kernel ends with its longest block; that of the decoders has their mean context, for want of a longer one.
        """
        m, d, waves = self._m, self._d, self._d.kernels.waves
        assert waves is not None
        blocks = work = longest = 0.0
        for chunk, past in chunks:
            near, own = _seen(past, WAVE_BETA * chunk, window)
            rows = -(-chunk // WAVE_ROWS)
            blocks += rows
            work += rows * (near + own + WAVE_START)
            longest = max(longest, near + min(chunk, window or chunk) + WAVE_START)
        if decoders:
            near, _ = _seen(context / decoders, 0.0, window)
            blocks += decoders
            work += decoders * (near + WAVE_START)
            longest = max(longest, near + WAVE_START)
        heads = m.heads / self._tp
        full = heads * blocks > d.sms
        rounds = max(longest, heads * work / d.sms + (WAVE_TAIL * longest if full else 0.0))
        rate = d.peak_flops / d.sms * waves.flops
        return float(waves.t0_s + 4.0 * m.head_dim * WAVE_ROWS * rounds / rate)

    def _decode_s(self, decoders: int, context: Any, per_context: float) -> Any:
        """One layer's attention; `context` is a number or a vector, and the operations are the same for both."""
        m = self._m
        seen = context
        if m.window_layers:
            near = np.minimum(context, decoders * m.window)
            share = m.window_layers / m.layers
            seen = near * share + context * (1.0 - share)
        return self._d.kernels.decode_t0_s + seen * per_context + decoders * self._per_sequence


def _seen(past: float, own: float, window: int) -> tuple[float, float]:
    """How much of its past, and of itself, a chunk attends to, on average."""
    return (min(past, window), min(own, window)) if window else (past, own)
