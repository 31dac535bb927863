"""The documentation says what the code does: generated parts are current, links lead somewhere, Python blocks run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from inferometer.emulator import Schedule, serve_child

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def test_generated_parts_are_current() -> None:
    """`python scripts/docs.py` would change nothing."""
    command = [sys.executable, str(ROOT / "scripts/docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run python scripts/docs.py ({done.stdout.strip()})"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page is a file of the tree."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_exit_codes_of_the_page_are_those_of_the_code() -> None:
    """docs/cli.md lists each code."""
    from inferometer.cli import EXIT_CODES

    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| (\d+) \|", text, re.MULTILINE)) == {
        str(code) for code in EXIT_CODES
    }


def test_the_columns_of_the_page_are_those_of_the_code() -> None:
    """docs/run-directory.md names every column of the timeline."""
    from inferometer.timeline import CHUNK_COLUMNS, ROW_COLUMNS

    text = (ROOT / "docs/run-directory.md").read_text(encoding="utf-8")
    cells = "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))
    assert set(ROW_COLUMNS) | set(CHUNK_COLUMNS) <= set(re.findall(r"`(\w+)`", cells))


def _blocks() -> list:
    """Every block of Python or SQL on a page; what needs somebody's account is only shown."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```(python|sql)\n(.*?)```", text, re.DOTALL)
        for place, (language, code) in enumerate(blocks):
            if not re.search(SHOWN, code):
                found.append(pytest.param(language, code, id=f"{page.stem}-{place}"))
    return found


SHOWN = r"import (wandb|mlflow)"
OTHERS = ("duckdb", "pandas", "polars")


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """What pages call RUN, LOG, CARD, STUDY and SIMULATED: a run, its server's log, its scorecard; a study; a simulation."""
    from click.testing import CliRunner

    from inferometer import cli

    tmp = tmp_path_factory.mktemp("docs")
    named = {"RUN": tmp / "run", "LOG": tmp / "log.parquet", "CARD": tmp / "card.parquet"}
    with serve_child(Schedule(models=("tiny",), ttft_s=0.05, gap_s=0.005), log=named["LOG"]) as url:
        words = ["measure", url, "--requests", "6", "--output-tokens", "4", "-o"]
        made = CliRunner().invoke(cli.verbs, [*words, str(named["RUN"])])
    assert named["RUN"].exists(), made.output
    words = ["score", str(named["RUN"]), "--format", "parquet", "-o", str(named["CARD"])]
    CliRunner().invoke(cli.verbs, words)
    simulated = ["simulate", "--model", "llama-3-8b", "--requests", "8", "--iterations", "-o"]
    CliRunner().invoke(cli.verbs, [*simulated, str(tmp / "simulated")])
    return named | {"STUDY": _study(tmp), "SIMULATED": tmp / "simulated"}


def _study(folder: Path) -> Path:
    """The directory of a small study."""
    from inferometer.search.study import read_asked, run_study

    spec = 'title: t\nsystems: {chunks: {target: "sim:vllm?model=llama-3-8b"}}\n'
    spec += "workloads: {chat: {prompt_tokens: 9, output_tokens: 3, requests: 4}}\nloads: [2]\n"
    (folder / "study.yaml").write_text(spec)
    return run_study(read_asked(folder / "study.yaml"), folder / "study").path


@pytest.mark.parametrize(("language", "code"), _blocks())
def test_blocks_run(language: str, code: str, places: dict[str, Path]) -> None:
    """As they stand on the page, on a run made with its log; those of other libraries where these are."""
    for name in OTHERS:
        if f"import {name}" in code or (name, language) == ("duckdb", "sql"):
            pytest.importorskip(name, reason=f"no {name}: pip install 'inferometer[docs]'")
    code = re.sub(
        r"(?<=[\"'])(RUN|LOG|CARD|STUDY|SIMULATED)\b", lambda found: str(places[found[1]]), code
    )
    if language == "sql":
        import duckdb

        with duckdb.connect() as base:
            assert base.execute(code).fetchall()
    else:
        exec(compile(code, "page", "exec"), {})
