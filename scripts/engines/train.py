"""Trains the tiny models that the engine tests serve, on the spot, from text that every Debian has.

Nothing is downloaded: the text is the licences of /usr/share/common-licenses, or else Python's own language
reference. A paragraph is a document, so the models learn to stop; a reply that ends by itself is a case to test.
`target` (2 M parameters) is what is served; `draft` (0.4 M) has the same tokenizer, for speculative decoding.
Budgets are CPU seconds: a busy machine gives the same models, only later. How well they write is of no interest.

    python train.py FOLDER [--cpu-s 60]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LICENCES = Path("/usr/share/common-licenses")
END = "<|endoftext|>"
THINKING = (
    "<think>",
    "</think>",
)  # never learned, only known: vLLM's reasoning parsers look for them
VOCABULARY = 2048
CONTEXT = 4096
BATCH, WINDOW = 8, 128
# Heads of 32: the smallest that vLLM's CPU attention takes.
SHAPES = {
    "target": {"hidden_size": 192, "num_hidden_layers": 4, "intermediate_size": 512},
    "draft": {"hidden_size": 96, "num_hidden_layers": 2, "intermediate_size": 256},
}
SHARE = {"target": 0.8, "draft": 0.2}
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% if not loop.last %}\n{% endif %}{% endfor %}"
)


def paragraphs() -> list[str]:
    """The corpus, as documents of one paragraph each."""
    files = [file for file in sorted(LICENCES.glob("*")) if not file.is_symlink()]
    texts = [file.read_text(encoding="utf-8", errors="ignore") for file in files]
    if not texts:
        from pydoc_data import topics

        texts = list(topics.topics.values())
    return [p.strip() for text in texts for p in text.split("\n\n") if len(p.strip()) > 40]


def byte_pairs(documents: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that splits as GPT-2's does (which is what llama.cpp knows it by)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, *THINKING],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def llama(name: str) -> LlamaForCausalLM:
    """An untrained model of one of SHAPES."""
    heads = SHAPES[name]["hidden_size"] // 32
    config = LlamaConfig(
        **SHAPES[name],
        vocab_size=VOCABULARY,
        num_attention_heads=heads,
        num_key_value_heads=heads // 3,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(1)
    return LlamaForCausalLM(config)


def train(model: LlamaForCausalLM, ids: np.ndarray, cpu_s: float, peak_rate: float = 4e-3) -> dict:
    """Train `model` in place for `cpu_s` CPU seconds (cosine decay); returns what became of it."""
    draw = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, weight_decay=0.05)
    began, steps, loss = time.process_time(), 0, torch.tensor(math.nan)
    while (spent := (time.process_time() - began) / cpu_s) < 1:
        rate = peak_rate * min(1.0, (steps + 1) / 20) * (0.525 + 0.475 * math.cos(math.pi * spent))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = draw.integers(0, len(ids) - WINDOW - 1, BATCH)
        window = torch.from_numpy(np.stack([ids[s : s + WINDOW + 1] for s in starts]))
        logits = model(input_ids=window[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps += 1
    return {"steps": steps, "loss": round(loss.item(), 3), "parameters": model.num_parameters()}


def main() -> None:
    """Train and save every model; `report.json` beside them says how far each came."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cpu-s", type=float, default=60.0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    documents = paragraphs()
    tokenizer = byte_pairs(documents)
    ids = np.array([i for text in tokenizer(documents)["input_ids"] for i in [*text, 0]])
    report = {"documents": len(documents), "tokens": len(ids)}
    for name in SHAPES:
        model = llama(name)
        report[name] = train(model, ids, asked.cpu_s * SHARE[name])
        model.eval().save_pretrained(asked.folder / name)
        tokenizer.save_pretrained(asked.folder / name)
    (asked.folder / "report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
