"""Durations: the two roads to a decode time agree to the bit; tables fold as Vidur folds; the roofline has sane limits."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import UserError
from inferometer.sim.cost import Affine
from inferometer.sim.devices import DEVICES, device
from inferometer.sim.models import MODELS, model, served
from inferometer.sim.roofline import Roofline
from inferometer.sim.vidur import VidurTables

DENSE = (
    "attn_pre_proj",
    "attn_post_proj",
    "attn_rope",
    "input_layernorm",
    "mlp_up_proj",
    "mlp_down_proj",
    "mlp_act",
    "post_attention_layernorm",
    "add",
    "attn_kv_cache_save",
    "all_reduce",
    "send_recv",
)


@pytest.fixture
def tables(tmp_path):
    """Tables whose entries are their own keys: 64 tokens, 8 sequences, contexts of up to 4 x 64, chunks of up to 64."""
    out = {}
    for name in DENSE:
        out[f"{name}__key"] = np.arange(1, 65).reshape(-1, 1)
        out[f"{name}__ms"] = np.zeros(64)
    out["mlp_up_proj__ms"] = np.arange(1, 65) * 1.0
    out["attn_kv_cache_save__ms"] = np.arange(1, 65) * 0.001
    caches, chunks = np.meshgrid(np.arange(5) * 64, np.arange(1, 65) ** 2, indexing="ij")
    out["attn_prefill__key"] = np.stack([caches.ravel(), chunks.ravel()], axis=1)
    out["attn_prefill__ms"] = caches.ravel() * 100.0 + np.sqrt(chunks.ravel()) * 0.1
    sizes, contexts = np.meshgrid(np.arange(1, 9), np.arange(5) * 64, indexing="ij")
    out["attn_decode__key"] = np.stack([sizes.ravel(), contexts.ravel()], axis=1)
    out["attn_decode__ms"] = sizes.ravel() * 1000.0 + contexts.ravel() * 10.0
    path = tmp_path / "tables.npz"
    np.savez(path, **out)
    return path


def ms(ps: int) -> float:
    return ps / 1e9


def test_tokens_round_up_to_8_and_the_kv_save_does_not(tables):
    """3 decodes and a chunk of 7: 10 tokens cost as 16 do, but save 10."""
    cost = VidurTables(tables, model("llama-2-7b"))
    layer = 16.0 + 0.010 + (0 * 100 + 7 * 0.1) + (3 * 1000 + 64 * 10)
    assert ms(cost.step([(7, 0)], 3, 3 * 50)[0]) == pytest.approx(32 * layer)


def test_prefills_fold_into_one(tables):
    """Caches round up one by one and add up; chunks fold as the root of their squares; GQA pays 10 % for batching."""
    chunks = [(3, 1), (4, 65)]  # caches 64 + 128, chunk 5
    folded = 192 * 100 + 5 * 0.1
    rest = 8.0 + 0.007
    for name, factor in (("llama-2-7b", 1.0), ("llama-3-8b", 1.1)):
        cost = VidurTables(tables, model(name))
        assert ms(cost.step(chunks, 0, 0)[0]) == pytest.approx(32 * (rest + factor * folded))


def test_decodes_go_by_their_mean_context_rounded_up_to_64(tables):
    """Contexts 64 and 65: the mean is floored to 64 and stays in its bucket; one token more is in the next."""
    cost = VidurTables(tables, model("llama-2-7b"))
    assert ms(cost.decode(2, 129)) == pytest.approx(32 * (8.0 + 0.002 + 2000 + 640))
    assert ms(cost.decode(2, 130)) == pytest.approx(32 * (8.0 + 0.002 + 2000 + 1280))


def test_every_stage_but_the_last_sends(tables, tmp_path):
    """With 2 stages, each has half of the layers; the first one's time holds the send."""
    with np.load(tables) as file:
        content = {name: file[name] for name in file.files}
    content["send_recv__ms"] = np.full(64, 5.0)
    np.savez(tmp_path / "pp.npz", **content)
    first, last = VidurTables(tmp_path / "pp.npz", model("llama-2-7b"), pp=2).step([], 1, 10)
    assert ms(last) == pytest.approx(16 * (8.0 + 0.001 + 1000 + 640))
    assert ms(first - last) == pytest.approx(5.0)


