"""What a page says of a search for capacity: the verdict, the curve, every probe.

Reads what `inferometer capacity` leaves in its folder: the answer (capacity.json), whose probes are runs beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inferometer import stats
from inferometer.errors import UserError
from inferometer.report import charts, tables
from inferometer.report.charts import Chart
from inferometer.report.sections import Grid, Light, Section, number
from inferometer.report.tables import Table

ANSWER = "capacity.json"
STATES = {"resolved": "good", "unbounded": "good", "cliff": "unsure", "infeasible": "bad"}


def search_sections(folder: Path) -> list[Section]:
    """The sections of a search's page."""
    try:
        found = msgspec.json.decode((folder / ANSWER).read_bytes())
    except OSError as error:
        raise UserError(
            f"no answer of a search is there: {error.strerror}",
            where=str(folder),
            remedy="let `inferometer capacity -o` come to its end; the same command goes on",
        ) from None
    unit = "in flight" if "concurrency" in found else "requests/s"
    return [_verdict(found, unit), _curves(found, unit), _probes(found, unit)]


def load_of(one: dict[str, Any]) -> float | None:
    """The load of an answer or of a probe, whichever kind of load it is."""
    value = one.get("concurrency", one.get("rate_per_s"))
    return None if value is None else float(value)


def _verdict(found: dict[str, Any], unit: str) -> Section:
    lo, hi = found["interval"]
    capacity = Light(
        "Capacity",
        STATES.get(found["verdict"], "unsure"),
        f"{number(load_of(found))} {unit}, {found['confidence']:.0%} interval [{number(lo)}, {number(hi)}]",
        tuple(filter(None, (found["verdict"], found["reason"], found["binding"]))),
    )
    lights = [capacity, Light("SLO", "none", found["slo"])]
    if (seen := found.get("hysteresis")) is not None:
        told = f"at {number(seen['load'])}: {seen['before']:.1%} before an overload, {seen['after']:.1%} after"
        lights.append(Light("Hysteresis", "bad" if seen["shown"] else "good", told))
    lead = f"{len(found['probes'])} probes, {found['requests']:,} requests, {number(found['spent_s'])} s."
    return Section("verdict", "Verdict", lead, tuple(lights))


def _curves(found: dict[str, Any], unit: str) -> Section:
    shares: Table = {"load": [], "attainment": [], "lo": [], "hi": []}
    times: Table = {"load": [], "ms": [], "what": []}
    for probe in sorted(found["probes"], key=lambda p: load_of(p) or 0.0):
        if probe["attainment"] is None:
            continue
        hits = round(probe["attainment"] * probe["requests"])
        ci = stats.proportion_ci(hits, probe["requests"])
        row = np.array([load_of(probe), probe["attainment"], *ci], dtype=float)
        for name, value in zip(shares, tables.plain(row), strict=True):
            shares[name].append(value)
        for name in ("ttft_p50_s", "ttft_p99_s", "tbt_p50_s", "tbt_p99_s"):
            if probe.get(name) is not None:
                times["load"].append(load_of(probe))
                times["ms"].append(1e3 * probe[name])
                times["what"].append(name.removesuffix("_s").replace("_", " "))
    return Section("curves", "The whole curve", charts=tuple(_drawn(shares, times, unit)))


def _drawn(shares: Table, times: Table, unit: str) -> list[Chart]:
    drawn = [
        charts.lines(
            "attainment", "Attainment over load",
            "Each point is a probe, with the interval of its own requests; the search's interval is of the crossing.",
            shares, x="load", y="attainment", x_title=f"load [{unit}]", y_title="share of requests that attain the SLO",
            bands=("lo", "hi"), points=True,
        )
    ]  # fmt: skip
    if times["ms"]:
        note = "What users feel, over the same loads."
        drawn.append(charts.lines("rate-latency", "Latency over load", note, times, x="load", y="ms", what="what", x_title=f"load [{unit}]", y_title="ms", log_y=True, points=True))  # fmt: skip
    return drawn


def _probes(found: dict[str, Any], unit: str) -> Section:
    head = (f"load [{unit}]", "share", "", "requests", "failed", "role", "run")
    rows = [
        [
            number(load_of(probe)),
            "–" if probe["attainment"] is None else f"{probe['attainment']:.1%}",
            "met" if probe["met"] else "not met",
            f"{probe['requests']:,}",
            f"{probe['failed']:,}",
            str(probe.get("role", "")),
            str(probe.get("run") or ""),
        ]
        for probe in found["probes"]
    ]
    return Section(
        "probes", "Every probe", grids=(Grid("In the order in which they ran", head, rows),)
    )
