"""A trace format of one's own: `seconds;prompt;output`, one request a line. In the package: workload/traces/lines.py.

A reader takes a path and gives a `Trace`: columns in order of arrival, times in ns since the first. A line that cannot be
read is counted with its number, never dropped in silence, never repaired. Its line in `workload/traces/__init__.py`
(with how to recognise it) is all that `read_trace`, `describe` and `--workload` need.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inferometer.workload.traces.trace import Problems, Trace

SECOND = 1_000_000_000


def read_semicolons(path: Path) -> Trace:
    """The trace in a file of `seconds;prompt;output` lines."""
    rows: list[tuple[float, int, int]] = []
    wrong: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            at_s, prompt, output = line.split(";")
            rows.append((float(at_s), int(prompt), int(output)))
        except ValueError:
            wrong.append(f"{path.name}:{number}: not seconds;prompt;output")
    at_s, prompts, outputs = np.array(rows, dtype=float).reshape(-1, 3).T
    arrival_ns = np.rint((at_s - at_s.min(initial=np.inf)) * SECOND).astype(np.int64)
    trace = Trace(
        "semicolons",
        path.name,
        prompts.astype(np.int32),
        outputs.astype(np.int32),
        arrival_ns,
        problems=Problems(len(wrong), tuple(wrong[:20])),
    )
    return trace.in_order()
