"""A simulated system as a world: the same plans as for a server, served by `simulate`.

Between probes it is empty, so that it needs no rest; it has no prompts, so that nothing is cached from one to the next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from inferometer.run import Run, write_run
from inferometer.search.capacity import Ask
from inferometer.search.measured import asked_of, new_folder, plan_of, warmed
from inferometer.sim import Deployment, simulate
from inferometer.workload import WorkloadSpec


@dataclass(frozen=True, slots=True)
class Simulated:
    """A deployment under a workload, as a world. `folder`, where there is one, gets one run directory per probe."""

    deployment: Deployment
    workload: WorkloadSpec
    folder: Path | None = None

    def __call__(self, ask: Ask) -> Run:
        """The run of one probe; it never stops itself."""
        plan, _ = plan_of(self.workload, ask)
        run = warmed(simulate(plan, self.deployment), ask)
        run.manifest.spec |= asked_of(self.workload, ask)
        if self.folder is None:
            return run
        return replace(run, path=write_run(run, new_folder(self.folder, ask)))
