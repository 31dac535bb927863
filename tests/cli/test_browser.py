"""`--serve`: one URL on stderr, the verb's own result first, a report at the end."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from inferometer import cli
from inferometer.cli.browser import Ends, also, browser
from inferometer.emulator import Schedule, serve_child


def asked(url: str, path: str) -> tuple[int, str]:
    """The answer of a live view."""
    connection = http.client.HTTPConnection(
        url.removeprefix("http://").rstrip("/").split("/")[0], timeout=10
    )
    connection.request("GET", path)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_nobody_asked_for_a_browser() -> None:
    """Without an address there is no server, and whoever watches is not disturbed."""
    with browser(None, "x", Ends([Path("none")])) as live:
        assert live is None
    assert also(None, print, pytest.fail) is print
    assert also(None, None, pytest.fail) is None


def test_a_view_is_told_what_the_terminal_is_told() -> None:
    """Both get the same arguments; the browser alone, where there is no terminal."""
    seen: list[tuple] = []
    also("live", lambda *a: seen.append(a), lambda *a: seen.append(a))(1, 2)
    also("live", None, lambda *a: seen.append(a))(3)
    assert seen == [(1, 2), ("live", 1, 2), ("live", 3)]


def test_a_view_without_a_report_is_no_error(tmp_path, capsys) -> None:
    """Nothing to draw is a line on stderr; the verb's own exit code stays."""
    with browser("0", "a title", Ends([tmp_path])) as live:
        assert asked(live.url, "/")[0] == 200
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"live view: {live.url}"
    assert said[1].startswith("no report: ")


def test_an_interruption_is_passed_on(tmp_path) -> None:
    """What ends the block ends the view."""
    with pytest.raises(KeyboardInterrupt), browser("0", "x", Ends([tmp_path])) as live:
        raise KeyboardInterrupt
    assert b"ended without a result" in b"".join(live.stream())


@pytest.mark.parametrize("more", [["--repeats", "2"], ["--versus", ""]])
def test_measure_serves_and_reports(tmp_path, more) -> None:
    """Repeats, two targets: the result is on stdout, the URL on stderr, a report was drawn."""
    with serve_child(Schedule(models=("m",), ttft_s=0.01, gap_s=0.001)) as url:
        words = ["measure", url, "--requests", "8", "--output-tokens", "4", "--serve", "0"]
        more = [word or url for word in more]
        result = CliRunner().invoke(
            cli.verbs, [*words, *more, "-o", str(tmp_path / "run"), "--quiet"]
        )
    assert result.exit_code in (0, 3), result.output
    assert "live view: http://127.0.0.1:" in result.stderr
    assert "no report" not in result.stderr
    assert result.stdout.strip() == str(tmp_path / "run")


def test_capacity_leaves_its_answer_and_shows_its_probes(tmp_path) -> None:
    """`report FOLDER` reads the answer that the search left."""
    folder, page = tmp_path / "search", tmp_path / "page.html"
    quick = ["--probes", "2", "--probe-requests", "20", "--most-requests", "40", "--rest", "0s"]
    with serve_child(Schedule(models=("m",), ttft_s=0.01, gap_s=0.001)) as url:
        words = ["capacity", url, "--slo", "ttft.p50 <= 0.5s", "--start", "40", *quick]
        words += ["--shortest", "500ms", "--output-tokens", "4", "--no-hysteresis", "--serve", "0"]
        result = CliRunner().invoke(cli.verbs, [*words, "--json", "-o", str(folder)])
    answer = json.loads(result.stdout)
    assert json.loads((folder / "capacity.json").read_text()) == answer
    assert answer["probes"]
    assert "live view: http://127.0.0.1:" in result.stderr
    drawn = CliRunner().invoke(cli.verbs, ["report", str(folder), "-o", str(page)])
    assert drawn.exit_code == 0, drawn.output
    assert "The whole curve" in page.read_text()


def test_a_study_shows_its_cells(tmp_path) -> None:
    """A row per cell that has ended, in words, and how far the study is."""
    from inferometer.cli import study
    from inferometer.search.study import read_asked, run_study

    told: list[tuple] = []

    class Browser:
        def tell(self, figures, words, done) -> None:
            told.append((figures["cells"], words.partition(";")[0], done))

        def table(self, columns, rows) -> None:
            told.append(rows)

    spec = 'title: t\nsystems: {a: {target: "sim:vllm?model=llama-3-8b"}}\nloads: [2]\n'
    spec += "workloads: {chat: {prompt_tokens: 9, output_tokens: 3, requests: 30}}\n"
    (tmp_path / "study.yaml").write_text(spec)
    look = also(Browser(), None, study.tell)
    run_study(read_asked(tmp_path / "study.yaml"), tmp_path / "study", look=look)
    assert (1.0, "1 of 1 cells", 1.0) in told
    (row,) = told[-1]
    assert row[:2] == ("chat+2rps+r0+a", "ok")
