"""The live panel of `measure`: what is known of a run while it runs, redrawn at most four times a second.

It lives in the parent process, which is mostly asleep; the workers, which measure, never notice it.
It is for eyes only: rough medians over the last few requests, never the numbers of record. Drawn on stderr, only on a
terminal, and gone when the run is over.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from inferometer.load.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REDRAWS_PER_S = 4
STAGES = {
    "encoding": "making the prompts",
    "ready": "ready",
    "running": "running",
    "digesting": "reading what came back",
    "done": "done",
}


@contextmanager
def watching(wanted: bool, duration_s: float | None) -> Iterator[Callable[[Progress], None] | None]:
    """What to call with each Progress while inside; None where nobody is looking."""
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(
        console=console, refresh_per_second=REDRAWS_PER_S, transient=True, redirect_stdout=False
    ) as live:
        yield lambda progress: live.update(panel(progress, duration_s, console))


def panel(progress: Progress, duration_s: float | None, console: Console) -> RenderableType:
    """Two lines of figures and, where the end is known, a bar."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    lines: list[Any] = [
        Text(counts(progress), overflow="crop"),
        Text(rates(progress), overflow="crop"),
    ]
    share = completed(progress, duration_s)
    if share is not None:
        lines.append(ProgressBar(total=1.0, completed=share, width=min(72, console.width)))
    return Group(*lines)


def counts(p: Progress) -> str:
    """How far the run is."""
    stage = STAGES.get(p.stage, p.stage)
    return (
        f"{p.elapsed_s:6.1f} s  {stage:<22} sent {p.started:,} of {p.planned:,}   "
        f"in flight {p.in_flight:,}   done {p.done:,}   failed {p.failed:,}"
    )


def rates(p: Progress) -> str:
    """How fast it is: rough medians of the last few requests."""
    return (
        f"{p.reads_per_s:8,.0f} reads/s    TTFT {_ms(p.ttft_s)}   gap {_ms(p.gap_s)}   "
        f"send lag {_ms(p.lag_s)}"
    )


def completed(p: Progress, duration_s: float | None) -> float | None:
    """How much of the run is over [0, 1]: of its time where that is limited, else of its requests."""
    if duration_s:
        return min(1.0, p.elapsed_s / duration_s)
    return (p.done + p.failed) / p.planned if p.planned else None


def _ms(seconds: float | None) -> str:
    return "     -   " if seconds is None else f"{1e3 * seconds:6.1f} ms"
