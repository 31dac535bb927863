"""Every error that Inferometer raises on purpose, as one tree.

The first question about a failure is whose it is, and the tree answers it:

    InferometerError
      UserError            the input is wrong: a flag, a spec, a file, a folder      exit 2
      TargetError          the server cannot be used: down, no such model, 401       exit 4
      InvalidMeasurement   the run happened but must not be believed                 exit 3
      NotMeasurable        a metric has no value here (never a made-up number)       exit 3
      BrokenRun            a run directory does not hold what it says it holds       exit 2

Rules: a message names what, where and what to do, in one line.
What a *request* meets (a reset, a timeout, a 500) is not an exception at all: it is a row with a status.
Anything outside this tree is a bug of ours, and is left to propagate.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1  # an SLO, a claim or an audit did not hold
EXIT_USAGE = 2
EXIT_INVALID = 3
EXIT_UNREACHABLE = 4
EXIT_INTERRUPTED = 130


class InferometerError(Exception):
    """The root: one line for a person, and the exit code that goes with it."""

    exit_code = EXIT_USAGE


class UserError(InferometerError):
    """The input is wrong.

    `where` is a path into it ("$.arrivals.rate", "trace.csv:17", "--slo"); `remedy` says what to do.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(_one_line(what, where, remedy))


class TargetError(InferometerError):
    """The server under test cannot be used at all; found before any load is sent."""

    exit_code = EXIT_UNREACHABLE

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(_one_line(what, where, remedy))


class InvalidMeasurement(InferometerError):
    """A run that was made, and is kept, but must not be believed."""

    exit_code = EXIT_INVALID


class NotMeasurable(InferometerError):
    """A metric that has no value on this timeline; the message says which and why."""

    exit_code = EXIT_INVALID


class BrokenRun(InferometerError):
    """A run directory, or a table in it, that contradicts its own contract."""


def _one_line(what: str, where: str, remedy: str) -> str:
    at = f"{where}: " if where else ""
    then = f"; {remedy}" if remedy else ""
    return f"{at}{what}{then}"
