"""The record of a calibration: how far this host's instrument can be believed, kept for later runs to cite.

`inferometer.emulator.calibrate` finds the figures; here is what they look like, where they are kept and how a run
names them. One file per host under $XDG_STATE_HOME (or ~/.local/state), because a figure of another machine, or of the
same one under another kernel, says nothing about this one. The file's name and content hold a hash of the machine's
identity, never its name. Times are in seconds, on disk as everywhere in a manifest.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import msgspec

from inferometer.errors import UserError
from inferometer.run import write_whole

SCHEMA_VERSION = 1

BELIEVED, REFUSED, DISCARDED = "believed", "refused", "discarded"


class Spread(msgspec.Struct, frozen=True):
    """Quantiles of a magnitude [s]; null where `n` values cannot carry one (p99 needs 100, p99.9 needs 1,000)."""

    n: int = 0
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """What one load showed, while all of its streams were live.

    Errors are magnitudes of measured minus true, the truth being the server's own log of its writes. `verdict` is
    "believed", "refused" (the driver's error was too large) or "discarded" (the server was late, so that the rung says
    nothing about the driver); `reasons` are those against it. `shared_stamps`: tokens with the stamp of the one before.
    """

    streams: int
    stamps: str
    tokens: int
    tokens_per_s: float
    matched_share: float
    stamp_error: Spread
    gap_error: Spread
    ttft_error: Spread
    send_lag: Spread
    shared_stamps: float | None
    cpu_us_per_token: float | None
    cpu_share: float | None
    emulator_late_share: float | None
    emulator_lateness: Spread
    verdict: str = BELIEVED
    reasons: tuple[str, ...] = ()


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration: a ladder of loads with one worker process, the rung that is believed, and under what conditions.

    `believed_tokens_per_s` is null where no rung held. `beside` are rungs for comparison that decide nothing.
    """

    when: str  # UTC, ISO 8601
    host_id: str
    stamps: str
    rungs: tuple[Rung, ...]
    beside: tuple[Rung, ...] = ()
    believed_tokens_per_s: float | None = None
    gap_error_p99_s: float | None = None
    stamp_error_p99_s: float | None = None
    criteria: dict[str, float] = {}
    host: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def verdict(self) -> str:
        """One line for a person."""
        if self.believed_tokens_per_s is None or self.gap_error_p99_s is None:
            return "no load was found at which this host can be believed"
        return (
            f"this host is believed up to {self.believed_tokens_per_s:,.0f} tokens/s"
            f" per worker, with gap error p99 {1e3 * self.gap_error_p99_s:.3g} ms"
        )


def cite(calibration: Calibration | None) -> dict[str, Any] | None:
    """What a manifest says of the calibration of its host; None where there is none."""
    if calibration is None:
        return None
    names = ("when", "believed_tokens_per_s", "gap_error_p99_s", "stamp_error_p99_s", "stamps")
    return {name: getattr(calibration, name) for name in names}


def latest() -> Calibration | None:
    """The calibration of this host, or None.

    A file that cannot be read, or that another version wrote, is no calibration either: making one again mends both.
    """
    try:
        found = msgspec.json.decode(record_path().read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError):
        return None
    return found if found.schema_version == SCHEMA_VERSION else None


def store(calibration: Calibration) -> Path:
    """Put the record in the place of this host's last one, whole or not at all, readable by its owner only."""
    path = record_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, msgspec.json.format(msgspec.json.encode(calibration), indent=2))
    except OSError as error:
        raise UserError(
            f"cannot keep the calibration: {error.strerror}",
            where=str(path.parent),
            remedy="set XDG_STATE_HOME to a folder that can be written",
        ) from None
    return path


def record_path() -> Path:
    """Where this host's record is kept."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    # The XDG specification: a relative path there is to be ignored.
    base = state if state.is_absolute() else Path.home() / ".local" / "state"
    return base / "inferometer" / "calibration" / f"{host_id()}.json"


def host_id() -> str:
    """16 hex digits that stay while machine, CPU model and kernel stay, and tell nobody which they are."""
    identity = ("inferometer", _machine(), _cpu_model(), platform.release(), platform.machine())
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]


def _machine() -> str:
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip() or platform.node()
    except OSError:
        return platform.node()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""
    )
