"""Models, devices and pools against published numbers."""

from __future__ import annotations

import re

import msgspec
import pytest

from inferometer.errors import UserError
from inferometer.sim.devices import DEVICES, device
from inferometer.sim.memory import blocks, host, vidur_blocks
from inferometer.sim.models import MODELS, from_config, model


@pytest.mark.parametrize(
    ("name", "billions", "tolerance"),
    [
        ("llama-2-7b", 6.74, 0.01),
        ("llama-2-70b", 68.98, 0.01),
        ("llama-3-8b", 8.03, 0.01),
        ("llama-3.1-405b", 405.9, 0.01),
        ("llama-3.2-1b", 1.236, 0.01),
        ("mistral-7b", 7.24, 0.01),
        ("mixtral-8x7b", 46.7, 0.01),
        ("yi-34b", 34.4, 0.01),
        ("falcon-180b", 179.5, 0.02),
        ("qwen2.5-72b", 72.7, 0.01),
        ("qwen3-32b", 32.8, 0.01),
        ("qwen3-30b-a3b", 30.5, 0.01),
        ("qwen3-235b-a22b", 235.1, 0.01),
        ("deepseek-v3", 671.0, 0.02),
        ("opt-13b", 12.85, 0.02),
        ("opt-175b", 174.6, 0.02),
        ("gpt-oss-120b", 116.8, 0.02),
        ("gpt-oss-20b", 20.9, 0.02),
        ("yi-6b", 6.06, 0.01),
        ("qwen2.5-0.5b", 0.494, 0.01),
        ("qwen2.5-1.5b", 1.54, 0.01),
        ("qwen2.5-14b", 14.8, 0.01),
        ("qwen3-0.6b", 0.596, 0.01),
        ("qwen3-4b", 4.02, 0.01),
        ("qwen3-14b", 14.8, 0.01),
        ("opt-6.7b", 6.66, 0.02),
    ],
)
def test_parameter_counts_are_the_published_ones(name, billions, tolerance):
    """The model cards' total parameter counts follow from the shapes."""
    assert model(name).params / 1e9 == pytest.approx(billions, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "kib"),
    [
        ("opt-13b", 800),  # vLLM, SOSP'23, section 3: 800 KB per token
        ("llama-2-7b", 512),
        ("llama-3-8b", 128),
        ("llama-2-70b", 320),
        ("yi-34b", 240),
        # Zhao et al., Insights into DeepSeek-V3 (arXiv 2505.09343), table 1: 70.272, 327.680 and 516.096 KB
        ("deepseek-v3", 70_272 / 1024),
        ("qwen2.5-72b", 327_680 / 1024),
        ("llama-3.1-405b", 516_096 / 1024),
        ("llama-2-13b", 800),
        ("opt-175b", 4608),
        ("falcon-180b", 160),
        ("mixtral-8x7b", 128),
        ("gpt-oss-20b", 48),
    ],
)
def test_kv_bytes_per_token_are_the_published_ones(name, kib):
    """2 x layers x KV heads x head dimension x 2 bytes, or the latent."""
    assert model(name).kv_bytes_per_token() == pytest.approx(kib * 1024, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "on", "tp", "tokens", "within"),
    [
        # Kwon et al., SOSP'23, table 1: KV slots of OPT
        ("opt-13b", "a100-40gb", 1, 15_700, 0.15),
        ("opt-175b", "a100", 8, 60_100, 0.15),
        ("llama-3.1-8b", "rtx4090", 1, 2_588 * 16, 0.03),  # what a vLLM 0.19 server reported
    ],
)
def test_pools_are_about_as_large_as_engines_report(name, on, tp, tokens, within):
    """Memory x 0.9 - weights - activations, in tokens."""
    plan = blocks(model(name), device(on), tp=tp, pp=1, block=16, max_tokens=2048)
    assert plan.blocks * 16 == pytest.approx(tokens, rel=within)


