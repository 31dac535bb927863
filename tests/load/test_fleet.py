"""The fleet against a real server on loopback: what it writes, and what is left when something breaks.

Each test lasts a second or two of schedule time: the emulator answers in tens of milliseconds.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from inferometer.emulator import Schedule, serve_child
from inferometer.errors import TargetError, UserError
from inferometer.load.calibration import Calibration, store
from inferometer.load.fleet import keep, measure
from inferometer.load.options import Drive, Patience
from inferometer.load.preflight import find
from inferometer.load.recovery import read_run
from inferometer.plan import build_plan
from inferometer.timeline import ABSENT

QUICK = Schedule(ttft_s=0.02, gap_s=0.004)
SHORT = Patience(connect_s=2, first_token_s=1, between_s=0.5, total_s=3)


def plan(rows, slots=None, *, output=8, prompt=16, rate_per_s=200):
    times = ABSENT if slots else (np.arange(rows) * (1e9 / rate_per_s)).astype(np.int64)
    return build_plan(
        rows,
        prompt_tokens=prompt,
        output_tokens=output,
        concurrency=slots,
        intended_ns=times,
        seed=3,
    )


def children():
    return [
        int(pid)
        for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    ]


def workers():
    """The process ids of our own running workers."""
    return [
        pid
        for pid in children()
        if b"inferometer.load" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_is_whole_and_every_chunk_matches_the_servers_own_log(tmp_path, count):
    """Joined by request id, our stamps are what the server says it wrote, within a scheduling hiccup."""
    with serve_child(QUICK, log=tmp_path / "writes.parquet") as url:
        run = measure(plan(12, 4), find([url]), Drive(workers=count), tmp_path / "run", asked={})

    t = run.timeline
    assert run.manifest.complete
    assert t.ok.all()
    assert t.output_tokens.tolist() == [8] * 12
    assert set(t.token_source) == {"server"}
    writes = pq.read_table(tmp_path / "writes.parquet").to_pydict()
    wrote = {}
    for request_id, wrote_ns, tokens in zip(
        writes["request_id"], writes["wrote_ns"], writes["tokens"], strict=True
    ):
        if tokens:
            wrote.setdefault(request_id, []).append(wrote_ns - run.manifest.clock["epoch_ns"])
    errors = []
    for row, request_id in enumerate(t.request_id):
        chunks = slice(t.chunk_offset[row], t.chunk_offset[row + 1])
        stamps = t.chunk_ns[chunks][t.chunk_tokens[chunks] > 0]
        errors += (stamps - np.array(wrote[request_id])).tolist()
    assert len(errors) == 12 * 8
    assert min(errors) >= 0
    assert np.median(errors) < 2e6


def test_the_directory_reads_back_equal(tmp_path):
    """What `measure` returned is what `read_run` finds, and nothing else is left behind."""
    with serve_child(QUICK) as url:
        run = measure(plan(6), find([url]), Drive(), tmp_path / "run", asked={"rate": 200})

    back = read_run(tmp_path / "run")

    assert back.manifest == run.manifest
    assert back.timeline.chunk_ns.tolist() == run.timeline.chunk_ns.tolist()
    assert back.plan is not None
    assert back.plan.fingerprint == run.manifest.workload["fingerprint"]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "manifest.json",
        "plan.parquet",
        "telemetry.parquet",
        "timeline.parquet",
    ]
    assert "vllm:num_requests_running" in set(back.telemetry["name"])


def test_the_instrument_speaks_for_itself(tmp_path):
    """Every figure that the validity rules need is there."""
    with serve_child(QUICK) as url:
        run = measure(plan(10, 2), find([url]), Drive(), tmp_path / "run", asked={})

    instrument = run.manifest.instrument
    assert instrument["valid"] == (not instrument["invalid_reasons"])
    assert instrument["peak_in_flight"] == 2
    assert instrument["connections"]["opened"] == 2
    assert instrument["connections"]["reused"] == 10
    assert instrument["send_lag"]["n"] == 10
    assert instrument["loop_lag"]["n"] >= 10 * 8
    assert instrument["gc"]["pauses"] == 0
    assert instrument["stamps"]["mode"] in ("kernel", "user")


def test_a_run_cites_the_calibration_of_its_host(tmp_path, monkeypatch):
    """Null where there is none; else its five facts, and a warning (no more) for a run that went beyond it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with serve_child(QUICK) as url:
        found = find([url])
        before = measure(plan(2, 2), found, Drive(), tmp_path / "a", asked={})
        store(
            Calibration(
                when="2030-01-02T03:04:05+00:00",
                host_id="0",
                stamps=before.manifest.instrument["stamps"]["mode"],
                rungs=(),
                believed_tokens_per_s=9.0,
                gap_error_p99_s=1e-5,
                stamp_error_p99_s=2e-5,
            )
        )
        after = measure(plan(2, 2), found, Drive(), tmp_path / "b", asked={})

    assert before.manifest.instrument["calibration"] is None
    assert not any("calibration" in note for note in before.manifest.notes)
    assert after.manifest.instrument["calibration"]["believed_tokens_per_s"] == 9.0
    assert after.manifest.notes[0].startswith("beyond the calibration: 16 tokens")
    assert not any("calibration" in r for r in after.manifest.instrument["invalid_reasons"])
    assert read_run(tmp_path / "b").manifest == after.manifest


