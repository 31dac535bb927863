"""How what a person wrote becomes a frozen spec.

A spec is a `msgspec.Struct` (frozen, unknown fields refused); a choice is a tagged union of them, the tag in `kind`.
Three spellings lead to the same spec, so that no option needs a parser of its own:
    a mapping           {"kind": "gamma", "rate": 4, "cv": 2}         (JSON, YAML, Python)
    a short form        gamma:rate=4,cv=2                             (command line)
    a bare tag          poisson
Every complaint is a UserError that carries the path into the input ("$.arrivals.rate").
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from inferometer.errors import UserError


class Spec(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=False
):
    """The base of every spec; a member of a choice adds `tag="..."` and `tag_field="kind"`."""


def parse(value: Any, type_: Any, *, where: str = "$") -> Any:
    """`value` (plain data) as a `type_`, or a UserError that carries the path."""
    try:
        return msgspec.convert(value, type_, strict=False)
    except msgspec.ValidationError as error:
        raise _told(error, where) from None


def parse_short(text: str, type_: Any, *, where: str) -> Any:
    """A short form ("gamma:rate=4,cv=2") as a `type_`."""
    return parse(short_form(text, where=where), type_, where=where)


def short_form(text: str, *, where: str) -> dict[str, Any]:
    """ "gamma:rate=4,cv=2" as {"kind": "gamma", "rate": 4, "cv": 2}."""
    kind, _, rest = text.partition(":")
    out: dict[str, Any] = {"kind": kind.strip()}
    for pair in filter(None, rest.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(
                f"{pair!r} is not name=value",
                where=where,
                remedy="write kind:name=value,name=value",
            )
        out[name.strip()] = _scalar(value.strip())
    return out


def read_spec(path: str | Path, type_: Any) -> Any:
    """A YAML or JSON file as a `type_`; errors carry the file and the path in it."""
    return parse(read_mapping(path), type_, where=f"{path}: $")


def read_mapping(path: str | Path) -> Any:
    """The plain data of a YAML or JSON file."""
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(path)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise UserError(str(problem), where=f"{path}{line}") from None


_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "": 1.0,
}
_DURATION = re.compile(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*(ns|us|µs|ms|s|min|m|h)?\s*", re.IGNORECASE)


def seconds(text: str | float, *, where: str) -> float:
    """ "500ms", "30s", "5m", "1h" or a number of seconds, as seconds."""
    match = _DURATION.fullmatch(str(text))
    try:
        if match:
            return float(match[1]) * _UNITS[(match[2] or "").lower()]
    except ValueError:
        pass
    raise UserError(f"{text!r} is not a duration", where=where, remedy="write 500ms, 30s, 5m or 1h")


def _scalar(text: str) -> Any:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _told(error: msgspec.ValidationError, where: str) -> UserError:
    what, _, path = str(error).partition(" - at `")
    return UserError(what, where=where + path.rstrip("`").removeprefix("$"))
