"""What a trace, a profile or a plan is like: lengths, prompt:output, arrivals, sharing and sessions, with intervals.

Every quantile carries a 95 % bootstrap interval. Requests of sessions resemble each other, so where there are sessions,
sessions are resampled, not requests. Of independent requests nothing needs to be resampled at all: an order statistic
of a bootstrap sample of n is the original's at rank ceil(n U), where U is the same order statistic of n uniform numbers;
these are drawn directly, jointly, as partial sums of gamma numbers (Devroye, Non-Uniform Random Variate Generation, 1986,
chapter V.3). So a thousand resamples of 27 million rows cost as much as of twenty, and counts of values suffice.

The shape of the result is the one of `describe --json` (DESIGN 4.10); more keys stand beside the ones that are fixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferometer.clock import SECOND
from inferometer.plan import Plan
from inferometer.timeline import ABSENT, Array, Ints
from inferometer.workload.burstiness import WINDOWS_S, Pace
from inferometer.workload.contents import WorkloadSpec
from inferometer.workload.draws import Floats
from inferometer.workload.joint import LEVELS
from inferometer.workload.plan import make_plan
from inferometer.workload.profiles import Profile
from inferometer.workload.replay import spread
from inferometer.workload.sharing import Blocks, plan_blocks, shared
from inferometer.workload.tally import Distribution, Tally
from inferometer.workload.traces import Trace

QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.99)
_RESAMPLES = 1000
_SESSION_EFFORT = 20_000_000  # rows that are looked at in all resamples of sessions
_MOST_CLUSTERED = 2_000_000  # rows; beyond, resampling sessions takes too long
_DRAWN = (
    50_000,
    1_500_000,
)  # requests that are drawn from a profile to describe it, at least and at most
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class _Seen:
    """What describing needs, of a trace and of a plan alike, row by row."""

    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    pace: Pace | None
    stamped: Pace | None  # before ticks were spread
    tick_ns: int | None
    session: Ints | None
    think_s: Floats
    blocks: Blocks | None


def describe(what: Trace | Tally | Profile | Plan, *, seed: int = 0) -> dict[str, Any]:
    """`what` as plain data. Times in seconds; a value that cannot be computed is None."""
    if isinstance(what, Profile):
        drawn = make_plan(WorkloadSpec(profile=what, requests=_enough(what)), seed)
        facts: dict[str, Any] = {
            "kind": "profile",
            "name": what.name,
            "source": what.source,
            "app": what.app,
        }
        facts |= {"rows": what.rows, "drawn": len(drawn), "licence": what.licence, "slo": what.slo}
        seen = _of_plan(drawn)
        if all(client.arrivals is None for client in what.clients):
            seen = replace(seen, pace=None, stamped=None)
        return facts | _described(seen, seed) | {"notes": list(what.notes)}
    if isinstance(what, Plan):
        facts = {"kind": "plan", "rows": len(what), "fingerprint": what.fingerprint}
        facts["apps"] = _counted(what.app)
        return facts | _described(_of_plan(what), seed) | {"notes": list(what.notes)}
    facts = {"kind": "trace", "rows": _rows(what), "format": what.format, "source": what.source}
    facts["app"] = what.app
    facts["problems"] = {"rows": what.problems.rows, "first": list(what.problems.first)}
    if isinstance(what, Tally):
        return facts | _counted_up(what, seed) | {"notes": list(what.notes)}
    if what.cached_tokens is not None:
        share = what.cached_tokens.sum() / max(int(what.prompt_tokens.sum(dtype=np.int64)), 1)
        facts["reported_cached_share"] = float(share)
    return facts | _described(_of_trace(what), seed) | {"notes": list(what.notes)}


def _enough(profile: Profile) -> int:
    """As many requests as fill a profile's rate tables once, within bounds."""
    tables = [client.arrivals for client in profile.clients if client.arrivals is not None]
    once = max((len(table.counts) * table.every_s for table in tables), default=0.0)
    expected = math.fsum(table.mean_rate for table in tables) * once
    return int(np.clip(math.ceil(expected), *_DRAWN))


