"""`inferometer emulate`: a server that plays a declared schedule, until it is interrupted.

The first line on stdout is the base URL, so that a script can read it; the report follows at the end.
A flag replaces its field of `--spec FILE` (a `Schedule` in YAML), which holds what no flag is made for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from inferometer.cli.options import (
    ABOVE_0,
    AT_LEAST_1,
    DURATION_OR_0,
    NOT_NEGATIVE,
    json_option,
    opt,
    rare,
    section,
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
        opt("--stall-probability P", "Of a stall, per step.", ABOVE_0),
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
        opt("--model NAME", "A name that is served.  [any]", to="models", multiple=True),
        rare("--api-key KEY", "env:NAME, file:PATH, or the key itself."),
        rare("--seed N", "Other jitter and faults.  [0]", NOT_NEGATIVE),
        rare("--spec FILE", "A whole schedule in YAML."),
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
    """Serve a declared schedule of tokens over HTTP, until interrupted.

    Speaks the protocols that measure speaks; ignores what it is asked.
    """
    from inferometer.emulator import Orders, emulate

    if bool(options["certificate"]) != bool(options["key"]):
        raise UserError("--tls-cert and --tls-key go together")
    orders = Orders(
        schedule=schedule(options),
        **{name: options[name] for name in ("host", "port", "log", "certificate", "key", "cpus")},
    )
    report = emulate(orders, lambda server: click.echo(server.url))
    _tell(report, as_json=options["as_json"])
    return EXIT_OK if report.kept_up else EXIT_INVALID


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
        plain = report._asdict() | {"kept_up": report.kept_up}
        click.echo(msgspec.json.format(msgspec.json.encode(plain), indent=2).decode())
    else:
        click.echo(report.summary(), err=True)
