"""The seed's worked example (section 3.4): what normalized latency makes of one 10 s wait.

Two requests of 10 and 1000 tokens wait 10 s each and then get a token every 20 ms. Normalized latency says 1.02 and
0.03 s/token, as if one user were 34 times worse off; both looked at nothing for 10 s. The two are built here as a
timeline, token by token, and scored like any run.
"""

from __future__ import annotations

import numpy as np

from inferometer.clock import MILLISECOND, SECOND
from inferometer.metrics import latency
from inferometer.report import charts
from inferometer.report.sections import Grid, number
from inferometer.reproduce.reproduction import SEED, Ask, Reproduction, Statement
from inferometer.timeline import Timeline, build, offsets

WAIT_NS, GAP_NS = 10 * SECOND, 20 * MILLISECOND
TOKENS = {
    10: 1.02,
    1000: 0.03,
}  # output tokens -> normalized latency that the paper states [s/token]


def timeline() -> Timeline:
    """The two requests."""
    counts = np.array(list(TOKENS))
    ns = np.concatenate([WAIT_NS + GAP_NS * np.arange(1, n + 1) for n in counts])
    return build(
        2,
        request_id=[f"{n}-tokens" for n in counts],
        intended_ns=0,
        sent_ns=0,
        scheduled_ns=WAIT_NS,
        ended_ns=WAIT_NS + GAP_NS * counts,
        status="ok",
        output_tokens=counts,
        token_source="simulated",  # noqa: S106
        chunk_offset=offsets(counts),
        chunk_ns=ns,
        chunk_tokens=np.ones(len(ns), dtype=np.int32),
        chunk_channel=np.zeros(len(ns), dtype=np.int8),
    )


def make(_ask: Ask) -> Reproduction:
    """The example, scored."""
    found = timeline()
    normalized = latency.normalized_latency(found)
    delay, ttft = latency.scheduling_delay(found), latency.ttft(found)
    statements = [
        Statement(
            f"{tokens} tokens after 10 s: {stated} s/token",
            f"{normalized[row]:.4g} s/token",
            round(float(normalized[row]), 2) == stated,
        )
        for row, (tokens, stated) in enumerate(TOKENS.items())
    ]
    statements.append(
        Statement(
            "both users suffer the same 10 s initial wait",
            f"scheduling delay {number(delay[0])} and {number(delay[1])} s",
            bool(delay[0] == delay[1] == WAIT_NS / SECOND),
        )
    )
    head = ("output tokens", "scheduling delay [s]", "ttft [s]", "normalized latency [s/token]")
    cells = [
        [str(n), number(delay[k]), number(ttft[k]), f"{normalized[k]:.4g}"]
        for k, n in enumerate(TOKENS)
    ]
    return Reproduction(
        "dilution",
        "The worked example: one wait of 10 s, divided by the length of the answer",
        f"{SEED}, section 3.4. Each line: normalized latency of a request that waited 10 s, by how many tokens it got.",
        tuple(statements),
        (Grid("Two requests", head, cells),),
        (_chart(),),
    )


def _chart() -> charts.Chart:
    tokens = np.unique(np.geomspace(1, 4000, 60).astype(int))
    table = {
        "tokens": tokens.tolist(),
        "seconds": [float((WAIT_NS + GAP_NS * n) / n / SECOND) for n in tokens],
    }
    return charts.lines(
        "dilution",
        "Normalized latency of one and the same wait",
        "The same 10 s of nothing is 10 s/token for a one-token answer and 0.02 s/token for a long one.",
        table,
        x="tokens",
        y="seconds",
        x_title="output tokens",
        y_title="normalized latency [s/token]",
        log_x=True,
        log_y=True,
    )
