"""CPU per token and error of the stamps, ours beside the limit and beside the peers, on one core each.

    python -m benchmarks.wire.run [--quick] [--streams 64,256,1024,2048] [--clients ours,limit,...] [--json FILE]

Every client plays against the same server program with the same schedule, pinned to one core; the server has the
other. Clients are interleaved (all of them once, then again), and the medians of the repeats are printed.

CPU per token, three ways: *net* = all processes from start to exit, less the same command for one request; *all* =
nothing subtracted; *live* = only between the first request's arrival and the last token (sampled from /proc).
"kept up" is the mean number of requests in flight over the number asked for: a client that falls behind shows it here,
whether or not it says so. A run in which the server itself was late is dropped, and said.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.stage import (
    Cost,
    Observation,
    Schedule,
    Server,
    Target,
    conditions,
    errors,
    judge,
    number,
    serving,
    spend,
    table,
)
from benchmarks.wire.peers import OFFLINE, Client, Job, clients
from inferometer.errors import InferometerError

# streams -> figure -> at most (tokens per second: at least)
TARGETS: dict[int, dict[str, float]] = {
    64: {"net_us": 18},
    256: {"net_us": 13, "ttft_p50_ms": 0.3, "ttft_p99_ms": 5, "gap_p99_ms": 0.5},
    1024: {"net_us": 9, "ttft_p50_ms": 1, "ttft_p99_ms": 20, "gap_p99_ms": 0.03},
    2048: {"net_us": 7.5, "rate_per_s": 100_000},
}
UNITS = {"net_us": "µs/token", "rate_per_s": "tokens/s"}


@dataclass(frozen=True)
class Row:
    """One client, one number of streams, one repeat; or, of numbers only, the medians of several."""

    client: str
    streams: int
    net_us: float
    all_us: float
    live_us: float
    busy: float  # share of the core while the load was on
    rate_per_s: float
    kept_up: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    gap_p99_ms: float
    stamp_p50_us: float
    stamp_p99_us: float
    joined: int
    unjoined: int
    odd: int
    rss_mb: float
    code: int
    verdict: str
    server_late_p99_us: float
    dropped: str = ""  # why this run says nothing


def main(argv: Sequence[str] | None = None) -> int:
    """Run all, print all; 1 if a target is missed."""
    options = read_options(argv)
    chosen = [c for c in clients() if not options.clients or c.name in options.clients]
    missing = [c.name for c in chosen if not c.installed]
    chosen = [c for c in chosen if c.installed]
    print(f"{conditions()}\n{Schedule()}, {options.seconds:g} s, {options.repeats} repeats")
    print(
        "clients:",
        ", ".join(f"{c.name} {c.version()}" for c in chosen),
        f"(not installed: {', '.join(missing) or 'none'})",
    )
    baselines = {c.name: start_up_s(c, options) for c in chosen}
    print("start-up, CPU-s:", ", ".join(f"{name} {number(cpu)}" for name, cpu in baselines.items()))
    rows = [
        row for streams in options.streams for row in level(streams, chosen, baselines, options)
    ]
    report(rows, options)
    return judge(targets_of(medians(rows)))


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with --quick filled in."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--streams", type=_ints, default=None, help="default 64,256,1024,2048")
    parser.add_argument(
        "--clients", type=_names, default=None, help="default: all that are installed"
    )
    parser.add_argument("--seconds", type=float, default=None, help="load per run, default 10")
    parser.add_argument("--repeats", type=int, default=None, help="default 3")
    parser.add_argument(
        "--attempts", type=int, default=3, help="a run in which the server was late is made again"
    )
    parser.add_argument("--quick", action="store_true", help="64 streams, 3 s, once, without peers")
    parser.add_argument("--json", type=Path, help="keep every run there")
    options = parser.parse_args(argv)
    quick = options.quick
    options.streams = options.streams or ([64] if quick else [64, 256, 1024, 2048])
    options.seconds = options.seconds or (3.0 if quick else 10.0)
    options.repeats = options.repeats or (1 if quick else 3)
    options.clients = options.clients or (["ours", "limit", "limit-kernel"] if quick else None)
    return options


def _ints(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    known = [client.name for client in clients()]
    names = text.split(",")
    strange = [name for name in names if name not in known]
    if strange:
        raise argparse.ArgumentTypeError(f"no client {strange[0]!r}; there are {', '.join(known)}")
    return names


class Played(NamedTuple):
    """One run of one client, over."""

    client: Client
    job: Job
    cost: Cost
    server: Server


def start_up_s(client: Client, options: argparse.Namespace) -> float:
    """CPU seconds of the client's whole command for a single request, the median of the repeats."""
    cpu_s = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            cpu_s.append(play(client, 1, 1, options.seconds, Path(folder)).cost.cpu_s)
    return float(np.median(cpu_s))


