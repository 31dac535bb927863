"""Findings: no verdict in favour without evidence, and an item is as good as its worst part."""

from __future__ import annotations

import math

import pytest

from inferometer.audit.finding import (
    Attestation,
    Finding,
    combined,
    failed,
    passed,
    pointer,
    unjudged,
    warned,
)

GOOD = pointer("somewhere", 1)


@pytest.mark.parametrize("value", [None, math.nan, "", [], {}])
def test_a_pass_needs_a_known_value(value):
    """A pointer to nothing is no evidence."""
    with pytest.raises(ValueError, match="pass without evidence"):
        passed("item", "because", pointer("somewhere", value))


@pytest.mark.parametrize("value", [0, False, "no", [0]])
def test_no_is_a_value(value):
    """What is known to be zero or false is known."""
    assert passed("item", "because", pointer("somewhere", value)).verdict == "pass"


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([passed("a", "", GOOD), passed("b", "", GOOD)], "pass"),
        ([passed("a", "", GOOD), warned("b", "")], "warn"),
        ([passed("a", "", GOOD), unjudged("b", "")], "warn"),
        ([warned("a", ""), failed("b", "")], "fail"),
        ([unjudged("a", ""), failed("b", "")], "fail"),
        ([unjudged("a", ""), unjudged("b", "")], "not-evaluated"),
        ([], "not-evaluated"),
    ],
)
def test_an_item_is_as_good_as_its_worst_part(parts, verdict):
    """A part that was not judged keeps the whole from pass."""
    assert combined("item", parts).verdict == verdict


def test_a_word_counts_only_where_nothing_else_does():
    """An attestation decides an item without evidence, and changes nothing of one with evidence."""
    yes, no = (Attestation(answer=a, says="so", by="me") for a in (True, False))
    open_ = [unjudged("a", "unknown")]
    assert combined("item", open_, "?", yes).verdict == "attested"
    assert combined("item", open_, "?", no).verdict == "fail"
    assert combined("item", open_, "?", yes).by_word
    assert combined("item", [failed("a", "")], "?", yes).verdict == "fail"
    assert combined("item", [passed("a", "", GOOD)], "?", no).verdict == "pass"


def test_a_finding_carries_what_would_mend_it():
    """Remedies of the failing parts, once each; a pass has none."""
    parts = [failed("a", "x", remedy="do this"), failed("b", "y", remedy="do this")]
    assert combined("item", parts).remedy == "do this"
    assert combined("item", [passed("a", "", GOOD)]).remedy == ""
    assert isinstance(combined("item", parts), Finding)
