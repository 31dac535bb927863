"""The examples of docs/extending.md do what they say, each in under 60 lines."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from inferometer.metrics.scorecard import view_of
from inferometer.metrics.summary import row
from inferometer.run import Manifest, Run
from inferometer.timeline import build, offsets
from inferometer.wire.dialects import Ask
from inferometer.wire.transcript import Transcript

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "extending"


def example(name):
    spec = importlib.util.spec_from_file_location(f"extending_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks itself up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_each_is_short_and_on_the_page(path):
    """Under 60 lines, and named on the page about it."""
    assert len(path.read_text().splitlines()) < 60
    assert path.name in (FOLDER.parents[1] / "docs" / "extending.md").read_text()


def test_the_dialect_speaks():
    """A request becomes a body; events become deltas, an end and a fault."""
    talk = example("dialect").DIALECT
    assert b'"hear":"Hi"' in talk.encode(Ask(model="m", prompt="Hi"))
    transcript = Transcript()
    for event in (b'{"say":"Hel"}', b'{"say":"lo"}', b'{"over":"enough"}'):
        talk.read(event, transcript)
    assert [delta.text for delta in transcript.deltas] == ["Hel", "lo"]
    assert transcript.finish_reason == "enough"
    talk.read(b'{"sorry":"too busy"}', transcript)
    assert transcript.fault == "too busy"


def test_the_trace_reader_reads(tmp_path):
    """Rows come in order of arrival; a line that cannot be read is counted with its number."""
    file = tmp_path / "trace.txt"
    file.write_text("2.5;100;10\n1.0;50;5\nnonsense\n")
    trace = example("trace_reader").read_semicolons(file)
    assert trace.arrival_ns.tolist() == [0, 1_500_000_000]
    assert trace.prompt_tokens.tolist() == [50, 100]
    assert trace.problems.first == ("trace.txt:3: not seconds;prompt;output",)


def test_the_metric_measures():
    """The tenth of twelve tokens is found; a request of nine has no such number, and is counted so."""
    counts = np.array([12, 9])
    ns = np.concatenate([np.arange(1, n + 1) * 1_000_000_000 for n in counts])
    timeline = build(
        2,
        request_id=["a", "b"],
        intended_ns=0,
        sent_ns=0,
        ended_ns=counts * 1_000_000_000,
        status="ok",
        output_tokens=counts,
        chunk_offset=offsets(counts),
        chunk_ns=ns,
        chunk_tokens=np.ones(21, dtype=np.int32),
        chunk_channel=np.zeros(21, dtype=np.int8),
    )
    metric = example("metric")
    np.testing.assert_array_equal(metric.time_to_tenth(timeline), [10.0, np.nan])
    view = view_of(Run(timeline, Manifest(world="simulated")))
    view.columns["tt10"] = metric.ROW.column(view)
    found = row(view, metric.ROW, intervals=False)
    assert (found.n, found.undefined, found.mean) == (1, 1, 10.0)


def test_the_policy_serves(monkeypatch):
    """A plan is served to its end, no iteration prefills two prompts, and stepping gives what fast-forwarding gives."""
    from inferometer.sim import Deployment, simulate
    from inferometer.sim.systems import SYSTEMS
    from inferometer.workload import WorkloadSpec, make_plan
    from inferometer.workload.arrivals import Poisson

    policy = example("policy").Gentle
    gentle = {
        "gentle": lambda limits, at: policy(
            min(limits.max_batch or 16, at.max_requests), at.max_len
        )
    }
    monkeypatch.setattr("inferometer.sim.systems.SYSTEMS", SYSTEMS | gentle)
    plan = make_plan(
        WorkloadSpec(arrivals=Poisson(rate=20.0), prompt_tokens=200, output_tokens=30, requests=40)
    )
    served = Deployment(system="gentle", model="llama-3-8b")
    run, stepped = simulate(plan, served), simulate(plan, served, stretch=False)
    assert run.timeline.ok.all()
    assert len(set(run.timeline.first_byte_ns.tolist())) == 40
    np.testing.assert_array_equal(run.timeline.chunk_ns, stepped.timeline.chunk_ns)
