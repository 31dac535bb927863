"""Writes the parts of the documentation that follow from the code; `--check` only says whether they are up to date.

    python scripts/docs.py            rewrites what stands between <!-- begin NAME --> and <!-- end NAME -->
    python scripts/docs.py --check    exit code 1, and the names, where something is stale

The parts: the sentences of docs/map.md (the first lines of the modules' docstrings), the tables of docs/metrics.md (the
tables of the code), the verbs and exit codes of docs/cli.md, the columns of a simulation's iterations in
docs/run-directory.md, what verbs print (docs/json.md); and whole files: docs/schemas/*.json.
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


def printed() -> str:
    """The table of what verbs print with --json."""
    from inferometer.cli.shapes import PRINTED, keys

    head = ["| verb | one of | its keys |", "|---|---|---|"]
    rows = [
        f"| [`{verb}`](schemas/{verb}.schema.json) | {_name(shape)} | {', '.join(f'`{key}`' for key in keys(shape))} |"
        for verb, shapes in PRINTED.items()
        for shape in shapes
    ]
    return "\n".join(head + rows)


def _name(shape: object) -> str:
    """ "Card", or "names of Preset" for dict[str, Preset]."""
    inner = getattr(shape, "__args__", None)
    return f"names, each a {inner[1].__name__}" if inner else shape.__name__


def schemas() -> dict[str, str]:
    """A JSON Schema per verb, and of each JSON file of a run directory: path -> text."""
    from inferometer.cli import shapes

    return {
        f"docs/schemas/{name}.schema.json": json.dumps(shapes.schema(name), indent=2) + "\n"
        for name in (*shapes.PRINTED, *shapes.KEPT)
    }


def iterations() -> str:
    """The columns of `iterations.parquet`."""
    import numpy as np

    from inferometer.sim.iterations import COLUMNS

    rows = (f"| `{name}` | {np.dtype(kind)} | {says} |" for name, (kind, says) in COLUMNS.items())
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/map.md": {"modules": modules},
    "docs/metrics.md": {
        "distributions": distributions,
        "figures": figures,
        "populations": populations,
    },
    "docs/cli.md": {"verbs": verbs},
    "docs/run-directory.md": {"iterations": iterations},
    "docs/json.md": {"printed": printed},
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


def _with_parts(path: str) -> str:
    """The text of a page, with its parts renewed."""
    text = (ROOT / path).read_text(encoding="utf-8")
    for name, make in PARTS[path].items():
        text = renewed(text, name, make())
    return text


def main() -> int:
    """Renew every part and every whole file, or check."""
    stale = []
    whole = {path: make() for path, make in WHOLE.items()} | schemas()
    for path, after in {**{path: _with_parts(path) for path in PARTS}, **whole}.items():
        file = ROOT / path
        if not file.exists() or file.read_text(encoding="utf-8") != after:
            stale.append(path)
            if "--check" not in sys.argv:
                file.parent.mkdir(exist_ok=True)
                file.write_text(after, encoding="utf-8")
    if stale:
        print("stale:" if "--check" in sys.argv else "rewritten:", *stale)
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
