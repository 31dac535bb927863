"""How what a person wrote becomes a frozen spec.

A spec is a `msgspec.Struct` (frozen, unknown fields refused); a choice is a tagged union of them, the tag in `kind`.
Three spellings lead to the same spec, so that no option needs a parser of its own:
    a mapping           {"kind": "gamma", "rate": 4, "cv": 2}         (JSON, YAML, Python)
    a short form        gamma:rate=4,cv=2                             (command line)
    a bare tag          poisson
Every complaint is a UserError that carries the path into the input ("$.arrivals.rate"); one about a file also the line
("study.yaml:12: $.arrivals.rate"), because a path is how a program finds it and a line is how a person does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    """A YAML or JSON file as a `type_`; errors carry the file, the line and the path in it."""
    return read_document(path).parse(type_)


Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML or JSON file: its text, its plain data, and on which line each part of it stands."""

    path: str
    text: str
    data: Any
    root: Any  # yaml.Node, or None for an empty file

    def parse(self, type_: Any) -> Any:
        """The data as a `type_`, or a UserError that carries file, line and path."""
        try:
            return msgspec.convert(self.data, type_, strict=False)
        except msgspec.ValidationError as error:
            what, keys = _split(error)
            raise UserError(what, where=self.where(*_named(self.data, type_, what, keys))) from None

    def where(self, *keys: str | int) -> str:
        """ "study.yaml:12: $.systems.vllm" of a part; a part that is not there has the line of what should hold it."""
        path = "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
        return f"{self.path}:{_line(self.root, keys)}: {path}"

    def located(self, error: UserError) -> UserError:
        """A complaint about a path into this document ("$.systems.vllm"), with file and line; any other as it is."""
        if not error.where.startswith("$"):
            return error
        return UserError(error.what, where=self.where(*_keys(error.where)), remedy=error.remedy)


def read_document(path: str | Path) -> Document:
    """A YAML or JSON file; a key that stands twice in one mapping is an error, since one of them would be lost."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise UserError("not text in UTF-8", where=str(path)) from None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        _refuse_twins(root, str(path))
        data = None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise UserError(str(problem), where=f"{path}{line}") from None
    return Document(str(path), text, data, root)


def _refuse_twins(root: Any, path: str) -> None:
    for node in _mappings(root, set()):
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise UserError(
                    f"{key.value!r} stands here twice", where=f"{path}:{key.start_mark.line + 1}"
                )
            if isinstance(key.value, str):
                seen.add(key.value)


def _mappings(node: Any, seen: set[int]) -> Iterator[Any]:
    """Every mapping below a node, once (an alias may lead back)."""
    import yaml

    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value, seen)


def _line(root: Any, keys: Sequence[str | int]) -> int:
    """The line (from 1) on which the key of a part stands; as near as the document goes."""
    import yaml

    if root is None:
        return 1
    node, line = root, root.start_mark.line + 1
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            # The last of equals: what is merged in (<<) stands before what is written here.
            found = [pair for pair in node.value if pair[0].value == str(key)]
            if not found:
                break
            line, node = found[-1][0].start_mark.line + 1, found[-1][1]
        else:
            break
    return int(line)


def _split(error: msgspec.ValidationError) -> tuple[str, Keys]:
    """What is wrong, and the path to it; `...` stands for a key of a mapping, which msgspec does not tell."""
    what, _, path = str(error).partition(" - at `")
    return what, _keys(path.removeprefix("key` in `").rstrip("`"))


def _keys(path: str) -> Keys:
    """The parts of "$.a.b[0]"."""
    parts = re.findall(r"\.([^.\[\]]+)|\[(\d+)\]|\[(\.\.\.)\]", path.removeprefix("$"))
    return tuple(int(index) if index else name or dots for name, index, dots in parts)


def _named(data: Any, type_: Any, what: str, told: Keys) -> Keys:
    """`told` with each `...` replaced by the key that it stands for: the one that alone gives the same complaint."""
    keys = list(told)
    for at, part in enumerate(told):
        if part != "...":
            continue
        holder = data
        for key in keys[:at]:
            holder = holder[key]
        for key in holder:
            alone = _with(data, tuple(keys[:at]), {key: holder[key]})
            if _complaint(alone, type_) == (what, told):
                data, keys[at] = alone, key
                break
        else:
            return tuple(keys[:at])
    return tuple(keys)


def _complaint(data: Any, type_: Any) -> tuple[str, Keys] | None:
    try:
        msgspec.convert(data, type_, strict=False)
    except msgspec.ValidationError as error:
        return _split(error)
    return None


def _with(data: Any, keys: Keys, value: Any) -> Any:
    """`data` with `value` in place of the part at `keys`; does not modify it."""
    if not keys:
        return value
    copy = data.copy()
    copy[keys[0]] = _with(data[keys[0]], keys[1:], value)
    return copy


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
