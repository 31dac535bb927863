"""Was what was asked what was sent: runs that did, and runs that did not."""

import json

import numpy as np

from inferometer.clock import MILLISECOND
from inferometer.timeline import ABSENT, build
from inferometer.workload import WorkloadSpec, fidelity, make_plan
from inferometer.workload.contents import SharedPrefix
from inferometer.workload.sessions import Sessions


def _plan(**more):
    spec = {"arrivals": "gamma:rate=20,cv=2", "requests": 3000} | more
    return make_plan(
        WorkloadSpec(
            **spec,
            prompt_tokens="lognormal:median=300,sigma=1",
            output_tokens="lognormal:median=80,sigma=0.7",
        )
    )


def _ran(plan, *, late_ns=0, extra=0, output=None, cached=None, rows=None):
    """A timeline of the plan's run, so late, with so many tokens around each prompt."""
    rows = np.arange(len(plan)) if rows is None else rows
    intended = np.where(plan.intended_ns == ABSENT, 0, plan.intended_ns)[rows]
    made = plan.output_tokens[rows] if output is None else output[rows]
    offset = np.arange(len(rows) + 1)
    sent = intended + late_ns
    return build(
        len(rows),
        request_id=plan.request_id[rows],
        intended_ns=intended,
        sent_ns=sent,
        ended_ns=sent + 2,
        status="ok",
        prompt_tokens=plan.prompt_tokens[rows] + extra,
        output_tokens=made,
        chunk_offset=offset,
        chunk_ns=sent + 1,
        chunk_tokens=made,
        chunk_channel=0,
        cached_tokens=np.iinfo(np.int32).min if cached is None else cached[rows],
    )


def _line(found, name):
    return next(line for line in found.lines if line.name == name)


def test_a_faithful_run_is_within_every_tolerance():
    """Sent on time with all lengths as planned: every verdict is good, and it is plain JSON."""
    plan = _plan()
    found = fidelity(plan, _ran(plan, late_ns=MILLISECOND))
    assert found.ok
    assert all(line.ok for line in found.lines if line.tolerance is not None)
    assert _line(found, "prompt KS").achieved == 0
    json.dumps(found.to_dict(), allow_nan=False)


def test_tokens_around_a_prompt_are_told_apart():
    """A chat template of 12 tokens is a fact of the server, and no fault of the prompts."""
    plan = _plan()
    found = fidelity(plan, _ran(plan, extra=12))
    assert found.ok
    assert _line(found, "tokens around a prompt").achieved == 12


def test_load_that_could_not_be_sent_on_time_is_seen():
    """Sent at a steady pace in place of bursts: the CV and the dispersion are off, and say how far."""
    plan = _plan()
    steady = np.linspace(plan.intended_ns[-1], 2 * plan.intended_ns[-1], len(plan)).astype(np.int64)
    found = fidelity(plan, _ran(plan, late_ns=steady - plan.intended_ns))
    assert not found.ok
    assert _line(found, "gap CV").ok is False
    assert _line(found, "IDC 1 s").difference < -0.9


def test_requests_that_were_not_sent_are_seen():
    """A run of half the plan."""
    plan = _plan()
    found = fidelity(plan, _ran(plan, rows=np.arange(1500)))
    assert _line(found, "requests sent")[2:5] == (3000, 1500, -0.5)
    assert not found.ok


def test_outputs_that_stop_early_are_seen():
    """A server that ends at its own will: quantiles, KS and the ratio are off."""
    plan = _plan()
    found = fidelity(plan, _ran(plan, output=np.minimum(plan.output_tokens, 60)))
    assert _line(found, "output p90").ok is False
    assert _line(found, "output KS").ok is False
    assert _line(found, "prompt KS").ok
    assert _line(found, "prompt:output p50").ok is False


def test_what_the_server_cached_stands_beside_the_ideal():
    """Without a verdict: a server's cache is finite. Without a report, nothing is made up."""
    plan = _plan(shared_prefix=SharedPrefix(tokens=500))
    cached = np.where(np.arange(len(plan)) % 2 == 1, 500, 0).astype(np.int32)
    told = _line(fidelity(plan, _ran(plan, cached=cached)), "cached prompt share")
    assert told.ok is None
    assert told.achieved < told.intended
    untold = _line(fidelity(plan, _ran(plan)), "cached prompt share")
    assert untold.achieved is None
    assert "does not report" in untold.why


def test_a_closed_loop_has_no_intended_arrivals():
    """What is not planned has no verdict, and says why."""
    plan = _plan(arrivals="closed:concurrency=4", requests=100)
    found = fidelity(plan, _ran(plan, rows=np.arange(60)))
    assert found.ok
    assert "no intended times" in _line(found, "arrivals").why


def test_too_few_requests_have_no_verdict():
    """One request: a rate and a CV are not defined, and are not called wrong."""
    plan = _plan(requests=1)
    assert fidelity(plan, _ran(plan)).ok


def _conversations(replies="planned"):
    return make_plan(
        WorkloadSpec(
            arrivals="poisson:rate=3",
            prompt_tokens="uniform:low=20,high=200",
            output_tokens=50,
            sessions=Sessions(turns=6, think_s=1),
            requests=600,
            replies=replies,
        )
    )


def test_a_template_counts_around_every_message_of_a_history():
    """Five tokens a message are the template's; they are told, and taken off before lengths are judged."""
    plan = _conversations()
    depth = plan.turn.astype(int)
    found = fidelity(plan, _ran(plan, extra=9 + 5 * 2 * depth))
    assert _line(found, "tokens around a prompt").achieved == 9
    assert _line(found, "tokens around a message").achieved == 5
    assert _line(found, "prompt KS").achieved == 0
    more = fidelity(plan, _ran(plan, extra=60 * depth))
    assert _line(more, "prompt p50").ok is False


def test_replies_of_other_lengths_are_not_taken_for_a_template():
    """With real replies what they add is in the prompt's own lines, which say what they are."""
    plan = _conversations("real")
    found = fidelity(plan, _ran(plan, extra=10 * plan.turn.astype(int)))
    assert not any(line.name == "tokens around a message" for line in found.lines)
    assert _line(found, "prompt p50").ok is False
    assert "real replies" in _line(found, "prompt p50").why
