"""Models, devices and pools against published numbers."""

from __future__ import annotations

import msgspec
import pytest

from inferometer.errors import UserError
from inferometer.sim.devices import DEVICES, device
from inferometer.sim.memory import blocks, vidur_blocks
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
        ("deepseek-v3", 68.625),  # 61 layers x 576 x 2 bytes: DeepSeek-V3 quotes 70 KB
    ],
)
def test_kv_bytes_per_token_are_the_published_ones(name, kib):
    """2 x layers x KV heads x head dimension x 2 bytes, or the latent."""
    assert model(name).kv_bytes_per_token() == kib * 1024


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


def test_a_config_json_is_read(tmp_path):
    """The fields of a Hugging Face config give the same shape as the table."""
    path = tmp_path / "config.json"
    path.write_bytes(
        msgspec.json.encode(
            {
                "num_hidden_layers": 32,
                "hidden_size": 4096,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "intermediate_size": 14336,
                "vocab_size": 128256,
                "max_position_embeddings": 8192,
                "hidden_act": "silu",
            }
        )
    )
    known, read = model("llama-3-8b"), from_config(path)
    assert (read.params, read.kv_bytes_per_token(), read.context) == (
        known.params,
        known.kv_bytes_per_token(),
        known.context,
    )
    path.write_text('{"hidden_size": 1}')
    with pytest.raises(UserError, match="num_attention_heads"):
        from_config(path)


def test_every_fact_has_a_source():
    """No number without where it is from."""
    assert all(found.source and found.year for found in MODELS.values())
    assert all(found.source for found in DEVICES.values())
    assert all(found.price_note for found in DEVICES.values() if found.price_per_hour)
