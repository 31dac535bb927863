"""The reproduction of Sarathi-Serve: the search finds the edge, the workload is the paper's, statements follow from data."""

from __future__ import annotations

import numpy as np
import pytest

from inferometer.reproduce import sarathi
from inferometer.reproduce.reproduction import NAMES, Ask


@pytest.mark.parametrize("edge", [0, 1, 63, 64, 100, 200])
def test_bisection_finds_the_last_step_that_is_met(edge):
    """Also beyond the first guess, and where nothing is met."""
    assert sarathi.bisect(lambda step: step <= edge) == edge


@pytest.mark.parametrize(
    ("data", "median", "p90"), [("openchat", 1730, 5696), ("arxiv", 7059, 12985)]
)
def test_lengths_have_the_papers_quantiles(data, median, p90):
    """Table 2: prompts' median and P90 within a few per cent; nothing longer than the data set allows."""
    shape = sarathi.draw(data, 20_000, seed=0)
    found = np.percentile(shape.prompts, [50, 90])
    assert found == pytest.approx([median, p90], rel=0.2 if data == "arxiv" else 0.08)
    assert (shape.prompts + shape.outputs).max() <= sarathi.LONGEST[data]
    assert np.median(shape.outputs) == pytest.approx(415 if data == "openchat" else 208, rel=0.05)


def test_a_rate_only_scales_the_arrivals():
    """Common random numbers: twice the rate is half the time, with the same lengths."""
    shape = sarathi.draw("openchat", 50, seed=3)
    slow, fast = shape.at(1.0), shape.at(2.0)
    assert np.abs(slow.intended_ns - 2 * fast.intended_ns).max() <= 2
    assert (slow.prompt_tokens == fast.prompt_tokens).all()


def test_the_papers_own_numbers_satisfy_its_statements():
    """Every check, fed with the paper's bars and sweeps: all agree; with the systems swapped, the order does not."""
    sweeps = {model: [list(arm) for arm in arms] for model, (_, arms) in sarathi.SWEEP.items()}
    assert all(one.agrees for one in sarathi._statements(sarathi.PAPER, sweeps))
    swapped = {cell: rates[::-1] for cell, rates in sarathi.PAPER.items()}
    first = next(sarathi._statements(swapped, {}))
    assert first.agrees is False
    assert "Mistral-7B openchat strict" in first.why


def test_a_few_requests_go_through_the_whole(monkeypatch):
    """30 requests a run: every part of the reproduction is there, and a rate is simulated once."""
    monkeypatch.setattr(sarathi, "QUICK", 30)
    seen = []
    real = sarathi.simulate
    monkeypatch.setattr(
        sarathi, "simulate", lambda plan, d: seen.append((d, plan.fingerprint)) or real(plan, d)
    )
    found = sarathi.make(Ask(quick=True, tell=lambda _: None))
    assert len(seen) == len({(str(d), mark) for d, mark in seen})
    assert found.to_dict()["capacities"]["Yi-34B openchat strict"]["paper"]["vllm"] == 0.29
    assert len(found.grids) == 2
    assert "sarathi" in NAMES
