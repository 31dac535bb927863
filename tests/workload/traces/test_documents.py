"""Reading JSON documents: agent sessions with sub-agents, conversations, and ServeGen's clients."""

import gzip
import json

import numpy as np
import pytest

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.workload import WorkloadSpec, make_plan
from inferometer.workload.sharing import shared
from inferometer.workload.traces import read_trace
from inferometer.workload.traces.links import by_intervals


def _call(t, prompt, ids, **more):
    return {"t": t, "type": "n", "model": "m", "in": prompt, "out": 5, "hash_ids": ids} | more


def _weka(folder, requests, name="trace_1", size=64):
    path = folder / f"{name}.json"
    head = {"id": name, "models": ["m"], "block_size": size, "hash_id_scope": "local"}
    path.write_text(json.dumps(head | {"requests": requests}))
    return path


def _with_sub_agent():
    sub = {
        "t": 20.0,
        "type": "subagent",
        "agent_id": "agent_001",
        "duration_ms": 9000,
        "requests": [_call(0.0, 64, [7], api_time=1.0), _call(4.0, 128, [7, 8], api_time=2.0)],
    }
    return [
        _call(0.0, 128, [1, 2], api_time=5.0, think_time=0.0),
        sub,
        _call(25.0, 130, [1, 2, 3], api_time=1.0, think_time=15.0),
        _call(40.0, 140, [1, 2, 3], think_time=99.0),
    ]


def test_time_restarts_inside_a_sub_agent(tmp_path):
    """A sub-agent's `t` counts from its spawn; it waits for the call before it, and is awaited once it has ended."""
    trace = read_trace(_weka(tmp_path, _with_sub_agent()))
    assert trace.format == "weka"
    assert (trace.arrival_ns / SECOND).tolist() == [0, 20, 24, 25, 40]
    assert trace.prompt_tokens.tolist() == [128, 64, 128, 130, 140]
    assert trace.links.offset.tolist() == [0, 0, 1, 2, 3, 5]
    assert trace.links.row.tolist() == [0, 1, 0, 3, 2]
    assert set(trace.session.tolist()) == {0}


def test_optional_times_are_filled_from_the_gaps_and_never_exceed_them(tmp_path):
    """think_time where it is told and fits the gap to what was awaited; else the gap."""
    trace = read_trace(_weka(tmp_path, _with_sub_agent()))
    assert (trace.links.think_ns / SECOND).tolist() == [0, 15, 3, 15, 14]


def test_a_call_without_output_stays_a_call(tmp_path):
    """A cut-off request has no `out`: it is kept with 0, and a plan asks for one token."""
    call = _call(0.0, 64, [1])
    del call["out"]
    path = _weka(tmp_path, [call])
    assert read_trace(path).output_tokens.tolist() == [0]
    assert make_plan(WorkloadSpec(trace=str(path))).output_tokens.tolist() == [1]


def test_a_folder_of_sessions_has_local_ids_and_no_common_clock(tmp_path):
    """Equal ids of two files are not equal text; sessions start when the plan's arrivals say so."""
    _weka(tmp_path, [_call(0.0, 128, [1, 2])], "trace_1")
    _weka(tmp_path, [_call(0.0, 128, [1, 2]), _call(9.0, 140, [1, 2, 3])], "trace_2")
    (tmp_path / "trace_3.json").write_text("{}")
    trace = read_trace(tmp_path)
    assert trace.arrival_ns is None
    assert trace.problems.rows == 1
    assert shared(trace.blocks, trace.prompt_tokens).tokens.tolist() == [0, 0, 128]
    plan = make_plan(WorkloadSpec(trace=str(tmp_path), arrivals="constant:rate=1"))
    assert plan.turn.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("spans", "parents"),
    [
        ([(0, 1), (2, 3), (4, 5)], [[], [0], [1]]),
        ([(0, 1), (2, 5), (2, 6), (3, 4), (7, 8)], [[], [0], [0], [0], [1, 2, 3]]),
        ([(0, 9), (1, 2), (3, 4)], [[], [], [1]]),
    ],
    ids=["chain", "fan out and in", "overlap"],
)
def test_who_waited_for_whom_is_inferred_from_who_had_ended(spans, parents):
    """A call waits for all that had ended, but for what these had waited for already."""
    assert by_intervals(*zip(*spans, strict=True)) == parents


def _span(name, begin, end, messages, **facts):
    attributes = {"gen_ai.input.messages": json.dumps(messages), "gen_ai.output.text": "the end."}
    return {
        "trace_id": "t",
        "span_id": name,
        "parent_span_id": None,
        "start_time": f"2026-02-25T10:00:{begin:09.6f}",
        "end_time": f"2026-02-25T10:00:{end:09.6f}",
        "attributes": attributes | {"exgentic.session.id": "s"} | facts,
    }


