"""A target, as it was written: servers that were found to answer, or a simulated system. One door for all verbs.

Knows the options of the section "Target", which every verb that takes a target has (`measure.OPTIONS` declares them).
`read` says what a target is; nothing here sends load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inferometer.cli import wish
from inferometer.errors import UserError

if TYPE_CHECKING:
    from inferometer.load.preflight import Found
    from inferometer.sim import Deployment

OF_SERVERS = ("model", "dialect", "api_key", "headers", "fields", "ca", "insecure", "tokenizer")


def read(options: dict[str, Any]) -> Found | Deployment:
    """What the targets of a command line are: one simulated system (`sim:...`), or servers that answer (`found`)."""
    from inferometer.sim.target import is_simulated

    urls = [*options["urls"], *options["base_urls"]]
    if not any(map(is_simulated, urls)):
        return found(options, urls)
    return simulated(options, urls)


def found(options: dict[str, Any], urls: Sequence[str] | None = None) -> Found:
    """Servers that answer, with what they say of themselves; `urls` in place of those of the command line."""
    from inferometer.load.options import Trust
    from inferometer.load.preflight import find

    return find(
        [*options["urls"], *options["base_urls"]] if urls is None else list(urls),
        model=options["model"],
        dialect=options["dialect"],
        api_key=wish.api_key(options["api_key"]),
        headers=tuple(map(wish.header, options["headers"])),
        trust=Trust(ca=options["ca"], insecure=options["insecure"]),
        extra=dict(map(wish.field, options["fields"])),
        probe=not options["no_preflight"],
    )


def simulated(options: dict[str, Any], urls: Sequence[str]) -> Deployment:
    """The one simulated system among `urls`; refuses what only a server has."""
    from inferometer.sim.target import read_target

    if len(urls) != 1:
        raise UserError("a simulated system stands alone", where=" ".join(urls), remedy="name one")
    given = [name for name in OF_SERVERS if options[name]]
    if given:
        raise UserError(
            "a simulated system has no such option; its own stand behind its name",
            where=", ".join("--" + name.rstrip("s").replace("_", "-") for name in given),
            remedy="write sim:NAME?model=...&device=...",
        )
    return read_target(urls[0])