def test_user_stamps_are_a_mode(tmp_path):
    """Without kernel stamps the same run is made, and says so."""
    with serve_child(QUICK) as url:
        run = measure(plan(4, 2), find([url]), Drive(stamps="user"), tmp_path / "run", asked={})

    assert run.timeline.ok.all()
    assert run.manifest.instrument["stamps"]["mode"] == "user"


def test_an_interrupt_keeps_what_arrived(tmp_path):
    """SIGTERM in the middle: incomplete, the finished are ok, the others are cancelled with their chunks."""
    slow = Schedule(ttft_s=0.01, gap_s=0.05)
    sent = []

    def watch(progress):
        if progress.done >= 2 and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    with serve_child(slow) as url:
        run = measure(
            plan(40, 2, output=6), find([url]), Drive(), tmp_path / "run", asked={}, watch=watch
        )

    assert not run.manifest.complete
    assert run.manifest.stopped == "interrupted (SIGTERM)"
    assert 2 <= run.timeline.ok.sum() < 40
    assert set(run.timeline.status) <= {"ok", "cancelled"}
    assert not read_run(tmp_path / "run").manifest.complete


def test_a_killed_worker_loses_no_finished_request(tmp_path):
    """SIGKILL of one of two workers: its spool is digested, and the run says what happened."""
    with serve_child(Schedule(ttft_s=0.01, gap_s=0.01), log=tmp_path / "writes.parquet") as url:
        seen = []

        def watch(progress):
            if progress.done >= 8 and not seen:
                seen.append(progress.done)
                os.kill(workers()[0], signal.SIGKILL)

        run = measure(
            plan(60, 4, output=5),
            find([url]),
            Drive(workers=2),
            tmp_path / "run",
            asked={},
            watch=watch,
        )

    assert seen
    assert not run.manifest.complete
    assert run.manifest.stopped == "worker 0 ended without a report"
    assert run.manifest.instrument["valid"] is False
    of_the_killed = {f"r{row:08d}" for row in range(0, 60, 2)} & set(run.timeline.request_id)
    assert len(of_the_killed) >= 2
    assert run.timeline.ok.sum() >= seen[0]


