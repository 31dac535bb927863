"""`inferometer doctor`: what this host can measure, and what to change so that it can measure better.

Each check looks at one thing, changes nothing, and returns a line: ok, or warn with what to do. Nothing here contacts
a server. The exit code is 0 unless something that every measurement needs is missing (3).
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import click

from inferometer.cli.options import json_option, verb
from inferometer.errors import EXIT_INVALID, EXIT_OK

WANTED_FILES = 4096
COARSE_NS = 1_000_000
LIBRARIES = (
    "inferometer", "numpy", "pyarrow", "msgspec", "httptools", "scipy", "tokenizers", "click", "rich",
)  # fmt: skip


class Line(NamedTuple):
    """One thing that was looked at. `state`: ok | warn | fail; `remedy` is empty where all is well."""

    what: str
    state: str
    found: str
    remedy: str = ""


def check_python() -> Line:
    """The interpreter."""
    found = f"{platform.python_implementation()} {platform.python_version()}"
    return Line("python", "ok", found)


def check_system() -> Line:
    """The driver is an epoll loop, and stamps come from the Linux kernel."""
    found = f"{platform.system()} {platform.release()} ({platform.machine()})"
    if sys.platform != "linux":
        return Line("system", "fail", found, "run the load from a Linux host")
    return Line("system", "ok", found)


def check_stamps() -> Line:
    """Whether the kernel stamps what it receives (SO_TIMESTAMPNS), tried on a loopback pair."""
    from inferometer.load.connection import kernel_stamps_work

    if kernel_stamps_work():
        return Line("stamps", "ok", "the kernel's own (SO_TIMESTAMPNS)")
    return Line(
        "stamps",
        "warn",
        "user space only",
        "a stamp is as late as the loop: keep the load per worker low, and read loop lag in every score",
    )


def check_clock() -> Line:
    """The clock source and its resolution."""
    from inferometer.clock import resolution_ns
    from inferometer.load.instrument import clock_source

    step_ns, source = resolution_ns(), clock_source()
    found = f"{source}, resolution {step_ns:,} ns"
    if step_ns > COARSE_NS or source in ("acpi_pm", "hpet"):
        return Line(
            "clock", "warn", found, "slow to read; choose tsc or kvm-clock as the clock source"
        )
    return Line("clock", "ok", found)


def check_files() -> Line:
    """Open files: one per stream in flight."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= WANTED_FILES:
        most = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,}"
        return Line("open files", "ok", f"{soft:,} now, raised on need up to {most}")
    return Line("open files", "warn", f"at most {hard:,}", f"ulimit -Hn {WANTED_FILES} or more")


def check_cores() -> Line:
    """Cores that this process may use, and how busy they are."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    busy = os.getloadavg()[0]
    found = f"{cores} usable, load average {busy:.1f}"
    if cores < 2:
        return Line("cores", "warn", found, "leave a core to each worker and one to the parent")
    if busy > cores:
        return Line(
            "cores", "warn", found, "other work competes for the cores; end it before measuring"
        )
    return Line("cores", "ok", found)


def check_governor() -> Line:
    """The CPU frequency governor, where it can be read."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        governor = path.read_text().strip()
    except OSError:
        return Line("cpu governor", "ok", "not visible here")
    if governor == "performance":
        return Line("cpu governor", "ok", governor)
    return Line("cpu governor", "warn", governor, "set it to performance for steady lags")


def check_versions() -> Line:
    """The libraries that the measurement stands on."""
    found, missing = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Line(
            "libraries", "fail", f"missing: {', '.join(missing)}", "install inferometer again"
        )
    return Line("libraries", "ok", ", ".join(found))


def check_calibration() -> Line:
    """The last calibration of this host."""
    from inferometer.load.calibration import latest

    found = latest()
    if found is None:
        return Line("calibration", "warn", "none on this host", "run inferometer calibrate once")
    state = "ok" if found.believed_tokens_per_s is not None else "warn"
    remedy = "" if state == "ok" else "run inferometer calibrate again on an idle host"
    return Line("calibration", state, f"{found.verdict()} ({found.when[:10]})", remedy)


CHECKS: tuple[Callable[[], Line], ...] = (
    check_python,
    check_system,
    check_stamps,
    check_clock,
    check_files,
    check_cores,
    check_governor,
    check_versions,
    check_calibration,
)


@verb(json_option())
def command(*, as_json: bool) -> int:
    """Check what this host can measure, and what to change.

    Looks at the interpreter, the kernel's stamps, the clock, limits, cores, and the last calibration. Changes nothing.
    """
    lines = [check() for check in CHECKS]
    if as_json:
        from inferometer.cli.card import plain_json

        click.echo(plain_json({"checks": [line._asdict() for line in lines]}))
    else:
        show(lines)
    return EXIT_INVALID if any(line.state == "fail" for line in lines) else EXIT_OK


def show(lines: list[Line]) -> None:
    """Print one line per check, and under it what to do."""
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    wide = max(len(line.what) for line in lines)
    for line in lines:
        state = click.style(f"{line.state:<4}", fg=colours[line.state])
        text = click.wrap_text(
            line.found, width=100, initial_indent="", subsequent_indent=" " * (wide + 7)
        )
        click.echo(f"{state} {line.what:<{wide}}  {text}")
        if line.remedy:
            click.echo(" " * (wide + 7) + click.style(line.remedy, bold=True))
