"""Answers that take more than one run: capacity under an SLO, comparison, repeats, run lengths, the prefill curve.

    capacity     the highest load that meets an SLO, in any world that turns an Ask into a Run; pure but for that call
    evidence     what one probe says about an SLO, as shares with an effective n
    measured     a server as a world; simulated, a deployment as one; queueing, a queue with a known capacity
    compare      two sides: effects with intervals, shift function, crossings, flip table, gates
    repeats      several runs of one thing: declared looks, variances, randomized blocks
    lengths      from a pilot to the length of a run
    prefill      TTFT at zero load by prompt length, measured

Knows runs, metrics, SLOs and statistics; only `measured` knows of servers, only `simulated` of simulators.
"""

from inferometer.search.capacity import Ask, Capacity, Probe, Search, World, capacity
from inferometer.search.compare import Comparison, compare
from inferometer.search.lengths import needed
from inferometer.search.repeats import interleave, repeat

__all__ = [
    "Ask",
    "Capacity",
    "Comparison",
    "Probe",
    "Search",
    "World",
    "capacity",
    "compare",
    "interleave",
    "needed",
    "repeat",
]