def seconds_at(streams: int, options: argparse.Namespace) -> float:
    """Few streams need longer to make as many tokens."""
    return options.seconds * (2 if streams <= 64 and not options.quick else 1)


def level(
    streams: int, chosen: list[Client], baselines: dict[str, float], options: argparse.Namespace
) -> list[Row]:
    """All repeats of all clients at one number of streams, interleaved."""
    rows, seconds = [], seconds_at(streams, options)
    for repeat in range(options.repeats):
        for client in (c for c in chosen if streams <= c.most_streams):
            for _ in range(options.attempts):
                rows.append(measure(client, streams, baselines[client.name], seconds))
                progress(repeat, rows[-1])
                if not rows[-1].dropped:
                    break
    return rows


def measure(client: Client, streams: int, baseline_s: float, seconds: float) -> Row:
    """One run of one client."""
    rounds = max(2, round(seconds / Schedule().reply_s))
    with tempfile.TemporaryDirectory() as folder:
        played = play(client, streams, streams * rounds, seconds, Path(folder))
        try:
            seen = client.read(played.job)
        except (
            OSError,
            KeyError,
            ValueError,
            IndexError,
            StopIteration,
            InferometerError,
        ) as error:
            said = f"no result: {error!r}; it said: {played.cost.said.strip()[-300:]!r}"
            return row_of(played, baseline_s, Observation([], np.zeros(0)), said)
    return row_of(played, baseline_s, seen, played.server.complaint)


def play(client: Client, streams: int, requests: int, seconds: float, folder: Path) -> Played:
    """Serve one run of a client to its end."""
    schedule = Schedule()
    limit_s = 8 * seconds + 120
    room = int(schedule.rate(streams) * (2 * seconds + 10)) + 200_000
    with serving(schedule, folder, room_for=room, seconds=int(limit_s) + 30) as server:
        job = Job(server.url, streams, requests, seconds, schedule, folder)
        cost = spend(client.command(job), folder, timeout_s=limit_s, env=OFFLINE)
    return Played(client, job, cost, server)


def row_of(played: Played, baseline_s: float, seen: Observation, dropped: str) -> Row:
    """The figures of one run. CPU is per served token, probes included; rates are those of the reported requests."""
    (client, job, cost, server), truth = played, played.server.truth
    tokens = max(1, truth.tokens)
    told = truth.only(seen.ids)
    live_s = wall_s = rate = in_flight = float("nan")
    if told.tokens:
        first, last = int(told.received_ns.min()), int(told.wrote_ns.max())
        live_s, wall_s = cost.cpu_between(first, last), (last - first) / 1e9
        rate, in_flight = told.rate_per_s(), told.in_flight()
    return Row(
        client=client.name,
        streams=job.streams,
        net_us=(cost.cpu_s - baseline_s) / tokens * 1e6,
        all_us=cost.cpu_s / tokens * 1e6,
        live_us=live_s / max(1, told.tokens) * 1e6,
        busy=live_s / wall_s,
        rate_per_s=rate,
        kept_up=in_flight / job.streams,
        rss_mb=cost.rss_mb,
        code=cost.code,
        verdict=seen.verdict,
        server_late_p99_us=server.account["late_us"]["p99"],
        dropped=dropped,
        **errors(seen, truth)._asdict(),
    )


