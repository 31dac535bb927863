"""The audit: what holds of an evaluation, item by item of the seed paper's checklist, on what evidence, and what would mend it.

    facts        the normal form of an evaluation, and of a paper's: plain data      evaluation  runs become facts
    finding      a verdict that cannot be made without evidence                      point       one run, as the rules see it
    validity, implementation_fairness ... no_obscuring_normalization                 the rules, one file each
    claims       sentences, parsed and tested with intervals; their robustness       studies     a study directory
    papers/      the twelve systems of the seed's table 2, as records                template    the questionnaire

`audit(evaluation_of([path]))` is a `Report`. Rules read facts and points, and never who wrote them.
"""

from inferometer.audit.evaluation import Evaluation, evaluation_of, of_record
from inferometer.audit.facts import ITEMS, Facts
from inferometer.audit.finding import Evidence, Finding
from inferometer.audit.report import Report, audit, record_schema, schema

__all__ = [
    "ITEMS",
    "Evaluation",
    "Evidence",
    "Facts",
    "Finding",
    "Report",
    "audit",
    "evaluation_of",
    "of_record",
    "record_schema",
    "schema",
]
