"""Prompts are exact, unique, shared where the plan says so, and reproducible."""

from itertools import pairwise, takewhile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.plan import build_plan
from inferometer.timeline import ABSENT, offsets
from inferometer.workload.prompts import Prompts
from inferometer.workload.tokenizer import load


def _plan(lengths, blocks=None, block_tokens=0, seed=0):
    lists = blocks or [[] for _ in lengths]
    return build_plan(
        len(lengths),
        prompt_tokens=lengths,
        output_tokens=1,
        intended_ns=0,
        block_offset=offsets(np.array([len(ids) for ids in lists], dtype=np.int64)),
        block_id=[block for ids in lists for block in ids],
        block_tokens=block_tokens,
        seed=seed,
    )


@pytest.mark.parametrize("name", ["byte", "meta", "tiny", "letters"])
def test_prompts_have_exactly_the_planned_tokens(tokenizer_files, name):
    """Counted by the tokenizer itself, whatever its vocabulary is."""
    tokenizer = load(tokenizer_files[name])
    lengths = [1, 2, 3, 7, 64, 65, 1000, 70_000 if name == "byte" else 500]
    made = Prompts(_plan(lengths), tokenizer).made(range(len(lengths)))
    assert made.tokens.tolist() == lengths
    assert tokenizer.count(made.texts) == lengths


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.integers(0, 99))
def test_the_built_in_tokenizer_counts_its_own_prompts_exactly(lengths, seed):
    """Its estimate is exact on text of its own words."""
    texts = Prompts(_plan(lengths, seed=seed), load()).texts(range(len(lengths)))
    assert load().count(texts) == lengths


def test_prompts_differ_from_their_first_tokens():
    """5,000 prompts share at most one leading word with any other, and neighbours share none."""
    words = [text.split(" ") for text in Prompts(_plan([20] * 5000), load()).texts(range(5000))]
    assert len({tuple(each[:2]) for each in words}) > 4990
    assert len({tuple(each[:3]) for each in words}) == 5000
    assert all(a[0] != b[0] for a, b in pairwise(words))


def test_equal_blocks_are_equal_text_and_other_text_differs(tokenizer_files):
    """Rows share the tokens of their common leading blocks, and no more than a word's letters beyond."""
    tokenizer = load(tokenizer_files["byte"])
    plan = _plan([100, 100, 100], [[5, 6], [5, 6], [5, 9]], block_tokens=32)
    prompts = Prompts(plan, tokenizer)
    texts = prompts.texts(range(3))
    assert tokenizer.count(texts) == [100, 100, 100]
    for (a, b), shared in (((0, 1), 64), ((0, 2), 32)):
        words = zip(texts[a].split(" "), texts[b].split(" "), strict=False)
        common = [one for one, other in takewhile(lambda pair: pair[0] == pair[1], words)]
        assert tokenizer.count([" ".join(common)])[0] == shared


def test_blocks_that_cover_the_prompt_end_with_it():
    """A last block is cut short at the prompt's length, so that equal rows are equal prompts."""
    prompts = Prompts(_plan([40, 40, 50], [[1, 2], [1, 2], [1, 2]], block_tokens=32), load())
    first, second, longer = prompts.texts(range(3))
    assert first == second
    assert longer.startswith(first)
    assert load().count([first, longer]) == [40, 50]


def test_a_row_alone_is_what_it_is_in_company():
    """A prompt depends on the seed and its row, not on what else is asked for."""
    prompts = Prompts(_plan([30] * 9, seed=4), load())
    assert prompts.text(7) == prompts.texts(range(9))[7]
    assert prompts.text(7) == Prompts(_plan([30] * 9, seed=4), load()).text(7)
    assert prompts.text(7) != Prompts(_plan([30] * 9, seed=5), load()).text(7)


def test_a_count_that_cannot_be_mended_is_reported():
    """A vocabulary in which every text has an even number of tokens cannot make 5 of them: it says 4 or 6."""

    class Even:
        name, fingerprint, exact = "even", "", True

        def count(self, texts):
            return [2 * len(text.split()) for text in texts]

        def pieces(self):
            return load().pieces()

    assert Prompts(_plan([5]), Even()).made([0]).tokens[0] in (4, 6)


