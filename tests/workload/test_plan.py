"""Specs become plans: limits, streams, fingerprints, mixtures, prefixes, labels, notes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.spec import parse
from inferometer.timeline import ABSENT
from inferometer.workload import WorkloadSpec, cached_share, cached_tokens, make_plan
from inferometer.workload.arrivals import Natural, Poisson
from inferometer.workload.contents import Adapters, Mixed, SharedPrefix
from inferometer.workload.sessions import Forks, Sessions

GOLDEN = "5c6397b77c29023d29d664e65e5c96eaaec9a3bdb960b09a807457693c13d936"


def test_the_same_spec_and_seed_give_the_same_fingerprint_for_ever():
    """Written down: a change here means another generator version."""
    spec = WorkloadSpec(
        arrivals="gamma:rate=5,cv=2",
        prompt_tokens="lognormal:median=300,sigma=1",
        output_tokens="zipf:exponent=1.2,high=900",
        sessions=Sessions(turns="uniform:low=1,high=6", forks=Forks(chance=0.3)),
        shared_prefix=SharedPrefix(tokens=640, groups=5, zipf=1.0),
        adapter=Adapters(count=9),
        requests=1000,
        seed=11,
    )
    plan = make_plan(spec)
    assert plan.fingerprint == make_plan(spec, seed=11).fingerprint
    assert plan.fingerprint != make_plan(spec, seed=12).fingerprint
    assert plan.fingerprint == GOLDEN


LENGTHS = st.sampled_from([9, "uniform:low=1,high=40", "lognormal:median=50,sigma=1"])
ARRIVALS = st.sampled_from(
    ["poisson:rate=9", "gamma:rate=9,cv=3", "closed:concurrency=4", "ramp:start=1,end=20,over_s=5"]
)
CONTENT = {
    "prompt_tokens": LENGTHS,
    "output_tokens": LENGTHS,
    "sessions": st.sampled_from(
        [None, Sessions(turns=3), Sessions(turns="uniform:low=1,high=4", forks=Forks(chance=0.5))]
    ),
    "shared_prefix": st.sampled_from(
        [None, SharedPrefix(tokens=64), SharedPrefix(tokens=96, groups=3)]
    ),
    "max_context": st.sampled_from([None, 200]),
    "cache_bust": st.booleans(),
}


@settings(deadline=None, max_examples=60)
@given(
    st.fixed_dictionaries(CONTENT),
    st.lists(st.fixed_dictionaries(CONTENT), max_size=3),
    ARRIVALS,
    st.integers(0, 9),
)
def test_every_workload_becomes_a_plan_that_holds(content, clients, process, seed):
    """Any mixture of any contents: the plan passes its checks, has the rows asked for, and is reproducible."""
    parts = tuple(Mixed(**each, weight=1 + k) for k, each in enumerate(clients))
    spec = WorkloadSpec(**content, arrivals=process, clients=parts, requests=30)
    plan = make_plan(spec, seed)
    assert len(plan.check()) == 30
    assert plan.fingerprint == make_plan(spec, seed).fingerprint
    known = cached_tokens(plan)
    assert np.all((known >= 0) & (known <= plan.prompt_tokens))


def test_one_aspect_changes_without_the_others():
    """Other output lengths leave the arrivals and the prompts where they were (common random numbers)."""
    base = {"arrivals": "poisson:rate=5", "prompt_tokens": "uniform:low=1,high=99", "requests": 50}
    one = make_plan(WorkloadSpec(**base, output_tokens=5))
    other = make_plan(WorkloadSpec(**base, output_tokens="uniform:low=1,high=9"))
    assert one.intended_ns.tolist() == other.intended_ns.tolist()
    assert one.prompt_tokens.tolist() == other.prompt_tokens.tolist()
    assert one.fingerprint != other.fingerprint


def test_a_closed_loop_for_a_time_says_that_its_rows_are_a_bound():
    """The plan has the concurrency, no intended times, and a note."""
    plan = make_plan(WorkloadSpec(arrivals="closed:concurrency=4", duration_s=3))
    assert plan.concurrency == 4
    assert len(plan) == 240
    assert set(plan.intended_ns.tolist()) == {ABSENT}
    assert "upper bound" in plan.notes[0]


def test_a_plan_needs_a_limit():
    """Neither requests nor a duration: one line that says what to give."""
    with pytest.raises(UserError, match="requests, duration_s or both"):
        make_plan(WorkloadSpec(arrivals="poisson:rate=1"))


def test_plain_data_becomes_a_workload():
    """What YAML gives, in any spelling, is a WorkloadSpec; a wrong length is refused with its path."""
    plain = {"arrivals": {"kind": "constant", "rate": 2}, "prompt_tokens": 7, "requests": 3}
    plan = make_plan(parse(plain, WorkloadSpec))
    assert plan.intended_ns.tolist() == [0, 500_000_000, 1_000_000_000]
    assert plan.prompt_tokens.tolist() == [7, 7, 7]
    with pytest.raises(UserError, match=r"\$\.output_tokens"):
        make_plan(parse({"requests": 1, "output_tokens": "0"}, WorkloadSpec))


def test_a_mixture_with_one_process_has_its_clients_by_weight():
    """Three quarters and one quarter of the requests, each with its own lengths and class, at common arrivals."""
    clients = (
        Mixed(prompt_tokens=10, app="chat", weight=3),
        Mixed(prompt_tokens=99, app="code", weight=1),
    )
    spec = WorkloadSpec(arrivals="poisson:rate=50", clients=clients, requests=4000)
    plan = make_plan(spec)
    assert np.mean(plan.prompt_tokens == 10) == pytest.approx(0.75, abs=0.03)
    assert set(plan.app[plan.prompt_tokens == 99].tolist()) == {"code"}
    assert plan.intended_ns.tolist() == Poisson(rate=50).draw(_arrival_stream(), 4000).tolist()


def _arrival_stream():
    from inferometer.workload.draws import Stream

    return Stream(0, "client 0", "arrivals")


def test_a_mixture_of_clients_with_arrivals_of_their_own_is_their_superposition():
    """Rates add up, every client keeps its own, and rows are in order of time."""
    clients = (
        Mixed(arrivals="poisson:rate=30", tenant="a"),
        Mixed(arrivals="constant:rate=10", tenant="b"),
    )
    for limit in ({"duration_s": 50}, {"requests": 2000}):
        plan = make_plan(WorkloadSpec(clients=clients, **limit))
        assert len(plan) == pytest.approx(2000, rel=0.1)
        assert np.all(np.diff(plan.intended_ns) >= 0)
        assert np.mean(plan.tenant == "a") == pytest.approx(0.75, abs=0.05)
        mine = plan.intended_ns[plan.tenant == "b"]
        assert set(np.diff(mine).tolist()) == {SECOND // 10}


def test_clients_have_in_common_what_the_mixture_says():
    """The output length and the model of all, but for the client that says otherwise."""
    clients = (Mixed(prompt_tokens=10), Mixed(prompt_tokens=20, output_tokens=7))
    plan = make_plan(
        WorkloadSpec(
            arrivals="poisson:rate=1", output_tokens=3, model="m", clients=clients, requests=99
        )
    )
    assert set(plan.model.tolist()) == {"m"}
    assert set(plan.output_tokens[plan.prompt_tokens == 10].tolist()) == {3}
    assert set(plan.output_tokens[plan.prompt_tokens == 20].tolist()) == {7}


def test_arrivals_belong_to_the_mixture_or_to_its_clients():
    """Both at once is refused, and so is a closed loop of one client among others."""
    client = Mixed(arrivals="poisson:rate=1")
    with pytest.raises(UserError, match="not both"):
        make_plan(WorkloadSpec(arrivals="poisson:rate=1", clients=(client,), requests=1))
    closed = Mixed(arrivals="closed:concurrency=1")
    with pytest.raises(UserError, match="one closed loop"):
        make_plan(WorkloadSpec(clients=(client, closed), requests=1))


def test_shared_prefixes_come_before_the_prompt_and_by_popularity():
    """100 tokens more each; the most popular group first; every later prompt of a group shares exactly these."""
    prefix = SharedPrefix(tokens=100, groups=4, zipf=1.0)
    plan = make_plan(WorkloadSpec(prompt_tokens=50, shared_prefix=prefix, requests=1000))
    assert set(plan.prompt_tokens.tolist()) == {150}
    assert plan.block_tokens == 100
    assert cached_share(plan) == pytest.approx(996 / 1000 * 100 / 150)
    counts = np.sort(np.bincount(plan.block_id))[::-1] / 1000
    assert counts == pytest.approx(np.array([1, 1 / 2, 1 / 3, 1 / 4]) * 12 / 25, abs=0.05)


def test_a_growing_session_shares_to_the_token_behind_its_prefix():
    """Turn t shares all of turn t - 1's prompt; the first turns share the prefix alone."""
    plan = make_plan(
        WorkloadSpec(
            prompt_tokens=30,
            output_tokens=20,
            sessions=Sessions(turns=3),
            shared_prefix=SharedPrefix(tokens=100),
            requests=6,
        )
    )
    assert plan.prompt_tokens.tolist() == [130, 180, 230] * 2
    assert cached_tokens(plan).tolist() == [0, 130, 180, 100, 130, 180]
    assert plan.session_id.tolist() == ["s0000000"] * 3 + ["s0000001"] * 3
    assert plan.parent_row.tolist() == [0, 1, 3, 4]


