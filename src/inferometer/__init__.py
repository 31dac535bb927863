"""Inferometer measures LLM inference serving, and says how far the measurement can be trusted.

What is named here is public; everything else may change. Names are imported when they are first used, so that
`import inferometer` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferometer.load.recovery import read_run as read_run
    from inferometer.metrics import Fluidity as Fluidity
    from inferometer.metrics import Scorecard as Scorecard
    from inferometer.metrics import fluidity_index as fluidity_index
    from inferometer.metrics import score as score
    from inferometer.run import Run as Run
    from inferometer.workload import read_batches as read_batches
    from inferometer.workload import read_trace as read_trace

_HOMES = {
    "Fluidity": "inferometer.metrics",
    "Run": "inferometer.run",
    "Scorecard": "inferometer.metrics",
    "fluidity_index": "inferometer.metrics",
    "read_batches": "inferometer.workload",
    "read_run": "inferometer.load.recovery",
    "read_trace": "inferometer.workload",
    "score": "inferometer.metrics",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """A public name, imported from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
