"""What the simulator's tests share: tiny replicas with hand-computable costs, played to tiny plans."""

from __future__ import annotations

import numpy as np
import pytest

from inferometer.plan import Plan, build_plan
from inferometer.sim.cluster import Cluster, Outcome
from inferometer.sim.cost import Affine, Cost
from inferometer.sim.engine import Replica
from inferometer.sim.iterations import IterationLog
from inferometer.sim.kernel import PS_PER_S
from inferometer.sim.memory import BlockPool, Host
from inferometer.sim.prefix import PrefixPool, texts
from inferometer.sim.routers import router
from inferometer.sim.step import Policy


class World:
    """Plays (arrival [s], prompt, output) rows to replicas of a policy; answers in seconds."""

    def plan(self, rows: list[tuple[float, int, int]], **columns: object) -> Plan:
        times, prompts, outputs = zip(*rows, strict=True)
        columns = {"intended_ns": [round(t * 1e9) for t in times]} | columns
        return build_plan(len(rows), prompt_tokens=prompts, output_tokens=outputs, **columns)

    def play(
        self,
        policy: Policy,
        plan: Plan,
        cost: Cost,
        *,
        blocks: int = 1000,
        block: int = 16,
        stages: int = 1,
        replicas: int = 1,
        stretch: bool = True,
        host: Host | None = None,
        log: IterationLog | None = None,
    ) -> tuple[Outcome, list[Replica]]:
        kind = PrefixPool if policy.caching else BlockPool
        how = {"stages": stages, "stretch": stretch, "host": host, "log": log}
        made = [
            Replica(policy, cost, kind(blocks, block), index=index, **how)
            for index in range(replicas)
        ]

        def door(prompt: int, output: int) -> str | None:
            return "too long" if -(-(prompt + output - 1) // block) > blocks else None

        cluster = Cluster(made, router("round-robin", 0), door, plan, texts=texts(plan))
        return cluster.play(), made

    def tokens(self, outcome: Outcome) -> list[list[float]]:
        return [
            (np.frombuffer(stamps, dtype="<i8") / PS_PER_S).tolist() for stamps in outcome.stamps
        ]

    def seconds(self, fixed: float, per_token: float = 0.0, stages: int = 1) -> Affine:
        return Affine(round(fixed * PS_PER_S), round(per_token * PS_PER_S), stages=stages)


@pytest.fixture
def world() -> World:
    return World()
