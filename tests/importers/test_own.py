"""Our own columns: CSV and Parquet say the same, and a run's own timeline is one of them."""

from __future__ import annotations

import numpy as np
import pytest

from inferometer.errors import UserError
from inferometer.importers import judged, read_results
from inferometer.run import read_timeline, write_timeline


def test_a_timeline_that_we_wrote_reads_back_as_it_was(tmp_path, fixtures):
    """`timeline.parquet` has our own columns: all of them come back, what is known of tokens too."""
    for tool in ("aiperf", "guidellm", "own/results.csv"):
        for run in read_results(fixtures / tool).runs.values():
            file = tmp_path / "t.parquet"
            write_timeline(run.timeline, file)
            again = read_results(file).runs["01"].timeline
            was = read_timeline(file)
            for name in (
                "request_id",
                "sent_ns",
                "ended_ns",
                "status",
                "chunk_ns",
                "chunk_tokens",
                "stamped",
            ):
                assert np.array_equal(getattr(again, name), getattr(was, name)), name


def test_csv_in_ns_and_in_seconds_are_the_same(tmp_path):
    """A time is a column in ns or in s."""
    head = "sent_{0},chunk_{0},ended_{0},output_tokens\n"
    (tmp_path / "s.csv").write_text(head.format("s") + "0.5,0.6 0.7,0.8,2\n")
    (tmp_path / "ns.csv").write_text(
        head.format("ns") + "500000000,600000000 700000000,800000000,2\n"
    )
    runs = [read_results(tmp_path / name).runs["01"].timeline for name in ("s.csv", "ns.csv")]
    for name in ("sent_ns", "chunk_ns", "ended_ns"):
        assert np.array_equal(*(getattr(t, name) for t in runs))
    assert runs[0].chunk_ns.tolist() == [100_000_000, 200_000_000]


@pytest.mark.parametrize(
    ("columns", "row", "stamps"),
    [
        ("sent_s,first_token_s,last_token_s,output_tokens", "1,1.1,1.5,9", {"ends": 1}),
        ("sent_s,first_token_s,ended_s,output_tokens", "1,1.1,1.5,9", {"first": 1}),
        ("sent_s,ended_s,output_tokens", "1,1.5,9", {"nothing": 1}),
        ("sent_s,chunk_s,output_tokens", "1,1.1 1.2,9", {"chunks": 1}),
        ("sent_s,chunk_s,chunk_tokens,output_tokens", "1,1.1 1.2,3 6,9", {"tokens": 1}),
        ("chunk_s,output_tokens", "0.1 0.2,2", {"tokens": 1}),
    ],
)
def test_what_is_known_of_tokens_is_what_the_columns_tell(tmp_path, columns, row, stamps):
    """From every token's time down to nothing but the end."""
    (tmp_path / "r.csv").write_text(f"{columns}\n{row}\n")
    run = read_results(tmp_path / "r.csv").runs["01"]
    assert judged(run).stamps == stamps
    assert ("starts" in run.manifest.missing) == ("sent_s" not in columns)
    assert "failures" in run.manifest.missing  # no column says what became of them


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("output_tokens,ended_s\n4,\n", "no time says when"),
        ("output_tokens,ended_s\nmany,1\n", "r.csv:2: Expected `int`"),
        ("output_tokens,ended_s\n1,2,3\n", "r.csv:2: the number of its cells"),
        ("output_tokens,ended_s,status\n1,2,fine\n", "status is 'fine', not one of ok,"),
        (
            "output_tokens,intended_s,ended_s\n1,0,2\n",
            "intended times, but no sent ones; write the same",
        ),
        ("output_tokens,chunk_s,chunk_tokens\n3,1 2,1 1\n", "do not add up"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_clear_line(tmp_path, text, what):
    """The file, the line, and what is wrong with it."""
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        read_results(tmp_path / "r.csv")
    assert what in str(caught.value)
