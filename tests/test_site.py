"""The documentation builds as a site without a warning, and the site loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    pytest.importorskip("material", reason="no mkdocs-material: pip install 'inferometer[docs]'")
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-q",
        "-d",
        str(out),
    ]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return out


def test_every_page_is_built(site):
    """Each Markdown file but the status becomes a page."""
    expected = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"status", "index"}
    assert expected <= {path.parent.name for path in site.glob("*/index.html")}


def test_nothing_is_loaded_from_elsewhere(site):
    """No script, style, font or picture of a page has an address of another host."""
    loading = re.compile(
        r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(https?:)?//[^\"'> ]+"
    )
    for page in site.rglob("*.html"):
        found = [
            m.group(0)
            for m in loading.finditer(page.read_text())
            if 'rel="canonical"' not in m.group(0)
        ]
        assert found == [], page
