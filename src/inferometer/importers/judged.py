"""What an imported run cannot be asked: which metrics, and which items of the audit, and for want of what.

Metrics are asked themselves: what has no value on this run cannot be told. The items of the audit (DESIGN 4.10) go by
a table: most of what they need is about systems, of which a load generator's output says nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from inferometer.metrics import score
from inferometer.metrics.scorecard import view_of
from inferometer.run import Run
from inferometer.timeline import STAMPED

# What no load generator's output says; the audit asks for it elsewhere, or of a person.
_NOT_IN_RESULTS = {
    "validity": "the tool's own error (late sends, slow loops) is not recorded, so nobody vouches for its stamps",
    "implementation_fairness": "which engine, version and hardware answered is not recorded",
    "parameter_tuning": "how the server was configured, and what else was tried, is not recorded",
    "model_selection": "of the model there is a name at most",
}
_FACTS_OF = {"workload_diversity": ("prompt_tokens", "starts")}
_METRICS_OF = {
    "practical_latency": ("ttft", "tbt"),
    "metric_selection": ("ttst", "stall_time", "fluidity_index"),
    "performance_distribution": ("ttft", "tbt"),
    "no_obscuring_normalization": ("ttft", "tbt", "scheduling_delay"),
}
_RARE = ("time_to_first_miss",)  # no value, and none wanted, where no deadline was missed
_STAMPS = {
    "nothing": "when any token came is not recorded",
    "first": "only the first token's time is recorded",
    "ends": "only the first and the last token's times are recorded",
    "chunks": "which chunks hold more than one token is not recorded",
}


class Judged(NamedTuple):
    """`metrics`: ids without a value; `audit`: item -> why it cannot be judged, or only in part; `stamps`: how many of
    the requests that completed are known how well (timeline.STAMPED).
    """

    metrics: tuple[str, ...]
    audit: dict[str, str]
    stamps: dict[str, int]


def judged(run: Run) -> Judged:
    """What a run cannot tell."""
    card, refused = score(run, intervals=False), view_of(run).unknown
    untold = tuple(
        [row.id for row in card.rows if row.id in refused or (not row.n and row.id not in _RARE)]
        + [v.id for v in card.values if v.id in refused]
    )
    missing = run.manifest.missing
    why = {
        item: "; ".join(told)
        for item, facts in _FACTS_OF.items()
        if (told := [missing[fact] for fact in facts if fact in missing])
    } | {
        item: f"{', '.join(lacking)} cannot be told"
        for item, metrics in _METRICS_OF.items()
        if (lacking := [metric for metric in metrics if metric in untold])
    }
    kinds = run.timeline.stamped[run.timeline.ok].tolist()
    stamps = {kind: kinds.count(kind) for kind in STAMPED if kind in kinds}
    return Judged(untold, _NOT_IN_RESULTS | why, stamps)


def told_of(stamps: dict[str, int]) -> list[str]:
    """What is not known of when tokens came, in words."""
    return [f"{_STAMPS[kind]}: {n:,} replies" for kind, n in stamps.items() if kind in _STAMPS]
