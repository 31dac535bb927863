"""What users feel, computed from a timeline: latencies, fluidity, rates, the scorecard, and how others would score.

Pure functions of columns. Knows timelines and runs; must never know how a run was made.
"""

from inferometer.metrics.conventions import conventions
from inferometer.metrics.fluidity import Fluidity, fluidity_index
from inferometer.metrics.scorecard import Scorecard, score

__all__ = ["Fluidity", "Scorecard", "conventions", "fluidity_index", "score"]
