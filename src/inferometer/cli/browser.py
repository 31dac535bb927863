"""`--serve`: what a verb shows on the terminal, live in a browser, which ends on the report.

A verb wraps its work in `browser(...)`, tells the view what happens, and shows its own result before the block ends: only
then is the report drawn, so that nobody who waits for stdout waits for a picture.
Rule: the view is for whoever looks; nothing that goes wrong with it changes a verb's result or its exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from inferometer.cli.options import Option, rare
from inferometer.errors import InferometerError

if TYPE_CHECKING:
    from inferometer.report.live import Live


class Ends(NamedTuple):
    """What the report at the end is of: the paths, and the SLO to judge by, of `inferometer report`."""

    paths: Sequence[Path]
    slo: str | None = None


def serve_option() -> Option:
    """`--serve`, for the verbs that take their time."""
    return rare("--serve PORT", "Live in a browser, too: a port, or 0 for any.")


@contextmanager
def browser(address: str | None, title: str, ends: Ends) -> Iterator[Live | None]:
    """The live view while the block runs, and then its report; None where `address` is, since nobody asked."""
    if address is None:
        yield None
        return
    from inferometer.report.live import serving

    with serving(address, title) as live:
        click.echo(f"live view: {live.url}", err=True)
        try:
            yield live
        except BaseException:
            live.tell({}, "It ended without a result; the terminal says why.")
            raise
        _finish(live, ends)


def _finish(live: Live, ends: Ends) -> None:
    from inferometer.cli.report import drawn, page

    try:
        live.finish(page(*drawn(list(ends.paths), ends.slo)))
    except InferometerError as error:
        live.tell({}, "There is no report; the terminal says why.")
        click.echo(f"no report: {error}", err=True)


def also(
    live: Live | None, watch: Callable[..., None] | None, tell: Callable[..., None]
) -> Callable[..., None] | None:
    """`watch`, and `tell(live, ...)` with the same arguments where there is a live view; None where nobody looks."""
    if live is None:
        return watch

    def both(*seen: object) -> None:
        if watch is not None:
            watch(*seen)
        tell(live, *seen)

    return both
