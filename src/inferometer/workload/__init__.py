"""Workload: what is asked, when, by whom. A spec, a trace or a profile goes in; a `Plan` comes out.

    contents   what may be asked: `WorkloadSpec`                 draws      random numbers, equal on every machine
    plan       a spec becomes a `Plan`: parts and units         rows       ... and the rows of each unit
    arrivals   when: specs that draw int64 ns                   intensity  a rate that changes with time
    lengths    how long: specs that draw token counts           joint      prompt and output together: tables and copula
    sessions   turns, pauses, history, sub-agents               sharing    prompts that begin alike; the ideal cache
    traces/    production traces of many formats, one schema    replay     which part of a trace, how fast
    profiles   a trace in a few kilobytes; those that ship      fitting    a rate table and a CV for observed arrivals
    prompts    a plan's rows become text, exact to the token    tokenizer  a tokenizer.json, or a small built-in one
    describe   what a trace, profile or plan is like            burstiness CV of gaps, index of dispersion
    tally      a trace too long to hold, counted                fidelity   was what was asked what was sent?
    table1     the seed paper's Table 1, recomputed

Nothing here knows a server, a socket or a clock. Everything is decided before t = 0 and follows from (spec, seed).
Images and audio are out of scope: where a trace has them, their tokens are counted as text, and a note says so.
"""

from inferometer.workload.contents import WorkloadSpec
from inferometer.workload.describe import describe
from inferometer.workload.fidelity import Fidelity, fidelity
from inferometer.workload.plan import make_plan
from inferometer.workload.profiles import (
    Profile,
    load_profile,
    profile_of,
    save_profile,
    shipped_profiles,
)
from inferometer.workload.prompts import Prompts
from inferometer.workload.replay import Replay
from inferometer.workload.sharing import cached_share, cached_tokens
from inferometer.workload.tally import Tally, tallied
from inferometer.workload.tokenizer import Tokenizer, load
from inferometer.workload.traces import Trace, read_batches, read_trace

__all__ = [
    "Fidelity",
    "Profile",
    "Prompts",
    "Replay",
    "Tally",
    "Tokenizer",
    "Trace",
    "WorkloadSpec",
    "cached_share",
    "cached_tokens",
    "describe",
    "fidelity",
    "load",
    "load_profile",
    "make_plan",
    "profile_of",
    "read_batches",
    "read_trace",
    "save_profile",
    "shipped_profiles",
    "tallied",
]
