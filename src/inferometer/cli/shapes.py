"""The shapes of what verbs print with `--json`: the one source of docs/schemas and of docs/json.md.

Each shape names the keys that stay; others may stand beside them, and may change. A key with a default may be missing.
Times are seconds. null is what is undefined or refused: never 0. A verb that prints one of several shapes says so in
`PRINTED`; the tests hold the real output of every verb against these.
Who reads results in Python may decode them into these types: `msgspec.json.decode(text, type=shapes.Card)`.
Knows no click and no verb's code, so that it can be read on its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from inferometer.load.calibration import Calibration
from inferometer.run import Manifest

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/"

Number = float | None
Pair = tuple[Number, Number]


def _one_of(*shapes: type) -> Any:
    """The schema of a value that has one of several shapes."""
    return {"anyOf": [{"$ref": REFERENCE + shape.__name__} for shape in shapes]}


# --- a run ------------------------------------------------------------------------------------------------------------


class Requests(Struct, kw_only=True):
    """How many requests there were, of phase `measure`."""

    total: int
    ok: int
    failed: int
    by_status: dict[str, int]


class Distribution(Struct, kw_only=True):
    """A metric with a value per request or per token. `ci`: 95 % intervals; `p99` is null where so few cannot bound it."""

    unit: str
    definition: str
    population: str
    n: int
    undefined: int
    failed: int
    mean: Number
    min: Number
    p50: Number
    p90: Number
    p99: Number
    max: Number
    ci: dict[str, Pair]


class Figure(Struct, kw_only=True):
    """A metric with one value per run."""

    unit: str
    definition: str
    population: str
    n: int
    value: Number
    ci: dict[str, Pair]


class Condition(Struct, kw_only=True):
    """A condition of an SLO. `met` is null where the run cannot say; `resolved`: whether its interval is on one side."""

    text: str
    metric: str
    statistic: str | None
    op: str
    bound: float
    value: Number
    ci: Pair
    met: bool | None
    resolved: bool | None


class Judged(Struct, kw_only=True):
    """An SLO, and whether it was met."""

    text: str
    met: bool | None
    conditions: list[Condition]
    attainment: dict[str, Any]


class Card(Struct, kw_only=True):
    """A scorecard. An invalid one says why, and decides no SLO."""

    valid: bool
    invalid_reasons: list[str]
    complete: bool
    requests: Requests
    steady_state: dict[str, Any]
    metrics: dict[str, Annotated[Any, Meta(extra_json_schema=_one_of(Distribution, Figure))]]
    settings: dict[str, Number]
    instrument: dict[str, Any]
    workload: dict[str, Any]
    run: str | None
    slo: Judged | None = None
    conventions: dict[str, dict[str, Any]] | None = None


# --- several runs -----------------------------------------------------------------------------------------------------


class Repeated(Struct, kw_only=True):
    """A statistic over repeats: its mean with a 95 % interval, each run's own, and what varies between and within."""

    mean: Number
    ci: Pair
    results: list[Number]
    between_sd: Number
    within_sd: Number


class Repeats(Struct, kw_only=True):
    """Several runs of the same thing. `enough`: whether the precision asked for was reached; null where none was."""

    repeats: int
    enough: bool | None
    runs: list[str | None]
    valid: list[bool]
    slo_met: list[bool | None]
    metrics: dict[str, Repeated]


class Effect(Struct, kw_only=True):
    """What differs in one statistic: B - A, B / A, with 95 % intervals. `better`: null where neither is shown."""

    unit: str
    a: Number
    b: Number
    difference: Number
    ratio: Number
    p: Number
    adjusted_p: Number
    ci: Pair
    ratio_ci: Pair
    better: Literal["a", "b"] | None


class Gate(Struct, kw_only=True):
    """A rule on how much worse B may be."""

    text: str
    change: Number
    interval: Pair
    allowed: float
    verdict: Literal["equivalent", "regression", "not shown"]


class Comparison(Struct, kw_only=True):
    """Two sides. `ranking_flips`: whether who is ahead depends on what is asked."""

    runs: dict[str, int]
    differences: list[dict[str, str]]
    effects: dict[str, Effect]
    crossings: list[dict[str, Any]]
    flips: list[dict[str, Any]]
    ranking_flips: bool
    gates: list[Gate]
    verdict: Literal["equivalent", "regression", "not shown"] | None


class Probe(Struct, kw_only=True):
    """A run at one load: `rate_per_s`, or `concurrency` in a search of requests in flight."""

    attainment: Number
    met: bool
    requests: int
    failed: int
    role: str
    run: str | None
    rate_per_s: Number = None
    concurrency: Number = None


class Capacity(Struct, kw_only=True):
    """The highest load that meets an SLO: `rate_per_s`, or `concurrency`; `interval` at the level `confidence`."""

    verdict: Literal["resolved", "cliff", "unbounded", "infeasible", "unresolved"]
    interval: Pair
    confidence: float
    reason: str
    slo: str
    requests: int
    probes: list[Probe]
    rate_per_s: Number = None
    concurrency: Number = None


class Studied(Struct, kw_only=True):
    """A study. `summary`: a row per system, workload and load; `claims`: each with its verdict and reason."""

    study: str
    fingerprint: str
    title: str
    complete: bool
    cells: dict[str, int]
    choices: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    claims: list[dict[str, Any]]


class Announced(Struct, kw_only=True):
    """A study that is not run (`--dry-run`): its cells in the order in which they would be, and how long it takes."""

    fingerprint: str
    title: str
    estimate: dict[str, Any]
    cells: list[dict[str, Any]]


