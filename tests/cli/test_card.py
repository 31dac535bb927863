"""The scorecard on screen: what it shows, what it refuses to show, and its exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from inferometer.cli import card, tools
from inferometer.clock import MILLISECOND
from inferometer.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK
from inferometer.metrics import conventions, score
from inferometer.run import Run

GOLDEN = Path(__file__).with_name("scorecard.txt")


def screen(run: Run, slo: str | None = None, *, intervals: bool = False) -> str:
    """A scorecard as plain text."""
    return drawn(card.render(run, score(run, slo, intervals=intervals)))


def drawn(parts: Any) -> str:
    """What a terminal without colour would show."""
    from rich.console import Console

    console = Console(width=card.WIDTH, color_system=None, highlight=False)
    with console.capture() as captured:
        card.show(parts, console)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def with_manifest(run: Run, **changes: Any) -> Run:
    """The run with a part of its manifest changed."""
    return replace(run, manifest=msgspec.structs.replace(run.manifest, **changes))


def test_the_scorecard_is_the_golden_one(run: Run) -> None:
    """Every line of the screen, for a run made by hand."""
    assert screen(run, "ttft.p50 <= 30ms; each: max_gap <= 20ms; attainment >= 0.9") == (
        GOLDEN.read_text(encoding="utf-8")
    )


def test_nothing_is_wider_than_100_columns(run: Run) -> None:
    """With intervals, reasons and long notes, too."""
    reasons = ["requests were sent late: " + "very " * 40 + "late"]
    bad = with_manifest(
        run,
        instrument=run.manifest.instrument | {"valid": False, "invalid_reasons": reasons},
        notes=["word " * 60],
    )
    text = screen(bad, "ttft.p50 <= 30ms", intervals=True)
    assert max(map(len, text.splitlines())) <= 100
    text = drawn(tools.side_by_side(score(run, intervals=False), conventions(run)))
    assert max(map(len, text.splitlines())) <= 100


def test_a_path_is_never_broken(run: Run) -> None:
    """It is there to be copied."""
    path = Path("/somewhere/" + "deep/" * 30)
    assert str(path) in screen(replace(run, path=path))


def test_intervals_stand_beside_the_median(run: Run) -> None:
    """The cell holds the scorecard's own numbers, in ms."""
    row = score(run).row("ttft")
    lo, hi = (card.number(1e3 * x) for x in row.ci["p50"])
    assert f"{card.number(1e3 * row.quantiles['p50'])} [{lo}, {hi}]" in screen(run, intervals=True)


def test_a_refused_percentile_is_a_dash_with_its_reason(run: Run) -> None:
    """119 requests carry a p90, no p99."""
    text = screen(run)
    ttft = next(line for line in text.splitlines() if line.startswith("ttft "))
    assert ttft.split()[-2] == "-"
    assert "p99 needs 368" in text


def test_failures_stand_beside_the_percentiles(run: Run) -> None:
    """With one failed request, the row with failures ends in infinity; without any, there is no such row."""
    text = screen(run)
    assert "120 in 12.1 s: 119 ok, 1 truncated" in text
    row = next(line for line in text.splitlines() if line.startswith("  with failures"))
    assert row.endswith("inf")
    good = replace(run, timeline=run.timeline.take(run.timeline.ok))
    assert "with failures" not in screen(good)


def overloaded(run: Run) -> Run:
    """The run with answers that come later and later."""
    late = np.arange(len(run.timeline)) * 400 * MILLISECOND
    chunk_ns = run.timeline.chunk_ns + np.repeat(late, 10)
    moved = run.timeline.with_columns(chunk_ns=chunk_ns, ended_ns=run.timeline.ended_ns + late)
    return replace(run, timeline=moved)


def test_no_steady_state_stands_in_place_of_the_latencies(run: Run) -> None:
    """Past saturation the card has a verdict, rates and the SLO's failures, and no row of latencies."""
    text = screen(overloaded(run), "ttft.p90 <= 1s")
    assert "no steady state: in flight rises by" in text
    assert "requests/s" in text
    assert "not met ttft.p90" in text
    assert not any(line.startswith(("ttft", "tbt", "fluidity")) for line in text.splitlines())
    assert "no steady state" not in screen(run)


def test_what_lies_outside_the_steady_state_is_told(run: Run) -> None:
    """Scored or left out, a warm-up that was found is on the card with the number of its requests."""
    at = run.timeline.intended_ns
    slow = np.where(at < 1_200 * MILLISECOND, 300 * MILLISECOND, 0)
    moved = run.timeline.with_columns(
        chunk_ns=run.timeline.chunk_ns + np.repeat(slow, 10),
        ended_ns=run.timeline.ended_ns + slow,
    )
    cold = replace(run, timeline=moved)
    assert "outside it are scored, too; --steady leaves them out" in screen(cold)
    text = drawn(card.render(cold, score(cold, steady=True)))
    assert "outside it are left out" in text
    few = replace(run, timeline=run.timeline.take(at < 9_900 * MILLISECOND))
    assert "too short to tell: 99 requests, and 100 are needed" in screen(few)


def test_answer_time_is_shown_only_where_it_differs(run: Run) -> None:
    """A model that does not reason has one first token."""
    assert "ttfat" not in screen(run)
    channel = run.timeline.chunk_channel.copy()
    channel[::10] = 1
    thinking = replace(run, timeline=run.timeline.with_columns(chunk_channel=channel))
    assert "ttfat" in screen(thinking)


def test_a_run_without_requests_says_only_that(run: Run) -> None:
    """Nothing is made up from nothing."""
    empty = with_manifest(
        replace(run, timeline=run.timeline.take(run.timeline.intended_ns < 0), plan=None),
        instrument={"valid": False, "invalid_reasons": ["no request was sent"]},
    )
    text = screen(empty)
    assert "INVALID     no request was sent" in text
    assert "ttft" not in text


def test_exit_codes_put_validity_first(run: Run) -> None:
    """0 ok, 1 SLO not met, 3 invalid or undecidable, 130 interrupted."""
    invalid = with_manifest(
        run, instrument=run.manifest.instrument | {"valid": False, "invalid_reasons": ["late"]}
    )
    stopped = with_manifest(run, complete=False, stopped="interrupted (SIGINT)")
    cut = with_manifest(run, complete=False, stopped="worker 0 ended without a report")

    def code(run: Run, slo: str | None = None) -> int:
        return card.exit_code_of_measuring(run, score(run, slo, intervals=False))

    assert code(run) == EXIT_OK
    assert code(run, "ttft.max <= 1s") == EXIT_OK
    assert code(run, "ttft.max <= 1ms") == EXIT_FAILED
    assert code(run, "ttft.p99 <= 1s") == EXIT_INVALID  # too few requests to say
    assert code(invalid, "ttft.max <= 1ms") == EXIT_INVALID
    assert code(stopped) == EXIT_INTERRUPTED
    assert code(cut) == EXIT_INVALID


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.01234, "0.0123"),
        (1.0, "1.00"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (123.45, "123"),
        (12345.6, "12,346"),
        (float("inf"), "inf"),
        (float("nan"), "-"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """More would claim more than is known."""
    assert card.number(value) == text


def test_counts_are_whole_where_they_are() -> None:
    """8 streams are not 8.00 streams."""
    assert [card.count(x) for x in (8.0, 7.25, float("nan"))] == ["8", "7.25", "-"]
