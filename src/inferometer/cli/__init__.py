"""The command line: one file per verb, none of which is imported before it is asked for.

What a verb does: turn what a person typed into frozen specs, call the house, render what comes back, and return an
exit code (`errors.EXIT_*`). What it never does: compute a number.
Rules:
1. stdout is the result (with `--json`: that document and nothing else); progress, notes and errors go to stderr.
2. A person's mistake, or a server's, ends in one line, "inferometer: ...", and its exit code. A bug keeps its traceback.
3. Colour and motion only on a terminal.
4. Secrets are never echoed: what a person may have typed one into is redacted before it is shown.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from inferometer.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_INVALID,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    InferometerError,
)


class Door(NamedTuple):
    """Where a verb lives, and the one line that `inferometer --help` says of it (so that it need not be imported)."""

    module: str
    says: str


VERBS = {
    "measure": Door("measure", "Load a server, stamp every token, say what users feel."),
    "score": Door("score", "The figures of a run, and how far to trust them."),
    "report": Door("report", "Draw a run: one offline page, figures, a trace."),
    "compare": Door("compare", "What differs between two runs, and how surely."),
    "capacity": Door("capacity", "The highest load that meets an SLO, with an interval."),
    "study": Door("study", "Systems, workloads and loads, tuned, repeated and interleaved."),
    "plan-run": Door("plan_run", "How long a run must be for a stated precision."),
    "simulate": Door("simulate", "Serve a plan in simulation: a run like any other."),
    "emulate": Door("emulate", "Serve a schedule, or a simulated system, over HTTP."),
    "calibrate": Door("calibrate", "Measure the instrument's own error on this host."),
    "import": Door("import_results", "Read another tool's raw results as a run."),
    "describe": Door("describe", "What a trace or a run asks for: lengths and arrivals."),
    "reproduce": Door("reproduce", "A table of the seed paper beside ours, from public data."),
    "doctor": Door("doctor", "Check what this host can measure, and what to change."),
    "slo": Door("slo", "The presets that --slo knows, with their sources."),
}

EXIT_CODES = {
    EXIT_OK: "ok",
    EXIT_FAILED: "an SLO or a claim did not hold",
    EXIT_USAGE: "wrong usage or input",
    EXIT_INVALID: "the measurement is invalid",
    EXIT_UNREACHABLE: "the target cannot be used",
    EXIT_INTERRUPTED: "interrupted",
}


class Verbs(click.Group):
    """The verbs of `VERBS`, imported on demand; returns from `main` only by SystemExit."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb; None where there is no such verb."""
        door = VERBS.get(cmd_name)
        if door is None:
            return None
        command: click.Command = import_module(f"inferometer.cli.{door.module}").command
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write no table for --help and --version, which the usage line names; the verbs, instead."""
        self.format_commands(ctx, formatter)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of verbs, without importing any of them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, door.says) for name, door in VERBS.items()])

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes."""
        codes = ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
        formatter.write_paragraph()
        formatter.write_text(f"Exit codes: {codes}.")

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit with its code."""
        extra["standalone_mode"] = False
        sys.exit(_guarded(lambda: super(Verbs, self).main(*args, **extra)))


def _guarded(run: Any) -> int:
    """The exit code of `run()`, after one line on stderr where it ended in somebody's mistake."""
    try:
        code = run()
    except click.ClickException as error:
        return _complain(" ".join(error.format_message().split()), error.exit_code)
    except InferometerError as error:
        return _complain(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted", EXIT_INTERRUPTED)
    return code if isinstance(code, int) else EXIT_OK


def _complain(what: str, code: int) -> int:
    from inferometer.run import redact_text

    click.echo(f"inferometer: {redact_text(what)}", err=True)
    return code


@click.command(
    "inferometer",
    cls=Verbs,
    context_settings={"max_content_width": 100},
    options_metavar="[--version | --help]",
    subcommand_metavar="VERB ...",
    invoke_without_command=True,
)
@click.version_option(package_name="inferometer", message="%(prog)s %(version)s")
@click.pass_context
def verbs(ctx: click.Context) -> int | None:
    """Measures LLM inference serving, and says how far to trust it.
    First run: `inferometer measure`. Of a verb: `inferometer VERB --help`.
    """
    if ctx.invoked_subcommand is not None:
        return None
    click.echo(ctx.get_help())
    return EXIT_USAGE


def main() -> NoReturn:
    """The entry point of the `inferometer` command."""
    verbs.main()
