"""`sim:SYSTEM?model=M&device=D&...`: a simulated system, written where a URL may stand.

The names are those of `Deployment` and `Limits`, flat, with `-` or `_` (`max-batch=64`); `host_time=1ms` and `front_time` are
durations.
What is read here is a Deployment and nothing more: whoever holds one makes runs of it with `simulate`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote

from inferometer.errors import UserError
from inferometer.sim.simulate import Deployment
from inferometer.sim.systems import Limits, system
from inferometer.spec import parse, seconds

PREFIX = "sim:"


def is_simulated(target: str) -> bool:
    """Whether a target names a simulated system instead of a server."""
    return target.startswith(PREFIX)


def read_target(text: str) -> Deployment:
    """`sim:sarathi-serve?model=llama-3-8b&device=a100&tp=2&chunk=512` as a Deployment; else a UserError."""
    name, _, query = text.removeprefix(PREFIX).partition("?")
    system(unquote(name))
    options = _options(query, text)
    if "model" not in options:
        raise UserError("it has no model", where=text, remedy="write sim:NAME?model=llama-3-8b")
    limits = {key: options.pop(key) for key in Limits.__struct_fields__ if key in options}
    read: Deployment = parse(
        {"system": unquote(name), "limits": limits} | options, Deployment, where=text
    )
    return read


def _options(query: str, where: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        name = key.replace("-", "_")
        if name in ("host_time", "front_time"):
            options[name.replace("_time", "_s")] = seconds(value, where=where)
            continue
        if name not in KNOWN:
            raise UserError(
                f"no such option of a simulated system: {key!r}",
                where=where,
                remedy="take of " + ", ".join(KNOWN),
            )
        options[name] = value
    return options


KNOWN = tuple(
    name
    for name in (*Deployment.__struct_fields__, *Limits.__struct_fields__)
    if name not in ("system", "limits")
)
