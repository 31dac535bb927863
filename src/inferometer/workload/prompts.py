"""Prompts of an exact number of tokens, made on demand from the plan's seed.

A prompt is a chain of *segments*: one for each leading block of its row (equal block ids give equal segments, which is
how prompts share a prefix), then one that is the row's own. A segment begins with a few words that spell its key in the
base of the vocabulary, so that two segments of different keys differ within these words, mostly at the first: a prefix
cache finds nothing that the plan did not share. The rest is a slice of one long text that is made once per seed.

So a prompt costs one copy of its bytes, nothing is held that was not asked for, and any row can be made alone.
With an exact tokenizer each text is verified by encoding, and mended at its end until the count is right; what cannot be
mended is returned with the count that it has. Nothing here calls for randomness: text is a function of (seed, key).

Verifying costs a hundred times what making does, and nearly all of a text is the long one, over and over. So where the
vocabulary splits at words, the long text is encoded once, of each prompt only the seams are (the words of each key and
their surroundings), and every 64th prompt is encoded whole. Where one of these disagrees, everything is encoded whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferometer.plan import Plan
from inferometer.timeline import Ints, offsets
from inferometer.workload.draws import Stream
from inferometer.workload.sharing import goes_on_from
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
        self._lead = pieces.openers[0]  # put before a piece of text that does not begin one
        self._by_seams = tokenizer.exact and self._splits_at_words()
        self._parent: list[int] | None = None  # by row; found when it is first asked for

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
        have = self._verified(rows.tolist(), texts, want)
        return self._mended(texts, have, want)

    def messages(self, row: int, replies: Mapping[int, str] | None = None) -> tuple[Message, ...]:
        """The prompt of a later turn as a conversation: what was asked and replied before it, and what is new.

        Replies are the planned text, of the planned length, or those in `replies` (by row), say a model's real ones.
        A row that does not go on where its first parent ended is one message.
        """
        plan, given = self._plan, replies or {}
        said: list[Message] = []
        begin = 0
        for earlier in self.line(row)[:-1]:
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

    def line(self, row: int) -> list[int]:
        """The turns that a row goes on from, oldest first, and the row itself."""
        line = [row]
        while (row := self.goes_on_from(row)) >= 0:
            line.append(row)
        return line[::-1]

    def goes_on_from(self, row: int) -> int:
        """The turn whose prompt and reply a row's prompt begins with; -1 where it begins anew."""
        if self._parent is None:
            self._parent = goes_on_from(self._plan).tolist()
        return self._parent[row]

    def _compose(self, row: int, begin: int = 0, end: int | None = None) -> str:
        """The text of the tokens [begin, end) of a row's prompt."""
        end = int(self._plan.prompt_tokens[row]) if end is None else end
        parts: list[str] = []
        for key, at, size in self._segments(row):
            low, high = max(begin - at, 0), min(end - at, size)
            if low < high:
                parts.append(self._segment(key, low, high, opening=at == 0))
        return "".join(parts)

    def _segments(self, row: int) -> Iterator[tuple[int, int, int]]:
        """Key, begin and size [tokens] of each segment of a row's prompt."""
        plan = self._plan
        total, at = int(plan.prompt_tokens[row]), 0
        blocks = plan.block_id[plan.block_offset[row] : plan.block_offset[row + 1]].tolist()
        for block in blocks:
            size = min(total - at, plan.block_tokens)
            yield block + _KEYS // 2, at, size
            at += size
        if at < total:
            yield row, at, total - at

    def _segment(self, key: int, begin: int, end: int, *, opening: bool) -> str:
        """The pieces [begin, end) of a segment: the words of its key, then its slice of the long text."""
        words = self._spell.words(key, opening=opening)
        head = words[begin:end]
        start = "" if (opening and begin == 0) or not head else " "
        skip = max(begin - len(words), 0)
        return start + " ".join(head) + self._ring.slice(key, skip, end - begin - len(head))

    def _verified(self, rows: list[int], texts: list[str], want: Ints) -> Ints:
        """How many tokens each text has [n], by encoding it, or its seams."""
        if not self._by_seams:
            return np.array(self._tokenizer.count(texts), dtype=np.int64)
        have = want.copy()
        whole = set(range(0, len(texts), _WHOLE_EVERY)) | self._doubtful(rows)
        places = sorted(whole)
        have[places] = self._tokenizer.count([texts[place] for place in places])
        if np.any(have[::_WHOLE_EVERY] != want[::_WHOLE_EVERY]):
            self._by_seams = False
            return self._verified(rows, texts, want)
        return have

    def _doubtful(self, rows: list[int]) -> set[int]:
        """The places of those `rows` of which a seam has not the tokens that it was made of."""
        seams, where, want = [], [], []
        for place, row in enumerate(rows):
            total = int(self._plan.prompt_tokens[row])
            for _, at, size in self._segments(row):
                begin, end = (
                    max(at - _SEAM, 0),
                    min(at + min(size, self._spell.most + _SEAM), total),
                )
                seams.append((self._lead if begin else "") + self._compose(row, begin, end))
                where.append(place)
                want.append(end - begin + (begin > 0))
        counted = zip(where, self._tokenizer.count(seams), want, strict=True)
        return {place for place, have, wanted in counted if have != wanted}

    def _splits_at_words(self) -> bool:
        """Whether any run of the long text has the tokens that it was made of: all of it in parts, seams included."""
        for shift in (0, _PART // 2):
            parts = [
                self._lead + self._ring.cut(begin, begin + _PART)
                for begin in range(shift, _RING - _PART, _PART)
            ]
            if any(count != _PART + 1 for count in self._tokenizer.count(parts)):
                return False
        return True

    def _mended(self, texts: list[str], have: Ints, want: Ints) -> Prompted:
        """`texts` with their ends mended until each has the tokens that are wanted of it, as far as that goes."""
        for filler in _FILLERS:
            wrong = np.flatnonzero(have != want).tolist()
            if not wrong:
                break
            tried = [_nearer(texts[i], int(have[i]), int(want[i]), filler) for i in wrong]
            for i, text, count in zip(wrong, tried, self._tokenizer.count(tried), strict=True):
                if abs(count - want[i]) < abs(have[i] - want[i]):
                    texts[i], have[i] = text, count
        return Prompted(texts, have)


_WHOLE_EVERY = 64  # one prompt in so many is encoded whole, whatever its seams say
_SEAM = 8  # tokens on both sides of the words of a key
_PART = 64  # pieces of the long text that are encoded together
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
        self.most = 1 + self._more  # words of a key

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

    def cut(self, begin: int, end: int) -> str:
        """The pieces [begin, end)."""
        return self._text[self._starts[begin] : self._starts[end]]

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