def _conversation():
    """Three turns of one session that go on from each other, and a fourth that begins anew."""
    return build_plan(
        4,
        prompt_tokens=[20, 45, 90, 30],
        output_tokens=[10, 15, 5, 5],
        intended_ns=[0, ABSENT, ABSENT, ABSENT],
        turn=[0, 1, 2, 3],
        parent_offset=[0, 0, 1, 2, 3],
        parent_row=[0, 1, 2],
        block_offset=[0, 1, 2, 4, 5],
        block_id=[7, 7, 7, 8, 9],
        block_tokens=64,
    )


def test_a_later_turn_is_a_conversation_whose_parts_are_its_prompt():
    """Questions and planned replies alternate, of the planned lengths, and make up the prompt to the letter."""
    prompts = Prompts(_conversation(), load())
    said = prompts.messages(2)
    assert [message.role for message in said] == ["user", "assistant", "user", "assistant", "user"]
    assert load().count([message.text for message in said]) == [20, 10, 15, 15, 30]
    assert "".join(message.text for message in said) == prompts.text(2)
    assert prompts.messages(1) == said[:3]


def test_the_real_replies_take_the_place_of_the_planned_ones():
    """What the model said stands in the history; everything else stays as it was."""
    prompts = Prompts(_conversation(), load())
    planned, real = prompts.messages(2), prompts.messages(2, {0: "Aha."})
    assert real[1] == ("assistant", "Aha.")
    assert [m for m in real if m.text != "Aha."] == [planned[k] for k in (0, 2, 3, 4)]


def test_a_turn_that_begins_anew_is_one_message():
    """A compacted context, or a row without parents, has no history."""
    prompts = Prompts(_conversation(), load())
    assert [message.role for message in prompts.messages(3)] == ["user"]
    assert prompts.messages(0)[0].text == prompts.text(0)


class _Watched:
    """A tokenizer that adds up what it encodes, and may take two words for one token."""

    exact, name, fingerprint = True, "watched", ""

    def __init__(self, file, merged=None):
        self._inner, self._merged = load(file), merged
        self.encoded = 0

    def pieces(self):
        return self._inner.pieces()

    def count(self, texts):
        self.encoded += sum(map(len, texts))
        counts = self._inner.count(texts)
        if self._merged is None:
            return counts
        return [n - text.count(self._merged) for n, text in zip(counts, texts, strict=True)]


def test_of_many_prompts_the_seams_and_a_sample_are_encoded(tokenizer_files):
    """Where the vocabulary splits at words, a tenth of the text is read at most, and every count is right."""
    watched = _Watched(tokenizer_files["byte"])
    lists = [[row % 7, 7 + row % 3] for row in range(200)]
    prompts = Prompts(_plan([900] * 200, lists, block_tokens=200), watched)
    before = watched.encoded
    made = prompts.made(range(200))
    assert watched.encoded - before < 0.1 * sum(map(len, made.texts))
    assert made.tokens.tolist() == [900] * 200
    assert load(tokenizer_files["byte"]).count(made.texts) == [900] * 200


def test_a_vocabulary_that_joins_words_is_read_whole(tokenizer_files):
    """If two common words are one token, seams say nothing: each text is encoded and mended."""
    watched = _Watched(tokenizer_files["byte"], merged=" of the")
    made = Prompts(_plan([400] * 20), watched).made(range(20))
    assert made.tokens.tolist() == [400] * 20
    assert watched.count(made.texts) == [400] * 20


def test_a_seam_that_is_not_what_it_was_made_of_is_found(tokenizer_files):
    """Words of a key that merge with each other, though the long text does not: that prompt is mended."""
    plan = _plan([60] * 100)
    first = Prompts(plan, load(tokenizer_files["byte"])).text(37).split(" ")
    watched = _Watched(tokenizer_files["byte"], merged=" ".join(first[:2]))
    made = Prompts(plan, watched).made(range(100))
    assert made.tokens.tolist() == [60] * 100
    assert watched.count(made.texts) == [60] * 100
