"""What the kernels of a model take on the machine at hand, measured with PyTorch (extra `[engines]`).

One layer's GEMMs, attention and elementwise work at a ladder of token counts, with random weights of the model's shapes; the
head at a ladder of sequences. Times are the median of repeats after a warm-up, the device synchronised around each. Weights
of successive repeats differ (a ring larger than the last-level cache, where memory allows), or else a small layer would be
read from the cache that a real model of many layers has long overwritten. No engine runs: what an engine adds (scheduling,
sampling, tokens sent) is `host_s`, an assumption that `inferometer profile URL` replaces by a measurement.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from inferometer.errors import UserError
from inferometer.sim.models import Model
from inferometer.sim.profiled import Profile

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128)
PREFILLS = ((128, 0), (512, 0), (1024, 0), (512, 1024))  # (chunk, past)
DECODES = ((1, 256), (1, 2048), (8, 256), (8, 1024))  # (sequences, context of each)
RING_BYTES = 256 << 20
REPEATS = 7
LIMIT_S = 120.0
DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}

Told = Callable[[str, int, int], None]
"""Called with (what is measured, how many are done, of how many)."""


class Asked(NamedTuple):
    """What to measure on what: `device` cpu or cuda, `dtype` a name of PyTorch's, at most `limit_s` seconds of it."""

    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    limit_s: float = LIMIT_S
    host_s: float = 0.5e-3


def profile_kernels(model: Model, asked: Asked, told: Told | None = None) -> Profile:
    """The profile of a dense model's layers on this machine; a UserError without PyTorch, or without the device."""
    torch = _torch(asked)
    bench = Bench(torch, asked)
    _check(model, torch, asked)
    with torch.inference_mode():
        times = Times(
            list(_layer(bench, model, told)),
            [(n, _head_s(bench, model, n)) for n in SEQUENCES],
            [_attention(bench, model, 1, chunk, past) for chunk, past in PREFILLS],
            [_attention(bench, model, n, 1, context) for n, context in DECODES],
        )
    return fitted(model, asked, times, bench.versions())


