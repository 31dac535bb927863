"""What an iteration of a running engine takes, seen from outside: the ladders behind `inferometer profile URL`.

Three ladders against a server that is otherwise idle (or a simulated one, which a test does: known times are found again):
    prefill   one request at a time, prompts up a ladder: what an iteration of so many prompt tokens takes
    decode    n requests at once, all decoding short contexts: what an iteration of n sequences takes
    context   the same with long prompts: what a cached token adds
So the engine's whole host time is in it (scheduling, sampling, detokenising), as far as it delays tokens. A lone request's
first token takes longer than its iteration: HTTP and tokenising come before, where they keep nobody else waiting. That part
(`front_s`) is what is left when the prefill ladder, drawn on to a prompt of one token, is compared with a decode of one.
An iteration's time under n requests is the time in which all of them made their tokens, over how many: merged events do
not disturb it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inferometer.clock import SECOND
from inferometer.errors import NotMeasurable
from inferometer.metrics import tokens
from inferometer.metrics.prefill import PrefillCurve
from inferometer.plan import build_plan
from inferometer.search import prefill
from inferometer.search.repeats import Arm
from inferometer.sim.profiled import Curve, Profile
from inferometer.timeline import Timeline

BATCHES = (1, 2, 4, 8, 16, 32)
LENGTHS = (16, 64, 128, 256, 512, 1024, 1536)
SHORT = 16  # prompt tokens of the decode ladder
FEWEST = 8  # instants at which tokens of one request arrived while all decoded

Told = Callable[[str, int, int], None]


class Ladders(NamedTuple):
    """What is measured: prompt lengths, how many decode at once, and how many tokens each."""

    lengths: Sequence[int] = LENGTHS
    batches: Sequence[int] = BATCHES
    output_tokens: int = 128
    repeats: int = 5


class Decoded(NamedTuple):
    """`sequences` that decoded together: the iteration's time, and the mean context of each."""

    sequences: int
    context: float
    time_s: float


def profile_engine(
    arm: Arm,
    folder: Path,
    ladders: Ladders = Ladders(),  # noqa: B008 - frozen
    *,
    model: str = "",
    told: Told | None = None,
) -> Profile:
    """Measure the ladders on what `arm` runs, a run directory each under `folder`; the profile that they make together."""
    sizes = decode_sizes(ladders)
    _say(told, "prefills", 0, len(sizes) + 1)
    curve = prefill.probe(arm, folder / "prefill", lengths=ladders.lengths, repeats=ladders.repeats)
    seen = []
    for done, size in enumerate(sizes):
        _say(told, "{} x {} tokens".format(*size), done + 1, len(sizes) + 1)
        times = [_decoded(arm, folder, size, ladders, seed) for seed in range(ladders.repeats)]
        seen.append(_median(size, times))
    return fitted(curve, seen, model)


def decode_sizes(ladders: Ladders) -> list[tuple[int, int]]:
    """(sequences, prompt tokens) of each decode run: short ones up the batches, and two long ones."""
    few = sorted({ladders.batches[0], ladders.batches[len(ladders.batches) // 2]})
    long = max(ladders.lengths)
    return [(n, SHORT) for n in ladders.batches] + [(n, long) for n in few]


def _say(told: Told | None, what: str, done: int, of: int) -> None:
    if told is not None:
        told(what, done, of)


def _decoded(
    arm: Arm, folder: Path, size: tuple[int, int], ladders: Ladders, seed: int
) -> Decoded | None:
    """One repeat: as many requests at once, alike but for their words; None where they never decoded side by side."""
    sequences, prompt = size
    plan = build_plan(
        sequences,
        prompt_tokens=[prompt] * sequences,
        output_tokens=ladders.output_tokens,
        concurrency=sequences,
        seed=seed + 1,
        generator="decode-ladder/1",
    )
    path = folder / f"decode-{sequences:03d}-{prompt}-{seed}"
    return decoded(arm(plan, seed, path).timeline)


def _median(size: tuple[int, int], times: Sequence[Decoded | None]) -> Decoded:
    """The middle one by time: a pause of the machine in one repeat does not count."""
    known = sorted((one for one in times if one), key=lambda one: one.time_s)
    if not known:
        raise NotMeasurable(f"{size[0]} requests of {size[1]} tokens never decoded side by side")
    return known[len(known) // 2]


def decoded(timeline: Timeline) -> Decoded | None:
    """The iteration while all requests decoded; None where one failed, or too few instants are left to tell."""
    chunks = tokens.token_chunks(timeline)
    if not len(timeline) or not timeline.ok.all():
        return None
    begin = int(tokens.first_token_ns(chunks).max())
    end = int(tokens.last_token_ns(chunks).min())
    spans, counts = [], []
    for row in range(len(chunks)):
        part = slice(chunks.chunk_offset[row], chunks.chunk_offset[row + 1])
        at, made = chunks.chunk_ns[part], chunks.chunk_tokens[part]
        inside = (at >= begin) & (at <= end)
        if len(np.unique(at[inside])) < FEWEST:
            return None
        spans.append(int(at[inside][-1] - at[inside][0]))
        counts.append(int(made[inside][1:].sum()))
    context = float(timeline.prompt_tokens.mean() + timeline.output_tokens.mean() / 2)
    return Decoded(len(chunks), context, float(sum(spans) / sum(counts)) / SECOND)


def fitted(curve: PrefillCurve, seen: Sequence[Decoded], model: str) -> Profile:
    """The profile of the ladders' points. Knots go through the medians; only attention is fitted."""
    context_s = _context_s(seen)
    short = {one.sequences: one for one in reversed(seen)}  # the first of a size is the short one
    decode = {n: one.time_s - context_s * n * one.context for n, one in sorted(short.items())}
    quadratic = curve.per_token2_s
    rungs = [
        (float(p.prompt_tokens), p.p50_s - quadratic * p.prompt_tokens**2) for p in curve.points
    ]
    front_s = max(Curve(tuple(rungs))(1.0) - decode[min(decode)], 0.0)
    by_tokens = tuple((n, time_s - front_s) for n, time_s in rungs)
    at = Curve(by_tokens)
    return Profile(
        kind="engine",
        model=model,
        device="as served",
        tokens=by_tokens,
        sequences=tuple((float(n), time_s - at(n)) for n, time_s in decode.items()),
        pair_s=2 * quadratic,
        context_s=context_s,
        front_s=front_s,
        evidence={
            "prefill": [[p.prompt_tokens, p.n, p.p25_s, p.p50_s, p.p75_s] for p in curve.points],
            "decode": [list(one) for one in seen],
        },
    )


def _context_s(seen: Sequence[Decoded]) -> float:
    """Seconds per cached token: the mean slope between a short and a long run of as many sequences; not below 0."""
    slopes = []
    for i, one in enumerate(seen):
        for other in seen[i + 1 :]:
            if one.sequences == other.sequences and one.context != other.context:
                more = one.sequences * (other.context - one.context)
                slopes.append((other.time_s - one.time_s) / more)
    return max(float(np.mean(slopes)), 0.0) if slopes else 0.0
