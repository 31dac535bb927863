"""The command line as a whole: help that fits a screen, one line per mistake, exit codes, and no secrets."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inferometer import cli
from inferometer.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    TargetError,
)

SCREEN = 32


def typed(*args: str, **environment: str) -> Result:
    """What the command line does with `args`."""
    return CliRunner().invoke(cli.verbs, list(args), env=environment)


def test_help_fits_a_screen_and_imports_no_verb() -> None:
    """`inferometer --help` is drawn from a table: at most 28 lines of 80 columns, and nothing heavy is imported."""
    code = (
        "import sys; from inferometer.cli import main\n"
        "sys.argv = ['inferometer', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pyarrow', 'rich', 'scipy', 'yaml', 'tokenizers'} & set(sys.modules)\n"
        "print(sorted(heavy), [m for m in sys.modules if m.startswith('inferometer.cli.')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *help_text, imported = out.stdout.splitlines()
    assert len(help_text) <= 28
    assert max(map(len, help_text)) <= 80
    assert imported == "[] []"


def test_the_table_of_verbs_is_true() -> None:
    """Every verb of the table has a module with a command of its name's help."""
    for name, door in cli.VERBS.items():
        command = import_module(f"inferometer.cli.{door.module}").command
        assert command.help, name


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_the_help_of_each_verb_fits_a_screen(verb: str) -> None:
    """What is rare stands in `--help-all`."""
    result = typed(verb, "--help")
    assert result.exit_code == EXIT_OK
    lines = result.stdout.splitlines()
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= 80


def test_help_all_shows_more_than_help() -> None:
    """The rare options are documented, too."""
    assert "--timeout-between" not in typed("measure", "--help").stdout
    assert "--timeout-between" in typed("measure", "--help-all").stdout


def test_help_tells_the_exit_codes() -> None:
    """DESIGN 4.9: 0, 1, 2, 3, 4, and 130."""
    text = " ".join(typed("--help").stdout.split())
    for code, meaning in cli.EXIT_CODES.items():
        assert f"{code} {meaning}" in text


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("frobnicate",), "frobnicate"),
        (("--frobnicate",), "--frobnicate"),
        (("measure", "--requests", "many"), "--requests: 'many' is not a whole number"),
        (("measure", "--requests", "0"), "--requests: 0 is below 1"),
        (("measure", "--rate", "-1"), "--rate: -1 is not above 0"),
        (("measure", "--duration", "soon"), "--duration: 'soon' is not a duration"),
        (("measure", "--concurrency", "2", "--rate", "3"), "closed loop"),
        (("measure", "--prompt-tokens", "lots:of=them"), "prompt_tokens"),
        (("measure", "ftp://server"), "ftp://server"),
        (("score", "/no/such/run"), "/no/such/run: no such folder"),
        (("describe", "/no/such/trace.csv"), "/no/such/trace.csv"),
        (("emulate", "--fault", "reset-mid"), "--fault"),
        (("emulate", "--like", "abacus"), "--like"),
        (("emulate", "--system", "vllm"), "--model: a system serves one model"),
        (
            ("emulate", "--system", "vllm", "--gap", "1ms", "--slots", "2"),
            "--gap, --slots: a system",
        ),
        (("emulate", "--tp", "2"), "--tp: is for a system"),
        (("emulate", "--system", "nope", "--model", "llama-3-8b"), "no such system"),
        (("measure", "sim:vllm?model=llama-3-8b", "--workers", "2"), "--workers: a simulated"),
        (("measure", "sim:vllm?model=llama-3-8b", "--timeout-total", "3s"), "--timeout-total"),
        (("measure", "sim:nope?model=llama-3-8b"), "no such system"),
    ],
)
def test_a_mistake_ends_in_one_line(args: tuple[str, ...], said: str) -> None:
    """One line on stderr that names the thing, exit code 2, and nothing on stdout."""
    result = typed(*args)
    assert (result.exit_code, result.stdout) == (EXIT_USAGE, "")
    assert result.stderr.startswith("inferometer: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def test_a_mistake_in_an_slo_is_pointed_at() -> None:
    """An SLO is a text: its complaint shows the place, before anything is sent."""
    result = typed("measure", "--slo", "ttft.p99 <= 1s and tbt.p98 <= 5 parsecs")
    assert (result.exit_code, result.stdout) == (EXIT_USAGE, "")
    complaint, text, caret = result.stderr.splitlines()
    assert complaint.startswith("inferometer: --slo: ")
    assert text[caret.index("^") :].startswith("parsecs")


def test_a_server_that_is_down_is_exit_code_4(tmp_path: Path) -> None:
    """One line, before any folder is made."""
    result = typed("measure", "http://127.0.0.1:1", "-o", str(tmp_path / "run"))
    assert result.exit_code == EXIT_UNREACHABLE
    assert result.stderr.count("\n") == 1
    assert "127.0.0.1:1" in result.stderr
    assert not (tmp_path / "run").exists()


def test_secrets_are_never_echoed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a login in a URL nor a key reaches the screen."""
    result = typed("measure", "http://user:hunter2secret@127.0.0.1:1", "--api-key", "sk-hunter2key")
    assert result.exit_code == EXIT_UNREACHABLE
    assert "hunter2" not in result.output
    mistyped = typed("measure", "ftp://user:hunter2secret@host")
    assert "hunter2" not in mistyped.output

    def refused(**_: object) -> int:
        raise TargetError("HTTP 401 for Bearer sk-hunter2hunter2", where="http://u:hunter2@host")

    monkeypatch.setattr(import_module("inferometer.cli.doctor").command, "callback", refused)
    assert "hunter2" not in typed("doctor").output


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before a run began: one line, no traceback."""

    def interrupted(**_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("inferometer.cli.doctor").command, "callback", interrupted)
    result = typed("doctor")
    assert (result.exit_code, result.stderr.strip()) == (
        EXIT_INTERRUPTED,
        "inferometer: interrupted",
    )


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not somebody's mistake is not dressed up as one."""

    def broken(**_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(import_module("inferometer.cli.doctor").command, "callback", broken)
    assert isinstance(typed("doctor").exception, ZeroDivisionError)


def test_version_is_the_package_s() -> None:
    """`inferometer --version`."""
    result = typed("--version")
    assert result.exit_code == EXIT_OK
    assert result.stdout.startswith("inferometer ")


def test_no_verb_shows_the_help_as_wrong_usage() -> None:
    """`inferometer` alone helps, and fails, so that a script notices."""
    result = typed()
    assert result.exit_code == EXIT_USAGE
    assert "measure" in result.stdout
