"""The run directory: whole or not at all, readable by anybody's tools, and free of secrets."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import BrokenRun, UserError
from inferometer.plan import PLAN_COLUMNS, build_plan
from inferometer.run import (
    Manifest,
    Run,
    create,
    load_run,
    read_timeline,
    redact,
    redact_text,
    write_run,
    write_timeline,
)
from inferometer.timeline import ABSENT, CHUNK_COLUMNS, ROW_COLUMNS, build, offsets


def timeline(sizes, channel=0):
    rows = len(sizes)
    t = 1000 * np.arange(rows, dtype=np.int64)
    chunk_ns = np.concatenate([[], *(a + 5 * np.arange(n) for a, n in zip(t, sizes, strict=True))])
    return build(
        rows,
        request_id=[f"r{row}" for row in range(rows)],
        intended_ns=t,
        sent_ns=t,
        ended_ns=t + 900,
        status="ok",
        error=[None if row % 2 else "why" for row in range(rows)],
        http_status=200,
        output_tokens=sizes,
        chunk_offset=offsets(np.array(sizes, dtype=np.int64)),
        chunk_ns=chunk_ns,
        chunk_tokens=1,
        chunk_channel=channel,
    )


def same(a, b):
    for name in (*ROW_COLUMNS, "chunk_offset", *CHUNK_COLUMNS):
        one, other = getattr(a, name), getattr(b, name)
        assert one.dtype == other.dtype, name
        assert one.tolist() == other.tolist(), name


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(0, 4), max_size=6), channel=st.integers(0, 2))
def test_a_timeline_survives_the_disk(tmp_path_factory, sizes, channel):
    """What is read is what was written, nulls and empty requests included."""
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    whole = timeline(sizes, channel)

    write_timeline(whole, path)

    same(whole, read_timeline(path))


def test_a_run_survives_the_disk(tmp_path):
    """Manifest, plan, timeline and telemetry come back."""
    plan = build_plan(
        2, prompt_tokens=3, output_tokens=4, intended_ns=[0, 5], block_offset=[0, 1, 3], block_id=[1, 1, 2],
        block_tokens=2, seed=9, notes=("de-ticked",),
    )  # fmt: skip
    series = {"t_ns": np.array([1, 2]), "name": np.array(["a", "b"]), "value": np.array([0.5, 1.5])}
    manifest = Manifest(complete=True, clock={"epoch_ns": 7}, notes=["x"])

    write_run(Run(timeline([2, 0]), manifest, plan, telemetry=series), tmp_path / "run")
    back = load_run(tmp_path / "run")

    same(timeline([2, 0]), back.timeline)
    assert back.manifest == manifest
    assert back.plan is not None
    assert back.plan.fingerprint == plan.fingerprint
    assert back.plan.notes == ("de-ticked",)
    assert [back.telemetry["value"].tolist(), back.telemetry["name"].tolist()] == [
        [0.5, 1.5],
        ["a", "b"],
    ]
    assert set(PLAN_COLUMNS) <= set(pq.read_schema(tmp_path / "run" / "plan.parquet").names)


def test_nulls_are_nulls_to_other_readers(tmp_path):
    """The sentinel never reaches the file."""
    write_timeline(timeline([1]), tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")

    assert table.column("first_byte_ns").to_pylist() == [None]
    assert table.column("chunk_channel").to_pylist() == [["content"]]
    assert table.column("chunk_ns").to_pylist() == [[0]]


def test_a_foreign_file_with_plain_columns_is_read(tmp_path):
    """Any writer of the same columns will do: no dictionary, no delta packing."""
    write_timeline(timeline([2]), tmp_path / "ours.parquet")
    table = pq.read_table(tmp_path / "ours.parquet")
    plain = table.set_column(
        table.column_names.index("chunk_channel"),
        "chunk_channel",
        [table.column("chunk_channel").to_pylist()],
    )
    pq.write_table(plain, tmp_path / "theirs.parquet")

    same(timeline([2]), read_timeline(tmp_path / "theirs.parquet"))


def test_bytes_per_token_on_disk(tmp_path):
    """Delta packing keeps a steady stream far below the 13 bytes of its columns."""
    rng = np.random.default_rng(0)
    sizes = np.full(200, 100)
    ns = np.concatenate([np.cumsum(rng.integers(19_000_000, 21_000_000, 100)) for _ in sizes])
    whole = timeline(sizes.tolist()).with_columns(chunk_ns=ns, ended_ns=np.full(200, 10**12))

    write_timeline(whole.check(), tmp_path / "t.parquet")

    assert (tmp_path / "t.parquet").stat().st_size / whole.chunks < 6


def test_an_interrupted_run_reads_back_as_incomplete_from_its_shards(tmp_path):
    """No timeline yet: the shards are joined."""
    folder = create(tmp_path / "run")
    (folder / "manifest.json").write_text("{}")
    write_timeline(timeline([1, 2]), folder / "shard-0.parquet")

    back = load_run(folder)

    assert back.manifest.complete is False
    assert back.timeline.output_tokens.tolist() == [1, 2]


def test_files_are_their_owners_alone(tmp_path):
    """Prompts and answers may be private."""
    folder = write_run(
        Run(timeline([1]), Manifest(), build_plan(0, prompt_tokens=(), output_tokens=())),
        tmp_path / "r",
    )

    assert [path.stat().st_mode & 0o077 for path in folder.iterdir()] == [0] * 3
    assert not list(folder.glob("*.part"))


def test_a_folder_in_use_is_refused(tmp_path):
    """Nothing that was measured is overwritten."""
    (tmp_path / "keep").write_text("x")

    with pytest.raises(UserError, match="not empty"):
        create(tmp_path)


def test_a_file_in_the_way_is_one_clear_line(tmp_path):
    """An unwritable place is the user's to mend."""
    (tmp_path / "file").write_text("x")

    with pytest.raises(UserError, match="cannot write there"):
        create(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("content", "error", "complaint"),
    [
        (None, UserError, "no manifest.json"),
        ("{not json", BrokenRun, "manifest.json"),
        ('{"schema_version": 99}', UserError, "newer Inferometer"),
    ],
)
def test_what_is_not_a_run_says_so(tmp_path, content, error, complaint):
    """Each way of not being a run has its own line."""
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)

    with pytest.raises(error, match=complaint):
        load_run(tmp_path)