@contextmanager
def disk_of(size):
    """A limit on the size of any file stands in for a full disk (EFBIG for ENOSPC)."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_ends_the_run_and_keeps_what_was_written(tmp_path):
    """The spool meets the limit: the run stops, says so, and what fitted is there."""
    with serve_child(QUICK) as url:
        found = find([url])
        with disk_of(50_000):
            run = measure(
                plan(80, 8, output=100), found, Drive(), tmp_path / "run", asked={}, telemetry=False
            )

    assert run.manifest.stopped == "the run directory cannot be written: File too large"
    assert not run.manifest.complete
    assert 1 <= run.timeline.ok.sum() < 80
    assert read_run(tmp_path / "run").timeline.ok.sum() == run.timeline.ok.sum()


def test_a_disk_too_full_for_the_timeline_leaves_the_spool_to_a_later_reader(tmp_path):
    """The digest has no room either: one line says what to do, and `read_run` finds everything."""
    with serve_child(QUICK) as url:
        run = measure(
            plan(30, 8), find([url]), Drive(), tmp_path / "run", asked={}, telemetry=False
        )
    folder = tmp_path / "run"
    (folder / "timeline.parquet").replace(folder / "shard-0.parquet")
    (folder / "spool-1.bin").touch()

    with disk_of(500), pytest.raises(UserError, match="make room"):
        keep(folder, run.timeline, run.manifest)

    assert len(read_run(folder).timeline) == 30


def test_no_room_for_the_requests_is_one_line_before_any_load(tmp_path):
    """The encoded requests do not fit."""
    with serve_child(QUICK) as url:
        found = find([url])
        with disk_of(8_000), pytest.raises(UserError, match="no room"):
            measure(
                plan(30, 8, prompt=2_000),
                found,
                Drive(),
                tmp_path / "run",
                asked={},
                telemetry=False,
            )


def test_no_secret_is_written_anywhere(tmp_path):
    """The key, a header and the login in a URL are sent, and are in no artifact."""
    secret = "s3cr3t0123456789"
    with serve_child(Schedule(ttft_s=0.02, gap_s=0.004, api_key=secret)) as url:
        found = find([url], api_key=secret, headers=(("X-Custom-Thing", secret),))
        run = measure(
            plan(2, 1), found, Drive(keep_text=True), tmp_path / "run", asked={"api_key": secret}
        )

    assert run.timeline.ok.all()
    for path in (tmp_path / "run").iterdir():
        assert secret.encode() not in path.read_bytes(), path.name


def test_text_is_kept_on_request(tmp_path):
    """`responses.jsonl.zst` holds one line per request, and is not made unless asked for."""
    import pyarrow as pa

    with serve_child(QUICK) as url:
        measure(
            plan(3, 3), find([url]), Drive(keep_text=True, workers=2), tmp_path / "run", asked={}
        )

    with pa.input_stream(
        str(tmp_path / "run" / "responses.jsonl.zst"), compression="zstd"
    ) as stream:
        lines = stream.read().decode().splitlines()
    assert len(lines) == 3
    assert all(re.search(r'"content":"[^"]+"', line) for line in lines)


def test_sessions_run_in_order_and_end_with_a_failure(tmp_path):
    """A later turn starts after its think time; a failed turn drops the rest."""
    think_ns = 30_000_000
    chain = build_plan(
        4,
        prompt_tokens=8,
        output_tokens=4,
        session_id=["a", "a", "b", "b"],
        turn=[0, 1, 0, 1],
        model=[None, None, "fault:http-500", None],
        intended_ns=[0, ABSENT, 5, ABSENT],
        think_ns=[0, think_ns, 0, think_ns],
        parent_offset=[0, 0, 1, 1, 2],
        parent_row=[0, 2],
    )
    with serve_child(QUICK) as url:
        t = measure(chain, find([url]), Drive(), tmp_path / "run", asked={}).timeline

    by_id = {request_id: row for row, request_id in enumerate(t.request_id)}
    first, second, failed, dropped = (by_id[f"r{row:08d}"] for row in range(4))
    assert t.status[[first, second, failed, dropped]].tolist() == [
        "ok",
        "ok",
        "http_error",
        "dropped",
    ]
    assert t.intended_ns[second] == t.ended_ns[first] + think_ns
    assert "earlier turn" in t.error[dropped]
    assert t.sent_ns[dropped] == ABSENT


def test_a_duration_stops_the_starts_and_waits_for_the_rest(tmp_path):
    """No row is intended at or after it; what was sent is answered."""
    with serve_child(QUICK) as url:
        run = measure(plan(200, 2), find([url]), Drive(duration_s=0.3), tmp_path / "run", asked={})

    assert run.manifest.complete
    assert 2 <= len(run.timeline) < 200
    assert run.timeline.ok.all()
    assert run.timeline.intended_ns.max() < 0.3e9


def test_retries_are_counted_as_attempts(tmp_path):
    """Off by default; when on, each row says how often it was tried."""
    with serve_child(Schedule(ttft_s=0.01, gap_s=0.002, faults={"http-503": 1.0})) as url:
        found = find([url], model="any", probe=False)
        once = measure(plan(2, 2), found, Drive(), tmp_path / "a", asked={})
        twice = measure(plan(2, 2), found, Drive(retries=1), tmp_path / "b", asked={})

    assert once.timeline.attempts.tolist() == [1, 1]
    assert twice.timeline.attempts.tolist() == [2, 2]
    assert twice.timeline.http_status.tolist() == [503, 503]


FAULTS = {  # fault -> the status that it ends in, and what its error says
    "reset-request": ("connect_error", "reset"),
    "close-request": ("connect_error", "without a reply"),
    "silent": ("timeout", "first token"),
    "reset-headers": ("truncated", "reset"),
    "stall-headers": ("timeout", "first token"),
    "redirect": ("http_error", "redirect"),
    "html": ("protocol_error", "text/html"),
    "gzip-bomb": ("protocol_error", "longer than"),
    "reset-mid": ("truncated", "reset"),
    "close-mid": ("truncated", "closed"),
    "half-chunk": ("truncated", "closed"),
    "truncate": ("truncated", "not finished"),
    "stall": ("timeout", "between tokens"),
    "bad-chunk": ("protocol_error", "chunk size"),
    "bad-json": ("protocol_error", "not what the protocol says"),
    "error-event": ("protocol_error", "engine died"),
    "long-line": ("protocol_error", "1 MiB"),
    "endless": ("protocol_error", "more than"),
    "http-429": ("http_error", "429"),
    "http-503-empty": ("http_error", "503"),
    "http-400": ("http_error", "400"),
}


def test_every_fault_ends_in_its_own_status(tmp_path):
    """All of them at once, beside healthy requests: none hangs, none is called a success, none hurts its neighbour."""
    faults = [name for name in FAULTS for _ in range(2)]
    models = [model for fault in faults for model in (f"fault:{fault}", "healthy")]
    mixed = build_plan(
        len(models),
        prompt_tokens=8,
        output_tokens=16,
        model=models,
        intended_ns=np.arange(len(models)) * 5_000_000,
    )
    with serve_child(Schedule(ttft_s=0.005, gap_s=0.001)) as url:
        found = find([url])
        run = measure(
            mixed, found, Drive(patience=SHORT), tmp_path / "run", asked={}, telemetry=False
        )

    t = run.timeline
    assert len(t) == len(models)
    for row, request_id in enumerate(t.request_id):
        model = models[int(request_id[1:])]
        status, told = FAULTS.get(model.removeprefix("fault:"), ("ok", ""))
        assert (model, t.status[row]) == (model, status)
        assert told in (t.error[row] or "")
        assert "\n" not in (t.error[row] or "")


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        ("reset-body", "connect_error", ""),
        ("early-answer", "http_error", "413"),
        ("early-close", "http_error", "413"),
    ],
)
def test_a_server_that_answers_before_the_request_is_complete(tmp_path, fault, status, error):
    """With a request of 2 MB that the server does not read to its end."""
    with serve_child(Schedule(faults={fault: 1.0})) as url:
        found = find([url], model="any", probe=False)
        t = measure(
            plan(2, 2, prompt=400_000), found, Drive(patience=SHORT), tmp_path / "run", asked={}
        ).timeline

    assert t.status.tolist() == [status, status]
    assert all(error in told for told in t.error)


def test_a_connection_that_was_closed_while_idle_is_replaced(tmp_path):
    """The server's keep-alive ran out: nobody's failure, and counted."""
    with serve_child(QUICK) as url:
        found = find([url], model="fault:close-after", probe=False)
        run = measure(plan(6, 2), found, Drive(), tmp_path / "run", asked={})

    assert run.timeline.ok.all()
    assert run.manifest.instrument["connections"]["opened"] >= 6


def test_what_a_person_got_wrong_is_one_line_before_any_load(tmp_path):
    """Server down, wrong path, unknown model, refused key, unwritable folder."""
    with serve_child(Schedule(models=("tiny",), api_key="right")) as url:
        with pytest.raises(TargetError, match="401"):
            find([url], model="tiny", api_key="wrong")
        with pytest.raises(TargetError, match=r"404.*tiny"):
            find([url], model="other", api_key="right")
        with pytest.raises(TargetError, match="404"):
            find([url + "/nowhere/v1/chat/completions"], model="tiny", api_key="right")
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot write"):
            measure(
                plan(1, 1),
                find([url], api_key="right"),
                Drive(),
                tmp_path / "file" / "run",
                asked={},
            )
    with pytest.raises(TargetError, match="cannot connect"):
        find([url], model="tiny")
