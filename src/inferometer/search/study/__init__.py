"""Studies: systems x models x workloads x loads x repeats, tuned, interleaved, resumed, and read by others.

    asked      the specs behind the YAML file; checked: what must hold between them, errors with their line
    places     placeholders and flags, from a system to a target or a command
    cells      what a study consists of, in which order; pure
    tuning     how good a configuration is, which is chosen, whether the space was wide enough
    stand      a system that is up: simulated, already there, or started
    server     a server that is started, asked until it answers, and stopped; keeper: the process that makes sure
    running    the cells in their order, each kept as it ends
    folder     the directory of a study, and the reader of it

Knows nothing of audits, claims and reports: those read what is written here.
"""

from inferometer.search.study.asked import Load, StudySpec
from inferometer.search.study.cells import Planned, plan_study
from inferometer.search.study.checked import Asked, read_asked
from inferometer.search.study.folder import (
    Ended,
    Study,
    fingerprint,
    is_study,
    read_study,
    store_claims,
)
from inferometer.search.study.running import Told, run_study
from inferometer.search.study.tuning import Choice, Trial

__all__ = [
    "Asked",
    "Choice",
    "Ended",
    "Load",
    "Planned",
    "Study",
    "StudySpec",
    "Told",
    "Trial",
    "fingerprint",
    "is_study",
    "plan_study",
    "read_asked",
    "read_study",
    "run_study",
    "store_claims",
]
