"""Model architectures as data: what a cost model and a memory planner must know, and nothing else.

Every entry is the model's published Hugging Face `config.json` (the repository is its `source`), except OPT-175B, whose
weights are gated: Zhang et al., arXiv 2205.01068, table 1. `from_config` reads any other `config.json`.
Sizes are counts, not bytes; `dtype_bytes` is the weights' and the cache's width as served by default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from inferometer.errors import UserError
from inferometer.spec import Spec


class Model(Spec, frozen=True):
    """A decoder-only transformer.

    `mlp` is the width of one (expert's) MLP; `gated` MLPs have three matrices, others two. `experts` 0 is a dense model.
    `shared_mlp`: the width of what every token passes besides its experts. `latent` > 0: multi-head latent attention,
    whose cache holds `latent` numbers per token and layer, the same on every device. `window` > 0: tokens that a
    sliding-window layer sees; `window_layers` of the layers are such. `precision` names the GEMMs' kernels (`PRECISIONS`),
    `kv_bytes` the width of a number in the cache.
    """

    name: str
    source: str
    year: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    context: int
    gated: bool = True
    tied: bool = False
    experts: int = 0
    active_experts: int = 0
    shared_mlp: int = 0
    dense_layers: int = 0
    dense_mlp: int = 0
    latent: int = 0
    q_latent: int = 0
    window: int = 0
    window_layers: int = 0
    dtype_bytes: float = 2.0
    precision: str = "bf16"
    kv_bytes: float = 2.0

    @property
    def gqa(self) -> bool:
        """Whether several query heads share one KV head."""
        return self.heads != self.kv_heads

    @property
    def attention_params(self) -> int:
        """Weights of one layer's attention."""
        wide = self.heads * self.head_dim
        if self.latent:
            q = self.q_latent * (self.hidden + wide) if self.q_latent else self.hidden * wide
            return q + self.latent * self.hidden + 2 * self.latent * wide + wide * self.hidden
        return 2 * self.hidden * (wide + self.kv_heads * self.head_dim)

    def mlp_params(self, width: int) -> int:
        """Weights of one MLP of that width."""
        return (3 if self.gated else 2) * self.hidden * width

    @property
    def layer_params(self) -> int:
        """Weights of one (sparse, where there are any) layer."""
        if not self.experts:
            return self.attention_params + self.mlp_params(self.mlp)
        moe = self.experts * self.mlp_params(self.mlp) + self.mlp_params(self.shared_mlp)
        return self.attention_params + moe + self.hidden * self.experts

    @property
    def embedding_params(self) -> int:
        """Weights of the embedding and the head."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def params(self) -> int:
        """All weights, embeddings included."""
        dense = self.attention_params + self.mlp_params(self.dense_mlp)
        body = self.dense_layers * dense + (self.layers - self.dense_layers) * self.layer_params
        return body + self.embedding_params

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights as served; embedding and head are never quantised."""
        body = self.params - self.embedding_params
        return body * self.dtype_bytes + self.embedding_params * max(self.dtype_bytes, 2.0)

    def kv_bytes_per_token(self, tp: int = 1) -> float:
        """Bytes of KV cache that one token takes on one of `tp` devices, over all layers (whole heads only)."""
        if self.latent:
            return self.layers * self.latent * self.kv_bytes
        return self.layers * 2 * -(-self.kv_heads // tp) * self.head_dim * self.kv_bytes

    @property
    def growing_layers(self) -> int:
        """Layers whose cache grows with the context without a bound; all, where every layer has a window."""
        return self.layers - self.window_layers or self.layers

    def check_parallel(self, tp: int, pp: int) -> None:
        """A UserError where `tp` does not divide the heads or `pp` the layers."""
        if self.heads % tp or (self.kv_heads % tp and tp % self.kv_heads):
            raise UserError(
                f"{tp} does not divide the {self.heads} heads ({self.kv_heads} KV heads) of {self.name}",
                where="--tp",
            )
        if self.layers % pp:
            raise UserError(
                f"{pp} does not divide the {self.layers} layers of {self.name}", where="--pp"
            )


PRECISIONS = {"bf16": 2.0, "fp8": 1.0, "fp4": 0.5625, "int8": 1.0, "int4": 0.53125}
"""Bytes of a weight, scales included (NVFP4 and MXFP4: a byte per 16 or 32 numbers; int4: groups of 128)."""


def served(model: Model, precision: str | None, kv: str | None) -> Model:
    """The model as it is served: with weights of `precision` and a cache of `kv` (None: as published)."""
    for name, where in ((precision, "--precision"), (kv, "--kv-precision")):
        if name is not None and name not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise UserError(f"no such precision: {name!r}", where=where, remedy=f"take of {known}")
    if precision is not None:
        width = PRECISIONS[precision]
        model = msgspec.structs.replace(model, precision=precision, dtype_bytes=width)
    return msgspec.structs.replace(model, kv_bytes=PRECISIONS[kv]) if kv is not None else model


def _m(name: str, source: str, year: int, shape: tuple[int, ...], **rest: Any) -> Model:
    layers, hidden, heads, kv_heads, head_dim, mlp, vocab, context = shape
    return Model(
        name=name,
        source=source,
        year=year,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=mlp,
        vocab=vocab,
        context=context,
        **rest,
    )


# name, source, year, (layers, hidden, heads, kv heads, head dim, mlp, vocabulary, context)
# fmt: off
_ALL = (
    _m("llama-2-7b", "meta-llama/Llama-2-7b-hf", 2023, (32, 4096, 32, 32, 128, 11008, 32000, 4096)),
    _m("llama-2-13b", "meta-llama/Llama-2-13b-hf", 2023, (40, 5120, 40, 40, 128, 13824, 32000, 4096)),
    _m("llama-2-70b", "meta-llama/Llama-2-70b-hf", 2023, (80, 8192, 64, 8, 128, 28672, 32000, 4096)),
    _m("llama-3-8b", "meta-llama/Meta-Llama-3-8B", 2024, (32, 4096, 32, 8, 128, 14336, 128256, 8192)),
    _m("llama-3-70b", "meta-llama/Meta-Llama-3-70B", 2024, (80, 8192, 64, 8, 128, 28672, 128256, 8192)),
    _m("llama-3.1-8b", "meta-llama/Llama-3.1-8B", 2024, (32, 4096, 32, 8, 128, 14336, 128256, 131072)),
    _m("llama-3.1-70b", "meta-llama/Llama-3.1-70B", 2024, (80, 8192, 64, 8, 128, 28672, 128256, 131072)),
    _m("llama-3.1-405b", "meta-llama/Llama-3.1-405B", 2024, (126, 16384, 128, 8, 128, 53248, 128256, 131072)),
    _m("llama-3.2-1b", "meta-llama/Llama-3.2-1B", 2024, (16, 2048, 32, 8, 64, 8192, 128256, 131072), tied=True),
    _m("llama-3.2-3b", "meta-llama/Llama-3.2-3B", 2024, (28, 3072, 24, 8, 128, 8192, 128256, 131072), tied=True),
    _m("llama-3.3-70b", "meta-llama/Llama-3.3-70B-Instruct", 2024, (80, 8192, 64, 8, 128, 28672, 128256, 131072)),
    _m("mistral-7b", "mistralai/Mistral-7B-v0.1", 2023, (32, 4096, 32, 8, 128, 14336, 32000, 32768), window=4096, window_layers=32),
    _m("mixtral-8x7b", "mistralai/Mixtral-8x7B-v0.1", 2023, (32, 4096, 32, 8, 128, 14336, 32000, 32768), experts=8, active_experts=2),
    _m("yi-34b", "01-ai/Yi-34B-200K", 2023, (60, 7168, 56, 8, 128, 20480, 64000, 200000)),
    _m("falcon-180b", "tiiuae/falcon-180B", 2023, (80, 14848, 232, 8, 64, 59392, 65024, 2048), gated=False, tied=True),
    _m("yi-6b", "01-ai/Yi-6B", 2023, (32, 4096, 32, 4, 128, 11008, 64000, 4096)),
    _m("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B", 2024, (24, 896, 14, 2, 64, 4864, 151936, 32768), tied=True),
    _m("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B", 2024, (28, 1536, 12, 2, 128, 8960, 151936, 131072), tied=True),
    _m("qwen2.5-7b", "Qwen/Qwen2.5-7B", 2024, (28, 3584, 28, 4, 128, 18944, 152064, 131072)),
    _m("qwen2.5-14b", "Qwen/Qwen2.5-14B", 2024, (48, 5120, 40, 8, 128, 13824, 152064, 131072)),
    _m("qwen2.5-32b", "Qwen/Qwen2.5-32B", 2024, (64, 5120, 40, 8, 128, 27648, 152064, 131072)),
    _m("qwen2.5-72b", "Qwen/Qwen2.5-72B", 2024, (80, 8192, 64, 8, 128, 29568, 152064, 131072)),
    _m("qwen3-0.6b", "Qwen/Qwen3-0.6B", 2025, (28, 1024, 16, 8, 128, 3072, 151936, 40960), tied=True),
    _m("qwen3-4b", "Qwen/Qwen3-4B", 2025, (36, 2560, 32, 8, 128, 9728, 151936, 40960), tied=True),
    _m("qwen3-8b", "Qwen/Qwen3-8B", 2025, (36, 4096, 32, 8, 128, 12288, 151936, 40960)),
    _m("qwen3-14b", "Qwen/Qwen3-14B", 2025, (40, 5120, 40, 8, 128, 17408, 151936, 40960)),
    _m("qwen3-32b", "Qwen/Qwen3-32B", 2025, (64, 5120, 64, 8, 128, 25600, 151936, 40960)),
    _m("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", 2025, (48, 2048, 32, 4, 128, 768, 151936, 40960), experts=128, active_experts=8),
    _m("qwen3-235b-a22b", "Qwen/Qwen3-235B-A22B", 2025, (94, 4096, 64, 4, 128, 1536, 151936, 40960), experts=128, active_experts=8),
    _m("deepseek-v3", "deepseek-ai/DeepSeek-V3", 2024, (61, 7168, 128, 128, 128, 2048, 129280, 163840), experts=256,
       active_experts=8, shared_mlp=2048, dense_layers=3, dense_mlp=18432, latent=576, q_latent=1536, dtype_bytes=1.0, precision="fp8"),
    _m("opt-6.7b", "facebook/opt-6.7b", 2022, (32, 4096, 32, 32, 128, 16384, 50272, 2048), gated=False, tied=True),
    _m("opt-13b", "facebook/opt-13b", 2022, (40, 5120, 40, 40, 128, 20480, 50272, 2048), gated=False, tied=True),
    _m("opt-66b", "facebook/opt-66b", 2022, (64, 9216, 72, 72, 128, 36864, 50272, 2048), gated=False, tied=True),
    _m("opt-175b", "arXiv 2205.01068, table 1", 2022, (96, 12288, 96, 96, 128, 49152, 50272, 2048), gated=False, tied=True),
    _m("gpt-oss-20b", "openai/gpt-oss-20b", 2025, (24, 2880, 64, 8, 64, 2880, 201088, 131072), experts=32,
       active_experts=4, window=128, window_layers=12, dtype_bytes=0.5625, precision="fp4"),
    _m("gpt-oss-120b", "openai/gpt-oss-120b", 2025, (36, 2880, 64, 8, 64, 2880, 201088, 131072), experts=128,
       active_experts=4, window=128, window_layers=18, dtype_bytes=0.5625, precision="fp4"),
)
# fmt: on

MODELS = {model.name: model for model in _ALL}
MODELS["deepseek-r1"] = msgspec.structs.replace(
    MODELS["deepseek-v3"], name="deepseek-r1", source="deepseek-ai/DeepSeek-R1", year=2025
)


def model(name: str) -> Model:
    """The model of a short name ("llama-3-8b"), of its repository's name, or of a path to a `config.json`."""
    if Path(name).is_file():
        return from_config(name)
    short = name.rsplit("/", 1)[-1].lower()
    for known in MODELS.values():
        if short in (known.name, known.source.rsplit("/", 1)[-1].lower()):
            return known
    loose = _bare(short)
    for known in MODELS.values():
        if loose in (_bare(known.name), _bare(known.source.rsplit("/", 1)[-1].lower())):
            return known
    raise UserError(
        f"no such model: {name!r}",
        where="--model",
        remedy="take one of " + ", ".join(MODELS) + ", or name a config.json",
    )


def _bare(name: str) -> str:
    for word in ("meta-", "-hf", "-instruct", "-chat", "-v0.1"):
        name = name.replace(word, "")
    return name.replace("-", "").replace(".", "")


def from_config(path: str | Path) -> Model:
    """The model of a Hugging Face `config.json` of a decoder-only transformer, dense or with experts."""
    try:
        raw = msgspec.json.decode(Path(path).read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"not a readable config.json ({error})", where=str(path)) from None
    if not isinstance(raw, dict):
        raise UserError("not a config.json: it holds no object", where=str(path))
    found = _read(raw, Path(path))
    if found.heads % found.kv_heads:
        raise UserError(
            f"{found.kv_heads} KV heads do not divide {found.heads} heads", where=str(path)
        )
    return found


def _read(raw: dict[str, Any], path: Path) -> Model:
    """Names differ between families; a multimodal model's language part is its `text_config`."""
    raw = raw | (raw.get("text_config") or raw.get("llm_config") or {})
    layers = _count(raw, path, "num_hidden_layers", "n_layer", "num_layers")
    hidden = _count(raw, path, "hidden_size", "n_embd", "d_model")
    heads = _count(raw, path, "num_attention_heads", "n_head", "n_heads")
    latent = _size(raw, "kv_lora_rank")
    mlp = _size(raw, "intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner") or 4 * hidden
    return Model(
        name=str(raw.get("_name_or_path") or path.resolve().parent.name)
        .rstrip("/")
        .rsplit("/", 1)[-1],
        source=path.name,
        year=0,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(raw, heads),
        head_dim=_size(raw, "v_head_dim", "head_dim") or hidden // heads,
        vocab=_count(raw, path, "vocab_size"),
        context=_size(raw, "max_position_embeddings", "n_positions", "max_seq_len") or 4096,
        gated=_act(raw) in ("silu", "swiglu", "gelu_pytorch_tanh", "geglu"),
        tied=bool(raw.get("tie_word_embeddings", False)),
        latent=latent + _size(raw, "qk_rope_head_dim") if latent else 0,
        q_latent=_size(raw, "q_lora_rank"),
        dtype_bytes=_width(raw),
        precision=_precision(raw),
        **_mixture(raw, layers, mlp),
        **_windows(raw, layers),
    )


def _size(raw: dict[str, Any], *names: str) -> int:
    """The first of these that is given; 0 where none is, or where it is null."""
    for name in names:
        value = raw.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return 0


def _count(raw: dict[str, Any], path: Path, *names: str) -> int:
    """The same, of what no model is without."""
    found = _size(raw, *names)
    if not found:
        wrong = next((f"{name} is {raw[name]!r}" for name in names if name in raw), None)
        raise UserError(wrong or f"no {names[0]!r} in it", where=str(path))
    return found


def _kv_heads(raw: dict[str, Any], heads: int) -> int:
    if raw.get("multi_query") and not raw.get("new_decoder_architecture"):
        return 1  # Falcon's first ones
    return (
        _size(raw, "num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
        or heads
    )


def _act(raw: dict[str, Any]) -> str:
    name = raw.get("hidden_act") or raw.get("hidden_activation") or raw.get("activation_function")
    return str(name or raw.get("activation") or ("relu" if "ffn_dim" in raw else "silu"))


def _mixture(raw: dict[str, Any], layers: int, mlp: int) -> dict[str, Any]:
    """The MLPs: dense; or experts in all layers but some."""
    experts = _size(raw, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    if not experts:
        return {"mlp": mlp}
    wide = _size(raw, "moe_intermediate_size", "expert_ffn_hidden_size") or mlp
    every = _size(raw, "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq") or 1
    listed = raw.get("mlp_only_layers")
    dense = len(listed) if isinstance(listed, list) else 0
    dense += _size(raw, "first_k_dense_replace") + (layers - layers // every)
    shared = _size(raw, "shared_expert_intermediate_size") or _size(raw, "n_shared_experts") * wide
    return {
        "mlp": wide,
        "experts": experts,
        "active_experts": _size(raw, "num_experts_per_tok", "num_experts_per_token", "moe_top_k")
        or min(2, experts),
        "shared_mlp": shared,
        "dense_layers": min(dense, layers),
        "dense_mlp": _size(raw, "intermediate_size_mlp") or mlp,
    }


def _windows(raw: dict[str, Any], layers: int) -> dict[str, Any]:
    """How many layers see only so much: as listed, by a pattern, from some layer on, or all."""
    window = _size(raw, "sliding_window", "attention_window_size")
    if not window or not raw.get("use_sliding_window", True):
        return {}
    kinds, every = raw.get("layer_types"), _size(raw, "sliding_window_pattern")
    if isinstance(kinds, list):
        near = sum("sliding" in str(kind) for kind in kinds[:layers])
    elif every:
        near = layers - layers // every  # every n-th sees everything
    else:
        near = layers - min(_size(raw, "max_window_layers"), layers)
    return {"window": window, "window_layers": near} if near else {}


_BITS = {"fp8": 8, "mxfp4": 4.25, "nvfp4": 4.5, "compressed-tensors": 8, "modelopt": 8}


def _precision(raw: dict[str, Any]) -> str:
    """Which GEMMs the weights ask for: those of floats of 8 or 4 bits; whole numbers are widened as they are read."""
    how = raw.get("quantization_config")
    method = str(how.get("quant_method")) if isinstance(how, dict) else ""
    return {"fp8": "fp8", "fbgemm_fp8": "fp8", "mxfp4": "fp4", "nvfp4": "fp4"}.get(method, "bf16")


def _width(raw: dict[str, Any]) -> float:
    """Bytes of a weight as served: what it is quantised to, else two (engines serve 32-bit weights as 16)."""
    how = raw.get("quantization_config")
    if not isinstance(how, dict):
        return 2.0
    bits = _size(how, "bits", "weight_bits", "w_bit") or _BITS.get(str(how.get("quant_method")))
    if how.get("load_in_4bit") or how.get("load_in_8bit"):
        bits = 4 if how.get("load_in_4bit") else 8
    return bits / 8 if bits else 2.0