def test_a_file_without_a_table_is_a_users_error(tables, tmp_path):
    """The complaint names the table."""
    with np.load(tables) as file:
        content = {name: file[name] for name in file.files if not name.startswith("attn_rope")}
    np.savez(tmp_path / "less.npz", **content)
    with pytest.raises(UserError, match="attn_rope"):
        VidurTables(tmp_path / "less.npz", model("llama-2-7b"))
    with pytest.raises(UserError, match="not a readable"):
        VidurTables(tmp_path / "absent.npz", model("llama-2-7b"))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(MODELS)),
    st.sampled_from(sorted(DEVICES)),
    st.integers(1, 200),
    st.integers(1, 4000),
    st.integers(1, 80),
)
def test_a_run_of_decodes_is_its_steps_to_the_bit(name, on, decoders, mean, count):
    """What fast-forwarding computes at once is what stepping would have computed one by one."""
    cost = Roofline(model(name), device(on))
    context = decoders * mean
    run = cost.decode_run(decoders, context, count)
    assert run.tolist() == [cost.decode(decoders, context + decoders * j) for j in range(count)]
    assert cost.step([], decoders, context) == (run[0],)


def test_the_tables_law_holds_too(tables):
    """The same for Vidur's tables, across buckets and beyond the table's end."""
    cost = VidurTables(tables, model("llama-3-8b"))
    run = cost.decode_run(3, 100, 400)
    assert run.tolist() == [cost.decode(3, 100 + 3 * j) for j in range(400)]
    assert cost.decode_run(20, 100, 1)[0] == cost.decode(20, 100)


def test_affine_is_what_it_says():
    """fixed + per token + per sequence + per context."""
    cost = Affine(1_000, 100, 10, 1)
    assert cost.step([(5, 0), (2, 9)], 3, 40) == (1_000 + 700 + 30 + 40,)
    assert cost.decode_run(3, 40, 3).tolist() == [1_070, 1_073, 1_076]


def test_a_long_prefill_approaches_the_peak_and_a_decode_the_bandwidth():
    """8,192 prompt tokens run at 55-75 % of an H100's FLOP/s; one decode reads all weights at 65-90 % of its bandwidth."""
    found, on = model("llama-3-8b"), device("h100")
    cost = Roofline(found, on, host_s=0.0)
    flops = 2 * (found.params - 2 * found.vocab * found.hidden) * 8192
    prefill_s = cost.step([(8192, 0)], 0, 0)[0] / 1e12
    assert 0.55 < flops / prefill_s / on.peak_flops < 0.75
    decode_s = cost.decode(1, 100) / 1e12
    read = found.weight_bytes - 2 * found.vocab * found.hidden
    assert 0.65 < read / decode_s / on.bandwidth < 0.9


def test_yi_34b_on_two_a100_decodes_as_sarathi_serve_measured():
    """32 sequences of 4k tokens take about 40 ms: a fifth of the paper's strict SLO (OSDI'24, table 3)."""
    cost = Roofline(model("yi-34b"), device("a100"), tp=2, host_s=0.0)
    assert 0.030 < cost.decode(32, 32 * 4096) / 1e12 < 0.050


def test_experts_are_read_as_far_as_the_batch_touches_them():
    """One token of Mixtral reads 2 of 8 experts; 64 tokens read all: the iteration gets longer, but not 4 times 64."""
    cost = Roofline(model("mixtral-8x7b"), device("h200"), host_s=0.0)
    one, many = cost.decode(1, 100), cost.decode(64, 6400)
    assert 2.2 < many / one < 4.5


