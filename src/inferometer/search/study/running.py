"""A study is run: its cells in their order, one system up at a time, each cell kept as it ends.

Nothing is decided here that `cells` and `tuning` could decide: the cells that have not ended are played in the order of the
plan, and where a cell's configuration is open, tuning has ended before it. What ends a cell:
    a run                      ok; whether it is valid is the instrument's word
    a server that cannot be    failed, with the reason; the study goes on, for the other arms may be fine
    used, or dies meanwhile    (a run that was made until then is kept)
    a person, or the host      not ended: it is played again by the next call
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inferometer.clock import SECOND, Clock, RealClock
from inferometer.errors import TargetError
from inferometer.load.progress import Progress
from inferometer.metrics.summary import plain
from inferometer.run import Run
from inferometer.search.capacity import Search
from inferometer.search.study import folder as store
from inferometer.search.study.asked import Config, Load
from inferometer.search.study.cells import (
    Part,
    Planned,
    at,
    plan_of,
    plan_study,
    split_of,
    workload_of,
)
from inferometer.search.study.cells import plain as plain_workload
from inferometer.search.study.checked import Asked
from inferometer.search.study.folder import Ended, Study
from inferometer.search.study.stand import Job, Key, Stand, Which, standing
from inferometer.search.study.tuning import figure, objective, scored
from inferometer.stats.intervals import t_interval

LEVEL = 0.95
ALWAYS = ("attainment", "error_rate")


class Told(NamedTuple):
    """What is known while a study runs: the study, the cell that is played, and of that what its driver says."""

    study: Study
    playing: Planned | None
    progress: Progress | None = None
    ended: Ended | None = None  # the cell that has just ended


Look = Callable[[Told], None]


def run_study(
    asked: Asked,
    folder: str | Path,
    *,
    look: Look | None = None,
    key: Key = lambda _: None,
    clock: Clock | None = None,
) -> Study:
    """Run, or go on with, a study; returns it as it then is. `key` finds an API key where a system names one.

    Raises UserError for what a person got wrong, KeyboardInterrupt where a person, or SIGTERM, ended it.
    """
    path = store.open_study(asked, plan_study(asked), Path(folder))
    with store.held(path), _terminable():
        store.mend(path)
        study = replace(store.read_study(path), spec=asked.spec)  # on disk it is without secrets
        _Runner(study, look or (lambda _: None), key, clock or RealClock()).play_all()
        done = store.read_study(path)
        claims = {"claims": (done.result or {}).get("claims", [])}
        store.store_result(path, claims | summary(done))
    return store.read_study(path)


@contextmanager
def _terminable() -> Iterator[None]:
    """While inside, SIGTERM unwinds as SIGINT does, so that what was started is stopped."""

    def told(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, told)
    except ValueError:  # not the main thread: whoever owns it handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Runner:
    """Plays the cells of a study that have not ended."""

    def __init__(self, study: Study, look: Look, key: Key, clock: Clock) -> None:
        self.study, self.look, self.key, self.clock = study, look, key, clock
        self.ended = dict(study.ended)

    def play_all(self) -> None:
        """Turn by turn. What failed before is tried again, but for tuning on which a headline stands already."""
        closed = {
            (cell.model, cell.workload)
            for cell, ended in self.study.cells()
            if ended.status == "ok"
        }
        open_cells = [
            cell
            for cell in self.study.planned
            if (known := self.ended.get(cell.id)) is None
            or (
                known.status == "failed"
                and (cell.split == "headline" or (cell.model, cell.workload) not in closed)
            )
        ]
        for _, turn in groupby(open_cells, key=lambda cell: cell.turn):
            self.play_turn(list(turn))

    def play_turn(self, turn: list[Planned]) -> None:
        """All cells of one turn; a server that died is started again for the next of them."""
        config = self._now().config_of(turn[0])
        if config is None:
            for cell in turn:
                self._end(
                    cell,
                    _failed(
                        "no tuning run could be used: they failed, are invalid, or lack the number"
                    ),
                    {},
                    self._begin(cell),
                )
            return
        first = turn[0]
        which = Which(self.study.spec, first.system, first.model, config)
        left = turn
        while left:
            left = self._stand_and_play(which, left)

    def _stand_and_play(self, which: Which, turn: list[Planned]) -> list[Planned]:
        """Start the system and play; the cells that are left because it died."""
        begun = self._begin(turn[0])
        log = self.study.path / store.SERVERS / f"{turn[0].id}.log"
        left = list(turn)
        try:
            with standing(which, log, self.key) as stand:
                while left:
                    cell = left.pop(0)
                    begun = self._begin(cell)
                    end = self._played(stand, cell, which.config)
                    self._end(cell, end, which.config, begun)
                    if stand.gone() is not None:
                        return left
        except TargetError as error:  # it did not come up: it will not for the others either
            for cell in [cell for cell in turn if cell in left]:
                self._end(cell, _failed(str(error)), which.config, begun)
        return []

    def _played(self, stand: Stand, cell: Planned, config: Config) -> _End:
        """What became of one cell."""
        look = self._looking(cell)
        try:
            if cell.load.search is not None:
                return self._searched(stand, cell, config, cell.load.search)
            part = Part(cell.split, cell.workload, cell.load, cell.repeat)
            spec = self.study.spec
            job = Job(
                workload_of(spec, part),
                store.run_folder(self.study.path, cell.id),
                self._asked(cell),
                spec.warmup_of(cell.workload),
            )
            run = stand.play(job, plan_of(spec, part), look)
        except TargetError as error:
            return _failed(stand.gone() or str(error))
        why = stand.gone() or run.manifest.stopped
        return self._judged(run, cell, why, store.settle(job.folder))

    def _judged(self, run: Run, cell: Planned, why: str | None, path: str) -> _End:
        slo = self.study.spec.slo_of(cell.workload)
        card = scored(run, slo)
        names = dict.fromkeys((*self.study.spec.report, *ALWAYS))
        tuned = self.study.spec.tuning.objective if cell.split == "tuning" else None
        return _End(
            status="ok" if why is None else "failed",
            valid=card.valid,
            invalid_reasons=card.invalid_reasons,
            error=why,
            run=path,
            plan=None if run.plan is None else run.plan.fingerprint,
            objective=None if tuned is None else objective(run, card, tuned, slo),
            figures={name: plain(figure(run, card, name)) for name in names},
            slo_met=None if card.slo is None else card.slo.met,
        )

    def _searched(self, stand: Stand, cell: Planned, config: Config, search: Search) -> _End:
        """A cell that is a search; its folder has its name from the beginning, for it goes on where it was."""
        spec = self.study.spec
        slo = spec.slo_of(cell.workload)
        assert slo is not None
        base = plain_workload(spec, cell.workload)
        base = split_of(base, cell.split, spec.tuning.share) if spec.tuned else base
        unit = Load(kind="concurrency" if search.whole else "rate", value=1.0)
        job = Job(
            at(base, unit),
            self.study.path / store.RUNS / cell.id,
            self._asked(cell) | {"config": config},
            0.0,
        )
        seeded = msgspec.structs.replace(search, seed=cell.seed)
        found = stand.search(job, slo, seeded, self._looking(cell))
        if (gone := stand.gone()) is not None:  # some probes met nobody: none is to be gone on from
            store.run_folder(self.study.path, cell.id)
            return _failed(gone)
        return _End(
            status="ok",
            valid=found.verdict in ("resolved", "cliff", "unbounded"),
            invalid_reasons=() if found.verdict != "unresolved" else (found.reason,),
            run=f"{store.RUNS}/{cell.id}",
            capacity=found.to_dict(),
            figures={"capacity": plain(found.load)},
        )

    def _asked(self, cell: Planned) -> dict[str, Any]:
        """What the manifest of a cell's run says of the study."""
        spec = self.study.spec
        part = Part(cell.split, cell.workload, cell.load, cell.repeat)
        kept = ("split", "system", "model", "workload", "app", "repeat", "trial")
        belongs = {name: getattr(cell, name) for name in kept} | {
            "title": spec.title,
            "fingerprint": self.study.fingerprint,
            "cell": cell.id,
            "load": msgspec.to_builtins(cell.load),
            "ablation_of": spec.systems[cell.system].ablation_of,
        }
        workload = plain_workload(spec, cell.workload)
        if cell.load.search is None:
            workload = workload_of(spec, part)
        return {"study": belongs, "workload": msgspec.to_builtins(workload), "slo": cell.slo}

    # --- what is kept, and what is seen ---

    def _now(self) -> Study:
        """The study as it is now."""
        old = self.study
        return Study(old.path, old.spec, old.fingerprint, old.planned, self.ended, old.result)

    def _begin(self, cell: Planned) -> int:
        self.look(Told(self._now(), cell))
        return self.clock.now_ns()

    def _end(self, cell: Planned, end: _End, config: Config, begun: int) -> None:
        seconds = (self.clock.now_ns() - begun) / SECOND
        ended = Ended(
            cell=cell.id,
            seconds=round(seconds, 3),
            started_unix_s=round(time.time() - seconds, 3),
            config=config,
            **end._asdict(),
        )
        store.keep(self.study.path, ended)
        self.ended[cell.id] = ended
        self.look(Told(self._now(), cell, ended=ended))

    def _looking(self, cell: Planned) -> Callable[[Progress], None]:
        return lambda progress: self.look(Told(self._now(), cell, progress))


