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
    sliding-window layer sees; `window_layers` of the layers are such.
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
    def params(self) -> int:
        """All weights, embeddings included."""
        dense = self.attention_params + self.mlp_params(self.dense_mlp)
        body = self.dense_layers * dense + (self.layers - self.dense_layers) * self.layer_params
        return body + self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights as served."""
        return self.params * self.dtype_bytes

    def kv_bytes_per_token(self, tp: int = 1) -> float:
        """Bytes of KV cache that one token takes on one of `tp` devices, over all layers (whole heads only)."""
        if self.latent:
            return self.layers * self.latent * 2.0
        return self.layers * 2 * -(-self.kv_heads // tp) * self.head_dim * 2.0

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
    _m("qwen2.5-7b", "Qwen/Qwen2.5-7B", 2024, (28, 3584, 28, 4, 128, 18944, 152064, 131072)),
    _m("qwen2.5-32b", "Qwen/Qwen2.5-32B", 2024, (64, 5120, 40, 8, 128, 27648, 152064, 131072)),
    _m("qwen2.5-72b", "Qwen/Qwen2.5-72B", 2024, (80, 8192, 64, 8, 128, 29568, 152064, 131072)),
    _m("qwen3-8b", "Qwen/Qwen3-8B", 2025, (36, 4096, 32, 8, 128, 12288, 151936, 40960)),
    _m("qwen3-32b", "Qwen/Qwen3-32B", 2025, (64, 5120, 64, 8, 128, 25600, 151936, 40960)),
    _m("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", 2025, (48, 2048, 32, 4, 128, 768, 151936, 40960), experts=128, active_experts=8),
    _m("qwen3-235b-a22b", "Qwen/Qwen3-235B-A22B", 2025, (94, 4096, 64, 4, 128, 1536, 151936, 40960), experts=128, active_experts=8),
    _m("deepseek-v3", "deepseek-ai/DeepSeek-V3", 2024, (61, 7168, 128, 128, 128, 2048, 129280, 163840), experts=256,
       active_experts=8, shared_mlp=2048, dense_layers=3, dense_mlp=18432, latent=576, q_latent=1536, dtype_bytes=1.0),
    _m("opt-13b", "facebook/opt-13b", 2022, (40, 5120, 40, 40, 128, 20480, 50272, 2048), gated=False, tied=True),
    _m("opt-66b", "facebook/opt-66b", 2022, (64, 9216, 72, 72, 128, 36864, 50272, 2048), gated=False, tied=True),
    _m("opt-175b", "arXiv 2205.01068, table 1", 2022, (96, 12288, 96, 96, 128, 49152, 50272, 2048), gated=False, tied=True),
    _m("gpt-oss-20b", "openai/gpt-oss-20b", 2025, (24, 2880, 64, 8, 64, 2880, 201088, 131072), experts=32,
       active_experts=4, window=128, window_layers=12, dtype_bytes=0.5625),
    _m("gpt-oss-120b", "openai/gpt-oss-120b", 2025, (36, 2880, 64, 8, 64, 2880, 201088, 131072), experts=128,
       active_experts=4, window=128, window_layers=18, dtype_bytes=0.5625),
)
# fmt: on

MODELS = {model.name: model for model in _ALL}


def model(name: str) -> Model:
    """The model of a short name ("llama-3-8b"), of its repository's name, or of a path to a `config.json`."""
    if Path(name).is_file():
        return from_config(name)
    short = name.rsplit("/", 1)[-1].lower()
    for known in _ALL:
        if short in (known.name, known.source.rsplit("/", 1)[-1].lower()):
            return known
    loose = _bare(short)
    for known in _ALL:
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
    """The model of a Hugging Face `config.json` of a Llama-like architecture, dense or with experts."""
    try:
        raw = msgspec.json.decode(Path(path).read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"not a readable config.json ({error})", where=str(path)) from None
    if not isinstance(raw, dict):
        raise UserError("not a config.json: it holds no object", where=str(path))
    try:
        return _read(raw, Path(path))
    except KeyError as error:
        raise UserError(f"no {error} in it", where=str(path)) from None


def _read(raw: dict[str, Any], path: Path) -> Model:
    heads = raw["num_attention_heads"]
    experts = (
        raw.get("num_experts") or raw.get("num_local_experts") or raw.get("n_routed_experts") or 0
    )
    mlp = raw.get("intermediate_size") or raw["ffn_dim"]
    wide = raw.get("moe_intermediate_size") or mlp
    latent = raw.get("kv_lora_rank") or 0
    window = raw.get("sliding_window") or 0
    return Model(
        name=str(raw.get("_name_or_path") or path.parent.name or path.stem),
        source=path.name,
        year=0,
        layers=raw["num_hidden_layers"],
        hidden=raw["hidden_size"],
        heads=heads,
        kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("v_head_dim") or raw.get("head_dim") or raw["hidden_size"] // heads,
        mlp=wide if experts else mlp,
        vocab=raw["vocab_size"],
        context=raw.get("max_position_embeddings", 4096),
        gated=raw.get("hidden_act", raw.get("activation_function", "silu")) in ("silu", "swiglu"),
        tied=bool(raw.get("tie_word_embeddings", False)),
        experts=experts,
        active_experts=raw.get("num_experts_per_tok") or 0,
        shared_mlp=(raw.get("n_shared_experts") or 0) * wide,
        dense_layers=raw.get("first_k_dense_replace") or 0,
        dense_mlp=mlp if experts else 0,
        latent=latent + (raw.get("qk_rope_head_dim") or 0 if latent else 0),
        q_latent=raw.get("q_lora_rank") or 0,
        window=window if raw.get("use_sliding_window", True) else 0,
        window_layers=raw["num_hidden_layers"]
        if window and raw.get("use_sliding_window", True)
        else 0,
    )
