"""The report in a real browser: charts are drawn, nothing is fetched, everything that can be touched answers."""

from __future__ import annotations

import csv
import os
import threading
from pathlib import Path

import pytest

from inferometer.metrics import score
from inferometer.report import html, run_sections

pytestmark = pytest.mark.browser
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
DRAWN = """box => box.querySelectorAll(`svg .mark-line path, svg .mark-rect path, svg .mark-area path,
           svg .mark-symbol path, svg .mark-rule line`).length"""


@pytest.fixture(scope="module")
def report(run_of, tmp_path_factory):
    """The page of a run with everything in it."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    run = run_of()
    file.write_text(html("A run", run_sections(run, score(run, "ttft.p90 <= 400ms"))))
    return file


def scrolled_through(page):
    """Scroll every chart into view, wait until it is drawn; the charts."""
    boxes = page.locator(".chart")
    for k in range(boxes.count()):
        boxes.nth(k).scroll_into_view_if_needed()
        page.wait_for_selector(f".chart >> nth={k} >> svg", timeout=10_000)
    page.wait_for_function("document.querySelectorAll('.chart:not([data-drawn])').length === 0")
    return boxes


def kept(page, name):
    """A screenshot for people to look at, where CI asks for them."""
    folder = os.environ.get("INFEROMETER_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn(open_page, report, size, scheme):
    """No chart is blank, nobody complains, nothing is fetched, nothing sticks out of the side."""
    page = open_page(report, viewport=size, color_scheme=scheme)
    boxes = scrolled_through(page)
    assert boxes.count() >= 10
    blank = [k for k in range(boxes.count()) if not boxes.nth(k).evaluate(DRAWN)]
    kept(page, f"report-{scheme}-{size['width']}")
    assert blank == []
    assert page.complaints == []
    assert page.requests == [f"file://{report}"]
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_first_view_is_quick(open_page, report):
    """The verdict is there with the document itself; the document is parsed in under a second."""
    page = open_page(report, viewport=DESKTOP)
    took_ms = page.evaluate(
        "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    )
    assert page.locator("#verdict .light").count() >= 3
    assert took_ms < 1_000


def test_the_theme_turns(open_page, report):
    """The button turns paper and charts, and says which way it is."""
    page = open_page(report, viewport=DESKTOP, color_scheme="light")
    scrolled_through(page)
    ink = "document.querySelector('.chart text').getAttribute('fill')"
    before = page.evaluate(ink)
    page.click("#theme")
    page.wait_for_function(f"{ink} !== '{before}'")
    assert page.get_attribute("#theme", "aria-pressed") == "true"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"


def test_a_point_tells_its_values(open_page, report):
    """Hovering a mark shows its values as text."""
    page = open_page(report, viewport=DESKTOP)
    scrolled_through(page)
    mark = page.locator("#chart-fluidity .mark-symbol path").nth(3)
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    page.wait_for_selector("#tip")
    assert "deadline" in page.inner_text("#tip")


def test_data_can_be_taken_home(open_page, report):
    """The CSV of a chart is its table, and the SVG is the picture."""
    page = open_page(report, viewport=DESKTOP, accept_downloads=True)
    with page.expect_download() as download:
        page.click('[data-csv="ttft-cdf"][data-table="curve"]')
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert float(rows[-1]["share"]) == pytest.approx(274 / 280, rel=1e-3)
    with page.expect_download() as download:
        page.click('[data-svg="ttft-cdf"]')
    assert Path(download.value.path()).read_text().startswith("<svg")


def test_lanes_answer(open_page, report):
    """Zoom by wheel and by key, filter by status, order by TTFT: the view says what it shows."""
    page = open_page(report, viewport=DESKTOP)
    canvas = page.locator("#lanes-canvas")
    canvas.scroll_into_view_if_needed()
    page.wait_for_selector("#lanes-canvas[data-drawn]")
    painted = """() => { const c = document.getElementById('lanes-canvas');
        return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(x => x); }"""
    page.wait_for_function(painted)
    whole = page.evaluate("lanes.state()")
    canvas.hover()
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"lanes.state().span < {whole['span']}")
    page.select_option("#lanes-status", "http_error")
    page.wait_for_function("lanes.state().shown === 6")
    page.select_option("#lanes-order", "ttft")
    page.wait_for_function(
        "document.getElementById('lanes-under').textContent.startsWith('6 requests')"
    )
    canvas.focus()
    page.keyboard.press("+")
    page.wait_for_function(f"lanes.state().span < {whole['span']}")
    assert page.complaints == []


def test_lanes_of_many_tokens_stay_smooth(open_page, run_of, tmp_path):
    """A frame of 5,000 requests with 2 M tokens takes less than 100 ms of script, zoomed out and zoomed in."""
    run = run_of(5_000, 400)
    card = score(run, intervals=False)
    sections = [s for s in run_sections(run, card) if s.id in ("verdict", "lanes")]
    (tmp_path / "big.html").write_text(html("Big", sections))
    assert (tmp_path / "big.html").stat().st_size < 3e6
    page = open_page(tmp_path / "big.html", viewport=DESKTOP)
    page.wait_for_selector("#lanes-canvas[data-drawn]", timeout=20_000)
    frame = "(() => { const t = performance.now(); for (let k = 0; k < 5; k++) lanes.frame(); return (performance.now() - t) / 5; })()"
    assert page.evaluate(frame) < 100
    for _ in range(12):
        page.evaluate("lanes.zoom(0.7, 0.3, 0.3)")
    assert page.evaluate(frame) < 100


def test_planted_scripts_do_not_run(open_page, planted_run, tmp_path):
    """Script tags in every text of a run: no dialog, no complaint, and the text is there to be read."""
    file = tmp_path / "planted.html"
    file.write_text(
        html("<script>alert('title')</script>", run_sections(planted_run, score(planted_run)))
    )
    page = open_page(file, viewport=DESKTOP)
    page.on("dialog", lambda said: page.complaints.append(f"dialog: {said.message}"))
    scrolled_through(page)
    page.locator("#lanes-canvas").hover()
    assert page.complaints == []
    assert "<script>alert('reason')</script>" in page.text_content("#verdict")
    assert page.evaluate("document.querySelectorAll('img').length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_accessibility_fault(open_page, report, scheme):
    """axe-core finds nothing serious or critical, in either theme."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="no axe-core: pip install 'inferometer[browser]'",
    )
    page = open_page(report, viewport=DESKTOP, color_scheme=scheme)
    scrolled_through(page)
    found = axe.Axe().run(page).response["violations"]
    serious = {
        v["id"]: [node["target"] for node in v["nodes"]][:5]
        for v in found
        if v["impact"] in ("serious", "critical")
    }
    assert serious == {}


