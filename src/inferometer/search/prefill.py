"""The prefill curve: what TTFT is at each prompt length when nobody else is there.

Sent one at a time (closed loop of one), so that no request ever waits for another; every length several times, in rounds
of random order, so that a drift of the server does not pass for an effect of length; the first round is a warm-up.
The fit is a + b p + c p^2 with no negative part (attention makes prefill quadratic; no prompt is answered sooner for being
longer), to the medians of each length, in relative error: short prompts count as much as long ones.

What it is for:
    fluidity            the deadline D_p of a first token is the curve at the prompt's length (+ scheduling slack)
    scheduling delay    seen from outside: what of a TTFT the curve does not explain
    TTFT SLOs           a bound that grows with the prompt: slowdown x curve + slack

Rules: the curve is one server's on one day, and is stored with the run that made it. Beyond the lengths that were
probed it extrapolates and says so (`extrapolates`). A curve that misses its own points by more than `POOR` says so, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from inferometer.clock import SECOND
from inferometer.errors import NotMeasurable, UserError
from inferometer.load.fleet import Watch, measure
from inferometer.load.options import Drive
from inferometer.load.preflight import Found
from inferometer.metrics import latency, tokens
from inferometer.plan import Plan, build_plan
from inferometer.run import Run, write_whole
from inferometer.spec import Spec
from inferometer.timeline import ABSENT, Ints, Timeline

LADDER = (16, 64, 256, 1024, 2048, 4096)  # prompt tokens
REPEATS = 5
POOR = 0.1  # relative residual from which the quadratic does not describe the server
FILE = "prefill.json"

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Point(Spec, frozen=True):
    """What was seen at one prompt length: how often, the quartiles of TTFT [s], and the fit's relative residual."""

    prompt_tokens: int
    n: int
    p25_s: float
    p50_s: float
    p75_s: float
    residual: float


class PrefillCurve(Spec, frozen=True):
    """Zero-load TTFT = constant_s + per_token_s p + per_token2_s p^2 [s] of a prompt of p tokens, and its evidence."""

    constant_s: float
    per_token_s: float
    per_token2_s: float
    points: tuple[Point, ...]
    failed: int = 0

    @property
    def longest(self) -> int:
        """The longest prompt that was probed [tokens]."""
        return max(point.prompt_tokens for point in self.points)

    @property
    def worst_residual(self) -> float:
        """The largest relative residual at a probed length."""
        return max(abs(point.residual) for point in self.points)

    @property
    def poor(self) -> bool:
        """Whether a quadratic does not describe this server (chunked prefill makes steps, a cache makes it flat)."""
        return self.worst_residual > POOR

    def seconds(self, prompt_tokens: npt.ArrayLike) -> Floats:
        """The curve at each prompt length [R]."""
        p = np.asarray(prompt_tokens, float)
        return self.constant_s + self.per_token_s * p + self.per_token2_s * p**2

    def extrapolates(self, prompt_tokens: npt.ArrayLike) -> Bools:
        """Which prompts lie outside the lengths that were probed [R]."""
        p = np.asarray(prompt_tokens)
        shortest = min(point.prompt_tokens for point in self.points)
        return np.asarray((p < shortest) | (p > self.longest))

    def deadlines_ns(self, prompt_tokens: npt.ArrayLike, slack_s: float = 0.0) -> Ints:
        """D_p of each request [R]: the curve plus the scheduling slack (Etalon, arXiv 2407.07000); at least 1 ns."""
        return np.maximum(np.rint((self.seconds(prompt_tokens) + slack_s) * SECOND), 1).astype(
            np.int64
        )


class Rung(NamedTuple):
    """One length's repeats, as the fit sees them."""

    prompt_tokens: int
    ttft_s: Floats


# --- making one -------------------------------------------------------------------------------------------------------


def ladder_plan(
    lengths: Sequence[int] = LADDER, repeats: int = REPEATS, seed: int = 0, output_tokens: int = 2
) -> Plan:
    """Each length once per round, in random order, one at a time; round 0 is the warm-up."""
    if len(set(lengths)) < 3 or min(lengths) < 1 or repeats < 1:
        raise UserError("a prefill curve needs three prompt lengths or more", where="lengths")
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(np.array(sorted(set(lengths)))) for _ in range(repeats + 1)]
    ids = [f"prefill-{r:02d}-{k:02d}" for r, each in enumerate(rounds) for k in range(len(each))]
    return build_plan(
        len(ids),
        request_id=ids,
        prompt_tokens=np.concatenate(rounds),
        output_tokens=output_tokens,
        concurrency=1,
        seed=seed,
        generator="prefill/1",
    )


