"""How tokens are given to chunks: the order of trust, and what is noted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.wire.tokens import (
    HIDDEN,
    HOMELESS,
    SPLIT,
    SPLIT_IN_PROPORTION,
    UNBELIEVED,
    UNEQUAL,
    count,
    share,
)
from inferometer.wire.transcript import CONTENT, REASONING, Counts, Delta, Transcript

MOST = 1000


def transcript(*deltas, usage=None, finished=False, reasoning=None):
    """Deltas as texts or as (text, tokens, total); `finished`: by the last one."""
    said = Transcript()
    for delta in deltas:
        text, tokens, total = delta if isinstance(delta, tuple) else (delta, None, None)
        said.deltas.append(Delta(CONTENT, text, tokens, total))
    if usage is not None:
        said.usage = Counts(10, usage, None, reasoning)
    if finished:
        said.finish("stop")
    return said


def words(texts):
    return [len(text.split()) for text in texts]


def never(texts):
    raise AssertionError(f"the tokenizer was asked about {texts}")


def running(*pairs, **more):
    return transcript(*((text, None, total) for text, total in pairs), **more)


def test_a_running_count_is_exact_per_chunk():
    """Its steps, with no tokenizer; bursts, held back text and an end token included."""
    said = running(("", 0), ("a", 1), ("", 2), ("b c d", 5), ("", 6), usage=6, finished=True)

    assert count(said, never, most=MOST) == ([0, 1, 1, 3, 1], "server", ())


def test_a_running_count_that_falls_does_not_count_twice():
    """A count that goes back (a retried step) adds nothing until it is passed again."""
    assert count(running(("a", 1), ("b", 3), ("c", 2), ("d", 4)), never, most=MOST).tokens == [
        1,
        2,
        0,
        1,
    ]


def test_the_last_usage_may_know_of_one_more_token():
    """It is given to the event that ended the reply, and noted."""
    said = running(("a", 1), ("b", 2), usage=3, finished=True)

    assert count(said, never, most=MOST) == ([1, 2], "server", (UNEQUAL,))
    assert count(running(("a", 1), ("b", 2), usage=1), never, most=MOST) == (
        [1, 1],
        "server",
        (UNEQUAL,),
    )


@pytest.mark.parametrize(
    "said",
    [
        transcript("a", "b", ("", None, 2), usage=2, finished=True),  # usage in the finish event
        running(
            ("a", 0), ("b", 0), ("", 2), usage=2, finished=True
        ),  # a field filled in at the end
        transcript(("a", None, 1), "b", usage=2),  # a count that some events do not have
    ],
)
def test_what_only_looks_like_a_running_count_is_not_one(said):
    """Then the count of the whole reply is shared out, instead of landing on its last chunk."""
    assert count(said, never, most=MOST).tokens[:2] == [1, 1]


def test_counts_in_the_events_come_next():
    """Token ids, or one token by definition; a silent event may carry some too."""
    said = transcript(("a", 1, None), ("b c", 2, None), ("", 1, None), "", usage=4, finished=True)

    assert count(said, never, most=MOST) == ([1, 2, 1, 0], "server", ())


def test_an_event_on_two_channels_shares_its_count():
    """In proportion to the lengths of its texts, one each if it can be."""
    said = Transcript()
    said.say([(REASONING, "hm"), (CONTENT, "well then")], tokens=5)
    said.say([(REASONING, ""), (CONTENT, "a")], tokens=1)

    assert [delta.channel for delta in said.deltas] == [REASONING, CONTENT, CONTENT]
    assert count(said, never, most=MOST).tokens == [1, 4, 1]


@pytest.mark.parametrize(
    ("texts", "usage", "tokens"),
    [
        (["", "a", "b", ""], 2, [0, 1, 1, 0]),  # llama-server: the finish event carries nothing
        (["", "a", "b", ""], 3, [0, 1, 1, 1]),  # ... or the end token
        (["a", "", "b", ""], 4, [1, 1, 1, 1]),  # half a character was held back
        (["a", "", "b", ""], 3, [1, 0, 1, 1]),
        (["", "", ""], 3, [1, 1, 1]),  # nothing but half characters
        (["", "", ""], 2, [0, 1, 1]),
        (["", "", ""], 7, [0, 0, 7]),
        (["a"], 8, [8]),  # not streamed
        (["", ""], 0, [0, 0]),
        (["a b"], 0, [0]),
    ],
)
def test_a_total_is_given_out_one_each_where_the_numbers_agree(texts, usage, tokens):
    """Without asking a tokenizer, and without a note."""
    said = transcript(*texts, usage=usage, finished=True)

    assert count(said, never, most=MOST) == (tokens, "server", ())


def test_a_total_is_split_as_the_tokenizer_counts():
    """Exactly where it agrees with the usage (but for an end token), else in proportion; both are noted."""
    texts = ["a b c", "d", ""]

    assert count(transcript(*texts, usage=4, finished=True), words, most=MOST) == (
        [3, 1, 0],
        "server",
        (SPLIT,),
    )
    assert count(transcript(*texts, usage=5, finished=True), words, most=MOST) == (
        [3, 1, 1],
        "server",
        (SPLIT,),
    )
    assert count(transcript(*texts, usage=8, finished=True), words, most=MOST) == (
        [7, 1, 0],
        "server",
        (SPLIT_IN_PROPORTION,),
    )
    assert count(transcript("a b", "", "c d e f", usage=7), words, most=MOST).tokens == [2, 1, 4]
    assert count(transcript("a", "b", "c", usage=2), words, most=MOST).tokens == [1, 1, 0]


def test_without_usage_the_tokenizer_counts():
    """And the source says so; a server that never spoke has no tokens."""
    assert count(transcript("a b", "", "c"), words, most=MOST) == ([2, 0, 1], "tokenizer", ())
    assert count(transcript(), never, most=MOST) == ([], "tokenizer", ())


def test_reasoning_that_was_not_sent_is_not_counted():
    """Tokens that no chunk carried have no time; what was shown keeps its own."""
    said = transcript("a", "b", usage=40, reasoning=38, finished=True)

    assert count(said, never, most=MOST) == ([1, 1], "server", (HIDDEN,))


def test_a_total_without_any_event_is_nowhere():
    """Noted, and not counted: the chunks are what the counts add up to."""
    assert count(transcript(usage=4), never, most=MOST) == ([], "server", (HOMELESS,))


@pytest.mark.parametrize(
    "said",
    [
        transcript("a b", "c", usage=10**9),
        running(("a b", 1), ("c", 10**9)),
        transcript(("a b", 10**9, None), ("c", 1, None)),
        running(("a b", 1), ("c", 10**9), usage=10**9),
    ],
)
def test_absurd_counts_are_not_believed(said):
    """A billion tokens in a reply of sixteen would cost a billion zero gaps: the tokenizer counts instead."""
    assert count(said, words, most=MOST) == ([2, 1], "tokenizer", (UNBELIEVED,))


texts = st.sampled_from(["", "a", "b c", "d e f"])
numbers = st.none() | st.integers(0, 40)


@settings(deadline=None, max_examples=100)
@given(
    deltas=st.lists(
        st.builds(Delta, st.integers(0, 2), texts, numbers, numbers, st.booleans()), max_size=8
    ),
    usage=numbers,
    hidden=numbers,
    finished_by=st.integers(0, 7) | st.none(),
)
def test_no_count_is_negative_and_a_total_is_kept(deltas, usage, hidden, finished_by):
    """Whatever a server says, every delta gets a count, and a believed total is what they add up to."""
    said = Transcript()
    said.deltas = deltas
    said.usage = None if usage is None else Counts(1, usage, None, hidden)
    said.finished_by = (
        finished_by if finished_by is not None and finished_by < len(deltas) else None
    )
    counted = count(said, words, most=MOST)

    assert len(counted.tokens) == len(deltas)
    assert all(tokens >= 0 for tokens in counted.tokens)
    if usage is not None and deltas and not {HIDDEN, UNEQUAL} & set(counted.notes):
        assert counted.source == "server"
        assert sum(counted.tokens) == usage


@settings(deadline=None, max_examples=100)
@given(total=st.integers(0, 500), weights=st.lists(st.integers(0, 30), min_size=1, max_size=9))
def test_shares_add_up_and_follow_the_weights(total, weights):
    """Nothing is lost, everybody gets one if it suffices, a bigger weight never gets less."""
    parts = share(total, weights)

    assert sum(parts) == total
    assert min(parts) >= (1 if total >= len(weights) else 0)
    assert all(
        a >= b
        for a, wa in zip(parts, weights, strict=True)
        for b, wb in zip(parts, weights, strict=True)
        if wa > wb
    )


@settings(deadline=None, max_examples=100)
@given(weights=st.lists(st.integers(1, 30), min_size=1, max_size=9))
def test_weights_that_add_up_are_their_own_shares(weights):
    """A tokenizer that agrees with the usage is followed exactly."""
    assert share(sum(weights), weights) == weights
