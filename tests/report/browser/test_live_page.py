"""`measure --serve` in a real browser: figures while it runs, the report when it is over, the result on stdout."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from inferometer.emulator import Schedule, serve_child

pytestmark = pytest.mark.browser


def test_a_measurement_is_watched_and_ends_on_its_report(chromium, tmp_path) -> None:
    """The page draws a line per figure, then becomes the report; the verb ends with 0 and its JSON."""
    context = chromium.new_context()
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    load = ("--rate", "30", "--requests", "30", "--output-tokens", "8", "--seed", "1")
    with serve_child(Schedule(models=("m",), ttft_s=0.05, gap_s=0.01)) as url:
        command = ["measure", url, *load, "--serve", "0", "--json", "-o", str(tmp_path / "run")]
        with subprocess.Popen(
            [sys.executable, "-m", "inferometer", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as verb:
            told = verb.stderr.readline()
            assert told.startswith("live view: http://127.0.0.1:")
            page.goto(told.split()[-1])
            page.wait_for_selector("#tiles li", timeout=20_000)
            names = page.locator("#tiles li span").all_inner_texts()
            page.wait_for_url("**/report", timeout=40_000)
            assert "run" in page.title()
            assert page.locator("section#verdict").count() == 1
            out, errors = verb.communicate(timeout=40)
    context.close()
    assert {"in flight", "done", "TTFT [ms]"} <= set(names)
    assert verb.returncode in (0, 3), errors  # 3: on a busy machine a run may rightly be invalid
    assert json.loads(out)["requests"]["total"] == 30
    assert complaints == []
