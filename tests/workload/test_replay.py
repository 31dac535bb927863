"""Which part of a trace, how fast, how much of it."""

import numpy as np
import pytest

from inferometer.clock import SECOND
from inferometer.errors import UserError
from inferometer.timeline import ABSENT
from inferometer.workload import Replay, WorkloadSpec, make_plan
from inferometer.workload.sharing import cached_share
from inferometer.workload.traces import read_trace, tick_of

HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens\n"


def _trace(folder, times, prompt=lambda row: row + 1):
    path = folder / "trace.csv"
    path.write_text(HEADER + "".join(f"{t},{prompt(row)},2\n" for row, t in enumerate(times)))
    return str(path)


def _plan(file, **replay):
    limits = {name: replay.pop(name) for name in ("requests", "duration_s") if name in replay}
    return make_plan(WorkloadSpec(trace=Replay(file=file, **replay), **limits))


def test_a_trace_is_replayed_as_it_was(tmp_path):
    """Times from the first request on, lengths with their rows, and where they are from."""
    plan = _plan(_trace(tmp_path, [5, 5.5, 7.25]))
    assert plan.intended_ns.tolist() == [0, SECOND // 2, 9 * SECOND // 4]
    assert plan.prompt_tokens.tolist() == [1, 2, 3]
    assert plan.notes[0] == "from trace.csv (vidur, 3 rows)"


def test_a_window_moves_to_zero_and_keeps_its_idle_start(tmp_path):
    """Seconds 2 to 6 of the trace; the first request in it came at 3."""
    plan = _plan(_trace(tmp_path, [0, 1, 3, 5, 6, 9]), start_s=2, end_s=6)
    assert plan.intended_ns.tolist() == [SECOND, 3 * SECOND]
    assert plan.prompt_tokens.tolist() == [3, 4]
    with pytest.raises(UserError, match="the trace ends at 9 s"):
        _plan(_trace(tmp_path, [0, 9]), start_s=20)


def test_speed_divides_times_and_limits_cut_the_end(tmp_path):
    """Twice as fast; requests and seconds both limit, and too few requests are said aloud."""
    file = _trace(tmp_path, [0, 1, 2, 3])
    assert _plan(file, speed=2).intended_ns.tolist() == [0, SECOND // 2, SECOND, 3 * SECOND // 2]
    assert len(_plan(file, requests=3)) == 3
    assert len(_plan(file, duration_s=1.5)) == 2
    assert "4 requests, not the 9 asked for" in _plan(file, requests=9).notes[-1]


@pytest.mark.parametrize(("factor", "tolerance"), [(0.3, 0.1), (1.0, 0), (2.5, 0.03)])
def test_rate_scale_multiplies_the_load_at_the_same_pace(tmp_path, factor, tolerance):
    """So many times the requests, over the same time, and order is kept."""
    rng = np.random.default_rng(0)
    file = _trace(tmp_path, np.round(np.cumsum(rng.exponential(1, 3000)), 6))
    plan = _plan(file, rate_scale=factor)
    assert len(plan) == pytest.approx(3000 * factor, rel=tolerance)
    assert plan.intended_ns[-1] == pytest.approx(3000 * SECOND, rel=0.1)
    assert np.all(np.diff(plan.intended_ns) >= 0)


def test_copies_share_prefixes_with_copies_of_their_own_generation(tmp_path):
    """Twice the load of two requests that share a block has the same share that could be cached."""
    path = tmp_path / "trace.jsonl"
    record = '{{"timestamp": {}, "input_length": 1024, "output_length": 1, "hash_ids": [7, {}]}}\n'
    path.write_text("".join(record.format(1000 * k, k + 10) for k in range(50)))
    once, twice = _plan(str(path)), _plan(str(path), rate_scale=2)
    assert len(twice) == 100
    assert cached_share(once) == pytest.approx(49 / 100)
    assert cached_share(twice) == pytest.approx(98 / 200)


def test_coarse_stamps_are_spread_within_their_tick_and_that_is_said(tmp_path):
    """Volleys every 3 s become a stream; every request stays in its tick, in its order."""
    stamps = [3 * (k // 10) for k in range(300)]
    plan = _plan(_trace(tmp_path, stamps))
    assert len(np.unique(plan.intended_ns)) == 300
    assert (plan.intended_ns // (3 * SECOND)).tolist() == [k // 10 for k in range(300)]
    assert plan.prompt_tokens.tolist() == list(range(1, 301))
    assert any("3 s ticks; each was spread" in note for note in plan.notes)


def test_the_switch_replays_ticks_as_they_are_and_warns(tmp_path):
    """detick: false keeps volleys, with a note."""
    plan = _plan(_trace(tmp_path, [3 * (k // 10) for k in range(300)]), detick=False)
    assert len(np.unique(plan.intended_ns)) == 30
    assert any("volleys" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("times", "tick"),
    [
        (np.repeat(np.arange(100), 5) * 3 * SECOND, 3 * SECOND),
        (np.repeat(np.delete(np.arange(100), [5, 6, 50]), 5) * SECOND, SECOND),
        (
            np.repeat(np.rint(np.arange(200) * 3.0531 * 1000).astype(np.int64) * 10**6, 4),
            3_053_000_000,
        ),
        (np.arange(500) * SECOND, None),
        (np.sort(np.random.default_rng(0).integers(0, 10**12, 500)), None),
        (np.repeat(np.sort(np.random.default_rng(0).integers(0, 10**12, 90)), 3), None),
        (np.zeros(100, dtype=np.int64), None),
    ],
    ids=["3 s", "with holes", "stretched", "regular", "random", "random pairs", "at once"],
)
def test_ticks_are_found_where_they_are_and_nowhere_else(times, tick):
    """A tick is one coarse step of which all stamps are multiples, and that many requests share."""
    assert tick_of(times) == tick


SESSIONS = """session_id,arrival_time,round_idx,prefix_len,input_len,output_len,tool_wait_after_ms
1,1500,0,0,30,4,0
0,500,0,0,100,10,250
0,500,1,110,40,10,0
"""


def test_sessions_whose_later_times_are_unknown_wait_for_each_other(tmp_path):
    """Rounds after the first have a parent and a pause, and share what they say that they share."""
    path = tmp_path / "sessions.csv"
    path.write_text(SESSIONS)
    plan = _plan(str(path))
    assert plan.session_id.tolist() == ["s0000000", "s0000000", "s0000001"]
    assert plan.turn.tolist() == [0, 1, 0]
    assert plan.intended_ns.tolist() == [0, ABSENT, SECOND]
    assert plan.parent_row.tolist() == [0]
    assert plan.think_ns.tolist() == [0, SECOND // 4, 0]
    assert plan.prompt_tokens.tolist() == [100, 150, 30]


def test_other_arrivals_start_the_sessions_of_a_trace(tmp_path):
    """Given arrivals start sessions, in order and round again; a round is a copy that shares with itself alone."""
    path = tmp_path / "sessions.csv"
    path.write_text(SESSIONS)
    plan = make_plan(WorkloadSpec(trace=str(path), arrivals="constant:rate=1", requests=6))
    starts = plan.intended_ns[plan.intended_ns != ABSENT]
    assert starts.tolist() == [0, SECOND, 2 * SECOND, 3 * SECOND]
    assert plan.session_id.tolist() == [f"s000000{k}" for k in (0, 0, 1, 2, 2, 3)]
    assert cached_share(plan) == pytest.approx(2 * 100 / (2 * 280))


def test_a_trace_with_links_can_be_played_open_or_closed(tmp_path):
    """Open: every request at its recorded time. Closed: sessions at theirs, and turns after a pause."""
    path = tmp_path / "bailian.jsonl"
    record = (
        '{{"chat_id": {}, "parent_chat_id": {}, "timestamp": {}, "input_length": 100,'
        ' "output_length": 5, "type": "text", "turn": 1, "hash_ids": [1, 2]}}\n'
    )
    rows = [(1, -1, 0), (2, -1, 1), (3, 1, 4), (4, 3, 9)]
    path.write_text("".join(record.format(*row) for row in rows))
    opened, closed = _plan(str(path)), _plan(str(path), sessions="closed")
    assert opened.intended_ns.tolist() == [0, SECOND, 4 * SECOND, 9 * SECOND]
    assert not len(opened.parent_row)
    assert closed.turn.tolist() == [0, 1, 2, 0]
    assert closed.think_ns.tolist() == [0, 4 * SECOND, 5 * SECOND, 0]
    assert closed.parent_row.tolist() == [0, 1]


def test_a_trace_of_lengths_alone_needs_arrivals(tmp_path):
    """One line says what to give; given, the lengths are used in order."""
    path = tmp_path / "lengths.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens,pd_ratio\n7,3,0.1\n9,4,8\n")
    with pytest.raises(UserError, match=r"no arrival times.*closed:concurrency"):
        make_plan(WorkloadSpec(trace=str(path)))
    plan = make_plan(WorkloadSpec(trace=str(path), arrivals="natural:rate=3"))
    assert any("no arrival times: Poisson, 3 per second" in note for note in plan.notes)
    plan = make_plan(WorkloadSpec(trace=str(path), arrivals="poisson:rate=1"))
    assert plan.prompt_tokens.tolist() == [7, 9]
    assert read_trace(path).arrival_ns is None


def test_a_trace_lends_its_times_alone(tmp_path):
    """As arrivals, a trace gives times to other contents."""
    file = _trace(tmp_path, [0, 1, 3])
    plan = make_plan(WorkloadSpec(arrivals=Replay(file=file), prompt_tokens=9, requests=2))
    assert plan.intended_ns.tolist() == [0, SECOND]
    assert plan.prompt_tokens.tolist() == [9, 9]


def test_a_trace_of_one_instant_has_no_rate_to_scale(tmp_path):
    """One row, or many at once: they are played as they are, not thinned to nothing."""
    plan = make_plan(WorkloadSpec(trace=_trace(tmp_path, [0]), arrivals="natural:rate=2"))
    assert plan.intended_ns.tolist() == [0]


def test_natural_arrivals_scale_a_trace_to_a_rate(tmp_path):
    """natural:rate=2 thins a trace of 10 requests per second to a fifth."""
    file = _trace(tmp_path, [k / 10 for k in range(2000)])
    plan = make_plan(WorkloadSpec(trace=file, arrivals="natural:rate=2"))
    assert len(plan) == pytest.approx(400, rel=0.15)


def test_empty_lengths_become_one_and_that_is_said(tmp_path):
    """A request without output in the trace asks for one token, with a note."""
    plan = _plan(_trace(tmp_path, [0, 1], prompt=lambda row: row))
    assert plan.prompt_tokens.tolist() == [1, 1]
    assert any("prompt_tokens of 0 were given 1" in note for note in plan.notes)