def test_tensor_parallelism_divides_the_work_and_adds_communication():
    """TP 4 is faster than TP 1, and slower than a quarter of it."""
    one, four = (Roofline(model("llama-3-70b"), device("h100"), tp=tp, host_s=0.0) for tp in (1, 4))
    assert one.decode(8, 8000) / 4 < four.decode(8, 8000) < one.decode(8, 8000)


def test_a_narrow_precision_reads_less_and_computes_faster():
    """FP8 on an H100: between half and the whole of bf16's decode and prefill times; its head stays bf16."""
    found = model("llama-3-70b")
    wide, narrow = (
        Roofline(served(found, precision, None), device("h100"), tp=4, host_s=0.0)
        for precision in ("bf16", "fp8")
    )
    for chunks, decoders, context in (((), 4, 400), ([(4096, 0)], 0, 0)):
        slow, fast = (cost.step(chunks, decoders, context)[0] for cost in (wide, narrow))
        assert 0.5 * slow < fast < 0.95 * slow


def test_a_precision_without_kernels_is_of_the_weights_alone():
    """FP8 weights on an A100 are read faster, and computed at bf16's rate."""
    found, on = model("llama-3-8b"), device("a100")
    wide, narrow = (
        Roofline(served(found, precision, None), on, host_s=0.0) for precision in ("bf16", "fp8")
    )
    assert narrow.decode(1, 100) < 0.7 * wide.decode(1, 100)
    assert narrow.step([(4096, 0)], 0, 0)[0] > 0.95 * wide.step([(4096, 0)], 0, 0)[0]


def test_an_unknown_precision_is_a_users_error():
    """One line that lists the known ones."""
    with pytest.raises(UserError, match="fp8"):
        served(model("llama-3-8b"), "fp7", None)


def test_a_decode_beside_a_prefill_costs_a_block_per_query_head():
    """FlashAttention-2 (RTX 4090): 32 decodes of 2k beside a chunk take longer than alone, and go by query heads."""
    on = device("rtx4090")
    few, many = model("llama-3-8b"), msgspec.structs.replace(model("llama-3-8b"), kv_heads=32)
    for found in (few, many):
        cost = Roofline(found, on, host_s=0.0)
        beside = cost.step([(512, 0)], 32, 65536)[0] - cost.step([(512, 0)], 0, 0)[0]
        alone = cost.decode(32, 65536) - cost.decode(32, 32)
        assert (beside > 1.5 * alone) == (found is few)


def test_experts_that_replicas_share_are_read_once_between_them():
    """Expert parallelism over 2 replicas: a decode reads fewer expert weights each, and pays for the exchange."""
    found, on = model("qwen3-30b-a3b"), device("h100")
    alone, shared = (Roofline(found, on, ep=ep, host_s=0.0) for ep in (1, 2))
    assert shared.decode(64, 6400) < 0.8 * alone.decode(64, 6400)
    assert shared.decode(1, 100) > 0.9 * alone.decode(1, 100)


def test_two_cards_over_pcie_wait_for_each_other():
    """Qwen3-32B on two RTX PRO 6000: the all-reduces of a prefill of 2,048 are 15 to 50 % of it."""
    on = device("rtxpro6000")
    quick = msgspec.structs.replace(on, all_reduce=((2, 0.0, 1e15),))
    real, ideal = (
        Roofline(model("qwen3-32b"), one, tp=2, host_s=0.0).step([(2048, 0)], 0, 0)[0]
        for one in (on, quick)
    )
    assert 0.15 < 1 - ideal / real < 0.5


@pytest.mark.parametrize(
    ("method", "precision"), [("fp8", "fp8"), ("mxfp4", "fp4"), ("awq", "bf16"), (None, "bf16")]
)
def test_a_config_says_which_kernels_its_weights_ask_for(tmp_path, method, precision):
    """Floats of 8 and 4 bits have kernels; whole numbers are widened."""
    raw = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 100}
    if method:
        raw["quantization_config"] = {"quant_method": method}
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(raw))
    assert model(str(tmp_path / "config.json")).precision == precision