def test_cache_bust_makes_every_prompt_unique():
    """The lengths stay, the sharing goes, and a note says so."""
    spec = {
        "sessions": Sessions(turns=3),
        "shared_prefix": SharedPrefix(tokens=100),
        "requests": 30,
    }
    plan = make_plan(WorkloadSpec(**spec, cache_bust=True))
    assert plan.prompt_tokens.tolist() == make_plan(WorkloadSpec(**spec)).prompt_tokens.tolist()
    assert cached_share(plan) == 0.0
    assert any("cache-bust" in note for note in plan.notes)


def test_prompt_and_output_are_cut_to_the_served_context():
    """Together within the context, at least one token each, and the number of cuts is said."""
    plan = make_plan(
        WorkloadSpec(
            prompt_tokens=500, output_tokens="uniform:low=1,high=200", max_context=550, requests=99
        )
    )
    assert (plan.prompt_tokens + plan.output_tokens).max() == 550
    assert any("were cut to a context of 550" in note for note in plan.notes)


def test_labels_are_drawn_by_weight_and_stay_with_a_session():
    """Models, tenants and priorities by weight, adapters by a Zipf law; the same for all turns of a session."""
    spec = WorkloadSpec(
        sessions=Sessions(turns=2),
        model={"big": 1, "small": 3},
        tenant="acme",
        priority={"0": 1, "5": 1},
        adapter=Adapters(count=3, zipf=1.0, none_share=0.5),
        requests=6000,
    )
    plan = make_plan(spec)
    assert np.mean(plan.model == "small") == pytest.approx(0.75, abs=0.03)
    assert set(plan.tenant.tolist()) == {"acme"}
    assert np.mean(plan.priority == 5) == pytest.approx(0.5, abs=0.04)
    shares = [
        np.mean(plan.adapter == name) for name in (None, "adapter-0", "adapter-1", "adapter-2")
    ]
    assert shares == pytest.approx([0.5, 6 / 22, 3 / 22, 2 / 22], abs=0.03)
    for column in (plan.model, plan.adapter, plan.priority):
        assert column[0::2].tolist() == column[1::2].tolist()


