"""Measuring the prefill curve: prompts of a ladder of lengths, one at a time, against a server that is otherwise idle.

Sent in a closed loop of one, so that no request ever waits for another; every length several times, in rounds of random
order, so that a drift of the server does not pass for an effect of length; the first round is a warm-up.
The fit is a + b p + c p^2 with no negative part (attention makes prefill quadratic; no prompt is answered sooner for being
longer), to the medians of each length, in relative error: short prompts count as much as long ones.
A length is what the server counted, not what was asked for: tokenizers differ.

What a curve is, and what it is for, is in `metrics.prefill`. Knows no server: whatever makes a Run of a Plan can be probed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from inferometer.errors import NotMeasurable, UserError
from inferometer.metrics import latency
from inferometer.metrics.prefill import KEY, Point, PrefillCurve
from inferometer.plan import Plan, build_plan
from inferometer.run import Run, read_manifest, write_whole
from inferometer.search.repeats import Arm

LADDER = (16, 64, 256, 1024, 2048, 4096)  # prompt tokens
REPEATS = 5
FILE = "prefill.json"

Floats = npt.NDArray[np.float64]


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
    arm: Arm,
    folder: Path,
    *,
    lengths: Sequence[int] = LADDER,
    repeats: int = REPEATS,
    seed: int = 0,
) -> PrefillCurve:
    """Measure the curve of what `arm` runs; the run is left in `folder`, with `prefill.json` in it."""
    run = arm(ladder_plan(lengths, repeats, seed), seed, folder)
    curve = fit(run)
    write_curve(curve, folder / FILE)
    return curve


def fit(run: Run) -> PrefillCurve:
    """The curve of a run of `ladder_plan`."""
    asked = (
        {}
        if run.plan is None
        else dict(zip(run.plan.request_id, run.plan.prompt_tokens, strict=True))
    )
    scored = np.array([not str(name).startswith("prefill-00-") for name in run.timeline.request_id])
    t = run.timeline.take(np.flatnonzero(scored))
    ttft = latency.ttft(t)
    seen = np.isfinite(ttft)
    rung = np.array(
        [asked.get(name, p) for name, p in zip(t.request_id, t.prompt_tokens, strict=True)]
    )
    rungs = [
        Rung(int(np.median(t.prompt_tokens[here])), ttft[here])
        for here in (seen & (rung == length) for length in np.unique(rung[seen]))
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


# --- keeping one --------------------------------------------------------------------------------------------------------


def write_curve(curve: PrefillCurve, path: Path) -> None:
    """Write the curve as JSON."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(curve), indent=2))


def read_curve(path: str | Path) -> PrefillCurve:
    """The curve in a file that `write_curve` wrote, or that of a run directory that has one."""
    place = Path(path)
    try:
        if place.is_dir() and not (place / FILE).exists():
            return msgspec.convert(read_manifest(place).target.get(KEY), PrefillCurve)
        file = place / FILE if place.is_dir() else place
        return msgspec.json.decode(file.read_bytes(), type=PrefillCurve)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UserError(
            f"no prefill curve there: {error}",
            where=str(path),
            remedy="name a prefill.json, or a run that was measured with --prefill-curve",
        ) from None
