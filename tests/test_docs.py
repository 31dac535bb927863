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


def test_python_blocks_run(tmp_path: Path) -> None:
    """Those that need only what Inferometer needs, on a run made with its log."""
    from click.testing import CliRunner

    from inferometer import cli

    run, log = tmp_path / "run", tmp_path / "log.parquet"
    with serve_child(Schedule(models=("tiny",), ttft_s=0.05, gap_s=0.005), log=log) as url:
        made = CliRunner().invoke(
            cli.verbs, ["measure", url, "--requests", "6", "--output-tokens", "4", "-o", str(run)]
        )
    assert run.exists(), made.output
    study = _study(tmp_path)
    ran = 0
    for page in PAGES:
        for block in re.findall(
            r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL
        ):
            if "inferometer" in block or "pyarrow" in block:
                code = block.replace('"RUN', f'"{run}').replace('"LOG"', f'"{log}"')
                code = code.replace('"STUDY"', f'"{study}"')
                exec(compile(code, page.name, "exec"), {})
                ran += 1
    assert ran >= 3


def _study(folder: Path) -> Path:
    """The directory of a small study."""
    from inferometer.search.study import read_asked, run_study

    spec = 'title: t\nsystems: {chunks: {target: "sim:vllm?model=llama-3-8b"}}\n'
    spec += "workloads: {chat: {prompt_tokens: 9, output_tokens: 3, requests: 4}}\nloads: [2]\n"
    (folder / "study.yaml").write_text(spec)
    return run_study(read_asked(folder / "study.yaml"), folder / "study").path
