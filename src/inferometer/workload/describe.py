"""What a trace, a profile or a plan is like: lengths, prompt:output, arrivals, sharing and sessions, with intervals.

Every quantile carries a 95 % bootstrap interval. Requests of sessions resemble each other, so where there are sessions,
sessions are resampled, not requests. Of independent requests nothing needs to be resampled at all: an order statistic
of a bootstrap sample of n is the original's at rank ceil(n U), where U is the same order statistic of n uniform numbers;
these are drawn directly, jointly, as partial sums of gamma numbers (Devroye, Non-Uniform Random Variate Generation, 1986,
chapter V.3). So a thousand resamples of 27 million rows cost as much as of twenty.

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
from inferometer.workload.burstiness import WINDOWS_S, gap_cv, idc
from inferometer.workload.contents import WorkloadSpec
from inferometer.workload.draws import Floats
from inferometer.workload.joint import LEVELS
from inferometer.workload.plan import make_plan
from inferometer.workload.profiles import Profile
from inferometer.workload.replay import spread
from inferometer.workload.sharing import Blocks, plan_blocks, shared
from inferometer.workload.traces import Trace

QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.99)
_RESAMPLES = 1000
_SESSION_EFFORT = 20_000_000  # rows that are looked at in all resamples of sessions
_MOST_CLUSTERED = 2_000_000  # rows; beyond, resampling sessions takes too long
_DRAWN = 50_000  # requests that are drawn from a profile to describe it
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class _Seen:
    """What describing needs, of a trace and of a plan alike."""

    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    times_s: Floats  # sorted, from 0; empty where there are none
    stamped_s: Floats  # before ticks were spread
    tick_ns: int | None
    session: Ints | None
    think_s: Floats
    blocks: Blocks | None


def describe(what: Trace | Profile | Plan, *, seed: int = 0) -> dict[str, Any]:
    """`what` as plain data. Times in seconds; a value that cannot be computed is None."""
    if isinstance(what, Profile):
        drawn = make_plan(WorkloadSpec(profile=what, requests=_DRAWN), seed)
        facts: dict[str, Any] = {
            "kind": "profile",
            "name": what.name,
            "source": what.source,
            "app": what.app,
        }
        facts |= {"rows": what.rows, "drawn": len(drawn), "licence": what.licence, "slo": what.slo}
        seen = _of_plan(drawn)
        if all(client.arrivals is None for client in what.clients):
            seen = replace(seen, times_s=np.zeros(0), stamped_s=np.zeros(0))
        return facts | _described(seen, seed) | {"notes": list(what.notes)}
    if isinstance(what, Plan):
        facts = {"kind": "plan", "rows": len(what), "fingerprint": what.fingerprint}
        facts["apps"] = _counted(what.app)
        return facts | _described(_of_plan(what), seed) | {"notes": list(what.notes)}
    facts = {"kind": "trace", "rows": len(what), "format": what.format, "source": what.source}
    facts["app"] = what.app
    if what.cached_tokens is not None:
        share = what.cached_tokens.sum() / max(int(what.prompt_tokens.sum(dtype=np.int64)), 1)
        facts["reported_cached_share"] = float(share)
    facts["problems"] = {"rows": what.problems.rows, "first": list(what.problems.first)}
    return facts | _described(_of_trace(what), seed) | {"notes": list(what.notes)}


def _of_trace(trace: Trace) -> _Seen:
    stamped = trace.known_ns
    times = stamped
    if trace.arrival_ns is not None:
        times, _ = spread(trace, detick=True, seed=0)
        times = np.sort(times[times != ABSENT])
    think = np.zeros(0, dtype=np.int64)
    if trace.links is not None:
        think = trace.links.think_ns[np.diff(trace.links.offset) > 0]
    return _Seen(
        prompt=trace.prompt_tokens.astype(np.int64),
        output=trace.output_tokens.astype(np.int64),
        times_s=_seconds(times),
        stamped_s=_seconds(stamped),
        tick_ns=trace.tick_ns,
        session=trace.session,
        think_s=think / SECOND,
        blocks=trace.blocks,
    )


def _of_plan(plan: Plan) -> _Seen:
    times = _seconds(np.sort(plan.intended_ns[plan.intended_ns != ABSENT]))
    waits = np.diff(plan.parent_offset) > 0
    names = plan.session_id
    session = None
    if len(names) and names[0] is not None:
        session = np.unique(names.astype(str), return_inverse=True)[1].reshape(-1)
    return _Seen(
        prompt=plan.prompt_tokens.astype(np.int64),
        output=plan.output_tokens.astype(np.int64),
        times_s=times,
        stamped_s=times,
        tick_ns=None,
        session=session,
        think_s=plan.think_ns[waits] / SECOND,
        blocks=plan_blocks(plan) if len(plan.block_id) else None,
    )


def _seconds(times: Ints) -> Floats:
    return (times - times[:1]) / SECOND


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
        "arrivals": _arrivals(seen),
        "prefix": _prefix(seen, rng, clusters),
        "sessions": _sessions(seen, rng),
    }
    return out | {"curves": _curves(seen, ratio)}


# --- quantiles with intervals -----------------------------------------------------------------------------------------


def quantiles(
    values: Array, rng: np.random.Generator, clusters: Ints | None = None
) -> dict[str, Any]:
    """The Q of DESIGN 4.10: mean, quantiles, max, interquartile range, and 95 % intervals; None where undefined."""
    names = [f"p{100 * q:g}" for q in QUANTILES]
    if not len(values):
        nothing: dict[str, Any] = dict.fromkeys(("mean", *names, "max", "iqr"))
        return nothing | {"ci": dict.fromkeys(("mean", *names, "iqr"))}
    if clusters is None:
        ordered = np.sort(values).astype(np.float64)
        samples, means = _resampled(ordered, rng), _mean_interval(ordered)
    else:
        order = np.argsort(values, kind="stable")
        ordered = values[order].astype(np.float64)
        samples, mean_samples = _resampled_sessions(ordered, clusters[order], rng)
        means = _ends(mean_samples)
    point = _of_sorted(ordered, np.array(QUANTILES))
    out: dict[str, Any] = {"mean": float(ordered.mean())}
    out |= dict(zip(names, point.tolist(), strict=True))
    out |= {"max": float(ordered[-1]), "iqr": float(point[2] - point[0])}
    ci = {name: _ends(column) for name, column in zip(names, samples.T, strict=True)}
    return out | {"ci": {"mean": means, **ci, "iqr": _ends(samples[:, 2] - samples[:, 0])}}


def _of_sorted(ordered: Array, levels: Floats) -> Floats:
    """Quantiles of a sorted sample by linear interpolation, numpy's default."""
    rank = levels * (len(ordered) - 1)
    below = np.floor(rank).astype(np.int64)
    above = np.minimum(below + 1, len(ordered) - 1)
    return np.asarray(ordered[below] + (ordered[above] - ordered[below]) * (rank - below))