def _rows(what: Trace | Tally) -> int:
    return what.rows if isinstance(what, Tally) else len(what)


def _of_trace(trace: Trace) -> _Seen:
    stamped = times = trace.known_ns
    if trace.arrival_ns is not None:
        times, _ = spread(trace, detick=True, seed=0)
        times = np.sort(times[times != ABSENT])
    think = np.zeros(0, dtype=np.int64)
    if trace.links is not None:
        think = trace.links.think_ns[np.diff(trace.links.offset) > 0]
    return _Seen(
        prompt=trace.prompt_tokens.astype(np.int64),
        output=trace.output_tokens.astype(np.int64),
        pace=_pace(times),
        stamped=_pace(stamped),
        tick_ns=trace.tick_ns,
        session=trace.session,
        think_s=think / SECOND,
        blocks=trace.blocks,
    )


def _of_plan(plan: Plan) -> _Seen:
    pace = _pace(np.sort(plan.intended_ns[plan.intended_ns != ABSENT]))
    waits = np.diff(plan.parent_offset) > 0
    names = plan.session_id
    session = None
    if len(names) and names[0] is not None:
        session = np.unique(names.astype(str), return_inverse=True)[1].reshape(-1)
    return _Seen(
        prompt=plan.prompt_tokens.astype(np.int64),
        output=plan.output_tokens.astype(np.int64),
        pace=pace,
        stamped=pace,
        tick_ns=None,
        session=session,
        think_s=plan.think_ns[waits] / SECOND,
        blocks=plan_blocks(plan) if len(plan.block_id) else None,
    )


def _pace(times: Ints) -> Pace:
    pace = Pace()
    pace.add(times)
    return pace


def _counted_up(seen: Tally, seed: int) -> dict[str, Any]:
    """The same as `_described`, of a trace that was counted; it has no sessions and no blocks."""
    rng = np.random.default_rng(seed)
    answered = len(seen.ratio)
    out: dict[str, Any] = {
        "prompt_tokens": _quantiles(seen.prompt, rng),
        "output_tokens": _quantiles(seen.output, rng),
        "pd_ratio": _quantiles(seen.ratio, rng),
        "without_output": seen.rows - answered,
        "spearman": _spearman(seen.pairs[:, 0], seen.pairs[:, 1]),
        "intervals": "bootstrap over requests",
        "arrivals": _arrivals(seen.pace, seen.stamped, seen.tick_ns),
        "prefix": None,
        "sessions": None,
    }
    return out | {"curves": _curves(seen.prompt, seen.output, seen.ratio, None, seen.pace)}