class _End(NamedTuple):
    """What became of a cell; the fields of `Ended` that it decides."""

    status: Any
    valid: bool | None = None
    invalid_reasons: tuple[str, ...] = ()
    error: str | None = None
    run: str | None = None
    plan: str | None = None
    objective: float | None = None
    figures: dict[str, float | None] = {}  # noqa: RUF012  never modified
    slo_met: bool | None = None
    capacity: dict[str, Any] | None = None


def _failed(why: str) -> _End:
    return _End(status="failed", error=why)


# --- the result -------------------------------------------------------------------------------------------------------


def summary(study: Study) -> dict[str, Any]:
    """The result of a study as plain data, without the claims: what was chosen, and each number over its repeats."""
    return {
        "fingerprint": study.fingerprint,
        "title": study.spec.title,
        "complete": study.complete,
        "cells": {
            "planned": len(study.planned),
            "ended": len(study.ended),
            "failed": sum(e.status == "failed" for e in study.ended.values()),
            "invalid": sum(e.valid is False for e in study.ended.values()),
        },
        "choices": [msgspec.to_builtins(choice) for choice in study.choices],
        "summary": list(_rows(study)),
    }


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    """A row per workload, model, load and system, in the order of the study file."""
    for workload in study.spec.workloads:
        for model in study.spec.model_names:
            for load in study.spec.loads_of(workload, model):
                for system in study.spec.systems:
                    found = study.cells(
                        system=system, model=model, workload=workload, load=load.label
                    )
                    where = {"workload": workload, "model": model, "load": load.label}
                    yield where | {"system": system} | _row([e for _, e in found])


def _row(ended: list[Ended]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for each in ended for name in each.figures))
    return {
        "config": ended[0].config if ended else None,
        "repeats": len(ended),
        "valid": sum(e.valid is True for e in ended),
        "failed": [e.error for e in ended if e.status == "failed"],
        "runs": [e.run for e in ended],
        "slo_met": [e.slo_met for e in ended],
        "figures": {name: _over(name, ended) for name in names},
    }


def _over(name: str, ended: list[Ended]) -> dict[str, Any]:
    """One number over the repeats: mean and Student's t; an interval needs two of them."""
    results = [e.figures.get(name) for e in ended if e.status == "ok"]
    values = np.array([math.nan if x is None else x for x in results])
    if not len(values) or not np.isfinite(values).all():
        return {"mean": None, "ci": [None, None], "results": results}
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return {"mean": mean, "ci": [None, None], "results": results}
    lo, hi = t_interval(mean, float(values.std(ddof=1)) / math.sqrt(n), n - 1, LEVEL)
    return {"mean": mean, "ci": [plain(lo), plain(hi)], "results": results}
