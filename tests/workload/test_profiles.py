"""Profiles: those that ship, against their sources; and those that a person makes."""

import importlib.util
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.slo import PRESETS
from inferometer.workload import (
    WorkloadSpec,
    cached_share,
    load_profile,
    make_plan,
    profile_of,
    read_trace,
    save_profile,
    shipped_profiles,
)
from inferometer.workload.burstiness import WINDOWS_S, idc
from inferometer.workload.draws import Stream
from inferometer.workload.profiles import APPS, encoded
from inferometer.workload.replay import spread

SOURCES = {
    "azure-code-2023": "azure2023_code.parquet",
    "azure-conv-2023": "azure2023_conv.parquet",
    "mooncake-arxiv": "mooncake_arxiv.parquet",
    "mooncake-conversation": "mooncake_fast25_conversation.parquet",
    "claude-code-agent": "claude_code_kvct.parquet",
    "sharegpt-8k": "etalon_sharegpt_8k_lengths.parquet",
    "arxiv-summarization": "etalon_arxiv_summarization_lengths.parquet",
    "bwb": "etalon_bwb_lengths.parquet",
}
OTHERS = {"azure-2024", "deepseek-r1", "servegen-mm-image"}


def test_the_promised_profiles_ship():
    """Eleven, each of a few kilobytes; mixtures of nine clients a little more."""
    assert set(shipped_profiles()) == {*SOURCES, *OTHERS}
    for name in shipped_profiles():
        size = len(encoded(load_profile(name)))
        assert size < (20_000 if len(load_profile(name).clients) > 2 else 8_000), name


@pytest.mark.parametrize("name", sorted({*SOURCES, *OTHERS}))
def test_every_profile_says_where_it_is_from_and_what_it_is_for(name):
    """Source, licence, a class of application and an SLO preset that exists; and it becomes a plan of that class."""
    profile = load_profile(name)
    assert profile.source
    assert profile.licence in {"CC-BY-4.0", "Apache-2.0"}
    assert profile.app in APPS
    assert profile.slo in PRESETS
    plan = make_plan(WorkloadSpec(profile=name, requests=300))
    assert len(plan) == 300
    assert set(plan.app.tolist()) <= set(APPS)


def test_what_is_approximate_says_so_aloud():
    """The 2024 traces are rebuilt from published statistics: the first thing that the profile says."""
    profile = load_profile("azure-2024")
    assert "APPROXIMATE" in profile.about
    plan = make_plan(WorkloadSpec(profile="azure-2024", requests=9))
    assert any("APPROXIMATE" in note for note in plan.notes)


def test_azure_2024_has_the_published_statistics():
    """Median, p99 and mean of both services as published, and conversation's ratio of 21 within a tenth."""
    plan = make_plan(WorkloadSpec(profile="azure-2024", requests=200_000))
    for app, (median, p99, mean), (out_median, out_mean) in (
        ("code", (1930, 7685, 2511), (8, 23)),
        ("chat", (928, 6683, 1632), (41, 106)),
    ):
        mine = plan.app == app
        prompt, output = plan.prompt_tokens[mine], plan.output_tokens[mine]
        assert np.median(prompt) == pytest.approx(median, rel=0.01)
        assert np.percentile(prompt, 99) == pytest.approx(p99, rel=0.01)
        assert prompt.mean() == pytest.approx(mean, rel=0.03)
        assert np.median(output) == pytest.approx(out_median, rel=0.03)
        assert output.mean() == pytest.approx(out_mean, rel=0.04)
    assert np.median((plan.prompt_tokens / plan.output_tokens)[mine]) == pytest.approx(21, rel=0.1)


@pytest.mark.traces
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_lengths_are_those_of_the_source(traces, agent_sessions, name):
    """Kolmogorov-Smirnov distances of prompt, output and prompt:output are at most 0.02."""
    agents = name == "claude-code-agent"
    trace = agent_sessions if agents else read_trace(traces / SOURCES[name])
    plan = make_plan(WorkloadSpec(profile=name, requests=100_000 + 200_000 * agents))
    output = np.maximum(trace.output_tokens, 1)
    for drawn, source in (
        (plan.prompt_tokens, trace.prompt_tokens),
        (plan.output_tokens, output),
        (plan.prompt_tokens / plan.output_tokens, trace.prompt_tokens / output),
    ):
        assert stats.ks_2samp(drawn, source).statistic <= 0.02


@pytest.mark.traces
@pytest.mark.parametrize("name", [n for n in sorted(SOURCES) if n.startswith(("azure", "moon"))])
def test_arrivals_are_as_bursty_as_the_source_at_every_window(traces, name):
    """The index of dispersion at 1, 10, 60 and 300 s, on average over seeds, is within 25 %; the rate within 3 %."""
    trace = read_trace(traces / SOURCES[name])
    source = spread(trace, detick=True, seed=0)[0] / SECOND
    span = float(source[-1])
    drawn = [
        make_plan(WorkloadSpec(profile=name, duration_s=span), seed).intended_ns / SECOND
        for seed in range(8)
    ]
    assert np.mean([len(times) for times in drawn]) == pytest.approx(len(source), rel=0.03)
    for window in WINDOWS_S:
        mean = np.mean([idc(times, window, span) for times in drawn])
        assert mean == pytest.approx(idc(source, window), rel=0.25), window


