"""The plan: its rules, its parts and its fingerprint."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferometer.errors import BrokenRun
from inferometer.plan import build_plan
from inferometer.timeline import ABSENT


def plan(rows=3, **more):
    columns = {"prompt_tokens": 8, "output_tokens": 4, "intended_ns": 10 * np.arange(rows)}
    return build_plan(rows, **(columns | more))


def test_the_fingerprint_is_the_same_everywhere():
    """Pinned: a change of it breaks every comparison of runs, and must be meant."""
    assert (
        plan(seed=7, generator="test/1").fingerprint
        == "3f7566e88acc99a42c990269ee026a034aa52a2195a410638d5a47e647219249"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_tokens": 9},
        {"output_tokens": [4, 4, 5]},
        {"app": "code"},
        {"seed": 1},
        {"generator": "other/1"},
        {"session_id": ["a", None, None]},
        {"block_offset": [0, 1, 1, 1], "block_id": [5]},
        {"block_tokens": 16},
        {"priority": 1},
    ],
)
def test_every_column_counts_in_the_fingerprint(change):
    """Plans that differ in anything that is asked differ in their fingerprint."""
    assert plan(**change).fingerprint != plan().fingerprint


def test_null_and_empty_text_differ_in_the_fingerprint():
    """No session is not a session without a name."""
    assert plan(session_id="").fingerprint != plan(session_id=None).fingerprint


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"request_id": ["a", "a", "b"]}, "unique"),
        ({"prompt_tokens": 0}, "at least one token"),
        ({"intended_ns": [5, 3, 9]}, "never fall"),
        ({"intended_ns": [-5, 3, 9]}, "start at 0"),
        ({"intended_ns": ABSENT}, "needs a concurrency"),
        ({"parent_offset": [0, 1, 1, 1], "parent_row": [2]}, "come after"),
        ({"parent_offset": [0, 0, 1, 1], "parent_row": [0]}, "not both"),
        ({"colour": 1}, "no column"),
    ],
)
def test_a_broken_rule_is_named(change, complaint):
    """Each rule of a plan has its own sentence."""
    with pytest.raises(BrokenRun, match=complaint):
        plan(**change)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), counts=st.lists(st.integers(0, 4), min_size=1, max_size=10))
def test_a_part_keeps_the_blocks_of_its_rows(data, counts):
    """Taking rows takes their ragged values with them."""
    offset = np.concatenate([[0], np.cumsum(counts)])
    whole = plan(len(counts), block_offset=offset, block_id=np.arange(offset[-1]), block_tokens=2)
    rows = data.draw(st.lists(st.integers(0, len(counts) - 1), unique=True))

    part = whole.take(np.array(rows, dtype=np.int64))

    for place, row in enumerate(sorted(rows)):
        expected = whole.block_id[offset[row] : offset[row + 1]].tolist()
        assert (
            part.block_id[part.block_offset[place] : part.block_offset[place + 1]].tolist()
            == expected
        )


def test_a_part_renumbers_parents_and_refuses_to_lose_one():
    """A stripe holds whole sessions or none."""
    whole = plan(
        4,
        intended_ns=[0, 1, ABSENT, ABSENT],
        parent_offset=[0, 0, 0, 1, 2],
        parent_row=[0, 1],
    )

    assert whole.take(np.array([1, 3])).parent_row.tolist() == [0]
    with pytest.raises(BrokenRun, match="split by session"):
        whole.take(np.array([1, 2]))
