"""What was typed, as specs: defaults, short forms, and refusals that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferometer.cli import wish
from inferometer.errors import UserError
from inferometer.load.options import Patience
from inferometer.timeline import ABSENT
from inferometer.workload import make_plan
from inferometer.workload.arrivals import Closed, Constant, Gamma, Natural, Poisson


def test_nothing_asked_is_a_closed_loop_of_eight() -> None:
    """Without options: 8 in flight, 64 requests, 256 prompt tokens, 64 output tokens."""
    plan = make_plan(wish.workload(wish.Load()))
    assert (plan.concurrency, len(plan)) == (8, 64)
    assert (set(plan.prompt_tokens), set(plan.output_tokens)) == ({256}, {64})
    assert (plan.intended_ns == ABSENT).all()


def test_concurrency_alone_gives_eight_requests_per_slot() -> None:
    """The default number of requests grows with the slots."""
    assert wish.workload(wish.Load(concurrency=5)).requests == 40


def test_rate_alone_lasts_a_minute() -> None:
    """An open loop without a limit is Poisson and lasts 60 s."""
    asked = wish.workload(wish.Load(rate=2.0))
    assert (asked.arrivals, asked.requests, asked.duration_s) == (Poisson(rate=2.0), None, 60.0)


def test_requests_replace_the_default_duration() -> None:
    """A limit that is given is the only one."""
    asked = wish.workload(wish.Load(rate=2.0, requests=10))
    assert (asked.requests, asked.duration_s) == (10, None)


@pytest.mark.parametrize(
    ("text", "rate", "expected"),
    [
        ("constant", 4.0, Constant(rate=4.0)),
        ("gamma:cv=2", 4.0, Gamma(rate=4.0, cv=2.0)),
        ("gamma:rate=3,cv=2", None, Gamma(rate=3.0, cv=2.0)),
        ("closed:concurrency=3", None, Closed(concurrency=3)),
    ],
)
def test_arrivals_take_short_forms(text: str, rate: float | None, expected: object) -> None:
    """`--arrivals` is a short form, into which `--rate` goes."""
    assert wish.workload(wish.Load(arrivals=text, rate=rate)).arrivals == expected


def test_warmup_comes_on_top_of_the_duration() -> None:
    """`--duration` is the measured time."""
    load = wish.Load(rate=2.0, duration_s=10.0, warmup_s=5.0)
    asked = wish.workload(load)
    drive = wish.drive(load, asked, given())
    assert (asked.duration_s, drive.duration_s, drive.warmup_s) == (15.0, 15.0, 5.0)


def test_patience_keeps_its_defaults_where_nothing_is_said() -> None:
    """Only what was typed is changed."""
    load = wish.Load()
    drive = wish.drive(load, wish.workload(load), given(between_s=5.0, workers=2))
    assert drive.patience == Patience(between_s=5.0)
    assert drive.workers == 2


def given(**options: object) -> dict[str, object]:
    """The options of a command line on which only these were typed."""
    silent = dict.fromkeys(Patience.__struct_fields__)
    rest = {"workers": 1, "retries": 0, "tokenizer": None, "stamps": "kernel", "save_text": False}
    return {**silent, **rest, **options}


@pytest.mark.parametrize(
    ("load", "where"),
    [
        (wish.Load(concurrency=2, rate=1.0), "--concurrency"),
        (wish.Load(concurrency=2, arrivals="poisson"), "--concurrency"),
        (wish.Load(arrivals="gamma:cv=2"), "--rate"),
        (wish.Load(arrivals="sometimes", rate=1.0), "--arrivals"),
        (wish.Load(workload="nowhere.csv"), "nowhere.csv"),
        (wish.Load(arrivals="natural", rate=1.0), "natural"),
    ],
)
def test_what_cannot_be_meant_is_refused(load: wish.Load, where: str) -> None:
    """A contradiction ends in a UserError that names the option."""
    with pytest.raises(UserError, match=where):
        make_plan(wish.workload(load))


def test_a_spec_file_is_a_base_that_options_override(tmp_path: Path) -> None:
    """`--workload spec.yaml` gives every field; an option beside it wins."""
    spec = tmp_path / "chat.yaml"
    spec.write_text("arrivals: {kind: gamma, rate: 4, cv: 2}\nprompt_tokens: 100\nrequests: 30\n")
    asked = wish.workload(wish.Load(workload=str(spec), requests=5))
    assert (asked.arrivals, asked.prompt_tokens, asked.requests) == (Gamma(rate=4, cv=2), 100, 5)
    assert asked.output_tokens == wish.OUTPUT_TOKENS


def test_a_trace_keeps_its_own_times_and_lengths(tmp_path: Path) -> None:
    """Any other file is a trace: nothing but what was asked for is laid over it."""
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    asked = wish.workload(wish.Load(workload=str(trace)))
    assert asked.trace == str(trace)
    assert (asked.arrivals, asked.prompt_tokens, asked.requests) == (None, None, None)


def test_a_profile_is_called_by_its_name() -> None:
    """It has lengths and times of its own; a rate scales the times; without a limit it lasts a minute."""
    asked = wish.workload(wish.Load(workload="azure-conv-2023"))
    assert (asked.profile, asked.arrivals, asked.duration_s) == ("azure-conv-2023", None, 60.0)
    scaled = wish.workload(wish.Load(workload="azure-conv-2023", rate=2.0, requests=50))
    assert (scaled.arrivals, scaled.duration_s) == (Natural(rate=2.0), None)
    plan = make_plan(scaled)
    assert len(plan) == 50
    assert len(set(plan.prompt_tokens.tolist())) > 10
    closed = wish.workload(wish.Load(workload="azure-conv-2023", concurrency=3))
    assert (closed.arrivals, closed.requests) == (Closed(concurrency=3), 24)


def test_keys_come_from_where_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`env:` and `file:` are read; anything else is the key; no key is sent unasked."""
    monkeypatch.setenv("OPENAI_API_KEY", "not-asked-for")
    monkeypatch.setenv("A_KEY", " from-environment\n")
    (tmp_path / "key").write_text("from-file\n")
    assert wish.api_key(None) is None
    assert wish.api_key("env:A_KEY") == "from-environment"
    assert wish.api_key(f"file:{tmp_path / 'key'}") == "from-file"
    assert wish.api_key("typed") == "typed"


@pytest.mark.parametrize("text", ["env:NO_SUCH_VARIABLE_HERE", "file:/no/such/file", ""])
def test_a_key_that_is_not_there_is_refused(text: str) -> None:
    """An empty key would be an unauthenticated run that nobody asked for."""
    with pytest.raises(UserError, match="--api-key"):
        wish.api_key(text)


def test_headers_and_fields_are_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """NAME:VALUE with secrets by name, and NAME=JSON."""
    monkeypatch.setenv("TENANT", "blue")
    assert wish.header("X-Tenant: env:TENANT") == ("X-Tenant", "blue")
    assert wish.header("X-Time: 12:30") == ("X-Time", "12:30")
    assert wish.field("top_k=5") == ("top_k", 5)
    assert wish.field("stop=END") == ("stop", "END")


@pytest.mark.parametrize("text", ["no-colon", ": value", "X-A: one\r\nX-B: two"])
def test_a_header_that_is_none_is_refused(text: str) -> None:
    """Header injection included."""
    with pytest.raises(UserError, match="--header"):
        wish.header(text)
