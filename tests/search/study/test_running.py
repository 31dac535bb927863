"""Studies that are run: to the end, interrupted, killed, with servers that die; and what is left on disk."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inferometer.errors import UserError
from inferometer.search.study import is_study, read_study, run_study, store_claims
from inferometer.search.study.checked import read_asked
from inferometer.search.study.folder import held


def test_a_simulated_study_end_to_end(whole):
    """All cells ended, tuned on the tuning split, the headline with what was chosen; runs say where they belong."""
    study = whole

    assert study.complete
    assert len(study.cells("tuning")) == 8
    assert len(study.cells()) == 3 * 2 * (2 + 1)
    for choice in study.choices:
        if choice.inherited_from is None:
            assert len(choice.trials) == 2
            least = min(trial.objective for trial in choice.trials)
            near = [t.config for t in choice.trials if t.objective <= 1.01 * least]
            assert choice.best in near
    for cell, ended in study.cells():
        run = study.run(cell.id)
        assert run.plan.fingerprint == cell.plan == ended.plan
        assert run.manifest.target["config"] == ended.config == study.config_of(cell)
        assert run.manifest.spec["study"]["cell"] == cell.id
        assert run.manifest.spec["study"]["ablation_of"] == (
            "b" if cell.system == "b-small" else None
        )
    (small, _), *_ = study.cells(system="b-small", workload="code")
    assert study.run(small.id).manifest.target["policy"]["chunk"] == 64
    assert study.arms == ("a", "b")
    assert study.ablations("b") == ("b-small",)


def test_the_result_says_each_number_over_its_repeats(whole):
    """Mean, interval and every repeat; a percentile that forty requests cannot carry is null."""
    study, rows = whole, whole.result["summary"]

    assert len(rows) == 3 * (2 + 1)
    row = rows[0]
    figures = [ended.figures["ttft.p50"] for _, ended in study.cells(
        system=row["system"], workload=row["workload"], load=row["load"])]  # fmt: skip
    assert row["figures"]["ttft.p50"]["results"] == figures
    assert row["figures"]["ttft.p50"]["mean"] == pytest.approx(sum(figures) / 2)
    lo, hi = row["figures"]["ttft.p50"]["ci"]
    assert lo <= min(figures) <= max(figures) <= hi
    assert row["figures"]["ttft.p99"]["mean"] is None
    assert study.result["complete"] is True


def test_the_same_file_gives_the_same_study(whole, study_file, tmp_path):
    """Plans, order, choices and figures, but for what the clock says."""
    one, two = whole, run_study(study_file(), tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    assert one.planned == two.planned
    assert one.choices == two.choices
    assert one.result == two.result
    assert list(one.ended) == list(two.ended)


def test_warm_up_is_not_scored(study_file, tmp_path):
    """The requests that are intended before `warmup_s`."""
    asked = study_file(put={"repeats: 2": "warmup_s: 2"})
    study = run_study(asked, tmp_path / "st")
    for cell, _ in study.cells():
        timeline = study.run(cell.id).timeline
        assert ((timeline.intended_ns < 2e9) == (timeline.phase == "warmup")).all()
        assert (timeline.phase == "warmup").any()


class Stop(Exception):
    """What a test stops a study with."""


def stopping_after(cells: int):
    """A look that stops the study when so many cells have ended."""
    seen = []

    def look(told) -> None:
        seen.extend([told.ended] if told.ended is not None else [])
        if len(seen) == cells:
            raise Stop

    return look


@pytest.mark.parametrize("cells", [3, 15])
def test_an_interrupted_study_goes_on(whole, study_file, tmp_path, cells):
    """What had ended is kept as it is; the whole is as if nothing had happened."""
    with pytest.raises(Stop):
        run_study(study_file(), tmp_path / "st", look=stopping_after(cells))
    before = (tmp_path / "st" / "cells.jsonl").read_bytes()
    assert len(read_study(tmp_path / "st").ended) == cells

    again: list[str] = []
    study = run_study(
        study_file(),
        tmp_path / "st",
        look=lambda told: again.append(told.ended.cell) if told.ended else None,
    )

    assert (tmp_path / "st" / "cells.jsonl").read_bytes().startswith(before)
    assert len(again) == len(study.planned) - cells
    assert study.result == whole.result


KILLED = """
import os, signal, sys
from inferometer.search.study import read_asked, run_study
def look(told):
    if len(told.study.ended) == 9 and told.ended is None:
        os.kill(os.getpid(), signal.SIGKILL)
run_study(read_asked(sys.argv[1]), sys.argv[2], look=look)
"""


def test_a_killed_study_goes_on(whole, study_file, tmp_path):
    """SIGKILL in the middle of a cell, half a line in the journal and half a run on disk: that cell is played again."""
    asked = study_file()
    words = [sys.executable, "-c", KILLED, asked.document.path, str(tmp_path / "st")]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    killed = read_study(tmp_path / "st")
    following = killed.planned[len(killed.ended)]
    part = tmp_path / "st" / "runs" / f"{following.id}.part"
    part.mkdir()
    (part / "manifest.json").write_text("{")
    with (tmp_path / "st" / "cells.jsonl").open("ab") as journal:
        journal.write(b'{"cell": "half')

    study = run_study(asked, tmp_path / "st")

    assert study.complete
    assert study.result == whole.result
    assert not list((tmp_path / "st" / "runs").glob("*.part"))


def test_another_study_does_not_go_on_there(mine, study_file, tmp_path):
    """Nor in a folder that holds something else."""
    with pytest.raises(UserError, match="another study"):
        run_study(study_file(put={"repeats: 2": "repeats: 1"}), mine)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match="not empty"):
        run_study(study_file(), tmp_path / "other")
    assert not is_study(tmp_path / "other")
    with pytest.raises(UserError, match="not a study"):
        read_study(tmp_path / "other")


def test_a_study_is_run_by_one_process_at_a_time(mine, study_file):
    """Two would remove each other's runs."""
    with held(mine), pytest.raises(UserError, match="is being run already"):
        run_study(study_file(), mine)
    assert run_study(study_file(), mine).complete


