"""Prompts of an exact number of tokens, made on demand from the plan's seed.

A prompt is a chain of *segments*: one for each leading block of its row (equal block ids give equal segments, which is
how prompts share a prefix), then one that is the row's own. A segment begins with a few words that spell its key in the
base of the vocabulary, so that two segments of different keys differ within these words, mostly at the first: a prefix
cache finds nothing that the plan did not share. The rest is a slice of one long text that is made once per seed.

So a prompt costs one copy of its bytes, nothing is held that was not asked for, and any row can be made alone.
With an exact tokenizer each text is encoded again and mended at its end until the count is right; what cannot be mended
is returned with the count that it has. Nothing here calls for randomness: text is a function of (seed, key).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferometer.plan import Plan
from inferometer.timeline import Ints, offsets
from inferometer.workload.draws import Stream
from inferometer.workload.tokenizer import Pieces, Tokenizer

_RING = 1 << 16  # pieces in the long text; a slice of more wraps around
_KEYS = 1 << 40  # how many segments must be told apart by their first words


class Prompted(NamedTuple):
    """Texts, and how many tokens each has [n] by the tokenizer (planned, where the tokenizer only estimates)."""

    texts: list[str]
    tokens: NDArray[np.int64]


class Message(NamedTuple):
    """One turn of a conversation; `role` is "user" or "assistant"."""

    role: str
    text: str


class Prompts:
    """The prompt texts of a plan, in a tokenizer's vocabulary."""

    def __init__(self, plan: Plan, tokenizer: Tokenizer) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        pieces = tokenizer.pieces()
        if not pieces.openers or not pieces.words:
            pieces = Pieces(_LETTERS, _LETTERS, stop=False)
        self._spell = _Spelling(plan.seed, pieces)
        self._ring = _Ring(Stream(plan.seed, "text"), pieces)

    def text(self, row: int) -> str:
        """The prompt of one row."""
        return self.texts((row,))[0]

    def texts(self, rows: Iterable[int]) -> list[str]:
        """The prompts of `rows`."""
        return self.made(rows).texts

    def made(self, rows: Iterable[int]) -> Prompted:
        """The prompts of `rows`, with their token counts; a count off the plan could not be mended (drift)."""
        rows = np.fromiter(rows, dtype=np.int64)
        texts = [self._compose(row) for row in rows.tolist()]
        want = self._plan.prompt_tokens[rows].astype(np.int64)
        if not self._tokenizer.exact:
            return Prompted(texts, want)
        return self._mended(texts, want)

    def messages(self, row: int, replies: Mapping[int, str] | None = None) -> tuple[Message, ...]:
        """The prompt of a later turn as a conversation: what was asked and replied before it, and what is new.

        Replies are the planned text, of the planned length, or those in `replies` (by row), say a model's real ones.
        A row that does not go on where its first parent ended is one message.
        """
        plan, given = self._plan, replies or {}
        said: list[Message] = []
        begin = 0
        for earlier in self._line(row)[:-1]:
            asked = int(plan.prompt_tokens[earlier])
            answered = asked + int(plan.output_tokens[earlier])
            said.append(Message("user", self._compose(row, begin, asked)))
            reply = given.get(earlier)
            said.append(
                Message(
                    "assistant", self._compose(row, asked, answered) if reply is None else reply
                )
            )
            begin = answered
        said.append(Message("user", self._compose(row, begin)))
        return tuple(said)

    def _line(self, row: int) -> list[int]:
        """The turns that a row goes on from, oldest first, and the row itself."""
        plan, line = self._plan, [row]
        while plan.parent_offset[row] < plan.parent_offset[row + 1]:
            parent = int(plan.parent_row[plan.parent_offset[row]])
            theirs = plan.block_id[plan.block_offset[parent] : plan.block_offset[parent + 1]]
            begin = plan.block_offset[row]
            mine = plan.block_id[begin : min(begin + len(theirs), plan.block_offset[row + 1])]
            known = int(plan.prompt_tokens[parent]) + int(plan.output_tokens[parent])
            if (
                not len(theirs)
                or known >= plan.prompt_tokens[row]
                or not np.array_equal(mine, theirs)
            ):
                break
            line.append(parent)
            row = parent
        return line[::-1]

    def _compose(self, row: int, begin: int = 0, end: int | None = None) -> str:
        """The text of the tokens [begin, end) of a row's prompt."""
        plan = self._plan
        total = int(plan.prompt_tokens[row])
        end = total if end is None else end
        blocks = plan.block_id[plan.block_offset[row] : plan.block_offset[row + 1]].tolist()
        parts: list[str] = []
        at = 0
        for key in (*(block + _KEYS // 2 for block in blocks), row):
            size = total - at if key == row else min(total - at, plan.block_tokens)
            low, high = max(begin - at, 0), min(end - at, size)
            if low < high:
                parts.append(self._segment(key, low, high, opening=at == 0))
            at += size
        return "".join(parts)

    def _segment(self, key: int, begin: int, end: int, *, opening: bool) -> str:
        """The pieces [begin, end) of a segment: the words of its key, then its slice of the long text."""
        words = self._spell.words(key, opening=opening)
        head = words[begin:end]
        start = "" if (opening and begin == 0) or not head else " "
        skip = max(begin - len(words), 0)
        return start + " ".join(head) + self._ring.slice(key, skip, end - begin - len(head))

    def _mended(self, texts: list[str], want: Ints) -> Prompted:
        """`texts` with their ends mended until each has the tokens that are wanted of it, as far as that goes."""
        have = np.array(self._tokenizer.count(texts), dtype=np.int64)
        for filler in _FILLERS:
            wrong = np.flatnonzero(have != want).tolist()
            if not wrong:
                break
            tried = [_nearer(texts[i], int(have[i]), int(want[i]), filler) for i in wrong]
            for i, text, count in zip(wrong, tried, self._tokenizer.count(tried), strict=True):
                if abs(count - want[i]) < abs(have[i] - want[i]):
                    texts[i], have[i] = text, count
        return Prompted(texts, have)


_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
_FILLERS = (" the", ".", " a", "x", " the", ".", " 1", "x", "\n", "q")


def _nearer(text: str, have: int, want: int, filler: str) -> str:
    """`text` with its end cut in proportion, or with a filler for each missing token."""
    if have < want:
        return text + filler * (want - have)
    return text[: max(1, len(text) * want // have)]


class _Spelling:
    """Keys as words: a bijection of [0, 2^40) into word sequences, scrambled by the seed."""

    def __init__(self, seed: int, pieces: Pieces) -> None:
        self._openers, self._words = pieces.openers, pieces.words
        self._factor, self._shift = (int(x) for x in Stream(seed, "spelling").below(2, 1 << 20))
        self._more = math.ceil(math.log(_KEYS / len(self._openers), max(2, len(self._words))))

    def words(self, key: int, *, opening: bool) -> list[str]:
        """The words of a key; the first varies fastest, so that neighbours differ at once."""
        said: list[str] = []
        digit = self._shift
        for vocabulary in (self._openers if opening else self._words, *(self._words,) * self._more):
            base = len(vocabulary)
            key, low = divmod(key, base)
            digit = (low * _coprime(self._factor, base) + digit + self._shift) % base
            said.append(vocabulary[digit])
        return said


def _coprime(factor: int, base: int) -> int:
    while math.gcd(factor, base) != 1:
        factor += 1
    return factor


class _Ring:
    """A long text of words and sentences, of which any run of pieces can be cut out."""

    def __init__(self, stream: Stream, pieces: Pieces) -> None:
        rank = np.arange(len(pieces.words))
        chosen = stream.pick(1.0 / (rank + 8.0), _RING).tolist()
        parts = [" " + pieces.words[index] for index in chosen]
        if pieces.stop:
            for place in np.cumsum(6 + stream.below(_RING // 6, 12)).tolist():
                if place < _RING:
                    parts[place] = "."
        self._text = "".join(parts)
        self._starts = offsets(np.array([len(part) for part in parts])).tolist()
        self._salt = int(stream.below(1, 1 << 40)[0])

    def slice(self, key: int, skip: int, pieces: int) -> str:
        """`pieces` consecutive pieces, from `skip` behind a place that depends on the key."""
        if pieces <= 0:
            return ""
        place = ((key * 2 + 1) * 0x9E3779B97F4A7C15 + self._salt >> 24) % _RING
        begin = (place + skip) % _RING
        rounds, end = divmod(begin + pieces, _RING)
        text, starts = self._text, self._starts
        if not rounds:
            return text[starts[begin] : starts[end]]
        return text[starts[begin] :] + text * (rounds - 1) + text[: starts[end]]
