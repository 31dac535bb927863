"""The prefill curve: what TTFT is at each prompt length when nobody else is there.

    a + b p + c p^2 for a prompt of p tokens; how it is measured is `search.prefill`'s matter, where it lies the manifest's

What it is for:
    fluidity            the deadline D_p of a first token is the curve at the prompt's length + a scheduling slack (Etalon)
    scheduling_delay    seen from outside: what of a TTFT the curve does not explain
    ttft_slowdown       a TTFT over the curve, so that an SLO on it grows with the prompt

Rules: the curve is one server's on one day, and stays with the run that it was measured for (`manifest.target`). Beyond
the lengths that were probed it extrapolates and says so. One that misses its own points by more than `POOR` says so, too.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import numpy.typing as npt

from inferometer.clock import MILLISECOND, SECOND
from inferometer.run import Run
from inferometer.spec import Spec
from inferometer.timeline import Ints

POOR = 0.1  # relative residual from which the quadratic does not describe the server
SLACK_NS = 300 * MILLISECOND  # Etalon's default scheduling slack
KEY = "prefill"

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
    def shortest(self) -> int:
        """The shortest prompt that was probed [tokens]."""
        return min(point.prompt_tokens for point in self.points)

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
        return np.asarray((p < self.shortest) | (p > self.longest))

    def deadlines_ns(self, prompt_tokens: npt.ArrayLike, slack_ns: int = 0) -> Ints:
        """D_p of each request [R]: the curve plus the scheduling slack (Etalon, arXiv 2407.07000); at least 1 ns."""
        due = np.rint(self.seconds(prompt_tokens) * SECOND) + slack_ns
        return np.asarray(np.maximum(due, 1), np.int64)


def curve_of(run: Run) -> PrefillCurve | None:
    """The curve that a run's manifest holds, if any."""
    held = run.manifest.target.get(KEY)
    return None if held is None else msgspec.convert(held, PrefillCurve)


def with_curve(run: Run, curve: PrefillCurve) -> Run:
    """`run`, knowing `curve` instead of what its manifest may hold. Does not modify `run`."""
    target = run.manifest.target | {KEY: msgspec.to_builtins(curve)}
    return replace(run, manifest=msgspec.structs.replace(run.manifest, target=target))
