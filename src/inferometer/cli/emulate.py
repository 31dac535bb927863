"""`inferometer emulate`: a server that plays a declared schedule, or a simulated system, until it is interrupted.

The first line on stdout is the base URL, so that a script can read it; the report follows at the end. With `--json` both
are JSON, one line each.
A flag replaces its field of `--spec FILE` (a `Schedule` in YAML), which holds what no flag is made for.
With `--system` the times come from the simulator; all else (lengths, the wire, faults) is the schedule's, as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from inferometer.cli import system
from inferometer.cli.options import (
    ABOVE_0,
    AT_LEAST_1,
    DURATION_OR_0,
    NOT_NEGATIVE,
    json_option,
    opt,
    rare,
    section,
    typed,
    verb,
)
from inferometer.errors import EXIT_INVALID, EXIT_OK, UserError

if TYPE_CHECKING:
    from inferometer.emulator import Report, Schedule

# fmt: off
OPTIONS = (
    *section(
        "Time",
        opt("--ttft TIME", "Until the first token.  [200ms]", DURATION_OR_0, to="ttft_s"),
        rare("--ttft-sigma X", "Jitter of it: sigma of a lognormal factor.", ABOVE_0),
        rare("--ttft-per-prompt-token TIME", "Added for each prompt token.", DURATION_OR_0, to="ttft_per_prompt_token_s"),
        opt("--gap TIME", "Between two steps.  [20ms]", DURATION_OR_0, to="gap_s"),
        rare("--gap-sigma X", "Jitter of it: sigma of a lognormal factor.", ABOVE_0),
        opt("--stall TIME", "How long a stall lasts.", DURATION_OR_0, to="stall_s"),
        rare("--stall-probability P", "Of a stall, per step.", ABOVE_0),
        rare("--stall-every N", "A stall every N steps.", AT_LEAST_1),
        opt("--tokens-per-step K", "Bursts of K tokens.  [1]", AT_LEAST_1),
    ),
    *section(
        "Service",
        opt("--slots N", "Requests served at once; others wait.  [no limit]", AT_LEAST_1),
        opt("--output-tokens N", "At most so many each.  [as asked]", AT_LEAST_1),
        rare("--early-stop P", "Share of replies that end early.", ABOVE_0),
        opt("--fault NAME=P", "Share of requests that meet a fault.", to="faults", multiple=True),
        opt("--like ENGINE", "Stream as vllm, llama-server or transformers do."),
        opt("--model NAME", "A name that is served; for --system, its model.  [any]", to="models", multiple=True),
        rare("--api-key KEY", "env:NAME, file:PATH, or the key itself."),
        rare("--seed N", "Other jitter and faults.  [0]", NOT_NEGATIVE),
        rare("--spec FILE", "A whole schedule in YAML."),
    ),
    *section(
        "System, in place of Time and --slots",
        opt("--system NAME", system.NAMES),
        *system.details(),
    ),
    *section(
        "Server",
        opt("--port N", "[any free one]", NOT_NEGATIVE, default=0),
        rare("--host ADDRESS", "[127.0.0.1]", default="127.0.0.1"),
        rare("--tls-cert FILE", "A certificate (PEM), to serve https.", to="certificate"),
        rare("--tls-key FILE", "Its key (PEM).", to="key"),
        rare("--cpu N", "Run on this core only.", NOT_NEGATIVE, to="cpus", multiple=True),
        opt("--log FILE", "Every write and its true time, as Parquet."),
        json_option(),
    ),
)
# fmt: on


@verb(*OPTIONS)
def command(**options: Any) -> int:
    """Serve a schedule of tokens, or a simulated system, until interrupted."""
    from inferometer.emulator import Orders, emulate

    if bool(options["certificate"]) != bool(options["key"]):
        raise UserError("--tls-cert and --tls-key go together")
    orders = Orders(
        schedule=schedule(options),
        system=_system(options),
        **{name: options[name] for name in ("host", "port", "log", "certificate", "key", "cpus")},
    )
    report = emulate(
        orders,
        lambda server: click.echo(_line({"url": server.url}) if options["as_json"] else server.url),
        warn=lambda what: click.echo(f"inferometer: {what}", err=True),
    )
    _tell(report, as_json=options["as_json"])
    return EXIT_OK if report.kept_up else EXIT_INVALID


def _system(options: dict[str, Any]) -> dict[str, Any] | None:
    """The deployment that is to be played, in plain data; None: the schedule is. UserError where they are mixed."""
    played = options["system"] is not None
    if mixed := typed(_TIMES if played else _DETAILS):
        what = "a system has times of its own" if played else "is for a system, and none is named"
        raise UserError(what, where=", ".join(mixed), remedy="write --system NAME, or leave it out")
    if not played:
        return None
    if len(options["models"]) != 1:
        raise UserError(
            "a system serves one model", where="--model", remedy="write --model llama-3-8b"
        )
    model = options["models"][0]
    plain: dict[str, Any] = msgspec.to_builtins(system.deployment(options | {"model": model}))
    return plain


_DETAILS = tuple(option.name or "" for option in system.details())
_TIMES = (
    "ttft_s",
    "ttft_sigma",
    "ttft_per_prompt_token_s",
    "gap_s",
    "gap_sigma",
    "stall_s",
    "stall_probability",
    "stall_every",
    "tokens_per_step",
    "slots",
)


def schedule(options: dict[str, Any]) -> Schedule:
    """The schedule of `--spec`, or the default one, with the fields that were given as flags."""
    from inferometer.cli import wish
    from inferometer.emulator import LIKE, Schedule
    from inferometer.spec import read_spec

    base = read_spec(options["spec"], Schedule) if options["spec"] else Schedule()
    given = {name: options.get(name) for name in Schedule.__struct_fields__}
    given["faults"] = dict(map(_fault, options["faults"])) or None
    given["api_key"] = wish.api_key(options["api_key"])
    if options["like"]:
        if options["like"] not in LIKE:
            raise UserError(
                f"no engine {options['like']!r}", where="--like", remedy=f"one of {', '.join(LIKE)}"
            )
        given["wire"] = LIKE[options["like"]]
    given = {name: value for name, value in given.items() if value not in (None, ())}
    return msgspec.convert(msgspec.to_builtins(base) | msgspec.to_builtins(given), Schedule)


def _fault(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise UserError(
            f"{text!r} is not NAME=SHARE", where="--fault", remedy="write e.g. reset-mid=0.02"
        ) from None


def _tell(report: Report, *, as_json: bool) -> None:
    if as_json:
        click.echo(_line(report._asdict() | {"kept_up": report.kept_up}))
    else:
        click.echo(report.summary(), err=True)


def _line(plain: dict[str, Any]) -> str:
    return msgspec.json.encode(plain).decode()
