"""What the workload tests share: where the traces are, and tokenizers that are trained on the spot."""

from pathlib import Path

import pytest

from inferometer.workload.words import WORDS

_TRACES = Path(__file__).parents[3] / "shared" / "traces"


@pytest.fixture(scope="session")
def traces():
    """The folder of production traces."""
    if not _TRACES.is_dir():
        pytest.skip("needs the production traces in ../shared/traces")
    return _TRACES


@pytest.fixture(scope="session")
def agent_sessions(traces):
    """46,218 requests of coding agents, read once."""
    from inferometer.workload import read_trace

    return read_trace(traces / "claude_code_kvct.parquet")


def _trained(folder, name, parts, words, size):
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = parts
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=list("x."))
    tokenizer.train_from_iterator([" ".join((*words, *words)) + ". the."] * 2, trainer)
    path = folder / name / "tokenizer.json"
    path.parent.mkdir()
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def tokenizer_files(tmp_path_factory):
    """Tokenizer files by name: `byte` and `meta` know our words; `tiny` knows few; `letters` knows no word at all."""
    from tokenizers import decoders, pre_tokenizers

    folder = tmp_path_factory.mktemp("tokenizers")
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    meta = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return {
        "byte": _trained(folder, "byte", byte, WORDS, 6000),
        "meta": _trained(folder, "meta", meta, WORDS, 6000),
        "tiny": _trained(folder, "tiny", byte, WORDS[:400], 300),
        "letters": _trained(folder, "letters", byte, ("the",), 1),
    }