def test_layers_with_a_window_do_not_grow():
    """Half of GPT-OSS's layers see 128 tokens: a block is that of the other half, and the windows have their room."""
    found, on = model("gpt-oss-20b"), device("h100")
    plan = blocks(found, on, tp=1, pp=1, block=16, max_tokens=4096)
    room = 80 * 2**30 * 0.9 - found.weight_bytes - 1.5 * 2**30 - 256 * (128 + 16) * 24 * 1024
    assert plan.blocks == int(room // (16 * 24 * 1024))


def test_experts_are_in_memory_whether_active_or_not():
    """Mixtral's 46.7 B weights are 93 GB, too many for one A100, and 2 of 8 experts' work."""
    with pytest.raises(UserError, match="93 GB"):
        blocks(model("mixtral-8x7b"), device("a100"), tp=1, pp=1, block=16, max_tokens=4096)


def test_a_latent_is_on_every_device():
    """Tensor parallelism does not divide what all heads share."""
    assert model("deepseek-v3").kv_bytes_per_token(8) == model("deepseek-v3").kv_bytes_per_token(1)
    assert model("llama-3-70b").kv_bytes_per_token(16) == model("llama-3-70b").kv_bytes_per_token(8)


@pytest.mark.parametrize(
    ("name", "tp", "pp", "slots", "count"),
    [
        ("llama-3-8b", 1, 1, 118, 30208),
        ("llama-2-7b", 1, 1, 29, 7424),
        ("llama-2-70b", 2, 2, 128, 32768),
    ],
)
def test_vidurs_pools_are_vidurs(name, tp, pp, slots, count):
    """The block counts that Vidur's own runs report."""
    plan = vidur_blocks(model(name), device("a100"), tp=tp, pp=pp, block=16, max_tokens=4096)
    assert plan == (count, slots)


def test_a_pool_is_what_weights_and_activations_leave():
    """Llama-3-8B on an A100: (80 GiB x 0.9 - weights - 1.5 GiB) / 2 MiB a block."""
    found = model("llama-3-8b")
    plan = blocks(found, device("a100"), tp=1, pp=1, block=16, max_tokens=8192)
    room = 80 * 2**30 * 0.9 - found.weight_bytes - 1.5 * 2**30
    assert plan.blocks == int(room // (16 * 131072))
    assert plan.requests == plan.blocks // 512


def test_what_does_not_fit_is_said_before_the_run():
    """One line that names the model, the device, and the way out."""
    with pytest.raises(UserError, match=r"does not fit.*--tp"):
        blocks(model("llama-2-70b"), device("a100"), tp=1, pp=1, block=16, max_tokens=4096)


def test_degrees_that_divide_nothing_are_refused():
    """TP must divide the heads, PP the layers."""
    with pytest.raises(UserError, match="3 does not divide the 32 heads"):
        model("llama-3-8b").check_parallel(3, 1)
    with pytest.raises(UserError, match="5 does not divide the 32 layers"):
        model("llama-3-8b").check_parallel(1, 5)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("llama-3-8b", "llama-3-8b"),
        ("meta-llama/Meta-Llama-3-8B", "llama-3-8b"),
        ("meta-llama/Llama-2-7b-hf", "llama-2-7b"),
        ("Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("Qwen/Qwen3-32B", "qwen3-32b"),
    ],
)
def test_a_model_is_known_by_its_repository_too(said, meant):
    """Short names, repository names, and their usual suffixes."""
    assert model(said).name == meant


def test_unknown_names_are_answered_with_the_known_ones():
    """A typo costs one line."""
    with pytest.raises(UserError, match=r"no such model.*llama-3-8b"):
        model("llama-9")
    with pytest.raises(UserError, match=r"no such device.*a100"):
        device("a1000")


LLAMA = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "hidden_act": "silu",
}


