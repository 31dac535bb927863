"""The seed paper's Table 1: what can be recomputed is, and what cannot says why."""

import pytest

from inferometer.errors import UserError
from inferometer.workload.table1 import as_columns, matches, table1


@pytest.mark.traces
def test_mooncake_matches_in_all_eight_numbers(traces):
    """To the digits that the paper gives; the interval of the ratio's IQR shows how much its 602 is worth."""
    cells = table1(traces)
    assert matches(cells) == 8
    assert {cell.verdict for cell in cells if cell.trace == "Mooncake"} == {"exact"}
    ratio = as_columns(cells)["Mooncake"]["pd_ratio.iqr"]
    assert ratio["paper"] == 602
    assert ratio["ci"][0] < 420
    assert ratio["ci"][1] > 1200


@pytest.mark.traces
def test_what_cannot_be_recomputed_says_why(traces):
    """All sixteen Azure numbers: no value of ours, and a reason."""
    azure = [cell for cell in table1(traces) if cell.trace != "Mooncake"]
    assert len(azure) == 16
    assert all(cell.ours is None and "not in the public repository" in cell.why for cell in azure)


def test_without_the_trace_there_is_no_table(tmp_path):
    """One line that says what to put there."""
    with pytest.raises(UserError, match=r"mooncake_trace\.jsonl"):
        table1(tmp_path)