def _described(seen: _Seen, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    clusters = seen.session
    if clusters is not None and (len(clusters) > _MOST_CLUSTERED or len(np.unique(clusters)) < 2):
        clusters = None
    answered = seen.output > 0
    ratio = seen.prompt[answered] / seen.output[answered]
    of_ratio = clusters[answered] if clusters is not None else None
    out: dict[str, Any] = {
        "prompt_tokens": quantiles(seen.prompt, rng, clusters),
        "output_tokens": quantiles(seen.output, rng, clusters),
        "pd_ratio": quantiles(ratio, rng, of_ratio),
        "without_output": int(np.count_nonzero(~answered)),
        "spearman": _spearman(seen.prompt, seen.output),
        "intervals": "bootstrap over " + ("sessions" if clusters is not None else "requests"),
        "arrivals": _arrivals(seen.pace, seen.stamped, seen.tick_ns),
        "sessions": _sessions(seen, rng),
    }
    out["prefix"], uncached = _prefix(seen, rng, clusters)
    lengths = Distribution.of(seen.prompt), Distribution.of(seen.output), Distribution.of(ratio)
    return out | {"curves": _curves(*lengths, uncached, seen.pace)}


# --- quantiles with intervals -----------------------------------------------------------------------------------------


def quantiles(
    values: Array, rng: np.random.Generator, clusters: Ints | None = None
) -> dict[str, Any]:
    """The Q of DESIGN 4.10: mean, quantiles, max, interquartile range, and 95 % intervals; None where undefined."""
    if clusters is None or not len(values):
        return _quantiles(Distribution.of(values), rng)
    order = np.argsort(values, kind="stable")
    ordered = values[order].astype(np.float64)
    samples, means = _resampled_sessions(ordered, clusters[order], rng)
    return _told(Distribution.of(values), samples, _ends(means))


def _quantiles(values: Distribution, rng: np.random.Generator) -> dict[str, Any]:
    """The same of independent values."""
    if not len(values):
        nothing: dict[str, Any] = dict.fromkeys(("mean", *_NAMES, "max", "iqr"))
        return nothing | {"ci": dict.fromkeys(("mean", *_NAMES, "iqr"))}
    return _told(values, _resampled(values, rng), _mean_interval(values))


_NAMES = tuple(f"p{100 * q:g}" for q in QUANTILES)


def _told(values: Distribution, samples: Floats, mean_ci: list[float] | None) -> dict[str, Any]:
    point = values.quantile(np.array(QUANTILES))
    out: dict[str, Any] = {"mean": values.mean}
    out |= dict(zip(_NAMES, point.tolist(), strict=True))
    out |= {"max": float(values.values[-1]), "iqr": float(point[2] - point[0])}
    ci = {name: _ends(column) for name, column in zip(_NAMES, samples.T, strict=True)}
    return out | {"ci": {"mean": mean_ci, **ci, "iqr": _ends(samples[:, 2] - samples[:, 0])}}


def _resampled(values: Distribution, rng: np.random.Generator) -> Floats:
    """Bootstrap samples of the quantiles [resamples, Q] of an independent sample."""
    n = len(values)
    rank = np.array(QUANTILES) * (n - 1)
    below = np.floor(rank).astype(np.int64)
    above = np.minimum(below + 1, n - 1)
    needed = np.unique(np.concatenate([below, above])) + 1  # order statistics count from 1
    steps = np.diff(needed, prepend=0, append=n + 1).astype(np.float64)
    sums = np.cumsum(rng.standard_gamma(steps, size=(_RESAMPLES, len(steps))), axis=1)
    place = np.minimum((sums[:, :-1] / sums[:, -1:] * n).astype(np.int64), n - 1)
    drawn = values.ranked(place)
    lower = drawn[:, np.searchsorted(needed, below + 1)]
    upper = drawn[:, np.searchsorted(needed, above + 1)]
    return np.asarray(lower + (upper - lower) * (rank - below))


def _resampled_sessions(
    ordered: Floats, session: Ints, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Bootstrap samples of the quantiles [resamples, Q] and of the mean, where whole sessions are drawn."""
    _, dense = np.unique(session, return_inverse=True)
    dense = dense.reshape(-1).astype(np.int32)
    count, n = int(dense.max()) + 1, len(ordered)
    rows, sums = np.bincount(dense), np.bincount(dense, weights=ordered)
    rounds = int(np.clip(_SESSION_EFFORT // n, 50, 200))
    samples, means = np.empty((rounds, len(QUANTILES))), np.empty(rounds)
    for place in range(rounds):
        drawn = np.bincount(rng.integers(0, count, count), minlength=count)
        edge = np.cumsum(drawn.astype(np.int32)[dense])
        at = np.searchsorted(edge, np.array(QUANTILES) * edge[-1], side="left")
        samples[place] = ordered[np.minimum(at, n - 1)]
        means[place] = (drawn @ sums) / (drawn @ rows)
    return samples, means


def _ends(samples: Floats) -> list[float]:
    low, high = np.quantile(samples, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return [float(low), float(high)]


def _mean_interval(values: Distribution) -> list[float] | None:
    if len(values) < 2:
        return None
    half = 1.959964 * values.deviation / math.sqrt(len(values))
    return [values.mean - half, values.mean + half]


def _spearman(a: Array, b: Array) -> float | None:
    """Rank correlation, of a million rows evenly taken where there are more; None where one of both is constant."""
    step = -(-len(a) // 1_000_000)
    a, b = a[::step], b[::step]
    if len(a) < 3 or a.min() == a.max() or b.min() == b.max():
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Array) -> Floats:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2.0
    return np.asarray(middle[index.reshape(-1)])


# --- time, sharing, sessions ------------------------------------------------------------------------------------------


def _arrivals(
    pace: Pace | None, stamped: Pace | None, tick_ns: int | None
) -> dict[str, Any] | None:
    if pace is None or stamped is None or not pace.span_s > 0:
        return None
    per_s = pace.arrivals / pace.span_s
    return {
        "rate_per_s": per_s,
        "cv": _plain(pace.cv),
        "idc": {str(w): _plain(pace.idc(w)) for w in WINDOWS_S},
        "span_s": pace.span_s,
        "tick_s": None if tick_ns is None else tick_ns / SECOND,
        "cv_as_stamped": _plain(stamped.cv),
        "peak_to_mean_per_minute": pace.most_within(60) / (per_s * min(60.0, pace.span_s)),
        "by_hour": _by_hour(pace),
    }


def _by_hour(pace: Pace) -> list[float] | None:
    """The rate [1/s] in each hour since the first request, folded to a day; None below a day."""
    if pace.span_s < 86_400:
        return None
    hourly = pace.rate().coarser(3600)
    arrivals = np.bincount(hourly.place % 24, weights=hourly.arrivals, minlength=24)
    whole, rest = divmod(math.ceil(pace.span_s / 3600), 24)
    hours = whole + (np.arange(24) < rest)
    return [float(rate) for rate in arrivals / hours / 3600]


def _prefix(
    seen: _Seen, rng: np.random.Generator, clusters: Ints | None
) -> tuple[dict[str, Any] | None, Distribution | None]:
    """What an infinite prefix cache would hold, and prompt:output by the tokens that it would not; that, as it is."""
    if seen.blocks is None:
        return None, None
    known = shared(seen.blocks, seen.prompt.astype(np.int32)).tokens
    answered = seen.output > 0
    rest = (seen.prompt - known)[answered] / seen.output[answered]
    told = {
        "block_tokens": seen.blocks.tokens,
        "cached_share": float(known.sum() / max(seen.prompt.sum(), 1)),
        "pd_ratio_uncached": quantiles(
            rest, rng, clusters[answered] if clusters is not None else None
        ),
        "uncached_prompt_tokens": quantiles(seen.prompt - known, rng, clusters),
    }
    return told, Distribution.of(rest)


def _sessions(seen: _Seen, rng: np.random.Generator) -> dict[str, Any] | None:
    if seen.session is None:
        return None
    mine = seen.session[seen.session >= 0]
    if not len(mine):
        return None
    counts = np.unique(mine, return_counts=True)[1]
    return {
        "count": len(counts),
        "requests": quantiles(counts, rng),
        "think_s": quantiles(seen.think_s, rng),
    }


def _curves(
    prompt: Distribution,
    output: Distribution,
    ratio: Distribution,
    uncached: Distribution | None,
    pace: Pace | None,
) -> dict[str, Any]:
    """What plots are drawn from: quantiles at 104 levels, and counts over time in at most 400 stretches."""
    out: dict[str, Any] = {"levels": LEVELS.tolist()}
    for name, values in (
        ("prompt_tokens", prompt),
        ("output_tokens", output),
        ("pd_ratio", ratio),
        ("pd_ratio_uncached", uncached),
    ):
        some = values is not None and len(values) > 0
        out[name] = values.quantile(LEVELS).tolist() if values is not None and some else None
    if pace is not None and pace.span_s > 0:
        rate = pace.rate()
        step = max(1, math.ceil(pace.span_s / 400 / rate.width_s))
        place, counts = rate.place // step, np.zeros(int(rate.place[-1]) // step + 1)
        np.add.at(counts, place, rate.arrivals)
        out["arrivals"] = {
            "every_s": float(step * rate.width_s),
            "counts": counts.astype(int).tolist(),
        }
    return out


def _counted(names: Array) -> dict[str, int]:
    values, counts = np.unique(names.astype(str), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
