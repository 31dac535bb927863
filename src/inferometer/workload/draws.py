"""Random numbers that are the same on every machine.

A plan's fingerprint must not depend on the processor, the C library or the version of numpy. So this file uses only
what is fixed: the raw 64-bit words of Philox (numpy promises that its bit generators never change), and arithmetic
that IEEE 754 rounds in one way only (+ - * / sqrt, comparisons, frexp, ldexp). numpy's own distributions, and `log`
and `exp` of any libm, promise neither: their last bit differs between machines, and a last bit moves a nanosecond.

Each purpose has its own stream ("arrivals", "prompt_tokens", ...), so that changing one part of a workload leaves the
others as they were: two workloads with the same seed are compared on common random numbers.

Rules: no sum whose order is numpy's choice (`np.sum` of floats); times are rounded to ns first and added as integers.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LN2_HIGH = 6.93147180369123816490e-01  # ln 2 in two parts, so that k * _LN2_HIGH is exact
_LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476


class Stream:
    """One stream of random numbers, named by a seed and a purpose; drawing moves it on."""

    def __init__(self, seed: int, *purpose: str | int) -> None:
        digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
        self._words = np.random.Philox(key=int.from_bytes(digest[:16], "little"))

    def uniform(self, n: int) -> Floats:
        """`n` numbers in the open interval (0, 1), on a grid of 2^-52 (so that 1.0 cannot be rounded to)."""
        words = np.asarray(self._words.random_raw(n), dtype=np.uint64)
        return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def below(self, n: int, limit: int) -> NDArray[np.int64]:
        """`n` integers in [0, limit); the bias of a limit under 2^32 is below 2^-21."""
        return np.asarray(np.floor(self.uniform(n) * limit), dtype=np.int64)

    def exponential(self, n: int) -> Floats:
        """`n` exponential numbers of mean 1."""
        return -log(self.uniform(n))

    def normal(self, n: int) -> Floats:
        """`n` standard normal numbers."""
        return normal_quantile(self.uniform(n))

    def gamma(self, shape: float, n: int) -> Floats:
        """`n` gamma numbers of the given shape and scale 1 (Marsaglia and Tsang, ACM TOMS 26(3), 2000)."""
        if shape < 1.0:  # their section 6: gamma(a) = gamma(a + 1) * U^(1/a)
            return self.gamma(shape + 1.0, n) * exp(log(self.uniform(n)) / shape)
        d = shape - 1.0 / 3.0
        c = 1.0 / float(np.sqrt(9.0 * d))
        out = np.empty(n)
        left = np.arange(n)
        while len(left):
            x, u = self.normal(len(left)), self.uniform(len(left))
            v = 1.0 + c * x
            v = v * v * v
            safe = np.where(v > 0.0, v, 1.0)
            good = (v > 0.0) & (log(u) < 0.5 * x * x + d - d * v + d * log(safe))
            out[left[good]] = d * v[good]
            left = left[~good]
        return out

    def weibull(self, shape: float, n: int) -> Floats:
        """`n` Weibull numbers of the given shape and scale 1."""
        return power(self.exponential(n), 1.0 / shape)

    def pick(self, weights: Any, n: int) -> NDArray[np.int64]:
        """`n` indices into `weights` [K], each with a probability in proportion to its weight."""
        edges = np.cumsum(np.asarray(weights, dtype=np.float64))
        index = np.searchsorted(edges, self.uniform(n) * edges[-1], side="right")
        return np.asarray(np.minimum(index, len(edges) - 1), dtype=np.int64)


def log(x: Floats) -> Floats:
    """The natural logarithm of positive `x`, within 2 units in the last place."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < _SQRT_HALF
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    power_of_two = (exponent - small).astype(np.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)  # ln m = 2 artanh s, |s| < 0.172
    z = s * s
    series = np.full_like(s, 1.0 / 23.0)
    for odd in range(21, 1, -2):
        series = series * z + 1.0 / odd
    tail = 2.0 * s * z * series
    return power_of_two * _LN2_HIGH + (2.0 * s + (tail + power_of_two * _LN2_LOW))


def exp(x: Floats) -> Floats:
    """e to the power of `x`, within 2 units in the last place; 0 and inf beyond the range of a double."""
    x = np.clip(x, -745.0, 709.0)
    k = np.rint(x / 0.6931471805599453)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    series = np.ones_like(r)
    for n in range(16, 0, -1):
        series = 1.0 + r * series / n
    return np.ldexp(series, k.astype(np.int64))


def power(x: Floats, exponent: float) -> Floats:
    """Positive `x` to a real power."""
    return exp(log(x) * exponent)


def normal_quantile(p: Floats) -> Floats:
    """The standard normal quantile of `p` in (0, 1), relative error 1e-16 (Wichura, AS 241 PPND16, 1988)."""
    q = p - 0.5
    r = np.where(np.abs(q) <= 0.425, 0.180625 - q * q, 0.0)
    central = q * _ratio(r, _CENTRAL)
    tail = np.minimum(p, 1.0 - p)
    r = np.sqrt(-log(np.where(np.abs(q) <= 0.425, 0.25, tail)))
    outer = np.where(r <= 5.0, _ratio(r - 1.6, _MIDDLE), _ratio(r - 5.0, _FAR))
    return np.where(np.abs(q) <= 0.425, central, np.where(q < 0.0, -outer, outer))


def _ratio(r: Floats, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Floats:
    above, below = (_horner(r, part) for part in coefficients)
    return above / below


def _horner(r: Floats, coefficients: tuple[float, ...]) -> Floats:
    total = np.full_like(r, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * r + coefficient
    return total


_CENTRAL = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_MIDDLE = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)