def test_clients_whose_blocks_do_not_fit_together_are_refused(monkeypatch):
    """Prefixes of 1,009 and 1,013 tokens have no common block but single tokens: too many of them is too much."""
    monkeypatch.setattr("inferometer.workload.rows._MOST_IDS", 5000)
    clients = tuple(Mixed(shared_prefix=SharedPrefix(tokens=n)) for n in (1009, 1013))
    with pytest.raises(UserError, match="multiples of a power of two"):
        make_plan(WorkloadSpec(arrivals="poisson:rate=1", clients=clients, requests=9))


def test_clients_with_other_block_sizes_keep_their_sharing():
    """Prefixes of 128 and 192 tokens are split into blocks of 64, and share what they shared."""
    clients = tuple(
        Mixed(prompt_tokens=8, shared_prefix=SharedPrefix(tokens=n)) for n in (128, 192)
    )
    plan = make_plan(WorkloadSpec(arrivals="poisson:rate=1", clients=clients, requests=100))
    assert plan.block_tokens == 64
    short = plan.prompt_tokens == 136
    known = cached_tokens(plan)
    assert sorted(set(known[short].tolist())) == [0, 128]
    assert sorted(set(known[~short].tolist())) == [0, 192]


@pytest.mark.parametrize("name", ["azure-code-2023", "deepseek-r1"])
def test_a_profile_is_scaled_to_a_rate(name):
    """natural:rate=R keeps the shape and has R requests per second on average, over all clients."""
    spec = WorkloadSpec(profile=name, arrivals=Natural(rate=0.2), duration_s=86_400)
    assert len(make_plan(spec)) == pytest.approx(0.2 * 86_400, rel=0.1)


def test_what_is_given_beside_a_profile_takes_its_place():
    """Its output lengths, its arrivals or its class, each alone; the rest stays the profile's."""
    base = make_plan(WorkloadSpec(profile="azure-conv-2023", requests=500))
    other = make_plan(WorkloadSpec(profile="azure-conv-2023", output_tokens=7, requests=500))
    assert set(other.output_tokens.tolist()) == {7}
    assert other.intended_ns.tolist() == base.intended_ns.tolist()
    assert np.median(other.prompt_tokens) == pytest.approx(1020, rel=0.2)
    again = make_plan(
        WorkloadSpec(profile="azure-conv-2023", arrivals="constant:rate=1", app="x", requests=9)
    )
    assert again.app.tolist() == ["x"] * 9
    assert again.intended_ns[-1] == 8 * SECOND


def test_natural_arrivals_need_something_to_be_natural_of():
    """Without a profile or a trace there are none; and there is one of both."""
    with pytest.raises(UserError, match="profile or a trace"):
        make_plan(WorkloadSpec(arrivals="natural", requests=1))
    with pytest.raises(UserError, match="not both"):
        make_plan(WorkloadSpec(profile="bwb", trace="x.csv", requests=1))
    with pytest.raises(UserError, match="no profile 'nobody'"):
        make_plan(WorkloadSpec(profile="nobody", requests=1))


@pytest.mark.traces
def test_mooncake_is_replayed_with_its_blocks_and_without_its_ticks(traces):
    """Stamps are spread inside their 3 s ticks, blocks keep their sharing, lengths their row."""
    file = str(traces / "original_format" / "mooncake_fast25_conversation_trace.jsonl")
    plan = make_plan(WorkloadSpec(trace=file))
    assert len(plan) == 12_031
    assert plan.block_tokens == 512
    assert any("ticks" in note for note in plan.notes)
    assert len(np.unique(plan.intended_ns)) > 12_000
    assert int(np.median(plan.prompt_tokens)) == 6909
    assert cached_share(plan) == pytest.approx(0.374, abs=0.001)