class Bench:
    """Times one thing at a time on one device."""

    def __init__(self, torch: Any, asked: Asked) -> None:
        self.torch, self.device = torch, asked.device
        self.dtype = getattr(torch, asked.dtype)
        self.width = DTYPES[asked.dtype]
        self._until = time.perf_counter() + asked.limit_s
        if asked.threads:
            torch.set_num_threads(asked.threads)

    @property
    def late(self) -> bool:
        """Whether the time for measuring is used up."""
        return time.perf_counter() > self._until

    def random(self, *shape: int) -> Any:
        """A tensor of random numbers, small enough that nothing overflows."""
        return self.torch.randn(*shape, dtype=self.dtype, device=self.device) * 0.02

    def ring(self, rows: int, columns: int) -> list[Any]:
        """Weight matrices of one shape, together larger than a cache."""
        count = max(1, min(64, RING_BYTES // (rows * columns * self.width)))
        return [self.random(rows, columns) for _ in range(count)]

    def seconds(self, run: Callable[[int], Any]) -> float:
        """The median time of `run(repeat)`; two repeats warm it up. At least 2 ms are timed at once."""
        run(0)
        start = time.perf_counter()
        run(1)
        self._settle()
        once = max(time.perf_counter() - start, 1e-7)
        batch = max(1, min(200, int(2e-3 / once)))
        times = []
        for repeat in range(3 if self.late else REPEATS):
            start = time.perf_counter()
            for j in range(batch):
                run(repeat * batch + j)
            self._settle()
            times.append((time.perf_counter() - start) / batch)
        return float(np.median(times))

    def versions(self) -> dict[str, str]:
        """What was measured with."""
        name = platform.processor() or platform.machine()
        if self.device == "cuda":
            name = self.torch.cuda.get_device_name()
        return {
            "torch": str(self.torch.__version__),
            "device": name,
            "threads": str(self.torch.get_num_threads()),
        }

    def _settle(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()


def _torch(asked: Asked) -> Any:
    try:
        torch: Any = import_module("torch")
    except ImportError:
        raise UserError(
            "PyTorch is not installed, and kernels are measured with it",
            where="profile",
            remedy="pip install 'inferometer[engines]', or profile a running engine: profile URL",
        ) from None
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no CUDA device here", where="--on", remedy="take cpu")
    return torch


def _check(model: Model, torch: Any, asked: Asked) -> None:
    if model.experts or model.latent:
        raise UserError(
            f"{model.name} has experts or latent attention; only dense layers are measured",
            where="--model",
            remedy="profile a running engine instead: inferometer profile URL",
        )
    needed = (model.layer_params + model.vocab * model.hidden) * DTYPES[
        asked.dtype
    ] + RING_BYTES * 6
    if asked.device == "cuda" and needed > torch.cuda.mem_get_info()[0]:
        raise UserError("a layer and the head do not fit into the device's memory", where="--model")


def _layer(bench: Bench, model: Model, told: Told | None) -> Iterator[tuple[int, float]]:
    """(tokens, time) of one layer without attention, up the ladder, until the time is used up (but for three)."""
    weights = _weights(bench, model)
    for done, tokens in enumerate(TOKENS):
        if bench.late and done >= 3:
            return
        if told:
            told("layers", done, len(TOKENS))
        x = bench.random(tokens, model.hidden)
        wide = bench.random(tokens, model.heads * model.head_dim)
        yield tokens, bench.seconds(partial(_run_layer, bench.torch, weights, x, wide))


def _weights(bench: Bench, model: Model) -> dict[str, list[Any]]:
    heads, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
    up = (2 if model.gated else 1) * model.mlp
    shapes = {
        "qkv": (heads + 2 * kv, model.hidden),
        "out": (model.hidden, heads),
        "up": (up, model.hidden),
        "down": (model.hidden, model.mlp),
    }
    return {name: bench.ring(*shape) for name, shape in shapes.items()}


def _run_layer(torch: Any, weights: dict[str, list[Any]], x: Any, wide: Any, i: int) -> Any:
    """A layer's work on [tokens, hidden] but attention: norms, four GEMMs, activation, residuals."""
    linear = torch.nn.functional.linear

    def at(name: str) -> Any:
        return weights[name][i % len(weights[name])]

    linear(_norm(torch, x), at("qkv"))
    x = x + linear(wide, at("out"))
    up = linear(_norm(torch, x), at("up"))
    mlp = at("down").shape[1]
    act = torch.nn.functional.silu(up[:, :mlp])
    return x + linear(act * up[:, mlp:] if up.shape[1] > mlp else act, at("down"))


def _norm(torch: Any, x: Any) -> Any:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def _head_s(bench: Bench, model: Model, sequences: int) -> float:
    weight = bench.random(model.vocab, model.hidden)
    x = bench.random(sequences, model.hidden)
    linear = bench.torch.nn.functional.linear
    return bench.seconds(lambda _: linear(x, weight).argmax(-1))


class Seen(NamedTuple):
    """One attention measurement: `sequences` of `chunk` queries each over `past` + `chunk` keys took `time_s`."""

    sequences: int
    chunk: int
    past: int
    time_s: float


def _attention(bench: Bench, model: Model, sequences: int, chunk: int, past: int) -> Seen:
    """One layer's attention kernel."""
    q = bench.random(sequences, model.heads, chunk, model.head_dim)
    k = bench.random(sequences, model.kv_heads, past + chunk, model.head_dim)
    attend = bench.torch.nn.functional.scaled_dot_product_attention
    causal = chunk > 1 and past == 0
    run = lambda _: attend(q, k, k, is_causal=causal, enable_gqa=model.gqa)  # noqa: E731
    return Seen(sequences, chunk, past, bench.seconds(run))


class Times(NamedTuple):
    """All measurements: (tokens, s) of one layer, (sequences, s) of the head, attention of prefills and of decodes."""

    layer: list[tuple[int, float]]
    head: list[tuple[int, float]]
    prefills: list[Seen]
    decodes: list[Seen]


def fitted(model: Model, asked: Asked, times: Times, versions: dict[str, str]) -> Profile:
    """All layers' times: attention as seconds per pair and per cached token, fitted through the points in relative error."""
    layer, head, prefills, decodes = times
    pair_s, prefill_s = _line(
        [(one.chunk * (one.past + 0.5 * one.chunk), one.time_s) for one in prefills]
    )
    context_s, decode_s = _line([(one.sequences * one.past, one.time_s) for one in decodes])
    fixed = min(prefill_s, decode_s)
    head_of = dict(head)
    return Profile(
        kind="kernels",
        model=model.name,
        device=f"{versions['device']}, {asked.dtype}, {versions['threads']} threads",
        tokens=tuple((n, model.layers * (time_s + fixed) + head_of[1]) for n, time_s in layer),
        sequences=tuple((n, time_s - head_of[1]) for n, time_s in head),
        pair_s=model.layers * pair_s,
        context_s=model.layers * context_s,
        host_s=asked.host_s,
        versions=versions,
        evidence={
            "layer": [list(one) for one in layer],
            "head": [list(one) for one in head],
            "attention": [list(one) for one in (*prefills, *decodes)],
        },
    )


def _line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(slope, constant) through the points, neither negative, least squares of relative errors."""
    from scipy.optimize import nnls

    x, y = np.array(points).T
    found, _ = nnls(np.column_stack([x / y, 1 / y]), np.ones(len(y)))
    return float(found[0]), float(found[1])
