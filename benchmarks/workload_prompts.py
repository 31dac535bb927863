"""Prompts: how long it takes to make 5,000 prompts of exactly 2,000 tokens, and to verify each by encoding it again.

python -m benchmarks.workload_prompts [TOKENIZER]

TOKENIZER is a tokenizer.json; without one, a byte-pair vocabulary of 32,000 entries is trained on the spot, from text of
our own words and random letters, so that words are split as they are in a real one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.stage import Target, conditions, judge
from inferometer.workload import Prompts, WorkloadSpec, load, make_plan
from inferometer.workload.words import WORDS

PROMPTS, TOKENS = 5_000, 2_000


def main() -> int:
    """Measure both tokenizers; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("tokenizer", nargs="?", type=Path)
    options = parser.parse_args()
    print(conditions())
    with tempfile.TemporaryDirectory() as folder:
        file = options.tokenizer or trained(Path(folder) / "tokenizer.json")
        targets = [
            _made("built-in tokenizer", None, 2.0),
            _made("tokenizer.json, verified", file, 20.0),
        ]
    return judge(targets)


def _made(what: str, tokenizer: Path | None, target: float) -> Target:
    plan = make_plan(WorkloadSpec(prompt_tokens=TOKENS, requests=PROMPTS))
    prompts = Prompts(plan, load(tokenizer))
    wall, cpu = time.perf_counter(), time.process_time()
    made = prompts.made(range(PROMPTS))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    drift = int(np.count_nonzero(made.tokens != TOKENS))
    size = sum(map(len, made.texts))
    print(f"{what}: {wall:.2f} s, {cpu:.2f} CPU-s, {size / 1e6:.0f} MB, {drift} prompts off")
    assert not drift
    return Target(f"5,000 x 2,000 tokens, {what}", wall, target, "s")


def trained(file: Path) -> Path:
    """A byte-level BPE of 32,000 entries."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = np.random.default_rng(0)
    letters = list("etaoinshrdlucmfwypvbgkjqxz")
    noise = ["".join(rng.choice(letters, rng.integers(3, 12))) for _ in range(60_000)]
    lines = [" ".join([*WORDS, *WORDS]) + ". the.", *(" ".join(noise[k::100]) for k in range(100))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=32_000, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.save(str(file))
    return file


if __name__ == "__main__":
    raise SystemExit(main())