def _otel(folder, spans):
    path = folder / "spans.json"
    path.write_text(json.dumps({"trace_id": "t", "span_count": len(spans), "spans": spans}))
    return path


USER = {"role": "user", "content": "the people of the house " * 20}
MORE = {"role": "user", "content": "and the garden"}


def test_spans_become_requests_with_inferred_links_and_shared_messages(tmp_path):
    """Lengths from usage where it is told, else counted; prompts that begin with the same messages share blocks."""
    usage = {"gen_ai.usage.prompt_tokens": 300, "gen_ai.usage.completion_tokens": 7}
    spans = [
        _span("b", 3, 4, [USER, MORE]),
        _span("a", 0, 1.5, [USER], **usage),
        {**_span("tool", 1, 2, []), "attributes": {"tool.name": "x"}},
    ]
    trace = read_trace(_otel(tmp_path, spans))
    assert trace.format == "otel"
    assert trace.arrival_ns.tolist() == [0, 3 * SECOND]
    assert trace.prompt_tokens[0] == 300
    assert trace.output_tokens.tolist() == [7, 3]
    assert trace.links.row.tolist() == [0]
    assert trace.links.think_ns.tolist() == [0, 3 * SECOND // 2]
    known = shared(trace.blocks, trace.prompt_tokens).tokens
    assert 80 <= known[1] <= trace.prompt_tokens[1]
    assert "estimated with the built-in" in trace.notes[0]


def test_a_span_that_cannot_be_read_is_counted(tmp_path):
    """Bad times and bad messages are named by their span."""
    bad = _span("bad", 0, 1, [USER])
    bad["start_time"] = "noon"
    worse = _span("worse", 0, 1, [USER])
    worse["attributes"]["gen_ai.input.messages"] = "[{"
    trace = read_trace(_otel(tmp_path, [bad, worse, _span("good", 0, 1, [USER])]))
    assert len(trace) == 1
    assert trace.problems.rows == 2
    assert "'bad'" in trace.problems.first[0]


def test_sharegpt_replies_are_requests_with_history(tmp_path, tokenizer_files):
    """Each reply is a request whose prompt is all before it; with a tokenizer, lengths are counted."""
    from inferometer.workload.tokenizer import load

    talk = [("human", "the people"), ("gpt", "of the house"), ("human", "and"), ("gpt", "the end")]
    path = tmp_path / "sharegpt.json"
    items = [
        {"id": "x", "conversations": [{"from": who, "value": text} for who, text in talk]},
        {"id": "y", "conversations": [{"from": "gpt", "value": "first"}]},
        {"id": "z"},
    ]
    path.write_text(json.dumps(items))
    trace = read_trace(path, tokenizer=load(tokenizer_files["byte"]))
    assert trace.format == "sharegpt"
    assert trace.prompt_tokens.tolist() == [2, 6]
    assert trace.output_tokens.tolist() == [3, 2]
    assert trace.links.row.tolist() == [0]
    assert shared(trace.blocks, trace.prompt_tokens).tokens.tolist() == [0, 2]
    assert trace.problems.rows == 1
    assert "counted" in trace.notes[-1]


def _servegen(folder, rates, dataset, name="chunk-3"):
    (folder / f"{name}-trace.csv").write_text(rates)
    (folder / f"{name}-dataset.json").write_text(json.dumps(dataset))
    return folder / f"{name}-trace.csv"


PDFS = {"input_tokens": "{100: 0.5, 200: 0.5}", "output_tokens": "{7: 1.0, }"}


def test_servegen_clients_are_played_from_their_distributions(tmp_path):
    """So many requests per window as its rate says, with lengths of the window's distributions, and a note."""
    rates = "0,2.0,1.0,Gamma,1,0.5\n600,0,0,,0,0\n1200,1.0,2.0,Weibull,0.5,1\n"
    trace = read_trace(_servegen(tmp_path, rates, {"0": PDFS}))
    assert trace.format == "servegen"
    window = (trace.arrival_ns // (600 * SECOND)).tolist()
    assert window.count(0) == pytest.approx(1200, rel=0.15)
    assert window.count(1) < 10  # the window after, but for the shift to the first request
    assert window.count(2) == pytest.approx(600, rel=0.3)
    assert set(trace.prompt_tokens.tolist()) == {100, 200}
    assert set(trace.output_tokens.tolist()) == {7}
    assert "drawn" in trace.notes[0]


@pytest.mark.parametrize(
    "literal", ["__import__('os').abort()", "{1: __import__}", "{1: 2: 3}", "{-1: 1}", "[1]"]
)
def test_length_literals_are_parsed_and_never_evaluated(tmp_path, literal):
    """What is no literal of numbers is counted as a problem; nothing in it runs."""
    data = {"0": PDFS, "21600": PDFS | {"input_tokens": literal}}
    trace = read_trace(_servegen(tmp_path, "0,1.0,1.0,Gamma,1,1\n", data))
    assert trace.problems.rows == 1
    assert "window 21600" in trace.problems.first[0]


def test_servegen_rows_that_cannot_be_used_are_counted(tmp_path):
    """Bad numbers, unknown families, missing cells; a missing dataset is refused."""
    rates = "0,x,1,Gamma,1,1\n600,1,1,Cauchy,1,1\n1200,1\n1800,1.0,1.0,Gamma,1,1\n"
    path = _servegen(tmp_path, rates, {"0": PDFS})
    trace = read_trace(path)
    assert trace.problems.rows == 3
    assert [told.split(":")[1] for told in trace.problems.first] == ["1", "2", "3"]
    (tmp_path / "chunk-3-dataset.json").unlink()
    with pytest.raises(UserError, match="dataset"):
        read_trace(path)


@pytest.mark.traces
@pytest.mark.parametrize(
    ("name", "rows", "links"),
    [
        ("weka_kv_cache_tester", 76, 73),
        ("weka_kv_cache_tester/trace_0291.json", 32, 33),
        ("inference_perf_otel/advanced/fan_in_dependencies.json", 4, 4),
        ("inference_perf_otel/advanced/prefix_sharing_example.json", 7, 6),
        ("inference_perf_otel/simple", 6, 4),
        ("servegen/data/reason/deepseek-r1", None, None),
        ("servegen/data/multimodal/mm-image/chunk-22-trace.csv", None, None),
    ],
)
def test_original_documents_read_whole(traces, name, rows, links):
    """Every call of the public files, strictly, and every one becomes a plan that holds."""
    path = traces / "original_format" / name
    trace = read_trace(path, strict=True)
    if rows is not None:
        assert (len(trace), len(trace.links.row)) == (rows, links)
    assert trace.prompt_tokens.min() > 0
    arrivals = None if trace.arrival_ns is not None else "poisson:rate=1"
    plan = make_plan(WorkloadSpec(trace=str(path), arrivals=arrivals))
    assert len(plan) == len(trace)
    assert np.all(np.sort(plan.prompt_tokens) == np.sort(trace.prompt_tokens))


def test_a_bad_call_costs_itself_and_not_its_session(tmp_path):
    """A negative length and a missing time are counted; the calls around them are a session still."""
    calls = [_call(0.0, 64, [1]), _call(1.0, -5, [1]), {"type": "n", "in": 5}, _call(2.0, 128, [1])]
    sub = {"t": 3.0, "type": "subagent", "requests": [_call(0.0, 64, [7]), {"t": "soon"}]}
    trace = read_trace(_weka(tmp_path, [*calls, sub]))
    assert trace.prompt_tokens.tolist() == [64, 128, 64]
    assert trace.problems.rows == 3
    assert "request 1" in trace.problems.first[0]
    assert "sub-agent at 3 s, request 1" in trace.problems.first[2]


@pytest.mark.parametrize("dress", ["late keys", "BOM", "gzip", "pretty"])
def test_a_document_is_known_by_its_keys_wherever_they_are(tmp_path, dress):
    """The order of keys, white space, a byte order mark and packing change nothing."""
    plain = json.loads(_weka(tmp_path, _with_sub_agent()).read_text())
    text = json.dumps({"padding": "x" * 99_999, **plain} if dress == "late keys" else plain)
    text = json.dumps(plain, indent=2) if dress == "pretty" else text
    content = ("\ufeff" * (dress == "BOM") + text).encode()
    path = tmp_path / "other.json"
    path.write_bytes(gzip.compress(content) if dress == "gzip" else content)
    trace = read_trace(path)
    assert (trace.format, len(trace)) == ("weka", 5)


def test_conversations_come_as_json_lines_too(tmp_path):
    """One conversation a line; a line that is none is counted with its number."""
    one = json.dumps(
        {"conversations": [{"from": "human", "value": "a b"}, {"from": "gpt", "value": "c"}]}
    )
    path = tmp_path / "talk.jsonl"
    path.write_text(f"{one}\n{{oops\n{one}\n")
    trace = read_trace(path)
    assert (trace.format, len(trace), trace.problems.rows) == ("sharegpt", 2, 1)
    assert trace.problems.first[0].startswith("talk.jsonl:2:")


def test_folders_are_searched_through(tmp_path):
    """Documents in folders below are found; a folder of something else says what it is not."""
    (tmp_path / "a").mkdir()
    _weka(tmp_path / "a", [_call(0.0, 64, [1])])
    (tmp_path / "a" / "broken.json").write_text("{")
    trace = read_trace(tmp_path)
    assert (trace.format, len(trace), trace.problems.rows) == ("weka", 1, 1)
    assert trace.problems.first[0].startswith("a/broken.json")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="no trace in this folder"):
        read_trace(tmp_path / "b")
    with pytest.raises(UserError, match="this is a folder"):
        read_trace(tmp_path, "azure")
