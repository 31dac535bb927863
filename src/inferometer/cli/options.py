"""How verbs declare their options: as tables, in sections; `--help` shows the common ones, `--help-all` every one.

Knows click, and nothing of what the options mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.core import ParameterSource

from inferometer import spec
from inferometer.errors import UserError

_SHOW_ALL = "inferometer.show_all"


class Option(click.Option):
    """An option that stands in a section of the help; a `rare` one only in that of `--help-all`."""

    section = "Options"
    rare = False

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The two columns of the help; None where it is not to be shown."""
        if self.rare and not ctx.meta.get(_SHOW_ALL):
            return None
        return super().get_help_record(ctx)


def opt(
    flags: str,
    says: str,
    type_: Any = None,
    *,
    to: str | None = None,
    **attrs: Any,
) -> Option:
    """The option of "-o, --out RUN" (its flags and the name of its value) or of "--json" (a switch).

    `type_` converts the value; `to` names the argument that it becomes.
    """
    *names, last = flags.split(", ")
    name, _, metavar = last.partition(" ")
    if metavar:
        attrs |= {"metavar": metavar, "type": type_}
    else:
        attrs |= {"is_flag": True}
    return Option([*names, name, *([to] if to else [])], help=says, **attrs)


def rare(flags: str, says: str, type_: Any = None, **attrs: Any) -> Option:
    """An option that only `--help-all` shows."""
    option = opt(flags, says, type_, **attrs)
    option.rare = True
    return option


def section(title: str, *options: Option) -> Iterable[Option]:
    """`options`, under a title."""
    for option in options:
        option.section = title
        yield option


class Verb(click.Command):
    """A command whose help is in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section, in the order in which the sections first appear."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = None if isinstance(param, click.Argument) else param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def verb(*params: click.Parameter) -> Callable[[Callable[..., int]], Verb]:
    """A decorator that makes a verb of a function which takes `params` by name and returns an exit code."""
    more = [help_all()] if any(getattr(param, "rare", False) for param in params) else []

    def made(run: Callable[..., int]) -> Verb:
        return Verb(run.__name__, callback=run, params=[*params, *more], help=run.__doc__)

    return made


def typed(names: Iterable[str]) -> list[str]:
    """The flags, among the options of these names, that stand on the command line which is being obeyed."""
    context, wanted = click.get_current_context(), frozenset(names)
    return [
        param.opts[-1]
        for param in context.command.params
        if param.name in wanted
        and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]


def help_all() -> Option:
    """The switch that shows the rare options, too."""

    def show(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            ctx.meta[_SHOW_ALL] = True
            click.echo(ctx.get_help())
            ctx.exit()

    return opt(
        "--help-all",
        "Show every option and exit.",
        is_eager=True,
        expose_value=False,
        callback=show,
    )


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A time span ("500ms", "30s", "5m"), as seconds: more than 0, or at least 0."""

    name = "TIME"

    def __init__(self, *, zero: bool = False) -> None:
        self.zero = zero

    def convert(
        self, value: Any, param: click.Parameter | None, _ctx: click.Context | None
    ) -> float:
        """Seconds."""
        where = param.opts[-1] if param else ""
        found = spec.seconds(value, where=where)
        if found == 0 and not self.zero:
            raise UserError("must be more than 0", where=where)
        return found


class Whole(click.ParamType):  # type: ignore[type-arg]
    """A whole number of at least `low`."""

    name = "N"

    def __init__(self, low: int) -> None:
        self.low = low

    def convert(self, value: Any, param: click.Parameter | None, _ctx: click.Context | None) -> int:
        """The number."""
        where = param.opts[-1] if param else ""
        try:
            number = int(str(value).replace("_", "").replace(",", ""))
        except ValueError:
            raise UserError(f"{value!r} is not a whole number", where=where) from None
        if number < self.low:
            raise UserError(f"{number} is below {self.low}", where=where)
        return number


class Above0(click.ParamType):  # type: ignore[type-arg]
    """A number above 0."""

    name = "R"

    def convert(
        self, value: Any, param: click.Parameter | None, _ctx: click.Context | None
    ) -> float:
        """The number."""
        where = param.opts[-1] if param else ""
        try:
            number = float(value)
        except ValueError:
            raise UserError(f"{value!r} is not a number", where=where) from None
        if not 0 < number < float("inf"):
            raise UserError(f"{value} is not above 0", where=where)
        return number


DURATION = Duration()
DURATION_OR_0 = Duration(zero=True)
ABOVE_0 = Above0()
AT_LEAST_1 = Whole(1)
NOT_NEGATIVE = Whole(0)


def json_option() -> Option:
    """`--json`, which every verb has."""
    return opt("--json", "Print JSON, and nothing else.", to="as_json")
