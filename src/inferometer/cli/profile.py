"""`inferometer profile`: what iterations take, measured; a file for `simulate --cost profile:FILE`.

With a URL the server behind it is measured from outside, host time and all; without one, the kernels of a model's layers
are measured on this machine with PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from inferometer.cli.options import (
    AT_LEAST_1,
    DURATION,
    DURATION_OR_0,
    json_option,
    opt,
    rare,
    section,
    verb,
)
from inferometer.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inferometer.sim.profiled import Profile

# fmt: off
OPTIONS = (
    click.Argument(["url"], required=False, metavar="[URL]"),
    *section(
        "A running engine (with a URL)",
        opt("--model M", "Its model; without a URL: whose layers (a name or a config.json)."),
        opt("--api-key KEY", "env:NAME, file:PATH, or the key itself."),
        opt("--max-prompt N", "The longest prompt to send.  [1536]", AT_LEAST_1, default=1536),
        opt("--max-batch N", "The most requests at once.  [32]", AT_LEAST_1, default=32),
        rare("--output-tokens N", "Tokens that each decodes.  [128]", AT_LEAST_1, default=128),
        rare("--repeats N", "Rounds of each ladder; medians count.  [5]", AT_LEAST_1, default=5),
        rare("--tokenizer PATH", "A tokenizer.json or its folder: exact prompt lengths.  [built-in]"),
    ),
    *section(
        "This machine (without)",
        opt("--on DEVICE", "cpu or cuda.  [cpu]", click.Choice(["cpu", "cuda"]), default="cpu"),
        opt("--dtype NAME", "float32, bfloat16, float16.  [float32; bfloat16 on cuda]", click.Choice(["float32", "bfloat16", "float16"])),
        rare("--threads N", "Of PyTorch.  [its own choice]", AT_LEAST_1),
        rare("--limit TIME", "Stop refining after so long.  [2m]", DURATION, to="limit_s", default="2m"),
        rare("--host-time TIME", "What an engine's host adds to an iteration.  [0.5ms]", DURATION_OR_0, to="host_s", default="0.5ms"),
    ),
    *section(
        "Result",
        opt("-o, --out FILE", "The profile.  [profiles/TIME.json]"),
        json_option(),
        rare("--quiet", "Print nothing but the file's name."),
    ),
)
# fmt: on


@verb(*OPTIONS)
def command(**options: Any) -> int:
    """Measure what iterations take: of a running engine, or of kernels."""
    from inferometer.cli import card
    from inferometer.sim.profiled import write_profile

    path = Path(options["out"] or _name())
    if path.exists():
        raise UserError("there is something already", where=f"--out {path}")
    profile = _of_engine(path, options) if options["url"] else _of_kernels(options)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_profile(profile, path)
    if options["as_json"]:
        click.echo(card.plain_json(msgspec.to_builtins(profile) | {"file": str(path)}))
    elif options["quiet"]:
        click.echo(str(path))
    else:
        card.show(_render(profile, path))
    return EXIT_OK


def _of_engine(path: Path, options: dict[str, Any]) -> Profile:
    from inferometer.cli.wish import api_key
    from inferometer.load.options import Drive
    from inferometer.load.preflight import find
    from inferometer.search import arms
    from inferometer.search.engine_profile import BATCHES, LENGTHS, Ladders, profile_engine

    found = find([options["url"]], model=options["model"], api_key=api_key(options["api_key"]))
    ladders = Ladders(
        lengths=_up_to(LENGTHS, options["max_prompt"]),
        batches=_up_to(BATCHES, options["max_batch"]),
        output_tokens=options["output_tokens"],
        repeats=options["repeats"],
    )
    arm = arms.measured(found, Drive(tokenizer=options["tokenizer"]), telemetry=False)
    runs, model = path.with_suffix(".runs"), found.target.model
    with _progress(options) as told:
        return profile_engine(arm, runs, ladders, model=model, told=told)


def _of_kernels(options: dict[str, Any]) -> Profile:
    from inferometer.sim.models import model
    from inferometer.sim.torch_kernels import Asked, profile_kernels

    if options["model"] is None:
        raise UserError(
            "whose layers?", where="--model", remedy="name a model or a config.json, or give a URL"
        )
    dtype = options["dtype"] or ("bfloat16" if options["on"] == "cuda" else "float32")
    asked = Asked(options["on"], dtype, options["threads"], options["limit_s"], options["host_s"])
    found = model(options["model"])
    with _progress(options) as told:
        return profile_kernels(found, asked, told)


def _up_to(ladder: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The ladder's rungs below `most`, and `most` itself where it is below the top."""
    top = min(most, ladder[-1])
    return (*(rung for rung in ladder if rung < top), top)


@contextmanager
def _progress(options: dict[str, Any]) -> Iterator[Any]:
    """A line on stderr that says what is being measured; nothing where it would be in the way."""
    from rich.console import Console

    console = Console(stderr=True)
    if options["quiet"] or options["as_json"] or not console.is_terminal:
        yield None
        return
    with console.status("measuring") as status:
        yield lambda what, done, of: status.update(f"measuring {what} ({done + 1} of {of})")


def _render(profile: Profile, path: Path) -> Iterator[RenderableType]:
    from inferometer.cli import card
    from inferometer.sim.profiled import Profiled

    cost = Profiled(profile)
    yield card.line("profile", f"{profile.kind} of {profile.model} on {profile.device}")
    shown = card.table("iteration", "tokens", "ms")
    for tokens, _ in profile.tokens:
        n = int(tokens)
        shown.add_row("prefill", f"{n:,}", card.number(cost.step([(n, 0)], 0, 0)[0] / 1e9))
    for sequences, _ in profile.sequences:
        n = int(sequences)
        shown.add_row("decode at 256", f"{n:,}", card.number(cost.decode(n, n * 256) / 1e9))
    yield shown
    yield card.line(
        "outside", f"{card.number(profile.front_s * 1e3)} ms of a TTFT: HTTP, tokenising"
    )
    yield card.line("file", f"{path} · inferometer simulate --cost profile:{path}")


def _name() -> str:
    return f"profiles/{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
