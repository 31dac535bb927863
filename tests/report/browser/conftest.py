"""A real browser, headless: Debian's Chromium, driven by Playwright; a loud skip where either is missing."""

from __future__ import annotations

import shutil

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def chromium():
    """The browser; one for all tests."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no browser: install Debian's package chromium")
    api = pytest.importorskip(
        "playwright.sync_api", reason="no driver: pip install 'inferometer[browser]'"
    )
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """`open_page(file, **context)`: a page, with what it complained of and what it asked for; closed afterwards."""
    contexts = []

    def opened(file, **context):
        contexts.append(chromium.new_context(**context))
        page = contexts[-1].new_page()
        page.complaints, page.requests = [], []
        page.on("console", lambda said: page.complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(f"file://{file}")
        return page

    yield opened
    for context in contexts:
        context.close()
