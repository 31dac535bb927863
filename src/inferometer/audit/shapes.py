"""The shape of a workload: its prompt and output lengths as curves of quantiles, and how far two of them are apart.

Distance: the mean absolute difference of the two curves of log2 lengths (the Wasserstein-1 distance of the logarithms), the
larger of prompts and outputs. It is in doublings: 1 means that lengths differ by a factor of two on average. Two samples
of some hundred requests from one production trace lie 0.05 to 0.2 apart; different applications, 1 to 4.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from inferometer.metrics.tokens import Floats
from inferometer.workload import load_profile, shipped_profiles
from inferometer.workload.joint import LEVELS, read_table

ALIKE = 0.35  # doublings: nearer than this, two workloads are samples of one
AT = np.arange(1, 100) / 100


class Shape(NamedTuple):
    """log2 of the prompt and of the output lengths at the percentiles 1 to 99."""

    prompt: Floats
    output: Floats


def shape_of(prompt: Any, output: Any) -> Shape | None:
    """The shape of lengths [R] each; None where there are none above 0."""
    prompt, output = np.asarray(prompt), np.asarray(output)
    if not np.any(prompt > 0) or not np.any(output > 0):
        return None
    return Shape(_curve(prompt[prompt > 0]), _curve(output[output > 0]))


def distance(a: Shape, b: Shape) -> float:
    """How far two shapes are apart, in doublings."""
    apart = [np.abs(x - y).mean() for x, y in zip(a, b, strict=True)]
    return float(max(apart))


def nearest(shape: Shape) -> tuple[str, float]:
    """The shipped production profile that a shape is nearest to, and how far it is."""
    found = {name: distance(shape, other) for name, other in references().items()}
    name = min(found, key=lambda each: found[each])
    return name, found[name]


@cache
def references() -> dict[str, Shape]:
    """The shapes of the shipped profiles; a mixture of clients is drawn from."""
    return {name: _of_profile(name) for name in shipped_profiles()}


def _of_profile(name: str) -> Shape:
    from inferometer.workload import WorkloadSpec, make_plan

    profile = load_profile(name)
    if len(profile.clients) == 1:
        joint = profile.clients[0].lengths
        return Shape(
            *(
                np.log2(np.maximum(read_table(t, AT, LEVELS), 1))
                for t in (joint.prompt, joint.output)
            )
        )
    drawn = make_plan(WorkloadSpec(profile=profile, requests=4000), 0)
    return Shape(_curve(drawn.prompt_tokens), _curve(drawn.output_tokens))


def _curve(lengths: Any) -> Floats:
    return np.asarray(np.log2(np.quantile(lengths, AT)))
