"""Who sends what: the rows and the slots of each worker. A function of the plan alone, so that it can be redone later."""

from __future__ import annotations

import numpy as np

from inferometer.plan import Plan
from inferometer.timeline import Ints


def stripe(plan: Plan, workers: int) -> list[Ints]:
    """The rows of each worker: sessions stay whole, the others are dealt in turn; empty stripes are left out."""
    group = groups(plan)
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    turn = np.argsort(np.argsort(first))  # groups numbered by their first row
    owner = turn[member] % max(1, workers)
    rows = [np.flatnonzero(owner == worker) for worker in range(workers)]
    return [part for part in rows if len(part)]


def slots(concurrency: int | None, worker: int, workers: int) -> int | None:
    """A worker's share of the slots of a closed loop."""
    if concurrency is None:
        return None
    return concurrency // workers + (worker < concurrency % workers)


def groups(plan: Plan) -> Ints:
    """The first row that each row [R] belongs together with, equal where rows belong to one session or wait for each other."""
    names: dict[str, int] = {}
    group = np.arange(len(plan), dtype=np.int64)
    for row, name in enumerate(plan.session_id.tolist()):
        if name is not None:
            group[row] = names.setdefault(name, row)
    owner = np.repeat(np.arange(len(plan)), np.diff(plan.parent_offset))
    for parent, child in zip(plan.parent_row.tolist(), owner.tolist(), strict=True):
        group[child] = group[parent]
    return group
