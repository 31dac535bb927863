"""Writes the parts of the documentation that follow from the code; `--check` only says whether they are up to date.

    python scripts/docs.py            rewrites what stands between <!-- begin NAME --> and <!-- end NAME -->
    python scripts/docs.py --check    exit code 1, and the names, where something is stale

The parts: the sentences of docs/map.md (the first lines of the modules' docstrings), the tables of docs/metrics.md (the
tables of the code), the verbs of docs/cli.md; and whole files: the JSON schemas under docs/schemas.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/inferometer"


def modules() -> str:
    """One sentence per module: a table per folder."""
    found = {file.parent.relative_to(SOURCE).as_posix() for file in SOURCE.rglob("*.py")}
    folders = [*sorted(found - {"."}), ""]
    return "\n\n".join(_folder(folder) for folder in folders)


def _folder(folder: str) -> str:
    files = sorted((SOURCE / folder).glob("*.py"))
    lines = [(file, _sentence(file)) for file in files]
    title = f"`{folder}/`" if folder else "the nouns"
    head = next((says for file, says in lines if file.name == "__init__.py" and folder), "")
    rows = [f"| `{file.stem}` | {says} |" for file, says in lines if not file.stem.startswith("__")]
    return "\n".join([f"**{title}** {head}".strip(), "", "| module | |", "|---|---|", *rows])


def _sentence(file: Path) -> str:
    """The first sentence of a module's docstring."""
    lines = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return lines.splitlines()[0] if lines else ""


def distributions() -> str:
    """The table of metrics that have a value per request."""
    from inferometer.metrics.table import DISTRIBUTIONS
    from inferometer.metrics.view import Settings

    told = Settings().told()
    return _metrics(
        (row.id, row.unit, row.definition.format(**told), row.population)
        for row in DISTRIBUTIONS.values()
        if not row.id.endswith("_with_failures")
    )


def figures() -> str:
    """The table of metrics that have one value per run."""
    from inferometer.metrics.table import FIGURES

    return _metrics((f.id, f.unit, f.definition, f.population) for f in FIGURES.values())


def populations() -> str:
    """Whom a metric is about."""
    from inferometer.metrics.table import POPULATIONS

    return "\n".join(f"* **{name}**: {says}." for name, says in POPULATIONS.items())


def _metrics(rows: object) -> str:
    head = ["| id | unit | definition | population |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| `{i}` | {u} | {d} | {p} |" for i, u, d, p in rows)])


def verbs() -> str:
    """The table of verbs."""
    from inferometer.cli import VERBS

    rows = [f"| `{name}` | {door.says} |" for name, door in VERBS.items()]
    return "\n".join(["| verb | |", "|---|---|", *rows])


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/map.md": {"modules": modules},
    "docs/metrics.md": {
        "distributions": distributions,
        "figures": figures,
        "populations": populations,
    },
    "docs/cli.md": {"verbs": verbs},
}


def audit_schema() -> str:
    """The JSON schema of `audit --json`."""
    from inferometer.audit import schema

    return _json(schema())


def evaluation_schema() -> str:
    """The JSON schema of an evaluation's record (`audit --paper`)."""
    from inferometer.audit import record_schema

    return _json(record_schema())


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


WHOLE: dict[str, Callable[[], str]] = {
    "docs/schemas/audit.schema.json": audit_schema,
    "docs/schemas/evaluation.schema.json": evaluation_schema,
}


def renewed(text: str, name: str, part: str) -> str:
    """`text` with what stands between the marks of `name` replaced by `part`."""
    marks = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    between = re.compile(f"({re.escape(marks[0])}\n).*?(\n{re.escape(marks[1])})", re.DOTALL)
    if not between.search(text):
        raise SystemExit(f"no marks for {name!r}")
    return between.sub(lambda found: f"{found[1]}{part}{found[2]}", text)


def _pages() -> dict[str, str]:
    """The pages with all their parts renewed."""
    out = {}
    for path, parts in PARTS.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        for name, make in parts.items():
            text = renewed(text, name, make())
        out[path] = text
    return out


def main() -> int:
    """Renew every part, or check."""
    stale = []
    for path, after in {**_pages(), **{path: make() for path, make in WHOLE.items()}}.items():
        file = ROOT / path
        if not file.is_file() or file.read_text(encoding="utf-8") != after:
            stale.append(path)
            if "--check" not in sys.argv:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(after, encoding="utf-8")
    if stale:
        print("stale:" if "--check" in sys.argv else "rewritten:", *stale)
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
