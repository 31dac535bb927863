"""The simulator: another world that makes Runs, in which the server is an event heap instead of a socket.

    kernel    clock, heap, one total order             memory   the KV cache: block pools, how large they are
    engine    a replica: applies, checks, keeps times  cost     how long an iteration takes; nobody else knows
    policies  who runs next, one file each             routers  which replica
    systems   the table of names                       cluster  a plan, played to replicas (live: no plan, a caller)
    models, devices   facts as data                    simulate the door: a plan and a deployment become a Run

A token's way: `Cost.decode` -> `Replica._run_of` -> `Cohort.log` -> `Seq.stamps` -> `simulate._timeline`.
"""

from inferometer.sim.simulate import Deployment, Window, simulate, simulate_into
from inferometer.sim.systems import SYSTEMS, Limits

__all__ = ["SYSTEMS", "Deployment", "Limits", "Window", "simulate", "simulate_into"]
