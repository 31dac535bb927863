"""The study file: what it may say, what must hold between its parts, and how a mistake is told."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from inferometer.errors import UserError
from inferometer.search.study import plan_study, read_asked
from inferometer.search.study.asked import Range, StudySpec, System, load_of
from inferometer.search.study.places import filled, launch_of, option, target_of
from inferometer.spec import parse


@pytest.mark.parametrize(
    ("old", "new", "line", "complaint"),
    [
        ("max-batch: [8, 16]", "max-batch: 8", 5, "$.systems.a.tune.max-batch"),
        ("max-batch: [8, 16]", "max-bach: [8, 16]", 3, "no such option of a simulated system"),
        ("max-batch: [8, 16]", "max-batch: [8, few]", 3, "Expected `int"),
        ("tune: {max-batch: [8, 16]}", "tuned: {}", 3, "`tuned`"),
        ("sim:vllm?", "sim:vlm?", 3, "no such system"),
        ("sim:vllm?model=llama-3-8b", "http://h:1", 5, "cannot be tuned"),
        ("    target: sim:vllm?model=llama-3-8b\n", "", 3, "a target or a command"),
        ("model=llama-3-8b\n    tune: {max", "model={modell}\n    tune: {max", 3, "{modell}"),
        ("ablation_of: b", "ablation_of: c", 10, "'c' is no system"),
        ("ablation_of: b", "ablation_of: b-small", 10, "is itself an ablation"),
        ("config: {chunk: 64}", "config: {chunk: 64}\n    tune: {chunk: [1]}", 12, "is fixed in config"),
        ("loads: [8]", "loads: [8, 8.0]", 14, "stands here twice"),
        ("loads: [8]", "loads: [fast]", 14, "is no load"),
        ("loads: [8]", "loads: [{rate: 1, concurrency: 2}]", 14, "a load is one of"),
        ("loads: [8]", "loads: [capacity], slo: ttft <= 1s", 14, "needs a statistic"),
        ("requests: 40, loads", "loads", 14, "how much load?"),
        ('"uniform:low=100,high=900"', '"unifrm:low=1"', 14, "unifrm"),
        ("code: ttft.p90", "code: ttft.p9O", 17, "is not a statistic"),
        (", code: ttft.p90 <= 1s", "", 14, "tuning for the SLO, and it has none"),
        ("budget: 2", "budget: 2, objective: speed", 18, "'speed' is no statistic"),
        ("repeats: 2", "warmup_s: 4", 13, "are due within its warm-up of 4 s"),
        ("repeats: 2", "repeats: 0", 16, "$.repeats"),
        ("repeats: 2", "report: [ttft.p50, ttft]", 16, "'ttft' is no statistic"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(study_file, old, new, line, complaint):
    """In the file, in its parts, and between them."""
    with pytest.raises(UserError) as told:
        plan_study(study_file(put={old: new}))
    assert f"study.yaml:{line}: " in str(told.value)
    assert complaint in str(told.value)


def test_an_ablation_is_its_system_but_for_what_it_says(study_file):
    """Target, environment and configuration are inherited; the space to tune is not."""
    spec = study_file().spec
    small = spec.system("b-small")

    assert small.target == spec.systems["b"].target
    assert small.config == {"chunk": 64}
    assert small.tune == {}
    assert target_of(spec, "b-small", "", small.config).endswith("?model=llama-3-8b&chunk=64")


def test_placeholders_and_flags_become_a_command():
    """A flag with a placeholder is filled in; the others are appended by the engine's own names."""
    system = System(
        command=("serve", "{model}", "-p", "{port}", "--len={max-len}"),
        config={"max-len": 9, "fast": True, "slow": False, "none": None, "max_seqs": 4, "-np": 2},
    )
    spec = _spec(system, models={"m": {"with": {"size": 3}}})

    launch = launch_of(spec, "s", "m", system.config, 7000)

    assert launch.command == (
        "serve", "m", "-p", "7000", "--len=9", "--fast", "--max-seqs", "4", "-np", "2",
    )  # fmt: skip
    assert launch.url == "http://127.0.0.1:7000"
    assert launch.health == "http://127.0.0.1:7000/health"


def test_a_line_for_a_shell_gets_quoted_flags():
    """What is appended cannot become another command."""
    system = System(command="serve $HOME --port {port}", config={"x": "a; b"}, health="/up")

    launch = launch_of(_spec(system), "s", "", system.config, 1)

    assert launch.command == "serve $HOME --port 1 --x 'a; b'"
    assert launch.health.endswith(":1/up")


def test_braces_that_are_no_placeholder_stay():
    """JSON on a command line is left alone; an unknown name is told."""
    assert filled('{"a": {"b": 1}} {n}', {"n": 2}) == '{"a": {"b": 1}} 2'
    with pytest.raises(UserError, match=re.escape("nothing is called {m}")):
        filled("{m}", {"n": 2})


def test_ranges():
    """Both ends are in, whole numbers stay whole, equal ones stand once."""
    assert Range(low=1, high=4).values() == (1, 2, 3, 4)
    assert Range(low=256, high=2048, steps=4, log=True).values() == (256, 512, 1024, 2048)
    assert Range(low=0.5, high=1.0, steps=3).values() == (0.5, 0.75, 1.0)
    assert Range(low=1, high=2, steps=9).values() == (1, 2)


def test_flags_of_a_switch():
    """True is the bare flag; false and null are none."""
    assert option("enable_x", True) == ("--enable-x",)
    assert option("enable_x", None) == ()


def test_labels_of_loads_tell_them_apart():
    """They are parts of folder names."""
    assert [load_of(item).label for item in (0.25, "capacity", "natural")] == [
        "0.25rps", "capacity", "natural",
    ]  # fmt: skip


def _spec(system: System, models=None) -> StudySpec:
    plain = {"title": "t", "systems": {"s": {}}, "workloads": {"w": {"requests": 1}}}
    spec: StudySpec = parse(plain | {"models": models or {}}, StudySpec)
    return msgspec.structs.replace(spec, systems={"s": system})


@pytest.mark.parametrize("name", ["chunked-prefills", "chunked-prefills-careless", "real-engine"])
def test_the_worked_studies_can_be_planned(name):
    """Every system, placeholder, workload and claim of theirs is as it must be."""
    folder = Path(__file__).parents[3] / "examples" / "studies"
    planned = plan_study(read_asked(folder / f"{name}.yaml"))
    assert {cell.split for cell in planned} == {"tuning", "headline"}
