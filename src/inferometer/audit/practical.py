"""What latency is practical, by application: the bounds against which headline points and declared objectives are held.

They are wide on purpose: what lies outside of them is no use to a person, whatever it improves.
    wait      until the first token. 4 s is the loosest target that DistServe (Zhong et al., OSDI 2024, table 1) sets for a
              chatbot, 15 s the one for summarising long documents; the seed paper calls both reasonable (appendix A).
              Sarathi-Serve (Agrawal et al., OSDI 2024, section 5.1) allows a median scheduling delay of 2 s.
    token     seconds per output token, on average: 1/6 s, the speed of reading (the seed paper, section 2.2).
    stall     P99 of the gaps between tokens: 1 s, the loosest strict bound of Sarathi-Serve (table 3); the seed paper finds
              its relaxed 5 s beyond what is usable.
Work that nobody waits for (`batch`) has no bounds.
"""

from __future__ import annotations

from typing import NamedTuple

LONG_PROMPT = 4096  # tokens (median) from which a wait is that of a long document, whatever the application is called
PATIENT_APPS = ("batch", "offline")


class Practical(NamedTuple):
    """Bounds in seconds."""

    wait: float
    token: float
    stall: float

    @property
    def slo(self) -> str:
        """The same as an SLO."""
        return (
            f"ttft.p90 <= {self.wait:g}s and tpot.p90 <= {self.token:.6g}s "
            f"and tbt.p99 <= {self.stall:g}s"
        )


INTERACTIVE = Practical(4.0, 1 / 6, 1.0)
DOCUMENTS = INTERACTIVE._replace(wait=15.0)


def practical(app: str | None, prompt_p50: float | None = None) -> Practical | None:
    """The bounds of an application; None for work that nobody waits for."""
    if app in PATIENT_APPS:
        return None
    long = prompt_p50 is not None and prompt_p50 >= LONG_PROMPT
    return DOCUMENTS if long or app in ("summarize", "summarization") else INTERACTIVE