def test_a_damaged_table_is_named(tmp_path):
    """A truncated Parquet file is not a stack trace of somebody else's library."""
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nonsense")

    with pytest.raises(BrokenRun, match="not a readable Parquet"):
        read_timeline(tmp_path / "t.parquet")


SECRET = "s3cr3t-Value-0123456789"


@pytest.mark.parametrize(
    "value",
    [
        {"api_key": SECRET},
        {"API-Key": SECRET},
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
        {"headers": [["x-custom", f"Bearer {SECRET}"]]},
        {"cookie": SECRET, "note": "fine"},
        {"url": f"https://user:{SECRET}@host/v1"},
        {"url": f"https://host/v1?api_key={SECRET}&x=1"},
        {"error": f"GET https://host/?token={SECRET} failed"},
        {"nested": [{"password": SECRET}]},
        {"text": f"basic {SECRET}"},
        {"text": f"sk-{SECRET}"},
    ],
)
def test_no_secret_reaches_a_manifest(tmp_path, value):
    """Under a telling name, in a URL, or shaped like a credential: gone."""
    write_run(Run(timeline([1]), Manifest(spec=value)), tmp_path / "r")

    written = (tmp_path / "r" / "manifest.json").read_text()

    assert SECRET not in written
    assert "redacted" in written


def test_redaction_leaves_the_rest_alone():
    """What is not a secret stays readable."""
    plain = {"model": "tiny", "tokens": 5, "prompt_tokens": [1, 2], "url": "http://host:8000/v1"}

    assert redact(plain) == plain
    assert redact_text("max_tokens=5 at http://h/v1") == "max_tokens=5 at http://h/v1"
    assert redact_text("sim:x?max-batched-tokens=9") == "sim:x?max-batched-tokens=9"


def test_the_manifest_is_plain_json(tmp_path):
    """Anybody's tools can read the conditions."""
    write_run(Run(timeline([1]), Manifest(complete=True)), tmp_path / "r")

    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["complete"] is True
    assert ABSENT < 0
