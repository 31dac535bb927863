"""Makes the screenshots of the README and of docs/report.md: an emulated server, measured, watched and reported.

    python scripts/screenshots.py [FOLDER]      (about a minute; needs Debian's chromium and the extra [browser])

Nothing is drawn by hand: `measure --serve` runs as a person would run it, a browser looks at it, then at its report.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from inferometer.emulator import Schedule, serve_child

SIZE = {"width": 1180, "height": 760}
SERVER = Schedule(
    models=("emulated",),
    ttft_s=0.12,
    ttft_sigma=0.4,
    ttft_per_prompt_token_s=0.0002,
    gap_s=0.018,
    gap_sigma=0.25,
    stall_s=0.4,
    stall_probability=0.004,
    slots=12,
)
LOAD = (
    "--rate=8", "--duration=40s", "--prompt-tokens=lognormal:median=400,sigma=0.8",
    "--output-tokens=uniform:low=20,high=100", "--slo=ttft.p90 <= 1s and tbt.p99 <= 100ms", "--seed=1",
)  # fmt: skip


def main() -> None:
    """Write live.png, report.png, felt.png and lanes.png."""
    default = Path(__file__).parents[1] / "docs" / "pictures"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    with browser() as page, tempfile.TemporaryDirectory() as tmp:
        run = Path(tmp) / "chat-at-8-per-s"
        with measuring(run) as url:
            page.goto(url)
            page.wait_for_timeout(30_000)
            save(page, folder / "live.png")
            page.wait_for_url("**/report", timeout=90_000)
        save(page, folder / "report.png")
        page.locator("#felt").evaluate("section => section.scrollIntoView()")
        page.wait_for_timeout(2_000)
        save(page, folder / "felt.png")
        lanes = page.locator("canvas").first
        lanes.evaluate("canvas => canvas.scrollIntoView({block: 'center'})")
        lanes.hover()
        for _ in range(8):
            page.mouse.wheel(0, -120)
        page.wait_for_timeout(1_000)
        save(page, folder / "lanes.png")


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a browser without a window."""
    with sync_playwright() as driver:
        path = shutil.which("chromium")
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium.new_page(viewport=SIZE, color_scheme="light")
        chromium.close()


@contextmanager
def measuring(run: Path) -> Iterator[str]:
    """The URL of the live view of a measurement, which is over when the block has ended."""
    with serve_child(SERVER) as server:
        words = ["measure", server, *LOAD, "--serve", "0", "--quiet", "-o", str(run)]
        command = [sys.executable, "-m", "inferometer", *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **quiet) as verb:
            assert verb.stderr is not None
            yield verb.stderr.readline().split()[-1]
            verb.wait(60)


def save(page: Any, path: Path) -> None:
    """Write a picture of what is in view."""
    page.screenshot(path=str(path))
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