def test_the_keyboard_reaches_everything(open_page, report):
    """Tab goes through links, buttons and the canvas, and always shows where it is."""
    page = open_page(report, viewport=DESKTOP)
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
            )
        )
    assert {"skip", "theme", "lanes-canvas", "lanes-order"} <= reached


def test_the_live_page_becomes_the_report(chromium, report):
    """Figures are drawn as they come; at the end the browser is on the report, with its charts."""
    from inferometer.report.live import serving

    context = chromium.new_context(viewport=DESKTOP)
    page = context.new_page()
    complaints = []
    page.on("console", lambda said: complaints.append(said.text))
    try:
        with serving("0", "A run") as live:
            live.tell({"requests done": 1.0, "TTFT p50 [s]": None}, "running", 0.1)
            page.goto(live.url)
            page.wait_for_selector("#tiles li")
            for k in range(5):
                live.tell({"requests done": 2.0 + k, "TTFT p50 [s]": 0.1 * k}, "running", 0.2 * k)
            live.table(["load", "met"], [["1", "<b>yes</b>"]])
            page.wait_for_selector("#table td")
            page.wait_for_function("document.querySelector('polyline').points.length >= 6")
            assert page.inner_text("#table td:nth-child(2)") == "<b>yes</b>"
            kept(page, "live")
            threading.Thread(target=live.finish, args=(report.read_text(),)).start()
            page.wait_for_url("**/report")
            page.wait_for_selector("#verdict")
        assert complaints == []
    finally:
        context.close()
