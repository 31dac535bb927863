"""What a person asked of `measure`, as the specs that the house understands. Pure: no server, no clock.

The rules of the defaults, in one place:
    nothing asked       closed loop, 8 in flight, 64 requests, 256 prompt tokens, 64 output tokens
    --concurrency N     closed loop, 8 requests per slot
    --rate R            open loop, Poisson, for 60 s
    a trace             its own times and lengths, all of it (a run directory is one: what it was asked, again)
    a profile           its own times and lengths, for 60 s; with --rate, its times scaled to that rate
A limit that is given (--requests, --duration) replaces the default one. `--duration` is the measured time: a warm-up
comes before it, and is planned in addition.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from inferometer.errors import UserError
from inferometer.load.options import Drive, Patience
from inferometer.spec import read_document, read_spec, short_form
from inferometer.workload import WorkloadSpec
from inferometer.workload.arrivals import Closed, arrivals
from inferometer.workload.profiles import load_profile
from inferometer.workload.replay import Replay
from inferometer.workload.traces import detected

CONCURRENCY = 8
REQUESTS_PER_SLOT = 8
OPEN_LOOP_S = 60.0
PROMPT_TOKENS = 256
OUTPUT_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Load:
    """The options that say how much load of what kind; None where the person did not say."""

    workload: str | None = None
    concurrency: int | None = None
    rate: float | None = None
    arrivals: str | None = None
    requests: int | None = None
    duration_s: float | None = None
    warmup_s: float = 0.0
    prompt_tokens: str | None = None
    output_tokens: str | None = None
    app: str | None = None
    strict: bool = False
    replies: str | None = None
    seed: int | None = None


def picked(options: dict[str, Any]) -> Load:
    """The options of a command line that say what load is wanted."""
    known = Load.__dataclass_fields__.keys() & options.keys()
    return Load(**{name: options[name] for name in known})


def workload(load: Load) -> WorkloadSpec:
    """The workload that is asked for, complete and limited."""
    base = _base(load.workload, strict=load.strict)
    given = {
        "arrivals": _arrivals(load, base),
        "requests": load.requests,
        "duration_s": None if load.duration_s is None else load.duration_s + load.warmup_s,
        "prompt_tokens": load.prompt_tokens,
        "output_tokens": load.output_tokens,
        "app": load.app,
        "replies": load.replies,
        "seed": load.seed,
    }
    asked = msgspec.structs.replace(base, **{k: v for k, v in given.items() if v is not None})
    return _limited(_filled(asked), load.warmup_s)


def drive(load: Load, asked: WorkloadSpec, options: dict[str, Any]) -> Drive:
    """How the load is driven; the plan's own limit in time is the driver's, too."""
    patience = {name: options[name] for name in Patience.__struct_fields__}
    return Drive(
        workers=options["workers"],
        warmup_s=load.warmup_s,
        duration_s=asked.duration_s,
        patience=Patience(**{name: s for name, s in patience.items() if s is not None}),
        retries=options["retries"],
        tokenizer=options["tokenizer"],
        stamps=options["stamps"],
        keep_text=options["save_text"],
    )


def _base(text: str | None, *, strict: bool) -> WorkloadSpec:
    """A spec file (YAML, JSON), a trace, a profile by its name or file, or nothing yet."""
    if text is None:
        return WorkloadSpec()
    kind = meant(text)
    if kind == "profile":
        load_profile(text)
        return WorkloadSpec(profile=text)
    if kind in ("trace", "run"):
        return WorkloadSpec(trace=Replay(file=text, strict=True) if strict else text)
    spec: WorkloadSpec = read_spec(text, WorkloadSpec)
    return spec


Meant = Literal["spec", "run", "trace", "profile"]


def meant(text: str) -> Meant:
    """What a name or a path stands for. A JSON document may be any of three; its content decides."""
    path = Path(text)
    if not path.exists():
        return "profile"
    if (path / "manifest.json").is_file():
        return "run"
    if path.suffix in (".yaml", ".yml"):
        return "spec"
    if path.suffix != ".json" or detected(path) is not None:
        return "trace"
    plain = read_document(path).data
    return "profile" if isinstance(plain, dict) and "schema" in plain else "spec"


def _arrivals(load: Load, base: WorkloadSpec) -> Any:
    """The arrivals on the command line, checked; None where there are none."""
    if load.concurrency is not None and (load.rate is not None or load.arrivals is not None):
        raise UserError(
            "a closed loop (--concurrency) has no --rate and no --arrivals",
            remedy="leave one of them out",
        )
    if load.concurrency is not None:
        return Closed(concurrency=load.concurrency)
    if load.arrivals is None and load.rate is None:
        return None
    usual = "natural" if _has_own_times(base) else "poisson"
    plain = short_form(load.arrivals or usual, where="--arrivals")
    if load.rate is not None:
        plain["rate"] = load.rate
    elif plain["kind"] in _RATED and "rate" not in plain:
        raise UserError(
            "how many requests per second?", where="--arrivals", remedy="give --rate as well"
        )
    return arrivals(plain, where="--arrivals")


_RATED = ("constant", "poisson", "gamma", "weibull")


def _has_own_times(asked: WorkloadSpec) -> bool:
    return asked.trace is not None or asked.profile is not None


def _filled(asked: WorkloadSpec) -> WorkloadSpec:
    """`asked` with the default arrivals and lengths, unless a trace, a profile or clients have their own."""
    if _has_own_times(asked) or asked.clients:
        return asked
    filled: dict[str, Any] = {"arrivals": asked.arrivals or Closed(concurrency=CONCURRENCY)}
    filled["arrivals"] = arrivals(filled["arrivals"])
    if asked.prompt_tokens is None:
        filled["prompt_tokens"] = PROMPT_TOKENS
    if asked.output_tokens is None:
        filled["output_tokens"] = OUTPUT_TOKENS
    return msgspec.structs.replace(asked, **filled)


def _limited(asked: WorkloadSpec, warmup_s: float) -> WorkloadSpec:
    """`asked` with the default limit, unless it has one or a trace ends by itself."""
    if asked.requests is not None or asked.duration_s is not None or asked.trace is not None:
        return asked
    process = None if asked.arrivals is None else arrivals(asked.arrivals)
    if isinstance(process, Closed):
        requests = REQUESTS_PER_SLOT * process.concurrency
        return msgspec.structs.replace(asked, requests=requests)
    return msgspec.structs.replace(asked, duration_s=OPEN_LOOP_S + warmup_s)


# --- what is secret, or may be ----------------------------------------------------------------------------------------


def api_key(text: str | None) -> str | None:
    """The key that `env:NAME` or `file:PATH` names, or the text itself. No key is ever sent that was not asked for."""
    if text is None:
        return None
    kind, _, rest = text.partition(":")
    if kind == "env":
        key = os.environ.get(rest, "")
        where = f"--api-key env:{rest}"
    elif kind == "file":
        key, where = _read(rest), f"--api-key file:{rest}"
    else:
        key, where = text, "--api-key"
    if not key.strip():
        raise UserError("there is no key there", where=where)
    return key.strip()


def header(text: str) -> tuple[str, str]:
    """ "Name: value" as a pair; the value may be `env:NAME` or `file:PATH`."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UserError("a header is written NAME:VALUE", where="--header")
    value = value.strip()
    if value.startswith(("env:", "file:")):
        value = api_key(value) or ""
    if "\n" in value or "\r" in value:
        raise UserError("a header has one line", where=f"--header {name}")
    return name.strip(), value


def field(text: str) -> tuple[str, Any]:
    """ "name=value" of a request's body; the value is JSON, or else a string."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError("a field is written NAME=VALUE", where="--field")
    try:
        return name, msgspec.json.decode(value.encode())
    except msgspec.DecodeError:
        return name, value


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=f"--api-key file:{path}") from None
