"""How many tokens a text has.

Two tokenizers behind one protocol: a local `tokenizer.json` (exact), and a small built-in one that needs no file, no
network and no heavy import. The built-in one is exact on the prompts that are made of its own words, as long as the
server's vocabulary knows these words (`words.py`); of any other text it gives an estimate, and says so (`exact`).

Counts are of the bare text: what a server's chat template adds around it is the server's, and shows up as the distance
between planned and reported prompt tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from inferometer.errors import UserError
from inferometer.workload.words import OPENERS, WORDS


class Pieces(NamedTuple):
    """What a prompt can be put together from without its parts merging into other tokens.

    `openers` are one token at the start of a text; `words` are one token after a space; `stop` says whether "." after
    a word is one token more.
    """

    openers: tuple[str, ...]
    words: tuple[str, ...]
    stop: bool


class Tokenizer(Protocol):
    """What the rest of the house may ask about tokens."""

    @property
    def name(self) -> str:
        """For a person: where it came from."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha-256 of what defines it, 64 hex digits."""
        ...

    @property
    def exact(self) -> bool:
        """Whether `count` counts, rather than estimates."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens in each text, without special tokens."""
        ...

    def pieces(self) -> Pieces:
        """Words that are single tokens."""
        ...


def load(path: str | Path | None = None) -> Tokenizer:
    """The tokenizer of a `tokenizer.json` or of a folder that holds one; the built-in one for None."""
    return BuiltIn() if path is None else FromFile(Path(path))


class BuiltIn:
    """The vocabulary of `words.py`, and a rule of thumb for everything else."""

    name = "built-in"
    exact = False

    @property
    def fingerprint(self) -> str:
        """sha-256 of the word list and of the pattern."""
        return hashlib.sha256(" ".join((*WORDS, _PARTS.pattern)).encode()).hexdigest()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Estimated tokens in each text: exact for text of our own words, within about 15 % for English prose.

        A known word is one token; other words one per 5 letters begun; digits one per 3; each other sign one, and so
        is a run of blanks, but that the last space before a word belongs to it.
        """
        known = frozenset(WORDS)
        return [sum(_weight(part, known) for part in _PARTS.findall(text)) for text in texts]

    def pieces(self) -> Pieces:
        """All of `words.py`."""
        return Pieces(OPENERS, WORDS, stop=True)


_PARTS = re.compile(r" ?[A-Za-z]+|[0-9]{1,3}| ?[^\sA-Za-z0-9]|\s+(?= \S)|\s+")


def _weight(part: str, known: frozenset[str]) -> int:
    word = part.removeprefix(" ")
    if word.isascii() and word.isalpha():
        return 1 if word in known else 1 + (len(word) - 1) // 5
    return 1


class FromFile:
    """A tokenizer of the `tokenizers` library, read from a local file."""

    exact = True

    def __init__(self, path: Path) -> None:
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read the tokenizer: {error.strerror}",
                where=str(file),
                remedy="name a tokenizer.json or a folder that holds one",
            ) from None
        self.name = str(path)
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self._tokenizer = _parse(content, file)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens in each text, without special tokens; on all cores."""
        counts: list[int] = []
        for batch in _batches(texts):
            encodings = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            counts += map(len, encodings)
        return counts

    def pieces(self) -> Pieces:
        """Those of `words.py` that hold in this vocabulary, or else words of the vocabulary itself."""
        ours = self._holding(WORDS)
        if len(ours.words) >= _ENOUGH and len(ours.openers) >= _ENOUGH:
            return ours
        own = re.compile(
            r"[\u0120\u2581 ]([a-z]+)"
        )  # "Ġword" and "▁word", as byte-level and Metaspace spell a space
        matches = map(own.fullmatch, sorted(self._tokenizer.get_vocab()))
        return self._holding((*WORDS, *(match[1] for match in matches if match)))

    def _holding(self, words: Sequence[str]) -> Pieces:
        words = tuple(dict.fromkeys(words))
        openers = tuple(w for w, n in zip(words, self.count(words), strict=True) if n == 1)
        if not openers:
            return Pieces((), (), stop=False)
        first = openers[0]
        pairs = self.count([f"{first} {word}" for word in words])
        stop = self.count([f"{first}. {first}."])[0] == 4
        return Pieces(openers, tuple(w for w, n in zip(words, pairs, strict=True) if n == 2), stop)


_ENOUGH = 256
_BATCH_CHARS = 4_000_000


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """`texts` in lists of some megabytes, so that the encodings of all of them are never held at once."""
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if held >= _BATCH_CHARS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _parse(content: bytes, file: Path) -> Any:
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # noqa: BLE001  the library raises bare Exception
        raise UserError(f"not a tokenizer: {error}", where=str(file)) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
