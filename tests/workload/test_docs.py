"""The examples of the documentation are specs, and become plans."""

import re
from pathlib import Path

import pytest
import yaml

from inferometer.spec import parse
from inferometer.workload import WorkloadSpec, make_plan, shipped_profiles
from inferometer.workload.traces import FORMATS

PAGE = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("plain", EXAMPLES, ids=["+".join(plain) for plain in EXAMPLES])
def test_every_example_becomes_a_plan(plain, tmp_path, monkeypatch):
    """Parsed and planned as they stand, the trace being any."""
    rows = "".join(f"{second},{second + 1},2\n" for second in range(1500))
    (tmp_path / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + rows)
    monkeypatch.chdir(tmp_path)
    plan = make_plan(parse(plain, WorkloadSpec))
    assert len(plan) > 50


def test_every_profile_and_every_format_is_on_the_page():
    """Nothing that ships is left out."""
    assert len(EXAMPLES) == 4
    for name in (*shipped_profiles(), *FORMATS):
        assert re.search(rf"\b{re.escape(name)}\b", PAGE), name
