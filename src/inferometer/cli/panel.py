"""The live panel of `measure`: what is known of a run while it runs, redrawn at most four times a second.

It lives in the parent process, which is mostly asleep; the workers, which measure, never notice it.
It is for eyes only: rough medians over the last few requests, never the numbers of record. Drawn on stderr, only on a
terminal, and gone when the run is over; or told to a browser (`report.live`), which draws the same.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from inferometer.load.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from inferometer.report.live import Live

REDRAWS_PER_S = 4
REMEMBERED = 240  # messages: a minute of them
BARS = " ▁▂▃▄▅▆▇█"
STAGES = {
    "encoding": "making the prompts",
    "ready": "ready",
    "running": "running",
    "digesting": "reading what came back",
    "done": "done",
}


@contextmanager
def watching(
    wanted: bool, duration_s: float | None, browser: Live | None = None
) -> Iterator[Callable[[Progress], None] | None]:
    """What to call with each Progress while inside; None where nobody is looking."""
    if not (wanted and sys.stderr.isatty()):
        yield None if browser is None else lambda progress: tell(browser, progress, duration_s)
        return
    from rich.console import Console
    from rich.live import Live as Terminal

    console, seen = Console(stderr=True), deque[Progress](maxlen=REMEMBERED)

    def show(progress: Progress) -> None:
        seen.append(progress)
        terminal.update(panel(progress, duration_s, console, seen))
        if browser is not None:
            tell(browser, progress, duration_s)

    with Terminal(
        console=console, refresh_per_second=REDRAWS_PER_S, transient=True, redirect_stdout=False
    ) as terminal:
        yield show


def tell(browser: Live, p: Progress, duration_s: float | None) -> None:
    """The same figures, for a browser."""
    figures = {
        "in flight": p.in_flight,
        "done": p.done,
        "failed": p.failed,
        "reads/s": p.reads_per_s,
        "TTFT [ms]": _in_ms(p.ttft_s),
        "gap [ms]": _in_ms(p.gap_s),
        "send lag [ms]": _in_ms(p.lag_s),
    }
    words = f"{STAGES.get(p.stage, p.stage)}: sent {p.started:,} of {p.planned:,}"
    browser.tell(figures, words, completed(p, duration_s))


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """What to call with a count out of `total` while inside; None where nobody is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def panel(
    progress: Progress, duration_s: float | None, console: Console, seen: Iterable[Progress] = ()
) -> RenderableType:
    """Two lines of figures, their last minute as lines of bars, and, where the end is known, how far it is."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    lines: list[Any] = [
        Text(counts(progress), overflow="crop"),
        Text(rates(progress), overflow="crop"),
        *(Text(line, overflow="crop", style="dim") for line in sparklines(list(seen))),
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


def sparklines(seen: list[Progress], width: int = 48) -> list[str]:
    """In flight, reads/s and TTFT over the last minute, a line each; none before there is something to see."""
    running = [p for p in seen if p.stage == "running"]
    if len(running) < 2:
        return []
    steps = pairwise(running)
    reads = [
        (b.reads_per_s * b.elapsed_s - a.reads_per_s * a.elapsed_s) / (b.elapsed_s - a.elapsed_s)
        for a, b in steps
        if b.elapsed_s > a.elapsed_s
    ]
    series = {
        "in flight": [float(p.in_flight) for p in running],
        "reads/s": reads,
        "TTFT": [p.ttft_s for p in running if p.ttft_s is not None],
    }
    return [f"  {name:<10} {bars(values, width)}" for name, values in series.items() if values]


def bars(values: list[float], width: int) -> str:
    """Values as bars of eight heights, the highest of all full; the means of equal groups where they are too many."""
    size = max(1, -(-len(values) // width))
    groups = [values[k : k + size] for k in range(0, len(values), size)]
    means = [sum(group) / len(group) for group in groups]
    top = max(means)
    return "".join(BARS[round(8 * max(mean, 0.0) / top) if top > 0 else 0] for mean in means)


def completed(p: Progress, duration_s: float | None) -> float | None:
    """How much of the run is over [0, 1]: of its time where that is limited, else of its requests."""
    if duration_s:
        return min(1.0, p.elapsed_s / duration_s)
    return (p.done + p.failed) / p.planned if p.planned else None


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _ms(seconds: float | None) -> str:
    return "     -   " if seconds is None else f"{1e3 * seconds:6.1f} ms"
