"""Is there a steady state in this run, and where: requests in flight, token rate and TTFT on one grid of time.

The judgement is `stats.steady_state`'s; here a run becomes the series that it judges. What must be known of serving:
* The grid spans the arrivals of phase measure. A warm-up that a person declared and the drain after the last arrival lie
  outside it, and no test is asked about them.
* In a closed loop the number in flight is steady by construction: it is no evidence, and is left out.
* The first answers fill the pipeline: in flight rises for as long as one request lives. A run of fewer than `GENERATIONS`
  such lives, or of fewer than `FEWEST` requests, is too short to tell.
* "No steady state" has causes that must not be confused. Where the load itself moved (a trace, a ramp), the latencies are
  those of that load, and are shown. Where an open loop's load stood still while the requests in flight grew by more
  than their mean, the system is past saturation: what was seen depends on how long one looked, and the verdict stands
  `in_place_of_numbers`. A smaller drift is told beside them.

Rule: nothing is ever left out silently. What is found is reported; `trimmed` is for those who ask.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from inferometer import stats
from inferometer.clock import SECOND
from inferometer.metrics import latency, rates, tokens
from inferometer.metrics.summary import plain
from inferometer.metrics.tokens import Bools, Floats
from inferometer.run import Run
from inferometer.stats.steady import GROWTH, LARGE, Verdict
from inferometer.timeline import Ints, Timeline

CELLS = (100, 300)  # of the grid, at least and at most
PER_CELL = 5  # requests that a cell should have, before it is made narrower
FEWEST = 100
GENERATIONS = 3
QUEUE = "in flight"  # the series that shows a growing queue for sure
BLOCK = 1 << 20  # chunks counted at a time: no second column of 20 M stamps


class Steady(NamedTuple):
    """The verdict, where the steady part begins and ends [s since the run's epoch; NaN if it cannot be told], and why.

    `in_place_of_numbers`: an open loop past saturation. `applied`: what lies outside is not in the numbers.
    """

    verdict: Verdict
    warmup_end_s: float
    drain_start_s: float
    reason: str
    in_place_of_numbers: bool = False
    applied: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return self._asdict() | {
            "warmup_end_s": plain(self.warmup_end_s),
            "drain_start_s": plain(self.drain_start_s),
        }


class Grid(NamedTuple):
    """`cells` equal cells of time from `start_ns` on."""

    start_ns: int
    width_ns: int
    cells: int

    @property
    def edges_ns(self) -> Ints:
        """Where cells begin and end [cells + 1]."""
        return self.start_ns + self.width_ns * np.arange(self.cells + 1)

    def sums(self, at_ns: Ints, weights: Any = None) -> Floats:
        """What happened within each cell [cells]: events, or their weights."""
        found = np.zeros(
            self.cells + 2
        )  # what came before stands in the first place, what came after in the last
        for begin in range(0, len(at_ns), BLOCK):
            part = slice(begin, begin + BLOCK)
            cell = at_ns[part] - (self.start_ns - self.width_ns)
            cell //= self.width_ns
            np.clip(cell, 0, self.cells + 1, out=cell)
            found += np.bincount(cell, None if weights is None else weights[part], found.size)
        return found[1:-1]


def steady_state(run: Run) -> Steady:
    """What can be said of the steady state of a run."""
    if "starts" in run.manifest.missing:
        return Steady("too short to tell", np.nan, np.nan, run.manifest.missing["starts"])
    timeline = tokens.token_chunks(run.timeline)
    run = replace(run, timeline=timeline)
    measured = np.asarray(timeline.phase == "measure")
    if short := _too_short(timeline, measured):
        return Steady("too short to tell", np.nan, np.nan, short)
    grid = _grid(timeline.intended_ns[measured])
    found = stats.steady_state(_series(run, grid))
    if not measured.all() and (grown := _grown(run, whole := _grid(timeline.intended_ns))):
        grid, found = whole, grown
    edges_s = grid.edges_ns / SECOND
    bounds = float(edges_s[found.start]), float(edges_s[found.stop])
    if found.movement is None:
        return Steady(found.verdict, *bounds, found.reason)
    load = None if _closed(run) else _load_moved(run, grid)
    if load is not None:
        return Steady(found.verdict, *bounds, f"{found.reason}; the load does, too: {load}")
    grows = found.movement.series == QUEUE and found.movement.rise > GROWTH
    return Steady(found.verdict, *bounds, found.reason, grows and not _closed(run))


def trimmed(run: Run, found: Steady) -> Run:
    """`run` with its transients as phases warmup and drain, where it is steady between them. Does not modify `run`."""
    if found.verdict != "steady":
        return run
    t = run.timeline
    phase = t.phase.copy()
    measured = phase == "measure"
    phase[measured & (t.intended_ns < found.warmup_end_s * SECOND)] = "warmup"
    phase[measured & (t.intended_ns > found.drain_start_s * SECOND)] = "drain"
    return replace(run, timeline=t.with_columns(phase=phase))


def _too_short(timeline: Timeline, measured: Bools) -> str:
    """Why nothing can be told from so little; "" where something can."""
    requests = int(measured.sum())
    if requests < FEWEST:
        return f"{requests} requests, and {FEWEST} are needed"
    ttft = latency.ttft(timeline)
    if np.isnan(ttft[measured]).all():
        return "no request has a first token"
    # A life without the queue, about which we ask: the quickest start of all, then a reply.
    life_s = float(np.nanmin(ttft) + np.nanmean(latency.ttlt(timeline) - ttft))
    length_s = int(np.ptp(timeline.intended_ns[measured])) / SECOND
    if length_s < GENERATIONS * life_s:
        needed = f"{GENERATIONS} times the {life_s:.3g} s of a request are needed"
        return f"{length_s:.3g} s of arrivals, and {needed}"
    return ""


def _grid(intended_ns: Ints) -> Grid:
    cells = int(np.clip(len(intended_ns) // PER_CELL, *CELLS))
    start = int(intended_ns.min())
    return Grid(start, -(-(int(intended_ns.max()) - start + 1) // cells), cells)


def _series(run: Run, grid: Grid) -> dict[str, Floats]:
    """The series, by the names that a reason is to use; in flight only where the loop is open."""
    t = run.timeline
    ttft = latency.ttft(t)
    seen = ~np.isnan(ttft)
    with np.errstate(invalid="ignore"):
        mean_ttft = grid.sums(t.intended_ns[seen], ttft[seen]) / grid.sums(t.intended_ns[seen])
    found = {"token rate": _token_rate(t, grid), "ttft": mean_ttft}
    if not t.knows("chunks").all():
        del found["token rate"]
    return found if _closed(run) else {QUEUE: _in_flight(t, grid), **found}


def _token_rate(timeline: Timeline, grid: Grid) -> Floats:
    # Weights cost as much again, and mostly there is nothing to weigh.
    weights = None if tokens.one_token_each(timeline) else timeline.chunk_tokens
    return grid.sums(timeline.chunk_ns, weights)


def _in_flight(timeline: Timeline, grid: Grid) -> Floats:
    """The time average of each cell, exact."""
    steps = rates.in_flight(timeline)
    area = np.concatenate([[0.0], np.cumsum(np.diff(steps.t_ns) * steps.level[:-1])])
    return np.asarray(np.diff(np.interp(grid.edges_ns, steps.t_ns, area)) / grid.width_ns)


def _grown(run: Run, whole: Grid) -> stats.SteadyState | None:
    """A queue that grew from the first request of a declared warm-up on; None where none did.

    By the measured phase it is long, and what it still grows by looks small beside it.
    """
    if _closed(run):
        return None
    grown = stats.moving({QUEUE: _in_flight(run.timeline, whole)}, large=GROWTH)
    if grown is None:
        return None
    return stats.SteadyState("no steady state", 0, whole.cells, str(grown), grown)


def _load_moved(run: Run, grid: Grid) -> stats.Movement | None:
    """How the load that was asked for moved; None where it stood still."""
    t = run.timeline
    inside = _inside(t, grid)
    asked = {
        "arrivals": grid.sums(t.intended_ns[inside]),
        "prompt tokens": grid.sums(t.intended_ns[inside], t.prompt_tokens[inside]),
    }
    return stats.moving(asked, large=LARGE)


def _inside(timeline: Timeline, grid: Grid) -> Bools:
    at_ns, edges = timeline.intended_ns, grid.edges_ns
    return np.asarray((at_ns >= edges[0]) & (at_ns < edges[-1]))


def _closed(run: Run) -> bool:
    return run.plan is not None and run.plan.concurrency is not None
