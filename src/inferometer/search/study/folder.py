"""The directory of a study: what was planned, what has ended, and how another program reads it.

    STUDY/study.yaml     the file as it was written
    STUDY/study.json     the spec, the cells in order, and the fingerprint of both
    STUDY/cells.jsonl    one line per ended cell; a later line about a cell replaces an earlier one
    STUDY/runs/ID/       the run directory of a cell (of a search for capacity: a folder of probes)
    STUDY/servers/       what the servers said that were started
    STUDY/result.json    choices, summary, claims

A run directory gets its name when its cell has ended: what is under `runs` with the ending `.part` was being written when
the study stopped, and is made again. The journal is appended line by line; a line that was cut off by a crash is dropped.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from inferometer.errors import BrokenRun, UserError
from inferometer.load.recovery import read_run
from inferometer.run import Run, redact, write_whole
from inferometer.search.study.asked import Config, StudySpec
from inferometer.search.study.cells import Planned, Split
from inferometer.search.study.checked import Asked
from inferometer.search.study.tuning import Choice, Trial, chosen, inherited
from inferometer.slo import Slo
from inferometer.spec import Spec

SCHEMA = 1
SOURCE, STUDY, JOURNAL, RESULT = "study.yaml", "study.json", "cells.jsonl", "result.json"
RUNS, SERVERS, UNFINISHED = "runs", "servers", ".part"


class Ended(Spec, frozen=True):
    """A cell that has ended. `failed`: there is no run that could be used, and `error` says why.

    `figures`: the numbers to report, and attainment and error rate; None where the run does not carry one.
    """

    cell: str
    status: Literal["ok", "failed"]
    seconds: float
    started_unix_s: float
    valid: bool | None = None
    invalid_reasons: tuple[str, ...] = ()
    error: str | None = None
    run: str | None = None
    config: Config = msgspec.field(default_factory=dict)
    plan: str | None = None
    objective: float | None = None
    figures: dict[str, float | None] = msgspec.field(default_factory=dict)
    slo_met: bool | None = None
    capacity: dict[str, Any] | None = None


class _Head(msgspec.Struct, frozen=True):
    schema_version: int
    fingerprint: str
    spec: StudySpec
    planned: tuple[Planned, ...]


class _Version(msgspec.Struct, frozen=True):
    schema_version: int


def fingerprint(spec: StudySpec, planned: tuple[Planned, ...]) -> str:
    """sha-256 over what is asked and every plan, as 64 hex digits.

    Where the file and its traces lie makes no difference, nor does a field that says nothing (a later version's, say).
    """
    plain = msgspec.to_builtins(spec)
    for system in plain["systems"].values():
        system["folder"] = None
    for workload in plain["workloads"].values():
        for part in (workload, *workload["clients"]):
            part["trace"] = None
    told = msgspec.json.encode(_said([plain, msgspec.to_builtins(planned)]), order="sorted")
    return hashlib.sha256(told).hexdigest()


def _said(value: Any) -> Any:
    """Plain data without what says nothing: null, and what is empty."""
    if isinstance(value, Mapping):
        known = {key: _said(inner) for key, inner in value.items()}
        return {key: inner for key, inner in known.items() if inner not in (None, {}, [])}
    return [_said(inner) for inner in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Study:
    """A study on disk: what was planned and what has ended. Runs are read when they are asked for."""

    path: Path
    spec: StudySpec
    fingerprint: str
    planned: tuple[Planned, ...]
    ended: Mapping[str, Ended]
    result: dict[str, Any] | None = None

    @property
    def complete(self) -> bool:
        """Whether every planned cell has ended well."""
        return all(
            cell.id in self.ended and self.ended[cell.id].status == "ok" for cell in self.planned
        )

    @property
    def arms(self) -> tuple[str, ...]:
        """The systems that are no ablation of another."""
        return tuple(n for n, system in self.spec.systems.items() if system.ablation_of is None)

    def ablations(self, of: str) -> tuple[str, ...]:
        """The ablations of a system."""
        return tuple(n for n, system in self.spec.systems.items() if system.ablation_of == of)

    def cells(
        self,
        split: Split = "headline",
        *,
        system: str | None = None,
        model: str | None = None,
        workload: str | None = None,
        load: str | None = None,
    ) -> list[tuple[Planned, Ended]]:
        """The ended cells of a split, in order; those of one system, model, workload or load (its label), where given."""
        asked = {"system": system, "model": model, "workload": workload}
        return [
            (cell, self.ended[cell.id])
            for cell in self.planned
            if cell.split == split and cell.id in self.ended
            if all(value in (None, getattr(cell, name)) for name, value in asked.items())
            if load in (None, cell.load.label)
        ]

    def run(self, cell: str) -> Run:
        """The run of an ended cell, from disk. UserError where it has none."""
        ended = self.ended.get(cell)
        if ended is None or ended.run is None:
            raise UserError(f"cell {cell!r} has no run", where=str(self.path))
        return read_run(self.path / ended.run)

    def slo_of(self, workload: str) -> Slo | None:
        """The SLO of a workload."""
        return self.spec.slo_of(workload)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """What tuning chose for each system, model and workload, and all that it tried; also of ablations."""
        own = {
            (name, model, workload): chosen(
                self.spec, name, model, workload, tuple(self._trials(name, model, workload))
            )
            for name, system in self.spec.systems.items()
            if system.tune
            for model in self.spec.model_names
            for workload in self.spec.workloads
        }
        taken = [
            inherited(self.spec, name, choice)
            for name, system in self.spec.systems.items()
            if system.ablation_of and not system.tune
            for (base, _, _), choice in own.items()
            if base == system.ablation_of
        ]
        return (*own.values(), *taken)

    def config_of(self, cell: Planned) -> Config | None:
        """The configuration of a cell: its own, or the one that tuning chose; None where there is none to choose."""
        if cell.config is not None:
            return cell.config
        where = (cell.system, cell.model, cell.workload)
        return next(c.best for c in self.choices if (c.system, c.model, c.workload) == where)

    def _trials(self, system: str, model: str, workload: str) -> Iterator[Trial]:
        for cell, ended in self.cells("tuning", system=system, model=model, workload=workload):
            config = cell.config or {}
            yield Trial(config=config, objective=ended.objective, valid=ended.valid, cell=cell.id)


# --- reading ----------------------------------------------------------------------------------------------------------


def is_study(path: str | Path) -> bool:
    """Whether a folder holds a study."""
    return (Path(path) / STUDY).is_file()


def read_study(path: str | Path) -> Study:
    """The study in a directory, finished or not; a UserError where there is none."""
    folder = Path(path)
    if not is_study(folder):
        raise UserError(
            f"not a study: it has no {STUDY}",
            where=str(folder),
            remedy="name a folder that `inferometer study -o` wrote",
        )
    head = _head(folder)
    result = folder / RESULT
    told = msgspec.json.decode(result.read_bytes()) if result.is_file() else None
    return Study(folder, head.spec, head.fingerprint, head.planned, _journal(folder), told)


def _head(folder: Path) -> _Head:
    content = (folder / STUDY).read_bytes()
    try:
        if msgspec.json.decode(content, type=_Version).schema_version > SCHEMA:
            raise UserError("written by a newer Inferometer", where=str(folder), remedy="upgrade")
        return msgspec.json.decode(content, type=_Head)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BrokenRun(f"{folder / STUDY}: {error}") from None


def _journal(folder: Path) -> dict[str, Ended]:
    path = folder / JOURNAL
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    try:
        ended = [msgspec.json.decode(line, type=Ended) for line in lines if line]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BrokenRun(f"{path}: {error}") from None
    return {each.cell: each for each in ended}


# --- writing ----------------------------------------------------------------------------------------------------------


def open_study(asked: Asked, planned: tuple[Planned, ...], folder: Path) -> Path:
    """`folder`, with the study in it: a new one, or the same as before; a UserError where it holds another."""
    mark = fingerprint(asked.spec, planned)
    if is_study(folder):
        if _head(folder).fingerprint != mark:
            raise UserError(
                "the folder holds another study, or this one as it was before the file was changed",
                where=str(folder),
                remedy="name another with -o",
            )
    else:
        _create(folder)
        write_whole(folder / SOURCE, asked.document.text.encode())
        head = {
            "schema_version": SCHEMA,
            "fingerprint": mark,
            "spec": redact(_finite(msgspec.to_builtins(asked.spec))),
            "planned": _finite(msgspec.to_builtins(planned)),
        }
        write_whole(folder / STUDY, msgspec.json.format(msgspec.json.encode(head), indent=1))
    return folder


def _finite(value: Any) -> Any:
    """Plain data without infinities, which JSON has not: each is the default of its field."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items() if inner != math.inf}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _create(folder: Path) -> None:
    """Make the folders; what a crash in the middle of this has left is taken over."""
    try:
        if folder.exists() and {each.name for each in folder.iterdir()} - {SOURCE, RUNS, SERVERS}:
            raise UserError(
                "the folder is not empty", where=str(folder), remedy="name another with -o"
            )
        for inner in (RUNS, SERVERS):
            (folder / inner).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write there: {error.strerror}", where=str(folder)) from None


def mend(folder: Path) -> None:
    """Cut off a torn last line of the journal, so that the next one starts on a line of its own."""
    journal = folder / JOURNAL
    content = journal.read_bytes() if journal.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_whole(journal, whole)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Nobody else runs the study while inside; a UserError where somebody does. A process that dies lets go of it."""
    with (folder / STUDY).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("this study is being run already", where=str(folder)) from None
        yield


def keep(folder: Path, ended: Ended) -> None:
    """Append a cell to the journal; it has ended once this returns."""
    with (folder / JOURNAL).open("ab") as file:
        file.write(msgspec.json.encode(ended) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def run_folder(folder: Path, cell: str) -> Path:
    """Where the run of a cell goes while it is made; what an earlier try left is removed."""
    for old in (folder / RUNS / cell, folder / RUNS / (cell + UNFINISHED)):
        if old.exists():
            shutil.rmtree(old)
    return folder / RUNS / (cell + UNFINISHED)


def settle(part: Path) -> str:
    """Give a finished run directory its name; its path in the study."""
    done = part.with_name(part.name.removesuffix(UNFINISHED))
    part.replace(done)
    return f"{RUNS}/{done.name}"


def store_result(folder: Path, result: dict[str, Any]) -> None:
    """Write result.json; claims that were stored before stay only where the result brings them."""
    plain = {"schema_version": SCHEMA} | result
    write_whole(folder / RESULT, msgspec.json.format(msgspec.json.encode(plain), indent=1))


def store_claims(folder: str | Path, claims: list[dict[str, Any]]) -> None:
    """Put the verdicts on a study's claims into its result."""
    study = read_study(folder)
    if study.result is None:
        raise UserError("the study has no result yet", where=str(folder), remedy="run it first")
    store_result(study.path, study.result | {"claims": claims})
