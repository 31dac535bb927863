"""`inferometer slo`: the presets that `--slo` knows by name, what they say, and who says so."""

from __future__ import annotations

import click

from inferometer.cli.options import json_option, verb
from inferometer.errors import EXIT_OK


@verb(json_option())
def command(*, as_json: bool) -> int:
    """The presets that --slo knows, with their sources.

    Instead of a name, --slo takes any text like theirs; docs/metrics.md has the grammar.
    """
    from inferometer.slo import PRESETS

    if as_json:
        from inferometer.cli.card import plain_json

        click.echo(plain_json({name: preset._asdict() for name, preset in PRESETS.items()}))
        return EXIT_OK
    for name, preset in PRESETS.items():
        click.echo(f"{click.style(name, bold=True)}\n    {preset.text}")
        click.secho(click.wrap_text(preset.source, 100, "    ", "    "), dim=True)
    return EXIT_OK
