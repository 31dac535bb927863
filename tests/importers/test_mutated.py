"""Whatever a file holds, reading it ends in runs or in one of our errors: never in another exception."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferometer.errors import InferometerError
from inferometer.importers import read_results

FIXTURES = Path(__file__).parent / "fixtures"
FILES = {
    "vllm": "vllm.json",
    "sglang": "sglang.jsonl",
    "aiperf": "profile_export.jsonl",
    "guidellm": "benchmarks.json",
    "inference-perf": "per_request_lifecycle_metrics.json",
    "evalscope": "benchmark_data.db",
    "genai-perf": "profile_export.json",
    "llmperf": "model_550_40_individual_responses.json",
    "etalon": "request_level_metrics.json",
    "veeksha": "request_level_metrics.jsonl",
    "vidur": "request_metrics.csv",
    "own": "results.csv",
}
JSON = [tool for tool, name in FILES.items() if name.endswith((".json", ".jsonl"))]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.floats() | st.none(), max_size=3),
    st.just({}),
)
LAWS = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def reads_or_refuses(file: Path, tool: str, content: bytes) -> None:
    """Read it as found and as named: runs that pass the timeline's own check, or one of our errors, on one line."""
    file.write_bytes(content)
    for chosen in (None, tool):
        try:
            found = read_results(file, chosen)
        except InferometerError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            for run in found.runs.values():
                run.timeline.check()


@pytest.mark.parametrize("tool", FILES)
@LAWS
@given(data=st.data())
def test_bytes_that_were_cut_changed_or_put_in(tool, tmp_path, data):
    """A file that was damaged anywhere."""
    content = (FIXTURES / tool / FILES[tool]).read_bytes()
    at = data.draw(st.integers(0, len(content)))
    gone = data.draw(st.sampled_from([0, 1, 7, len(content)]))
    new = data.draw(
        st.binary(max_size=8) | st.sampled_from([b"NaN", b"-1", b"1e999", b"[" * 4000, b"null"])
    )
    reads_or_refuses(tmp_path / FILES[tool], tool, content[:at] + new + content[at + gone :])


@pytest.mark.parametrize("tool", JSON)
@LAWS
@given(data=st.data())
def test_values_that_are_something_else(tool, tmp_path, data):
    """A document whose shape is right but for one place, where anything stands."""
    text = (FIXTURES / tool / FILES[tool]).read_text().splitlines()
    lines = FILES[tool].endswith(".jsonl")
    found = [json.loads(line) for line in text] if lines else json.loads("\n".join(text))
    _replace_one(found, data)
    out = (
        "\n".join(map(json.dumps, found))
        if lines and isinstance(found, list)
        else json.dumps(found)
    )
    reads_or_refuses(tmp_path / FILES[tool], tool, out.encode("utf-8", "surrogatepass"))


def _replace_one(found, data) -> None:
    """Walk down at random, and put something else where the walk ends."""
    while True:
        keys = list(found) if isinstance(found, dict) else list(range(len(found)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        deeper = (
            isinstance(found[key], dict | list) and len(found[key]) and data.draw(st.booleans())
        )
        if not deeper:
            found[key] = data.draw(VALUES)
            return
        found = found[key]
