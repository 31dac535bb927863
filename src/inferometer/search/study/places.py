"""From a system as it is written to where requests go: placeholders filled in, flags put on a target or a command.

`{name}` stands for a flag of the configuration, for the model or what it brings, and in a command for the port. What has
no placeholder is appended in the form of its kind: `--flag value`, or `&flag=value`. Other braces are left alone.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, NamedTuple
from urllib.parse import urlencode

from inferometer.errors import UserError
from inferometer.search.study.asked import Config, Flag, StudySpec
from inferometer.sim.target import is_simulated

URL, HEALTH = "http://127.0.0.1:{port}", "/health"
_PLACE = re.compile(r"\{([A-Za-z_][\w.-]*)\}")
PORT = "port"


class Launch(NamedTuple):
    """A command with its placeholders filled in; a string is a line for a shell."""

    command: str | tuple[str, ...]
    url: str
    health: str


def filled(text: str, values: dict[str, Any]) -> str:
    """`text` with `{name}` replaced; a UserError names one that nobody gives."""

    def put(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise UserError(
                f"nothing is called {match[0]}", remedy="there are " + ", ".join(sorted(values))
            )
        return str(values[match[1]])

    return _PLACE.sub(put, text)


def values_of(spec: StudySpec, model: str, config: Config) -> dict[str, Any]:
    """What stands for each placeholder, but for the port."""
    own: dict[str, Any] = {"model": model, **spec.models[model].with_} if model else {}
    return own | config


def target_of(spec: StudySpec, name: str, model: str, config: Config) -> str:
    """The target of a system that is not started by a command, complete."""
    target = spec.system(name).target
    assert target is not None
    values = values_of(spec, model, config)
    done = filled(target, values)
    rest = {k: v for k, v in config.items() if k not in _PLACE.findall(target) and v is not None}
    if not is_simulated(target) or not rest:
        return done
    return done + ("&" if "?" in done else "?") + urlencode(rest)


def launch_of(spec: StudySpec, name: str, model: str, config: Config, port: int) -> Launch:
    """How to start a system that is started by a command."""
    system = spec.system(name)
    assert system.command is not None
    values = values_of(spec, model, config) | {PORT: port}
    words = (system.command,) if isinstance(system.command, str) else system.command
    used = {place for word in words for place in _PLACE.findall(word)}
    more = [word for k, v in config.items() if k not in used for word in option(k, v)]
    done = [filled(word, values) for word in words]
    url = filled(system.url or URL, values).rstrip("/")
    health = filled(system.health or HEALTH, values)
    where = health if "://" in health else url + "/" + health.lstrip("/")
    if isinstance(system.command, str):
        return Launch(" ".join([*done, *map(shlex.quote, more)]), url, where)
    return Launch((*done, *more), url, where)


def option(flag: str, value: Flag) -> tuple[str, ...]:
    """A flag as words of a command line: `--flag value`, `--flag` for true, nothing for false and null."""
    if value is None or value is False:
        return ()
    name = flag if flag.startswith("-") else "--" + flag.replace("_", "-")
    return (name,) if value is True else (name, str(value))
