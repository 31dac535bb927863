"""Converts a model that `train.py` saved into the one file that llama-server reads (GGUF, half precision).

    python to_gguf.py FOLDER FILE.gguf

Only what those models use: Llama with tied embeddings and a byte-level BPE tokenizer that splits as GPT-2's does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

# name in a saved layer -> name in GGUF
MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection in llama.cpp's order: it rotates neighbours, the saved model rotates halves."""
    pairs = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1)
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """The numbers that describe the network."""
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(float(config["rope_parameters"]["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    """The vocabulary, the merges and the chat template."""
    saved = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = sorted(saved["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["id"] for token in saved["added_tokens"]}
    kinds = [
        gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL
        for _, number in vocabulary
    ]
    merges = [m if isinstance(m, str) else " ".join(m) for m in saved["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([text for text, _ in vocabulary])
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(0)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


def add_weights(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """All tensors: matrices in half precision, norms in single."""
    weights = load_file(folder / "model.safetensors")
    heads = {
        "self_attn.q_proj": config["num_attention_heads"],
        "self_attn.k_proj": config["num_key_value_heads"],
    }
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"].astype(np.float16))
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"].astype(np.float32))
    for layer in range(config["num_hidden_layers"]):
        for ours, theirs in MATRICES.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"]
            weight = interleaved(weight, heads[ours]) if ours in heads else weight
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight.astype(np.float16))
        for ours, theirs in NORMS.items():
            norm = weights[f"model.layers.{layer}.{ours}.weight"].astype(np.float32)
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", norm)


def main() -> None:
    """Write the file."""
    folder, out = Path(sys.argv[1]), sys.argv[2]
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out, "llama")
    add_shape(writer, config)
    add_tokenizer(writer, folder)
    add_weights(writer, folder, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
