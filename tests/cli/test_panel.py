"""The live panel's words."""

from __future__ import annotations

import msgspec

from inferometer.cli import panel
from inferometer.load.progress import Progress

PROGRESS = Progress(
    stage="running",
    elapsed_s=2.5,
    planned=64,
    started=24,
    in_flight=8,
    done=15,
    failed=1,
    reads_per_s=514.3,
    ttft_s=0.1234,
    gap_s=None,
    lag_s=0.00005,
)


def test_the_panel_says_how_far_and_how_fast() -> None:
    """Elapsed, sent, in flight, done, failed; rate, first token, gap, lag; a dash for what is not known yet."""
    counts = panel.counts(PROGRESS)
    for part in ("2.5 s", "running", "sent 24 of 64", "in flight 8", "done 15", "failed 1"):
        assert part in counts
    assert "514 reads/s" in panel.rates(PROGRESS)
    assert "TTFT  123.4 ms" in panel.rates(PROGRESS)
    assert "gap      -" in panel.rates(PROGRESS)


def test_the_bar_follows_time_where_time_is_the_limit() -> None:
    """Else it follows requests."""
    assert panel.completed(PROGRESS, 10.0) == 0.25
    assert panel.completed(PROGRESS, None) == 0.25
    assert panel.completed(PROGRESS, 2.0) == 1.0


def test_nobody_watches_without_a_terminal() -> None:
    """Under a test or in a pipe, there is no panel at all."""
    with panel.watching(True, None) as watch:
        assert watch is None


def test_the_panel_can_be_drawn() -> None:
    """Two lines and a bar, on any console."""
    from rich.console import Console

    console = Console(width=90, color_system=None)
    with console.capture() as captured:
        console.print(panel.panel(PROGRESS, None, console))
    assert len(captured.get().splitlines()) == 3


def test_sparklines_show_the_last_minute() -> None:
    """Bars are as high as their value is beside the highest; many values are averaged into the width."""
    assert panel.bars([0, 4, 8], 10) == " ▄█"
    assert panel.bars([0.0] * 5, 10) == "     "
    assert len(panel.bars([1.0] * 1_000, 48)) <= 48
    assert panel.sparklines([PROGRESS]) == []
    later = msgspec.structs.replace(PROGRESS, elapsed_s=5.0, reads_per_s=600.0, ttft_s=None)
    lines = panel.sparklines([PROGRESS, later])
    assert [line.split()[0] for line in lines] == ["in", "reads/s", "TTFT"]


def test_a_browser_is_told_the_same() -> None:
    """Figures by name with their units; None is told as none; the share of the work that is done."""
    told = []

    class Browser:
        def tell(self, figures, words, done) -> None:
            told.append((figures, words, done))

    with panel.watching(True, 10.0, Browser()) as watch:
        watch(PROGRESS)
    figures, words, done = told[0]
    assert round(figures["TTFT [ms]"], 6) == 123.4
    assert figures["gap [ms]"] is None
    assert "sent 24 of 64" in words
    assert done == 0.25
