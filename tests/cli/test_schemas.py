"""Every verb's `--json` is what its published schema says: the real output of each, held against docs/schemas."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner
from jsonschema.exceptions import best_match

from inferometer import cli
from inferometer.cli import shapes
from inferometer.emulator import Schedule, serve_child
from inferometer.load.calibration import Calibration, host_id, store

FIXTURES = Path(__file__).resolve().parents[1] / "importers/fixtures"
SCHEMAS = Path(__file__).resolve().parents[2] / "docs/schemas"
SIMULATED = ("--model", "llama-3-8b", "--device", "a100", "--rate", "20", "--requests", "30")
SMALL = ("--requests", "6", "--output-tokens", "4")
SEARCH = ("--slo", "ttft.p50 <= 1s", "--start", "40", "--probes", "2", "--probe-requests", "20",
          "--most-requests", "20", "--shortest", "500ms", "--rest", "0s", "--no-hysteresis")  # fmt: skip
STUDY = """title: t
systems: {chunks: {target: "sim:vllm?model=llama-3-8b"}}
workloads: {chat: {prompt_tokens: 9, output_tokens: 3, requests: 30}}
loads: [2]
"""
# (verb, words): {url}, {run} and {tmp} are an emulated server, a run, and a folder
CASES = [
    ("measure", ("{url}", *SMALL, "--slo", "ttft.p50 <= 1s", "-o", "{tmp}/one")),
    ("measure", ("{url}", *SMALL, "--repeats", "2", "-o", "{tmp}/two")),
    ("measure", ("{url}", *SMALL, "--versus", "{url}", "-o", "{tmp}/three")),
    ("score", ("{run}", "--conventions", "--slo", "ttft.p50 <= 1s and tbt.p99 <= 1s")),
    ("score", ("{run}", "--no-intervals")),
    ("report", ("{run}", "-o", "{tmp}/page.html", "--perfetto", "{tmp}/trace.json")),
    ("compare", ("{run}", "{run}", "--gate", "ttft.p50 +5%", "--slo", "ttft.p50 <= 1s")),
    ("capacity", ("{url}", *SEARCH, "--output-tokens", "4", "-o", "{tmp}/search")),
    ("study", ("{tmp}/study.yaml", "-o", "{tmp}/study")),
    ("study", ("{tmp}/study.yaml", "--dry-run")),
    ("plan-run", ("{run}",)),
    ("simulate", (*SIMULATED, "-o", "{tmp}/simulated")),
    ("calibrate", ("--show",)),
    ("import", (str(FIXTURES / "vllm" / "vllm.json"), "-o", "{tmp}/imported")),
    ("describe", ("{run}",)),
    ("describe", ("azure-conv-2023",)),
    ("reproduce", ("dilution", "--quick")),
    ("doctor", ()),
    ("slo", ()),
]
# Verbs that publish, and test, a schema of their own.
STILL_TO_COME = {"audit"}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """An emulated server, a run, and a folder, by the names in CASES."""
    tmp = tmp_path_factory.mktemp("json")
    words = ["simulate", *SIMULATED, "-o", str(tmp / "run")]
    assert CliRunner().invoke(cli.verbs, words).exit_code == 0
    (tmp / "study.yaml").write_text(STUDY)
    with serve_child(Schedule(models=("m",), ttft_s=0.01, gap_s=0.001)) as url:
        yield {"url": url, "run": str(tmp / "run"), "tmp": str(tmp)}


@pytest.fixture(autouse=True)
def record(tmp_path, monkeypatch) -> None:
    """A calibration of this host, apart from its real one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    when = "2026-01-01T00:00:00Z"
    store(Calibration(when=when, host_id=host_id(), stamps="kernel", rungs=()))


@pytest.fixture(scope="module")
def holds() -> Callable[[str, object], None]:
    """`holds(name, value)`: raises, and says where, unless the value is as the published schema says."""

    def check(name: str, value: object) -> None:
        schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        wrong = best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))
        assert wrong is None, f"{wrong.json_path}: {wrong.message}"

    return check


def test_every_verb_has_a_schema_and_a_case() -> None:
    """A new verb says what it prints, and is held to it here."""
    missing = set(cli.VERBS) - STILL_TO_COME
    assert not missing - set(shapes.PRINTED), (
        "name its shape in cli/shapes.py PRINTED, then run python scripts/docs.py"
    )
    assert not missing - {verb for verb, _ in CASES} - {"emulate", "profile"}, "add a case to CASES"
    for verb in set(cli.VERBS) & STILL_TO_COME:
        assert (SCHEMAS / f"{verb}.schema.json").exists(), f"{verb} publishes no schema"


@pytest.mark.parametrize(("verb", "words"), CASES, ids=lambda x: x if isinstance(x, str) else "")
def test_what_a_verb_prints_is_as_published(verb, words, places, holds) -> None:
    """stdout is one document, and the schema holds for it."""
    result = CliRunner().invoke(
        cli.verbs, [verb, *(word.format(**places) for word in words), "--json"]
    )
    assert result.exit_code in (0, 1, 3), result.output
    holds(verb, json.loads(result.stdout))


def test_an_emulated_server_prints_two_lines(holds) -> None:
    """Where it listens, then what it served, each a document of its own."""
    command = [sys.executable, "-m", "inferometer", "emulate", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        first = json.loads(server.stdout.readline())
        server.send_signal(signal.SIGINT)
        (last,) = map(json.loads, server.stdout.read().splitlines())
    assert first["url"].startswith("http://127.0.0.1:")
    assert last["kept_up"]
    holds("emulate", first)
    holds("emulate", last)


def test_a_manifest_is_as_published(places, holds) -> None:
    """The manifest of a run directory."""
    holds("manifest", json.loads((Path(places["run"]) / "manifest.json").read_text()))


def test_a_schema_refuses_what_is_not_so(places, holds) -> None:
    """A metric without its interval, a text for a number, a missing key: the schemas can fail."""
    result = CliRunner().invoke(cli.verbs, ["score", places["run"], "--json"])
    card = json.loads(result.stdout)
    for change in ({"valid": "yes"}, {"metrics": {"ttft": {"unit": "s"}}}, {"requests": {}}):
        with pytest.raises(AssertionError, match=r"\$"):
            holds("score", card | change)


def test_results_decode_into_their_shapes(places) -> None:
    """Python reads them with types."""
    result = CliRunner().invoke(cli.verbs, ["score", places["run"], "--json"])
    card = msgspec.json.decode(result.stdout, type=shapes.Card)
    assert card.requests.ok == 30