@cache
def _script():
    script = Path(__file__).parents[2] / "scripts" / "make_profiles.py"
    spec = importlib.util.spec_from_file_location("make_profiles", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_profiles"] = module  # where a NamedTuple looks for its annotations
    spec.loader.exec_module(module)
    return module


@pytest.mark.traces
@pytest.mark.parametrize(
    ("name", "model"), [("deepseek-r1", "deepseek-r1"), ("servegen-mm-image", "mm-image")]
)
def test_pools_of_clients_are_as_bursty_as_their_published_windows(traces, name, model):
    """A day played from the published rates: the dispersion is within 25 %, the rate within 3 %."""
    script, span = _script(), 86_400.0
    source = script.played(script.pool(script.Paths(traces, None), model))
    tables = {client.name: client.arrivals for client in load_profile(name).clients}
    parts = [table.draw(Stream(0, who), None, int(span * 1e9)) for who, table in tables.items()]
    drawn = np.sort(np.concatenate(parts)) / SECOND
    assert len(drawn) == pytest.approx(len(source), rel=0.03)
    for window in WINDOWS_S:
        assert idc(drawn, window, span) == pytest.approx(idc(source, window, span), rel=0.25)


@pytest.mark.traces
def test_reasoning_lengths_are_the_published_ones(traces):
    """KS of prompt and output to the published distributions, weighted by rate, is at most 0.02."""
    script = _script()
    paths = script.Paths(traces, None)
    windows, pdfs = script.pool(paths, "deepseek-r1"), script.Pdfs(paths)
    plan = make_plan(
        WorkloadSpec(profile="deepseek-r1", arrivals="poisson:rate=5", requests=90_000)
    )
    for field, drawn in (
        ("input_tokens", plan.prompt_tokens),
        ("output_tokens", plan.output_tokens),
    ):
        values, edge = pdfs.weighted(field, windows)
        last = np.append(values[1:] != values[:-1], True)
        below = np.searchsorted(np.sort(drawn), values[last], side="right") / len(drawn)
        assert np.abs(below - edge[last]).max() <= 0.02


@pytest.mark.traces
@pytest.mark.parametrize(
    ("name", "share"), [("mooncake-conversation", 0.3736), ("claude-code-agent", 0.9626)]
)
def test_prefixes_are_shared_as_in_the_source(name, share):
    """The share of prompt tokens that could have been cached is within 0.02 of the trace's."""
    plan = make_plan(WorkloadSpec(profile=name, requests=30_000))
    assert cached_share(plan) == pytest.approx(share, abs=0.02)


@pytest.mark.traces
@pytest.mark.parametrize("name", ["bwb", "sharegpt-8k"])
def test_the_script_makes_what_ships(traces, name):
    """Run again, the script gives the shipped file to the byte."""
    module = _script()
    made = module.made(name, module.Paths(traces, None))
    assert encoded(made) == encoded(load_profile(name))
    assert module.made("servegen-mm-image", module.Paths(traces, None)) is None


def _own(folder):
    path = folder / "mine.csv"
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(0.5, 3000))
    prompt, output = rng.integers(100, 900, 3000), rng.integers(10, 90, 3000)
    rows = zip(times.tolist(), prompt.tolist(), output.tolist(), strict=True)
    path.write_text(
        "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{t},{p},{o}\n" for t, p, o in rows)
    )
    return path


def test_a_profile_of_ones_own_is_kept_by_name_or_by_file(tmp_path, monkeypatch):
    """Made from a trace, saved, loaded by either, and planned from."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    profile = profile_of(read_trace(_own(tmp_path)), "mine", licence="mine")
    assert profile.rows == 3000
    named = save_profile(profile, "mine")
    assert named == tmp_path / "data" / "inferometer" / "profiles" / "mine.json"
    filed = save_profile(profile, tmp_path / "there.json")
    assert load_profile("mine") == load_profile(str(filed)) == profile
    plan = make_plan(WorkloadSpec(profile="mine", requests=4000))
    assert np.median(plan.prompt_tokens) == pytest.approx(500, rel=0.05)
    assert 4000 / (plan.intended_ns[-1] / SECOND) == pytest.approx(2, rel=0.1)


def test_a_profile_without_arrival_times_says_what_is_sent_instead():
    """Lengths alone: Poisson at 1 per second, and a note; given arrivals need none."""
    plan = make_plan(WorkloadSpec(profile="bwb", requests=50))
    assert any("no arrival times: Poisson, 1 per second" in note for note in plan.notes)
    plan = make_plan(WorkloadSpec(profile="bwb", arrivals="natural:rate=9", duration_s=100))
    assert len(plan) == pytest.approx(900, rel=0.15)
    plan = make_plan(WorkloadSpec(profile="bwb", arrivals="poisson:rate=2", requests=50))
    assert not any("no arrival times" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("{", "not a profile"), ('{"schema": 99}', "newer"), ('{"name": "x"}', r"\$")],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path, content, complaint):
    """Not JSON, too new, or incomplete: one line with the file and the path in it."""
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(UserError, match=complaint):
        load_profile(str(path))