def progress(repeat: int, row: Row) -> None:
    """A line per run, while it goes on."""
    shown = f"net {number(row.net_us)} µs/token, kept up {row.kept_up:.3f}, exit {row.code}, {row.verdict}"
    print(
        f"  {row.streams} streams, {row.client}, {repeat + 1}: {row.dropped or shown}",
        file=sys.stderr,
    )


def medians(rows: list[Row]) -> list[Row]:
    """One row per client and number of streams, of the runs that count; order kept."""
    keys = list(dict.fromkeys((row.streams, row.client) for row in rows))
    return [median([row for row in rows if (row.streams, row.client) == key]) for key in keys]


def median(rows: list[Row]) -> Row:
    """The median of every number; the words of the worst run, by exit code."""
    good = [row for row in rows if not row.dropped] or rows
    numbers = {
        name: float(np.median([getattr(row, name) for row in good]))
        for name, value in vars(good[0]).items()
        if isinstance(value, float | int)
    }
    worst = max(good, key=lambda row: row.code)
    words = {"client": worst.client, "verdict": worst.verdict, "dropped": worst.dropped}
    whole = {"streams": worst.streams, "code": worst.code}
    return Row(**(numbers | words | whole))


def report(rows: list[Row], options: argparse.Namespace) -> None:
    """The table, one block per number of streams, and the ratios within it."""
    best = medians(rows)
    for streams in dict.fromkeys(row.streams for row in best):
        print(f"\n{streams} streams")
        block = [row for row in best if row.streams == streams]
        print(table(HEAD, [shown(row, block) for row in block]))
        print(*(remark for row in block for remark in remarks(row)), sep="\n")
    lost = [row for row in rows if row.dropped]
    print("\nruns dropped:", len(lost))
    for row in lost:
        print(f"  {row.streams} streams, {row.client}: {row.dropped}")
    if options.json:
        options.json.write_text(json.dumps([vars_of(row) for row in rows], indent=1))


HEAD = (
    "client", "CPU µs/token net", "all", "live", "×ours", "×limit", "core", "tokens/s", "kept up",
    "TTFT err p50 ms", "p99 ms", "gap err p99 ms", "stamp err p50 µs", "p99 µs", "RSS MB", "says of itself",
)  # fmt: skip


def shown(row: Row, block: list[Row]) -> list[str]:
    """One line of the table."""
    net = {other.client: other.net_us for other in block}
    ours, limit = (row.net_us / net.get(name, float("nan")) for name in ("ours", "limit"))
    figures = [row.net_us, row.all_us, row.live_us, ours, limit]
    times = [row.ttft_p50_ms, row.ttft_p99_ms, row.gap_p99_ms, row.stamp_p50_us, row.stamp_p99_us]
    return [
        row.client,
        *map(number, figures),
        f"{row.busy:.0%}",
        number(row.rate_per_s),
        f"{row.kept_up:.1%}",
        *map(number, times),
        number(row.rss_mb),
        ("dropped" if row.dropped else row.verdict.partition(":")[0])
        + (f" (exit {row.code})" if row.code else ""),
    ]


def remarks(row: Row) -> list[str]:
    """What the line of the table has no room for."""
    out = [f"{row.client} says: {row.verdict}"] if ":" in row.verdict else []
    if row.unjoined:
        out.append(
            f"{row.client}: {row.unjoined:.0f} requests of its report are not in the server's log"
        )
    if row.odd:
        of = f"{row.odd:.0f} of {row.joined:.0f} requests"
        out.append(
            f"{row.client}: in {of} it saw another number of deliveries; their gaps are left out"
        )
    return out


def vars_of(row: Row) -> dict[str, Any]:
    """A row as plain data; what is not a number is null."""
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in vars(row).items()}


def targets_of(rows: list[Row]) -> list[Target]:
    """Our figures beside those to reach."""
    out = []
    for row in (r for r in rows if r.client == "ours"):
        for name, target in TARGETS.get(row.streams, {}).items():
            what = f"{row.streams} streams, {name}"
            unit = UNITS.get(name, "ms")
            value = float("nan") if row.dropped else getattr(row, name)
            out.append(Target(what, value, target, unit, at_least=name == "rate_per_s"))
    return out


if __name__ == "__main__":
    sys.exit(main())