def test_claims_are_stored_and_survive_going_on(mine, study_file):
    """They belong to the result."""
    study = read_study(mine)
    store_claims(study.path, [{"text": "a is b", "verdict": "not shown"}])
    again = run_study(study_file(), mine)
    assert again.result["claims"] == [{"text": "a is b", "verdict": "not shown"}]
    assert {k: v for k, v in again.result.items() if k != "claims"} == {
        k: v for k, v in study.result.items() if k != "claims"
    }


def test_a_simulated_capacity(study_file, tmp_path):
    """A cell that is a search: its probes are runs, its answer stands in the journal, and it goes on where it was."""
    search = "{capacity: {start: 8, requests: 60, most_requests: 200, precision: 0.2, hysteresis: false}}"
    put = {
        "loads: [2, 4]": f"loads: [{search}]",
        ", loads: [8]": "",
        "tuning: {budget: 2, requests: 20}": "tuning: {budget: 2, requests: 20, load: 8}",
        "repeats: 2": "repeats: 1",
    }
    study = run_study(study_file(put=put), tmp_path / "st")
    for _, ended in study.cells():
        probes = ended.capacity["probes"]
        assert ended.status == "ok"
        assert ended.capacity["verdict"] in ("resolved", "cliff")
        assert len(list((study.path / ended.run).glob("probe-*"))) == len(probes)
    journal = study.path / "cells.jsonl"
    *kept, last = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(kept))
    again = run_study(study_file(put=put), tmp_path / "st")
    for name in ("capacity", "figures", "valid"):
        assert getattr(again.ended[json.loads(last)["cell"]], name) == json.loads(last)[name]


# --- servers ----------------------------------------------------------------------------------------------------------

SERVED = """\
title: servers
systems:
  good: {{command: [{python}, -m, inferometer, emulate, --model, tiny, --port, "{{port}}"], config: {{ttft: 5ms, gap: 1ms}}}}
  bad: {{command: "{bad}", start_s: 20, stop_s: 2}}
workloads:
  chat: {{prompt_tokens: 16, output_tokens: 4, requests: 12}}
loads: [{{concurrency: 2}}, {{concurrency: 3}}]
"""


def served(tmp_path: Path, bad: str):
    path = tmp_path / "study.yaml"
    path.write_text(SERVED.format(python=sys.executable, bad=bad))
    return read_asked(path)


def test_a_server_that_does_not_start_fails_its_cells_and_no_others(tmp_path):
    """The reason is kept; the next call tries it again."""
    study = run_study(served(tmp_path, "echo out of memory; exit 9"), tmp_path / "st")

    assert {ended.status for _, ended in study.cells(system="good")} == {"ok"}
    for cell, ended in study.cells(system="bad"):
        assert ended.status == "failed"
        assert "code 9" in ended.error
        assert "out of memory" in ended.error
        with pytest.raises(UserError, match="has no run"):
            study.run(cell.id)
    assert not study.complete
    run = study.run(study.cells(system="good")[0][0].id)
    launch = run.manifest.target["launch"]
    assert launch["flags"]["ttft"] == "5ms"
    assert run.manifest.target["config"] == {"ttft": "5ms", "gap": "1ms"}
    again = []
    run_study(
        served(tmp_path, "echo out of memory; exit 9"),
        tmp_path / "st",
        look=lambda told: again.append(told.ended.cell) if told.ended else None,
    )
    assert len(again) == 2


DIES = """\
import http.server, json, os, sys
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": "tiny"}]}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        if not self.headers["X-Request-Id"].startswith("preflight"):
            print("CUDA error: an illegal memory access", flush=True)
            os._exit(134)
        self.do_GET()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
"""


def test_a_server_that_dies_under_load_fails_the_cell_and_is_started_again(tmp_path):
    """Each of its cells meets a server of its own, and says how that ended; the run of what happened is kept."""
    (tmp_path / "dies.py").write_text(DIES)
    asked = served(tmp_path, f"exec {sys.executable} dies.py {{port}}")
    study = run_study(asked, tmp_path / "st")
    for cell, ended in study.cells(system="bad"):
        assert ended.status == "failed"
        assert "code 134" in ended.error
        assert "illegal memory access" in ended.error
        assert not study.run(cell.id).timeline.ok.any()


def test_sigterm_stops_the_server_too(tmp_path, waited):
    """The study unwinds; a cell that was being played has not ended."""
    asked = served(
        tmp_path, f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 1000"
    )
    code = "import sys; from inferometer.search.study import read_asked, run_study; "
    code += "run_study(read_asked(sys.argv[1]), sys.argv[2], look=lambda t: print(t.playing.system, flush=True))"
    words = [sys.executable, "-c", code, asked.document.path, str(tmp_path / "st")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as study:
        for line in study.stdout:
            if line == b"bad\n":
                break
        study.send_signal(signal.SIGTERM)
        study.stdout.read()
    ended = read_study(tmp_path / "st").ended
    assert all("bad" not in cell for cell in ended)
    assert not (pid := tmp_path / "pid").exists() or waited(int(pid.read_text()))


def test_a_study_can_be_moved(whole, mine):
    """Its paths are its own."""
    moved = read_study(mine)
    assert moved.result == whole.result
    assert len(moved.run(moved.planned[-1].id).timeline) == 40
