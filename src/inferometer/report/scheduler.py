"""What a simulator knows and a server hides: batches, memory and idle stages over time, from `iterations.parquet`.

The file has a row per iteration and pipeline stage and may be large: it is read part by part into the bins of the page's
time axis, each iteration at its start. Shares are of time: what a batch of 10 ms holds counts ten times as much as what
one of 1 ms does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inferometer.clock import SECOND
from inferometer.report import charts, tables
from inferometer.report.charts import Chart
from inferometer.report.tables import Axis, Table

FILE = "iterations.parquet"
KV = ("kv_used", "kv_cached", "kv_free")

Floats = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray[np.int64]]


def scheduler_charts(folder: Path | None, on: Axis) -> list[Chart]:
    """The charts of a run's iterations; none where it kept none."""
    if folder is None or not (folder / FILE).is_file():
        return []
    seen = _Sums(on)
    for part in _parts(folder / FILE):
        seen.add(part)
    return seen.charts()


def _parts(path: Path) -> Iterator[Columns]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches():
        names = batch.schema.names
        yield {name: batch.column(name).to_numpy().astype(np.int64) for name in names}


class _Sums:
    """What the charts need, summed by bin."""

    def __init__(self, on: Axis) -> None:
        bins = len(on.edges) - 1
        self.on = on
        self.tokens = {"prefill": np.zeros(bins), "decode": np.zeros(bins)}
        self.time = np.zeros(bins)
        self.batch = np.zeros(bins)
        self.kv = {name: np.zeros(bins) for name in KV}
        self.busy: dict[int, Floats] = {}
        self.replicas: set[int] = set()

    def add(self, part: Columns) -> None:
        """One part of the file."""
        first = part["stage"] == 0
        whole = {name: column[first] for name, column in part.items()}
        at, lasted = whole["start_ns"], whole["duration_ns"].astype(float)
        for kind in self.tokens:
            self.tokens[kind] += self.on.counts(at, whole[f"{kind}_tokens"])
        self.time += self.on.counts(at, lasted)
        self.batch += self.on.counts(at, lasted * whole["sequences"])
        for name in KV:
            self.kv[name] += self.on.counts(at, lasted * whole[name])
        self.replicas |= set(np.unique(part["replica"]).tolist())
        for stage in np.unique(part["stage"]).tolist():
            rows = part["stage"] == stage
            held = self.on.counts(part["start_ns"][rows], part["duration_ns"][rows])
            self.busy[stage] = self.busy.get(stage, 0) + held

    def charts(self) -> list[Chart]:
        """Batch composition, batch size, KV use, idle stages."""
        drawn = [self._composition(), self._sizes(), self._memory()]
        if len(self.busy) > 1:
            drawn.append(self._bubbles())
        return drawn

    def _composition(self) -> Chart:
        table = self._long({k: v / self.on.width_s for k, v in self.tokens.items()}, "tokens_per_s")
        note = "Tokens that iterations computed, by phase. Where prefill crowds decode out, users see a stall."
        return charts.stacked(
            "batch-composition", "What batches were made of", note, table,
            x="t", y="tokens_per_s", what="what", y_title="tokens/s",
        )  # fmt: skip

    def _sizes(self) -> Chart:
        mean = self.batch / np.where(self.time > 0, self.time, np.nan)
        table = {"t": tables.plain(self.on.middle_s), "sequences": tables.plain(mean)}
        note = "Sequences in a batch, averaged over time."
        return charts.lines(
            "batch-size",
            "Batch size",
            note,
            table,
            x="t",
            y="sequences",
            y_title="sequences",
            step=True,
        )

    def _memory(self) -> Chart:
        total = sum(self.kv.values())
        share = {
            name.removeprefix("kv_"): v / np.where(total > 0, total, np.nan)
            for name, v in self.kv.items()
        }
        note = "Shares of the KV blocks, averaged over time. Full memory means waiting, swapping or preemption."
        return charts.stacked(
            "kv-use", "KV cache", note, self._long(share, "share"),
            x="t", y="share", what="what", y_title="share of KV blocks",
        )  # fmt: skip

    def _bubbles(self) -> Chart:
        capacity = self.on.width_s * SECOND * max(len(self.replicas), 1)
        idle = {f"stage {k}": np.clip(1 - v / capacity, 0, 1) for k, v in sorted(self.busy.items())}
        note = "Share of time in which a pipeline stage has nothing to do: waiting for requests, or for another stage."
        return charts.lines(
            "bubbles", "Idle pipeline stages", note, self._long(idle, "idle"),
            x="t", y="idle", what="what", y_title="share of time idle", step=True,
        )  # fmt: skip

    def _long(self, columns: dict[str, Floats], value: str) -> Table:
        t = tables.plain(self.on.middle_s)
        out: Table = {"t": [], value: [], "what": []}
        for what, values in columns.items():
            out["t"] += t
            out[value] += tables.plain(values)
            out["what"] += [what] * len(t)
        return out
