"""What the tokenizers count."""

import pytest

from inferometer.errors import UserError
from inferometer.workload.tokenizer import load
from inferometer.workload.words import OPENERS, WORDS


def test_the_vocabulary_is_words_and_each_once():
    """About a thousand different lower-case words, of which the openers come first."""
    assert len(WORDS) > 1000
    assert len(set(WORDS)) == len(WORDS)
    assert all(word.isalpha() and word.islower() for word in WORDS)
    assert WORDS[: len(OPENERS)] == OPENERS


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("the", 1),
        ("the people said. it was", 6),
        ("12345", 2),
        ("the\n\nend", 3),
        ("a_b", 3),
    ],
)
def test_the_built_in_tokenizer_counts_simple_texts(text, tokens):
    """Known words, stops, digits and blanks count as byte-pair vocabularies count them."""
    assert load().count([text]) == [tokens]


def test_the_built_in_tokenizer_says_that_it_estimates():
    """It is not exact, and its fingerprint is stable within a process."""
    assert not load().exact
    assert load().fingerprint == load().fingerprint
    assert len(load().fingerprint) == 64


def test_a_file_and_its_folder_are_the_same_tokenizer(tokenizer_files):
    """Either path loads it; the fingerprint is that of the content."""
    file = tokenizer_files["byte"]
    assert load(file).fingerprint == load(file.parent).fingerprint
    assert load(file).exact
    assert load(file).count(["the people", "the"]) == [2, 1]


def test_counting_many_texts_gives_what_counting_each_gives(tokenizer_files, monkeypatch):
    """Batches are an economy, not a meaning."""
    monkeypatch.setattr("inferometer.workload.tokenizer._BATCH_CHARS", 20)
    tokenizer = load(tokenizer_files["byte"])
    texts = ["the people", "", "of the house and the garden", "the"] * 3
    assert tokenizer.count(texts) == [tokenizer.count([text])[0] for text in texts]


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(tmp_path, content):
    """Missing, empty or foreign files end in a UserError that names the file."""
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_pieces_that_are_said_to_be_single_tokens_are(tokenizer_files):
    """Joined at random, pieces of every vocabulary add up to as many tokens."""
    for name in ("byte", "meta", "tiny"):
        tokenizer = load(tokenizer_files[name])
        openers, words, stop = tokenizer.pieces()
        assert len(words) > 20, name
        text = " ".join((openers[-1], *words)) + "." * stop
        assert tokenizer.count([text]) == [1 + len(words) + stop], name
