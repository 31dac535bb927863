"""`inferometer audit`, as a person meets it."""

from __future__ import annotations

import json

import msgspec
import pytest
from click.testing import CliRunner
from tests.audit import planted

from inferometer import cli
from inferometer.audit import ITEMS, Report, record_schema, schema
from inferometer.run import write_run


def invoke(*args):
    return CliRunner().invoke(cli.verbs, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The clean simulated evaluation as run directories."""
    root = tmp_path_factory.mktemp("runs")
    return [write_run(run, root / "-".join(key)) for key, run in planted.clean().runs.items()]


def test_the_table_fits_a_screen(runs):
    """Validity and eight items, at most 100 columns and 40 lines; nothing failed."""
    done = invoke("audit", *runs)
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 40
    assert all(item.replace("_", " ") in done.stdout for item in ITEMS)


def test_json_is_of_the_published_schema(runs):
    """The shape of DESIGN 4.10; it reads back as a Report, which refuses fields that the schema has not."""
    done = invoke("audit", *runs, "--json")
    plain = json.loads(done.stdout)
    assert set(plain["items"]) == set(ITEMS)
    assert {"verdict", "evidence", "reason", "remedy"} <= set(plain["items"]["parameter_tuning"])
    assert plain["validity"]["verdict"] in ("pass", "warn")
    assert msgspec.json.decode(done.stdout, type=Report).where
    assert schema()["$defs"]["Finding"]["properties"]["verdict"]
    assert "systems" in record_schema()["$defs"]["Facts"]["properties"]


def test_an_invalid_run_outweighs_what_failed(runs, tmp_path):
    """3 where the measurement is invalid, 1 where an item failed."""
    broken = planted.told(planted.clean().runs[planted.CHAT], complete=False)
    assert invoke("audit", write_run(broken, tmp_path / "broken")).exit_code == 3
    assert invoke("audit", runs[0]).exit_code == 1


def test_one_item_is_explained(runs):
    """Parts, evidence, remedies and the question, by a part of the item's name; validity, too."""
    done = invoke("audit", *runs, "--explain", "model")
    assert "breadth" in done.stdout
    assert "remedy" in done.stdout
    assert "to answer" in done.stdout
    assert "late client" in invoke("audit", *runs, "--explain", "validity").stdout
    wrong = invoke("audit", *runs, "--explain", "fun")
    assert wrong.exit_code == 2


def test_the_questionnaire_can_be_judged(tmp_path):
    """--template writes what --paper reads; a flaw in it fails."""
    path = tmp_path / "mine.yaml"
    path.write_text(invoke("audit", "--template").stdout)
    done = invoke("audit", "--paper", path)
    assert done.exit_code == 0
    assert "nothing was measured here" in done.stdout
    assert "not shown" in done.stdout
    path.write_text(path.read_text().replace("outputs_match: 1.0", "outputs_match: 0.5"))
    assert invoke("audit", "--paper", path).exit_code == 1


def test_a_record_beside_runs(runs, tmp_path):
    """What runs cannot tell is filled in."""
    path = tmp_path / "said.yaml"
    path.write_bytes(msgspec.yaml.encode(planted.SAID))
    before, after = (json.loads(invoke("audit", *runs, *more, "--json").stdout) for more in ((), ("--paper", path)))  # fmt: skip
    assert before["items"]["parameter_tuning"]["verdict"] == "warn"
    assert after["items"]["parameter_tuning"]["verdict"] == "pass"


def test_nothing_to_audit():
    """A mistake is one line and exit code 2."""
    done = invoke("audit")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
