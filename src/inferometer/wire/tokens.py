"""How many tokens each chunk carried: an interpretation of what the server said, in a fixed order of trust.

    1. a running count in every event (vLLM's continuous usage, llama.cpp): exact per chunk
    2. a count in each event (token ids; TGI, where an event is a token)
    3. one count for the whole reply: given to the chunks one each where the numbers agree, and otherwise split as a
       tokenizer counts their texts
    4. no count at all: the tokenizer's, and `source` says so

Never the number of chunks, never the number asked for. Whatever is not plain is a note. The counts of a reply always
add up to its total.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from inferometer.wire.transcript import REASONING, Delta, Transcript

# Notes: few and without numbers, so that they can be counted over a run.
UNBELIEVED = "usage claims more tokens than were asked for by far: not believed"
UNEQUAL = "usage at the end and the counts of the events differ"
HIDDEN = "reasoning tokens were not sent, and are not counted"
HOMELESS = "usage counts tokens, but no event carried them: not counted"
SPLIT = "tokens per chunk by the tokenizer, which agrees with usage"
SPLIT_IN_PROPORTION = (
    "tokens per chunk in proportion to the tokenizer's count, which differs from usage"
)

CountTokens = Callable[[list[str]], list[int]]  # texts -> how many tokens each is


class Counted(NamedTuple):
    """`tokens`: per delta. `source`: one of timeline.TOKEN_SOURCES."""

    tokens: list[int]
    source: str
    notes: tuple[str, ...] = ()


def count(transcript: Transcript, count_tokens: CountTokens, *, most: int) -> Counted:
    """The tokens of each delta. `most`: a server that claims more tokens than this is not believed."""
    deltas = transcript.deltas
    notes: tuple[str, ...] = ()
    claimed = transcript.usage.completion if transcript.usage is not None else None
    if claimed is not None and claimed > most:
        claimed, notes = None, (UNBELIEVED,)
    for told in (_running, _per_event):
        tokens = told(deltas)
        if tokens is not None and sum(tokens) > most:
            notes = (UNBELIEVED,)
        elif tokens is not None:
            return _reconciled(transcript, tokens, claimed, notes)
    if claimed is not None:
        return _from_total(transcript, claimed, count_tokens)
    return Counted(_tokenized(deltas, count_tokens), "tokenizer", notes)


def _running(deltas: Sequence[Delta]) -> list[int] | None:
    """The steps of the running count; None where it does not run through all events that say something."""
    tokens, last, told = [], 0, 0
    for delta in deltas:
        total = delta.total
        if total is None:
            if delta.text and not delta.more:
                return None
            total = last
        else:
            told += 1
            if total == 0 and delta.text:  # a field that is filled in at the end only
                return None
        tokens.append(total - last if total > last else 0)
        last = max(total, last)
    return tokens if told > 1 else None


def _per_event(deltas: Sequence[Delta]) -> list[int] | None:
    """The counts that the events themselves carry; None where one says something and has none."""
    tokens, told = [], False
    for delta in deltas:
        if delta.tokens is not None:
            told = True
        elif delta.text and not delta.more:
            return None
        tokens.append(delta.tokens or 0)
    return tokens if told else None


def _reconciled(
    transcript: Transcript, tokens: list[int], claimed: int | None, notes: tuple[str, ...]
) -> Counted:
    """Counts per event beside the count at the end, which may know of a last token that no event told of."""
    deltas, total = transcript.deltas, sum(tokens)
    if claimed is not None and claimed != total:
        notes = (*notes, UNEQUAL)
        if claimed > total and transcript.finished_by is not None:
            tokens[transcript.finished_by] += claimed - total
    if True in [delta.more for delta in deltas]:
        _spread_over_channels(deltas, tokens)
    return Counted(tokens, "server", notes)


def _spread_over_channels(deltas: Sequence[Delta], tokens: list[int]) -> None:
    """Share the count of an event that speaks on several channels, which stands at its last delta, between them."""
    first = 0
    for last, delta in enumerate(deltas):
        if not delta.more:
            if last > first:
                lengths = [len(part.text) for part in deltas[first : last + 1]]
                tokens[first : last + 1] = share(sum(tokens[first : last + 1]), lengths)
            first = last + 1


def _from_total(transcript: Transcript, total: int, count_tokens: CountTokens) -> Counted:
    deltas, notes = transcript.deltas, []
    hidden = (transcript.usage and transcript.usage.reasoning) or 0
    if 0 < hidden <= total and not any(delta.channel == REASONING for delta in deltas):
        notes.append(HIDDEN)
        total -= hidden
    tokens = [0] * len(deltas)
    spoken = [n for n, delta in enumerate(deltas) if delta.text]
    if not spoken:
        if not deltas:
            return Counted([], "server", (*notes, HOMELESS) if total else tuple(notes))
        return Counted(_unspoken(transcript, total), "server", tuple(notes))
    one_each = _one_each(transcript, total, spoken)
    if one_each is not None:
        for n in one_each:
            tokens[n] = 1
    else:
        notes += _split(transcript, total, spoken, tokens, count_tokens)
    return Counted(tokens, "server", tuple(notes))


def _unspoken(transcript: Transcript, total: int) -> list[int]:
    """The counts where no event has text (half characters, special tokens): one each, perhaps after an opening one."""
    n = len(transcript.deltas)
    if total in (n, n - 1):
        return [0] * (n - total) + [1] * total
    tokens = [0] * n
    tokens[_last_step(transcript)] = total
    return tokens


def _one_each(transcript: Transcript, total: int, spoken: list[int]) -> list[int] | None:
    """The deltas that carry one token each, where the numbers allow no other reading.

    Those with text, as many as there are tokens; or these and all silent ones since the first text (half a character
    held back, the end token); or these and the event that says why the reply ended.
    """
    if total == len(spoken):
        return spoken
    silent = [n for n in range(spoken[0], len(transcript.deltas)) if not transcript.deltas[n].text]
    if total == len(spoken) + len(silent):
        return spoken + silent
    if total == len(spoken) + 1 and transcript.finished_by in silent:
        return [*spoken, _last_step(transcript)]
    return None


def _split(
    transcript: Transcript,
    total: int,
    spoken: list[int],
    tokens: list[int],
    count_tokens: CountTokens,
) -> list[str]:
    """Fill `tokens` in proportion to what a tokenizer counts in each text; what there is to note."""
    last = _last_step(transcript)
    ends_silently = transcript.finished_by == last and not transcript.deltas[last].text
    if len(spoken) == 1 and not ends_silently:
        tokens[spoken[0]] = total
        return []
    weights = [max(1, n) for n in count_tokens([transcript.deltas[n].text for n in spoken])]
    counted = sum(weights)
    silent = [n for n in range(spoken[0], last) if not transcript.deltas[n].text]
    if total >= counted + len(silent):  # a token whose text was held back, or never shown
        for n in silent:
            tokens[n] = 1
        total -= len(silent)
    if ends_silently and total == counted + 1:  # the end token has an event of its own
        tokens[last], total = 1, counted
    for n, part in zip(spoken, share(total, weights), strict=True):
        tokens[n] = part
    return [SPLIT if total == counted else SPLIT_IN_PROPORTION]


def _last_step(transcript: Transcript) -> int:
    finished_by = transcript.finished_by
    return len(transcript.deltas) - 1 if finished_by is None else finished_by


def _tokenized(deltas: Sequence[Delta], count_tokens: CountTokens) -> list[int]:
    tokens = [0] * len(deltas)
    spoken = [n for n, delta in enumerate(deltas) if delta.text]
    if spoken:
        for n, part in zip(spoken, count_tokens([deltas[n].text for n in spoken]), strict=True):
            tokens[n] = part
    return tokens


def share(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in whole parts, one each where it suffices and the rest in proportion to the weights beyond one.

    Largest remainders get what rounding leaves (of equals the larger weight, then the earlier); so weights that add up
    to `total` are the answer.
    """
    parts = [1 if total >= len(weights) else 0] * len(weights)
    over = [max(0, weight - floor) for weight, floor in zip(weights, parts, strict=True)]
    if not any(over):
        over = [1] * len(weights)
    rest, scale = total - sum(parts), sum(over)
    shares = [divmod(rest * weight, scale) for weight in over]
    for n, (whole, _) in enumerate(shares):
        parts[n] += whole
    left = total - sum(parts)
    for n in sorted(range(len(parts)), key=lambda n: (-shares[n][1], -weights[n]))[:left]:
        parts[n] += 1
    return parts
