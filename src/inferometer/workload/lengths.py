"""How long prompts and outputs are: frozen specs, each of which draws int32 token counts.

Every length is a whole number of tokens, at least 1. A cap (`high`) gathers what lies beyond it, as a served context
length does: production traces show that atom (6-7 % of Azure code prompts stand at their cap).

Short forms, wherever a length is asked for:
    256                             fixed
    uniform:low=10,high=20          both ends included
    lognormal:median=512,sigma=1    or mean= in place of median=, or p99= in place of sigma=
    zipf:exponent=1.1,low=16,high=4096
    empirical:file=lengths.txt      one number a line; or values=[...], weights=[...] in a file of YAML or JSON

Prompts and outputs that are drawn apart are independent. Real ones are not: for those there are profiles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferometer.errors import UserError
from inferometer.spec import Spec, parse, short_form
from inferometer.workload.draws import Floats, Stream, exp, log, power

Tokens = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Counts = NDArray[np.int32]

Z99 = 2.3263478740408408  # the 99th percentile of a standard normal


class Fixed(Spec, frozen=True, tag="fixed", tag_field="kind"):
    """Always `tokens`."""

    tokens: Tokens

    def draw(self, _stream: Stream, n: int) -> Counts:
        """`n` token counts."""
        return np.full(n, self.tokens, dtype=np.int32)


class Uniform(Spec, frozen=True, tag="uniform", tag_field="kind"):
    """Every whole number from `low` to `high`, both included, equally often."""

    low: Tokens
    high: Tokens

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        _ordered(self.low, self.high)

    def draw(self, stream: Stream, n: int) -> Counts:
        """`n` token counts."""
        return (self.low + stream.below(n, self.high - self.low + 1)).astype(np.int32)


class Lognormal(Spec, frozen=True, tag="lognormal", tag_field="kind"):
    """exp(normal), by `median` or `mean` [tokens], and by `sigma` (of the logarithm) or `p99` [tokens].

    A usual shortcut, and a poor one: the lognormal that fits a production trace best misses it by a KS of 0.05-0.22.
    """

    median: Positive | None = None
    mean: Positive | None = None
    sigma: Annotated[float, msgspec.Meta(ge=0)] | None = None
    p99: Positive | None = None
    low: Tokens = 1
    high: Tokens | None = None

    def __post_init__(self) -> None:
        """Refuse what is given twice or not at all."""
        if (self.median is None) == (self.mean is None):
            raise ValueError("lognormal needs median or mean, not both")
        if (self.sigma is None) == (self.p99 is None):
            raise ValueError("lognormal needs sigma or p99, not both")
        if self.p99 is not None and (self.median is None or self.p99 < self.median):
            raise ValueError("p99 goes with a median that is not above it")
        if self.high is not None:
            _ordered(self.low, self.high)

    def parameters(self) -> tuple[float, float]:
        """mu and sigma of the logarithm."""
        if self.p99 is not None and self.median is not None:
            sigma = (_log(self.p99) - _log(self.median)) / Z99
        else:
            sigma = self.sigma or 0.0
        centre = (
            _log(self.median)
            if self.median is not None
            else _log(self.mean or 1.0) - sigma * sigma / 2
        )
        return centre, sigma

    def draw(self, stream: Stream, n: int) -> Counts:
        """`n` token counts."""
        mu, sigma = self.parameters()
        return whole(exp(mu + sigma * stream.normal(n)), self.low, self.high)


class Zipf(Spec, frozen=True, tag="zipf", tag_field="kind"):
    """Lengths `low`..`high` with probability in proportion to (k - low + 1)^-exponent."""

    exponent: Positive
    high: Tokens
    low: Tokens = 1

    def __post_init__(self) -> None:
        """Refuse an empty range, and one too long to tabulate."""
        _ordered(self.low, self.high)
        if self.high - self.low > 10_000_000:
            raise ValueError("zipf: high - low must be at most 10,000,000")

    def draw(self, stream: Stream, n: int) -> Counts:
        """`n` token counts."""
        ranks = np.arange(1, self.high - self.low + 2, dtype=np.float64)
        return (self.low + stream.pick(power(ranks, -self.exponent), n)).astype(np.int32)


class Empirical(Spec, frozen=True, tag="empirical", tag_field="kind"):
    """Observed `values` [tokens] with optional `weights`, or those of a text `file` with one number a line."""

    values: tuple[Tokens, ...] = ()
    weights: tuple[Annotated[float, msgspec.Meta(ge=0)], ...] | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        """Refuse no values, values twice, and weights that do not go with them."""
        if bool(self.values) == (self.file is not None):
            raise ValueError("empirical needs values or file, not both")
        if self.weights is not None and (
            len(self.weights) != len(self.values) or sum(self.weights) <= 0
        ):
            raise ValueError("weights must be as many as values, and not all 0")

    def draw(self, stream: Stream, n: int) -> Counts:
        """`n` token counts."""
        values = np.array(self.values if self.file is None else _read(self.file), dtype=np.int32)
        weights = np.ones(len(values)) if self.weights is None else np.array(self.weights)
        return np.asarray(values[stream.pick(weights, n)])


Lengths = Fixed | Uniform | Lognormal | Zipf | Empirical


def lengths(value: Lengths | int | str | dict[str, object], *, where: str = "$") -> Lengths:
    """Any spelling of a length (spec, number, short form, mapping) as a spec."""
    if isinstance(value, Spec):
        return value
    plain: object = value
    if isinstance(value, str):
        bare = value.strip().replace("_", "")
        plain = int(bare) if bare.isdecimal() else short_form(value, where=where)
    if isinstance(plain, int):
        plain = {"kind": "fixed", "tokens": plain}
    parsed: Lengths = parse(plain, Lengths, where=where)
    return parsed


def whole(tokens: Floats, low: int = 1, high: int | None = None) -> Counts:
    """Real token counts as whole ones within [low, high]."""
    top = 2**31 - 1 if high is None else high
    return np.clip(np.rint(tokens), low, top).astype(np.int32)


def _ordered(low: int, high: int) -> None:
    if low > high:
        raise ValueError(f"low ({low}) is above high ({high})")


def _log(x: float) -> float:
    return float(log(np.array([x], dtype=np.float64))[0])


def _read(file: str) -> list[int]:
    where = file
    try:
        lines = Path(file).read_text(encoding="utf-8").split("\n")
        numbers = []
        for number, line in enumerate(lines, start=1):
            where = f"{file}:{number}"
            if line.strip():
                numbers.append(int(line))
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=file) from None
    except ValueError:
        raise UserError("not a whole number", where=where) from None
    if not numbers or min(numbers) < 1:
        raise UserError("needs numbers of at least 1, one a line", where=file)
    return numbers
