"""Measured iteration times: the file that `inferometer profile` writes and `--cost profile:FILE` reads.

One format for two ways of measuring: the kernels of a model's layers on the machine at hand (`torch_kernels`), or a running
engine from outside (`search.engine_profile`). An iteration takes

    host + tokens(T) + sequences(S) + pair · Σ chunk · (past + chunk / 2) + context · Σ contexts

T: tokens that it computes (prompt chunks and one per decode); S: sequences that decode; `tokens` and `sequences` are knots
between which times are linear, and beyond the last of which the last slope goes on. `front_s` is what a request spends
outside of iterations, on its way in and its tokens' way out: it delays, and occupies nothing. What a profile was not measured for it
does not know: more devices than its own, another model, a device shared with others.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inferometer.errors import UserError
from inferometer.run import write_whole
from inferometer.sim.cost import Chunks
from inferometer.sim.kernel import PS_PER_S
from inferometer.spec import Spec
from inferometer.timeline import Ints

FORMAT = "inferometer-profile/1"
LEAST_S = 1e-6  # no iteration is shorter, whatever a noisy profile's lines extrapolate to
Knots = tuple[tuple[float, float], ...]


class Profile(Spec, frozen=True):
    """What was measured. Times in seconds; `evidence` holds the raw points, for people and later fits."""

    kind: str  # kernels | engine
    model: str
    device: str
    tokens: Knots
    sequences: Knots = ()
    pair_s: float = 0.0
    context_s: float = 0.0
    host_s: float = 0.0
    front_s: float = 0.0
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    evidence: dict[str, list[list[float]]] = msgspec.field(default_factory=dict)
    format: str = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format is {self.format!r}, not {FORMAT!r}")
        for name in ("tokens", "sequences"):
            at = [knot[0] for knot in getattr(self, name)]
            if at != sorted(set(at)):
                raise ValueError(f"the knots of {name} are not in order")
        if not self.tokens:
            raise ValueError("tokens has no knots")


def read_profile(path: str | Path) -> Profile:
    """The profile in a file; a UserError that says what is wrong with it."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Profile)
    except OSError as error:
        raise UserError(f"not readable: {error.strerror}", where=str(path)) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(
            f"not a profile ({error})", where=str(path), remedy="make one: inferometer profile"
        ) from None


def write_profile(profile: Profile, path: str | Path) -> Path:
    """Write a profile, whole or not at all."""
    target = Path(path)
    write_whole(target, msgspec.json.format(msgspec.json.encode(profile), indent=1))
    return target


class Profiled:
    """A profile as a cost model."""

    def __init__(self, profile: Profile, name: str = "") -> None:
        self._profile, self._name = profile, name
        self._tokens, self._sequences = Curve(profile.tokens), Curve(profile.sequences)
        self._fixed: dict[tuple[int, int], float] = {}

    @property
    def front_s(self) -> float:
        """What a request spends outside of iterations."""
        return self._profile.front_s

    def step(self, chunks: Chunks, decoders: int, context: int) -> tuple[int, ...]:
        """One iteration, on the one stage that there is."""
        p = self._profile
        tokens, pairs = decoders, 0.0
        for chunk, past in chunks:
            tokens += chunk
            pairs += chunk * (past + 0.5 * chunk)
        total = self._linear(tokens, decoders) + p.context_s * context + p.pair_s * pairs
        return (round(total * PS_PER_S),)

    def decode(self, decoders: int, context: int) -> int:
        """One pure decode iteration."""
        total = self._linear(decoders, decoders) + self._profile.context_s * context
        return round(total * PS_PER_S)

    def decode_run(self, decoders: int, context: int, count: int) -> Ints:
        """The same operations on a vector of contexts."""
        contexts = context + decoders * np.arange(count, dtype=np.int64)
        total = self._linear(decoders, decoders) + self._profile.context_s * contexts
        return np.asarray(np.rint(total * PS_PER_S), dtype=np.int64)

    def described(self) -> dict[str, Any]:
        """Which profile, of what."""
        p = self._profile
        return {"kind": f"profile of {p.kind}", "file": self._name, "of": p.model, "on": p.device}

    def _linear(self, tokens: int, decoders: int) -> float:
        found = self._fixed.get((tokens, decoders))
        if found is None:
            more = self._sequences(decoders) if decoders else 0.0
            found = max(self._tokens(tokens) + more + self._profile.host_s, LEAST_S)
            self._fixed[tokens, decoders] = found
        return found


class Curve:
    """Knots, linear between; one knot is a constant, none is 0."""

    def __init__(self, knots: Knots) -> None:
        self._x = [x for x, _ in knots]
        self._y = [y for _, y in knots]

    def __call__(self, x: float) -> float:
        """The time at `x`; before the first knot and beyond the last one the nearest slope goes on."""
        if len(self._x) < 2:
            return self._y[0] if self._y else 0.0
        i = min(max(bisect_right(self._x, x), 1), len(self._x) - 1)
        x0, x1, y0, y1 = self._x[i - 1], self._x[i], self._y[i - 1], self._y[i]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