class Need(Struct, kw_only=True):
    """What one statistic asks for; null where no run is long enough, or the pilot cannot say."""

    seen: Number
    now: Number
    requests: int | None
    seconds: Number
    because: str


class Needs(Struct, kw_only=True):
    """How long a run must be for a stated precision."""

    precision: float
    level: float
    metrics: dict[str, Need]


# --- the rest ---------------------------------------------------------------------------------------------------------


class Written(Struct, kw_only=True):
    """The files that were written."""

    report: str | None = None
    figures: list[str] | None = None
    perfetto: str | None = None


class Listening(Struct, kw_only=True):
    """The first line of an emulated server: where it listens."""

    url: str


class Played(Struct, kw_only=True):
    """The last line of an emulated server: what it served, and how late it was itself."""

    requests: int
    tokens: int
    writes: int
    late_share: Number
    lateness_p50_ns: int | None
    lateness_p99_ns: int | None
    lateness_max_ns: int | None
    kept_up: bool


class Quantity(Struct, kw_only=True):
    """A quantity of a trace, with 95 % intervals."""

    mean: Number
    p25: Number
    p50: Number
    p75: Number
    p90: Number
    p99: Number
    max: Number
    iqr: Number
    ci: dict[str, Pair]


class Arrivals(Struct, kw_only=True):
    """When requests come. `cv`: of the gaps; `idc`: the index of dispersion at windows of so many seconds."""

    rate_per_s: Number
    cv: Number
    idc: dict[str, Number]


class Description(Struct, kw_only=True):
    """What a trace, a profile or a plan asks for. `arrivals` is null where there are no times."""

    kind: str
    rows: int
    prompt_tokens: Quantity
    output_tokens: Quantity
    pd_ratio: Quantity
    arrivals: Arrivals | None
    notes: list[str]


class Statement(Struct, kw_only=True):
    """What the paper states, what we find, and whether they agree; null where it cannot be said, with the reason."""

    paper: str
    ours: str
    agrees: bool | None
    why: str


class Reproduction(Struct, kw_only=True):
    """A figure or a table of the paper; `charts`: the data of each chart, by columns."""

    name: str
    title: str
    caption: str
    statements: list[Statement]
    charts: dict[str, dict[str, Any]]


class Check(Struct, kw_only=True):
    """One thing of this host that was looked at."""

    what: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str


class Checks(Struct, kw_only=True):
    """What this host can measure."""

    checks: list[Check]


class Preset(Struct, kw_only=True):
    """An SLO that has a name, and who says so."""

    text: str
    source: str


class Imported(Struct, kw_only=True):
    """What was read of another tool's file: each of its runs, and the records that could not be read."""

    tool: str
    runs: list[dict[str, Any]]
    problems: dict[str, Any]


class Profiled(Struct, kw_only=True):
    """What iterations take: times in seconds at numbers of tokens and of sequences, and where it was written."""

    kind: Literal["kernels", "engine"]
    model: str
    device: str
    tokens: list[Pair]
    sequences: list[Pair]
    pair_s: float
    context_s: float
    host_s: float
    front_s: float
    file: str


# --- who prints what --------------------------------------------------------------------------------------------------

# verb -> what it prints: one of these
PRINTED: dict[str, tuple[Any, ...]] = {
    "measure": (Card, Repeats, Comparison),
    "score": (Card, Repeats),
    "report": (Written,),
    "compare": (Comparison,),
    "capacity": (Capacity,),
    "study": (Studied, Announced),
    "plan-run": (Needs,),
    "simulate": (Card,),
    "emulate": (Listening, Played),
    "calibrate": (Calibration,),
    "import": (Imported,),
    "describe": (Description,),
    "profile": (Profiled,),
    "reproduce": (Reproduction, dict[str, Reproduction]),
    "doctor": (Checks,),
    "slo": (dict[str, Preset],),
}
# Files of a run directory that are JSON.
KEPT: dict[str, tuple[Any, ...]] = {"manifest": (Manifest,)}
# Shapes that others name in `_one_of`.
_NAMED = (Distribution, Figure)


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of what a verb prints, or of a file of a run directory."""
    shapes = (PRINTED | KEPT)[name]
    found, parts = msgspec.json.schema_components(
        (*shapes, *_NAMED), ref_template=REFERENCE + "{name}"
    )
    said = found[: len(shapes)]
    title = f"inferometer {name} --json" if name in PRINTED else f"{name}.json"
    body = said[0] if len(said) == 1 else {"anyOf": list(said)}
    return {"$schema": DIALECT, "title": title, **body, "$defs": _reached(body, parts)}


def _reached(body: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """The parts that a schema refers to, directly or not."""
    names, seen = _references(body), set[str]()
    while names - seen:
        seen |= names
        names = {name for part in seen for name in _references(parts[part])}
    return {name: part for name, part in sorted(parts.items()) if name in seen}


def _references(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        named = {schema["$ref"].removeprefix(REFERENCE)} if "$ref" in schema else set[str]()
        return named.union(*map(_references, schema.values()))
    if isinstance(schema, list | tuple):
        return set[str]().union(*map(_references, schema))
    return set()


def keys(shape: Any) -> list[str]:
    """The keys of a shape that stay, in order; those that may be missing end with "?"."""
    if not hasattr(shape, "__struct_fields__"):
        return ["(each name)", *keys(shape.__args__[1])]
    return [f.name + ("" if f.required else "?") for f in msgspec.structs.fields(shape)]