def _resampled(ordered: Floats, rng: np.random.Generator) -> Floats:
    """Bootstrap samples of the quantiles [resamples, Q] of an independent, sorted sample."""
    n = len(ordered)
    rank = np.array(QUANTILES) * (n - 1)
    below = np.floor(rank).astype(np.int64)
    above = np.minimum(below + 1, n - 1)
    needed = np.unique(np.concatenate([below, above])) + 1  # order statistics count from 1
    steps = np.diff(needed, prepend=0, append=n + 1).astype(np.float64)
    sums = np.cumsum(rng.standard_gamma(steps, size=(_RESAMPLES, len(steps))), axis=1)
    place = np.minimum((sums[:, :-1] / sums[:, -1:] * n).astype(np.int64), n - 1)
    drawn = ordered[place]
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


def _mean_interval(values: Floats) -> list[float] | None:
    if len(values) < 2:
        return None
    half = 1.959964 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return [float(values.mean()) - half, float(values.mean()) + half]


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


def _arrivals(seen: _Seen) -> dict[str, Any] | None:
    times = seen.times_s
    if len(times) < 2 or times[-1] <= 0:
        return None
    span = float(times[-1])
    per_minute = np.bincount((times / 60).astype(np.int64))
    return {
        "rate_per_s": len(times) / span,
        "cv": _plain(gap_cv(times)),
        "idc": {str(w): _plain(idc(times, w)) for w in WINDOWS_S},
        "span_s": span,
        "tick_s": None if seen.tick_ns is None else seen.tick_ns / SECOND,
        "cv_as_stamped": _plain(gap_cv(seen.stamped_s)),
        "peak_to_mean_per_minute": float(per_minute.max() / (len(times) / max(span / 60, 1.0))),
        "by_hour": _by_hour(times),
    }


def _by_hour(times: Floats) -> list[float] | None:
    """The rate [1/s] in each hour since the first request, folded to a day; None below a day."""
    if times[-1] < 86_400:
        return None
    days = math.ceil(times[-1] / 86_400)
    hours = np.bincount(((times % 86_400) / 3600).astype(np.int64), minlength=24)
    covered = np.array([len(range(hour, math.ceil(times[-1] / 3600), 24)) for hour in range(24)])
    return [float(rate) for rate in hours / np.clip(covered, 1, days) / 3600]


def _prefix(seen: _Seen, rng: np.random.Generator, clusters: Ints | None) -> dict[str, Any] | None:
    """What an infinite prefix cache would hold, and prompt:output by the tokens that it would not."""
    if seen.blocks is None:
        return None
    known = shared(seen.blocks, seen.prompt.astype(np.int32)).tokens
    answered = seen.output > 0
    rest = (seen.prompt - known)[answered] / seen.output[answered]
    return {
        "block_tokens": seen.blocks.tokens,
        "cached_share": float(known.sum() / max(seen.prompt.sum(), 1)),
        "pd_ratio_uncached": quantiles(
            rest, rng, clusters[answered] if clusters is not None else None
        ),
        "uncached_prompt_tokens": quantiles(seen.prompt - known, rng, clusters),
    }


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


def _curves(seen: _Seen, ratio: Floats) -> dict[str, Any]:
    """What plots are drawn from: quantiles at 104 levels, and counts over time in at most 400 stretches."""
    out: dict[str, Any] = {"levels": LEVELS.tolist()}
    for name, values in (
        ("prompt_tokens", seen.prompt),
        ("output_tokens", seen.output),
        ("pd_ratio", ratio),
    ):
        out[name] = _of_sorted(np.sort(values), LEVELS).tolist() if len(values) else None
    if len(seen.times_s) > 1 and seen.times_s[-1] > 0:
        every = max(1.0, math.ceil(float(seen.times_s[-1]) / 400))
        counts = np.bincount((seen.times_s / every).astype(np.int64))
        out["arrivals"] = {"every_s": every, "counts": counts.tolist()}
    return out


def _counted(names: Array) -> dict[str, int]:
    values, counts = np.unique(names.astype(str), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
