"""A finding: what holds of one item, on what evidence, why, and what would mend it.

Verdicts:  pass           every question of the item was answered by evidence, and well
           warn           nothing speaks against it, but with reservations, or a part of it could not be judged
           fail           evidence speaks against it
           attested       only a person can know, and one has said so
           not-evaluated  there is no evidence; `remedy` says what to supply, or which question to answer

Two rules, both enforced here and nowhere else:
1. No verdict in favour stands without evidence: a `pass` or `attested` without a pointer to a known value cannot be made.
2. An item is as good as its worst part, and a part that was not judged keeps the whole from `pass`. So taking evidence
   away can never turn a verdict into `pass`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from inferometer.metrics.summary import plain
from inferometer.spec import Spec

Verdict = Literal["pass", "warn", "fail", "attested", "not-evaluated"]
ATTESTED = "attestation"  # how the pointer of a person's word begins


class Evidence(Spec, frozen=True):
    """A pointer and what stands there: a file and a path in it ("runs/a/manifest.json: $.target.version"), or a quantity."""

    where: str
    value: Any


class Finding(Spec, frozen=True):
    """What was found of an item, or of one part of it (`item` is then "item.part").

    `question` is what a person may answer where evidence cannot; `parts` are what the verdict was put together from.
    """

    item: str
    verdict: Verdict
    reason: str
    evidence: tuple[Evidence, ...] = ()
    remedy: str = ""
    question: str = ""
    parts: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a verdict in favour without evidence."""
        if self.verdict in ("pass", "attested") and not any(
            known(each.value) for each in self.evidence
        ):
            raise ValueError(f"{self.item}: {self.verdict} without evidence")

    @property
    def by_word(self) -> bool:
        """Whether the verdict rests on what a person attested."""
        return any(each.where.startswith(ATTESTED) for each in self.evidence)


class Attestation(Spec, frozen=True):
    """A person's answer to an item's question: yes or no, on what grounds, and whose word it is."""

    answer: bool
    says: str
    by: str


def known(value: Any) -> bool:
    """Whether a value says something: None, NaN and what is empty do not."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return False
    return not (isinstance(value, (str, tuple, list, dict)) and not value)


def passed(item: str, reason: str, *evidence: Evidence) -> Finding:
    """A part that holds."""
    return Finding(item=item, verdict="pass", reason=reason, evidence=evidence)


def warned(item: str, reason: str, *evidence: Evidence, remedy: str = "") -> Finding:
    """A part that holds with a reservation."""
    return Finding(item=item, verdict="warn", reason=reason, evidence=evidence, remedy=remedy)


def failed(item: str, reason: str, *evidence: Evidence, remedy: str = "") -> Finding:
    """A part that does not hold."""
    return Finding(item=item, verdict="fail", reason=reason, evidence=evidence, remedy=remedy)


def unjudged(item: str, reason: str, *evidence: Evidence, remedy: str = "") -> Finding:
    """A part for which there is no evidence."""
    return Finding(
        item=item, verdict="not-evaluated", reason=reason, evidence=evidence, remedy=remedy
    )


def combined(
    item: str, parts: Sequence[Finding], question: str = "", word: Attestation | None = None
) -> Finding:
    """The finding of an item from its parts; where none of them could be judged, from a person's word."""
    verdict = _worst([part.verdict for part in parts])
    telling = [part for part in parts if part.verdict == verdict] or list(parts)
    if verdict == "warn":  # unjudged parts are why it is no pass
        telling = [part for part in parts if part.verdict in ("warn", "not-evaluated")]
    reason = "; ".join(part.reason for part in telling)
    evidence = tuple(e for part in telling for e in part.evidence)
    if verdict == "warn":
        evidence += tuple(e for part in parts if part.verdict == "pass" for e in part.evidence)
    if word is not None and verdict == "not-evaluated":
        verdict, reason = ("attested" if word.answer else "fail"), word.says
        evidence = (Evidence(where=f"{ATTESTED}: {word.by}", value=word.answer),)
    remedies = dict.fromkeys(part.remedy for part in telling if part.remedy)
    return Finding(
        item=item,
        verdict=verdict,
        reason=reason,
        evidence=_once(evidence),
        remedy="" if verdict in ("pass", "attested") else "; ".join(remedies),
        question=question,
        parts=tuple(parts),
    )


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    if "fail" in verdicts:
        return "fail"
    if not set(verdicts) - {"not-evaluated"}:
        return "not-evaluated"
    return "warn" if {"warn", "not-evaluated"} & set(verdicts) else "pass"


def _once(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Each pointer once, in order."""
    return tuple({(each.where, repr(each.value)): each for each in evidence}.values())


def pointer(where: str, value: Any) -> Evidence:
    """Evidence with a value that JSON can hold: numpy becomes plain, NaN and infinities None."""
    return Evidence(where=where, value=_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(each) for each in value.tolist()]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return plain(value)
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str) else msgspec.to_builtins(value)