def config(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(msgspec.json.encode(content))
    return from_config(path)


def without(name, raw=LLAMA):
    return {key: value for key, value in raw.items() if key != name}


def test_a_config_json_is_read(tmp_path):
    """The fields of a Hugging Face config give the same shape as the table."""
    known, read = model("llama-3-8b"), config(tmp_path, LLAMA)
    assert (read.params, read.kv_bytes_per_token(), read.context) == (
        known.params,
        known.kv_bytes_per_token(),
        known.context,
    )


@pytest.mark.parametrize(
    ("content", "like"),
    [
        # A multimodal model's language part.
        ({"text_config": LLAMA, "vision_config": {"hidden_size": 1280}}, "llama-3-8b"),
        # Mixtral's, Qwen's and DeepSeek's names for experts.
        (
            LLAMA | {"vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2},
            "mixtral-8x7b",
        ),
        (
            {
                "num_hidden_layers": 48, "hidden_size": 2048, "num_attention_heads": 32,
                "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144,
                "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
                "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 151936,
                "sliding_window": None, "use_sliding_window": False, "max_window_layers": 48,
            },
            "qwen3-30b-a3b",
        ),
        (
            {
                "num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 128,
                "num_key_value_heads": 128, "intermediate_size": 18432, "v_head_dim": 128,
                "moe_intermediate_size": 2048, "n_routed_experts": 256, "num_experts_per_tok": 8,
                "n_shared_experts": 1, "first_k_dense_replace": 3, "moe_layer_freq": 1,
                "kv_lora_rank": 512, "qk_rope_head_dim": 64, "q_lora_rank": 1536,
                "vocab_size": 129280, "quantization_config": {"quant_method": "fp8"},
            },
            "deepseek-v3",
        ),
        (
            {
                "num_hidden_layers": 24, "hidden_size": 2880, "num_attention_heads": 64,
                "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2880,
                "num_local_experts": 32, "experts_per_token": 4, "num_experts_per_tok": 4,
                "vocab_size": 201088, "sliding_window": 128,
                "layer_types": ["sliding_attention", "full_attention"] * 12,
            },
            "gpt-oss-20b",
        ),
        # OPT's, and Falcon's.
        (
            {
                "num_hidden_layers": 40, "hidden_size": 5120, "num_attention_heads": 40,
                "ffn_dim": 20480, "vocab_size": 50272, "activation_function": "relu",
                "tie_word_embeddings": True,
            },
            "opt-13b",
        ),
        (
            {
                "num_hidden_layers": 80, "hidden_size": 14848, "num_attention_heads": 232,
                "num_kv_heads": 8, "new_decoder_architecture": True, "multi_query": True,
                "vocab_size": 65024, "hidden_act": "gelu", "tie_word_embeddings": True,
            },
            "falcon-180b",
        ),
    ],
)  # fmt: skip
def test_configs_of_many_families_are_read(content, like, tmp_path):
    """Parameters, cache and experts are those of the table, whatever a family calls its fields."""
    known, read = model(like), config(tmp_path, content)
    assert read.params == pytest.approx(known.params, rel=1e-6)
    assert read.kv_bytes_per_token() == known.kv_bytes_per_token()
    for name in ("experts", "active_experts", "shared_mlp", "dense_layers", "window_layers"):
        assert getattr(read, name) == getattr(known, name), name


@pytest.mark.parametrize(
    ("more", "window_layers"),
    [
        ({"sliding_window": 4096}, 32),
        ({"sliding_window": 4096, "use_sliding_window": False}, 0),
        ({"sliding_window": 4096, "max_window_layers": 28}, 4),
        ({"sliding_window": 4096, "sliding_window_pattern": 6}, 27),
        ({"sliding_window": None}, 0),
    ],
)
def test_windows_are_counted_as_configs_say_them(more, window_layers, tmp_path):
    """All layers, none, those from one on (Qwen2), all but every sixth (Gemma 3)."""
    assert config(tmp_path, LLAMA | more).window_layers == window_layers


@pytest.mark.parametrize(
    ("how", "bytes_"),
    [
        ({"quant_method": "gptq", "bits": 4}, 0.5),
        ({"quant_method": "fp8"}, 1.0),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5),
        ({"quant_method": "unheard-of"}, 2.0),
    ],
)
def test_quantised_weights_are_narrower(how, bytes_, tmp_path):
    """Bytes per weight, as the quantisation says; two where it does not."""
    assert config(tmp_path, LLAMA | {"quantization_config": how}).dtype_bytes == bytes_


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (without("num_hidden_layers"), "no 'num_hidden_layers' in it"),
        (without("vocab_size"), "no 'vocab_size' in it"),
        (LLAMA | {"num_attention_heads": "many"}, "num_attention_heads is 'many'"),
        (LLAMA | {"hidden_size": 0}, "hidden_size is 0"),
        (LLAMA | {"num_key_value_heads": 5}, "5 KV heads do not divide 32 heads"),
        ([1, 2], "holds no object"),
    ],
)
def test_a_config_that_is_no_model_is_one_line(content, complaint, tmp_path):
    """What is missing or wrong, and in which file."""
    with pytest.raises(UserError, match=r"config\.json: .*" + complaint):
        config(tmp_path, content)


def test_what_may_be_left_out_is_left_out(tmp_path):
    """Without KV heads, MLP width and context: one KV head per head, four times the width, 4,096 tokens."""
    bare = LLAMA
    for name in ("num_key_value_heads", "intermediate_size", "max_position_embeddings"):
        bare = without(name, bare)
    read = config(tmp_path, bare)
    assert (read.kv_heads, read.mlp, read.context) == (32, 16384, 4096)


UNPRICED = {"cpu", "b300", "gb200", "gb300"}  # nobody lets a single one of them


def test_every_fact_has_a_source():
    """No number without where it is from."""
    assert all(found.source and found.year for found in MODELS.values())
    assert all(found.source for found in DEVICES.values())
    for found in DEVICES.values():
        if found.price_per_hour is not None:
            assert re.search(r"20\d\d", found.price_note), found.name
    assert {name for name, found in DEVICES.items() if not found.price_per_hour} == UNPRICED


def test_the_host_has_room_and_a_link():
    """4 GiB per device, as vLLM's swap space; each device moves its part of a block over PCIe, at 80 % of what is stated."""
    one, two = (host(model("llama-3-8b"), device("a100"), tp=tp, pp=1, block=16) for tp in (1, 2))
    assert one.blocks == 4 * 2**30 // (16 * 131072)
    assert one.block_ps == pytest.approx(16 * 131072 / 25.6e9 * 1e12, rel=1e-6)
    assert (two.blocks, two.block_ps) == (2 * one.blocks, pytest.approx(one.block_ps / 2, abs=1))
