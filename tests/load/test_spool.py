"""The spool: whatever ends the writer, what was written is read back."""

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.load.spool import DONE, SEGMENT, Ending, Spool, pack, read_spool

STAMP = struct.Struct("@qq")


def ending(row, cause=DONE, **more):
    facts = {
        "error": "",
        "attempts": 1,
        "intended_ns": 1,
        "sent_ns": 2,
        "connect_ns": 3,
        "ended_ns": 4,
        "offset_ns": 0,
    }
    return Ending(row, cause, **(facts | more))


records = st.lists(
    st.tuples(
        st.integers(0, 2**40),
        st.text(max_size=20),
        st.lists(
            st.tuples(st.integers(0, 2**33), st.integers(0, 10**9 - 1), st.binary(max_size=40)),
            max_size=5,
        ),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=50)
@given(records=records, cut=st.integers(0, 10**6))
def test_what_was_written_is_read_back_and_a_cut_loses_only_the_last(
    tmp_path_factory, records, cut
):
    """Any records come back equal; after a cut at any byte, those wholly before it do."""
    folder = tmp_path_factory.mktemp("spool")
    packed = [
        pack(
            ending(row, error=error),
            [STAMP.pack(s, ns) for s, ns, _ in reads],
            [data for *_, data in reads],
        )
        for row, error, reads in records
    ]
    whole = b"".join(packed)
    (folder / "a").write_bytes(whole)
    back = list(read_spool(folder / "a"))

    assert [r.ending.row for r in back] == [row for row, _, _ in records]
    assert [r.ending.error for r in back] == [error for _, error, _ in records]
    assert [r.reads for r in back] == [[data for *_, data in reads] for _, _, reads in records]
    expected = [[s * 10**9 + ns for s, ns, _ in reads] for _, _, reads in records]
    assert [r.stamps_ns.tolist() for r in back] == expected

    cut %= len(whole) + 1
    (folder / "b").write_bytes(whole[:cut])
    ends = np.cumsum([len(p) for p in packed])
    assert len(list(read_spool(folder / "b"))) == int(np.count_nonzero(ends <= cut))


def test_segments_are_joined_to_their_request(tmp_path):
    """A long answer that was spilled while it ran is one record again, in order."""
    spool = Spool(tmp_path / "s")
    spool.append(ending(7, SEGMENT, offset_ns=5), [STAMP.pack(1, 10)], [b"ab"])
    spool.append(ending(3), [STAMP.pack(9, 0)], [b"other"])
    spool.append(ending(7, offset_ns=5), [STAMP.pack(2, 20)], [b"cd"])
    spool.close()

    other, joined = read_spool(tmp_path / "s")

    assert other.ending.row == 3
    assert joined.reads == [b"ab", b"cd"]
    assert joined.stamps_ns.tolist() == [10**9 + 5, 2 * 10**9 + 15]


def test_the_spool_is_its_owners_alone(tmp_path):
    """Prompts and answers may be private."""
    Spool(tmp_path / "s").close()

    assert (tmp_path / "s").stat().st_mode & 0o077 == 0
