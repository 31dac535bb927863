"""Reading a run directory, whole or broken.

A finished run has its timeline. One that was interrupted hard has shards, and perhaps spools of workers that never
digested them; these are digested here, so that whatever ended a run, every request that had ended is read back.
"""

from __future__ import annotations

from pathlib import Path

from inferometer.clock import SECOND
from inferometer.load.digest import Remarks, Stripe, digest
from inferometer.load.options import Target
from inferometer.load.spool import read_spool
from inferometer.load.stripes import stripe
from inferometer.load.worker import shard_path, spool_path
from inferometer.plan import Plan
from inferometer.run import Manifest, Run, load_run, read_timeline, write_timeline, write_whole
from inferometer.timeline import Timeline, concat, in_order
from inferometer.workload import tokenizer as tokenizers


def read_run(path: str | Path) -> Run:
    """The run in a directory; nothing there is changed.

    `manifest.complete` is False for an interrupted run, whose finished requests are all here.
    Raises UserError when there is no run there, BrokenRun when a table contradicts its contract.
    """
    folder = Path(path)
    run = load_run(folder)
    if run.plan is None or (folder / "timeline.parquet").exists():
        return run
    timeline = gather(folder, run.manifest, run.plan)
    return Run(timeline, run.manifest, run.plan, folder, run.telemetry)


def gather(folder: Path, manifest: Manifest, plan: Plan) -> Timeline:
    """The parts of a run that has no timeline yet, joined in order of intended time."""
    parts = []
    for worker, rows in enumerate(stripe(plan, int(manifest.spec["drive"]["workers"]))):
        if shard_path(folder, worker).exists():
            parts.append(read_timeline(shard_path(folder, worker)))
        elif spool_path(folder, worker).exists() and manifest.clock:
            known = Stripe(
                plan,
                rows,
                plan.prompt_tokens[rows],
                manifest.clock["epoch_ns"],
                int(manifest.spec["drive"]["warmup_s"] * SECOND),
            )
            parts.append(_rescued(spool_path(folder, worker), known, manifest))
    return in_order(concat(parts))


def tidy(folder: Path, timeline: Timeline) -> None:
    """Put the joined timeline in its place, and remove the parts that it was made of."""
    shards = sorted(folder.glob("shard-*.parquet"))
    spools = sorted(folder.glob("spool-*.bin"))
    write_timeline(timeline, folder / "timeline.parquet")
    texts = sorted(folder.glob("responses-*.jsonl.zst"))
    if texts:  # zstd frames may be joined end to end
        write_whole(folder / "responses.jsonl.zst", b"".join(text.read_bytes() for text in texts))
    for part in (*shards, *spools, *texts):
        part.unlink()


def _rescued(spool: Path, stripe_: Stripe, manifest: Manifest) -> Timeline:
    target = Target((), manifest.target["dialect"], manifest.model["name"])
    tokenizer = tokenizers.load(manifest.spec["drive"]["tokenizer"])
    return concat(list(digest(read_spool(spool), stripe_, target, tokenizer.count, Remarks())))