def probe(
    found: Found,
    folder: Path,
    drive: Drive | None = None,
    *,
    lengths: Sequence[int] = LADDER,
    repeats: int = REPEATS,
    seed: int = 0,
    watch: Watch | None = None,
) -> PrefillCurve:
    """Measure the curve of a server that is otherwise idle; writes the run to `folder`, and `prefill.json` into it."""
    plan = ladder_plan(lengths, repeats, seed)
    drive = replace(drive or Drive(), workers=1, warmup_s=0.0, duration_s=None)
    asked = {"prefill": {"lengths": sorted(set(lengths)), "repeats": repeats}}
    run = measure(plan, found, drive, folder, asked=asked, watch=watch, telemetry=False)
    curve = fit(run.timeline)
    write_curve(curve, folder / FILE)
    return curve


def fit(timeline: Timeline) -> PrefillCurve:
    """The curve of a run of `ladder_plan`; prompts are as long as the server counted them."""
    scored = timeline.take(
        np.array([not str(name).startswith("prefill-00-") for name in timeline.request_id], bool)
    )
    ttft = latency.ttft(scored)
    seen = np.isfinite(ttft)
    rungs = [
        Rung(int(p), ttft[seen & (scored.prompt_tokens == p)])
        for p in np.unique(scored.prompt_tokens[seen])
    ]
    return fit_rungs(rungs, failed=int((~seen).sum()))


def fit_rungs(rungs: Sequence[Rung], failed: int = 0) -> PrefillCurve:
    """The non-negative least-squares quadratic through the medians, in relative error (Lawson & Hanson 1974)."""
    from scipy.optimize import nnls

    if len(rungs) < 3:
        raise NotMeasurable(
            f"a prefill curve needs three prompt lengths, {len(rungs)} were answered"
        )
    p = np.array([rung.prompt_tokens for rung in rungs], float)
    middle = np.array([np.median(rung.ttft_s) for rung in rungs])
    scale = p.max()  # columns of like size, or the square drowns the constant
    columns = np.column_stack([np.ones(p.size), p / scale, (p / scale) ** 2])
    weights, _ = nnls(columns / middle[:, None], np.ones(p.size))
    fitted = columns @ weights
    points = tuple(
        Point(
            prompt_tokens=rung.prompt_tokens,
            n=rung.ttft_s.size,
            p25_s=float(np.quantile(rung.ttft_s, 0.25)),
            p50_s=float(at),
            p75_s=float(np.quantile(rung.ttft_s, 0.75)),
            residual=float(at / model - 1),
        )
        for rung, at, model in zip(rungs, middle, fitted, strict=True)
    )
    return PrefillCurve(
        constant_s=float(weights[0]),
        per_token_s=float(weights[1] / scale),
        per_token2_s=float(weights[2] / scale**2),
        points=points,
        failed=failed,
    )


# --- using one --------------------------------------------------------------------------------------------------------


def scheduling_delay(timeline: Timeline, curve: PrefillCurve) -> Floats:
    """The black-box scheduling delay [R, s]: TTFT minus the curve; noise may make it slightly negative; NaN without TTFT."""
    return np.asarray(latency.ttft(timeline) - curve.seconds(timeline.prompt_tokens))


def estimate_scheduled(run: Run, curve: PrefillCurve) -> Run:
    """`run` with `scheduled_ns` where the server did not say it: first token minus the curve, not before the send.

    So the metric and the SLOs on `scheduling_delay` work on a black box; a note says that it is an estimate, and for how
    many prompts it extrapolates. Does not modify `run`.
    """
    t = run.timeline
    first = tokens.first_token_ns(tokens.token_chunks(t))
    unknown = (t.scheduled_ns == ABSENT) & (first != ABSENT) & t.ok
    guess = np.maximum(first - curve.deadlines_ns(t.prompt_tokens), t.sent_ns)
    beyond = int((curve.extrapolates(t.prompt_tokens) & unknown).sum())
    note = f"scheduling delay of {int(unknown.sum())} requests is estimated from the prefill curve"
    note += f", {beyond} of them beyond the prompt lengths that were probed" if beyond else ""
    manifest = msgspec.structs.replace(run.manifest, notes=[*run.manifest.notes, note])
    timeline = t.with_columns(scheduled_ns=np.where(unknown, guess, t.scheduled_ns))
    return replace(run, timeline=timeline, manifest=manifest)


def within(timeline: Timeline, curve: PrefillCurve, slowdown: float, slack_s: float = 0.0) -> Bools:
    """Which requests meet a TTFT bound that grows with the prompt [R]: ttft <= slowdown x curve + slack; a failed one never."""
    return np.asarray(
        latency.ttft(timeline) <= slowdown * curve.seconds(timeline.prompt_tokens) + slack_s
    )


def write_curve(curve: PrefillCurve, path: Path) -> None:
    """Write the curve as JSON."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(curve), indent=2))


def read_curve(path: str | Path) -> PrefillCurve:
    """The curve in a file, or in a run directory that `probe` wrote."""
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    try:
        return msgspec.json.decode(file.read_bytes(), type=PrefillCurve)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"no prefill curve there: {error}", where=str(file)) from None
