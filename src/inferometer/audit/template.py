"""The questionnaire: an evaluation's record with a comment at each field, for a person to fill in.

It is itself a record (a small invented evaluation), so that it can be audited as it is, and a test holds it to the schema.
"""

from __future__ import annotations

from importlib import resources

from inferometer.audit.facts import ITEMS


def template() -> str:
    """The text of the questionnaire: YAML with comments."""
    text = (resources.files("inferometer.audit") / "template.yaml").read_text(encoding="utf-8")
    questions = "\n".join(f"#   {item}: {asked}" for item, asked in ITEMS.items())
    return text.replace("#   ITEMS", questions)
