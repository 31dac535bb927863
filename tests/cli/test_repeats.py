"""How repeats and prefill curves look."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from inferometer.cli import repeats as shown
from inferometer.search import Ask, prefill, repeat
from inferometer.search.queueing import Queue
from inferometer.search.repeats import parse_until


def drawn(parts) -> str:
    """What rich makes of `parts`, 100 columns wide."""
    console = Console(file=io.StringIO(), width=100)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def test_repeats_show_both_variances() -> None:
    """A row per statistic, and whether the precision was reached."""
    until = parse_until("ttlt.p50 ci<20%", most=4)
    series = repeat(
        lambda seed: Queue(8)(Ask(load=4.0, seed=seed, requests=500, warmup=50)), until=until
    )
    text = drawn(shown.render(series, until))
    assert "between runs" in text
    assert "ttlt.p50 within ±0.2: reached" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_poor_curve_warns() -> None:
    """The formula, its points, and a word where it does not describe them."""
    good = prefill.fit_rungs([prefill.Rung(p, np.full(3, 0.1 + p / 1e4)) for p in (16, 256, 4096)])
    steps = [prefill.Rung(p, np.full(3, 1.0 if p > 500 else 0.1)) for p in (16, 256, 1024, 4096)]
    assert "100 ms + 100 µs p" in drawn(shown.render_curve(good))
    assert "BEWARE" not in drawn(shown.render_curve(good))
    assert "BEWARE" in drawn(shown.render_curve(prefill.fit_rungs(steps)))
