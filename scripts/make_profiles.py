"""Makes the profiles that ship with the package from public traces.

    python scripts/make_profiles.py [--traces ../shared/traces] [--servegen CLONE] [NAME ...]

Everything comes from the folder of traces, except the lengths of ServeGen's image pool, which come from a clone of
github.com/alibaba/ServeGen; without one that profile is left as it is. How near each comes to its source is tested
(tests/workload/test_profiles.py) and measured (benchmarks/workload_profiles.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow.parquet as pq

from inferometer.clock import SECOND
from inferometer.workload.arrivals import Table
from inferometer.workload.draws import Stream
from inferometer.workload.fitting import fit_arrivals
from inferometer.workload.intensity import gamma_gaps, steady, weibull_gaps
from inferometer.workload.joint import LEVELS, Joint, fit_joint, read_table
from inferometer.workload.profiles import FITTING_SLO, Client, Profile, encoded, profile_of
from inferometer.workload.traces import Trace, read_trace
from inferometer.workload.traces.documents import read_servegen

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src" / "inferometer" / "workload" / "shipped"


class Paths(NamedTuple):
    """Where the sources are."""

    traces: Path
    servegen: Path | None


class Origin(NamedTuple):
    """Where a trace is from, and what it is."""

    file: str
    app: str
    about: str
    source: str
    licence: str
    notes: tuple[str, ...] = ()


AZURE = "Azure/AzurePublicDataset; Patel et al., Splitwise, ISCA 2024"
MOONCAKE = "kvcache-ai/Mooncake; Qin et al., Mooncake, FAST 2025"
ETALON = "project-etalon/etalon, processed_traces; Agrawal et al., Etalon, arXiv 2407.07000"
SERVEGEN = "alibaba/ServeGen; Xiang et al., ServeGen, arXiv 2505.09999"
NO_TIMES = "the source has lengths only: give arrivals"

ORIGINS = {
    "azure-code-2023": Origin(
        "azure2023_code.parquet",
        "code",
        "Code completion, one hour of Azure's LLM inference, 16 November 2023",
        f"{AZURE}: AzureLLMInferenceTrace_code.csv",
        "CC-BY-4.0",
    ),
    "azure-conv-2023": Origin(
        "azure2023_conv.parquet",
        "chat",
        "Conversation, one hour of Azure's LLM inference, 16 November 2023",
        f"{AZURE}: AzureLLMInferenceTrace_conv.csv",
        "CC-BY-4.0",
    ),
    "mooncake-arxiv": Origin(
        "mooncake_arxiv.parquet",
        "chat",
        "One hour of Kimi, the trace of the Mooncake preprint (arXiv 2407.00079)",
        f"{MOONCAKE}: the arXiv trace",
        "Apache-2.0",
        ("the full trace has no block ids: no prefixes are shared",),
    ),
    "mooncake-conversation": Origin(
        "mooncake_fast25_conversation.parquet",
        "chat",
        "One hour of Kimi's conversations, with the prefixes that they share",
        f"{MOONCAKE}: FAST25-release/traces/conversation_trace.jsonl",
        "Apache-2.0",
    ),
    "claude-code-agent": Origin(
        "claude_code_kvct.parquet",
        "agent",
        "692 sessions of a coding agent, with growing contexts and pauses for tools",
        "callanjfox/kv-cache-tester: traces/",
        "Apache-2.0",
        ("sessions are linear: 676 sub-agent requests are taken as turns of their session",),
    ),
    "sharegpt-8k": Origin(
        "etalon_sharegpt_8k_lengths.parquet",
        "chat",
        "ShareGPT conversations with their history, up to 8,192 tokens (llama-2 tokenizer)",
        f"{ETALON}: sharegpt_8k",
        "Apache-2.0",
        (NO_TIMES,),
    ),
    "arxiv-summarization": Origin(
        "etalon_arxiv_summarization_lengths.parquet",
        "summarize",
        "Summaries of arXiv papers, up to 4,096 tokens (llama-2 tokenizer)",
        f"{ETALON}: arxiv_summarization",
        "Apache-2.0",
        (NO_TIMES,),
    ),
    "bwb": Origin(
        "etalon_bwb_lengths.parquet",
        "batch",
        "Translations of book chapters (Bilingual Web Books), outputs longer than prompts",
        f"{ETALON}: bwb",
        "Apache-2.0",
        (NO_TIMES,),
    ),
}


def from_trace(name: str, paths: Paths) -> tuple[Profile, Trace]:
    """A profile of one trace."""
    origin = ORIGINS[name]
    trace = read_trace(paths.traces / origin.file)
    profile = profile_of(trace, name, about=origin.about, licence=origin.licence)
    notes = tuple(note for note in profile.notes if "no arrival times" not in note)
    return msgspec.structs.replace(
        profile,
        source=origin.source,
        app=origin.app,
        slo=FITTING_SLO[origin.app],
        notes=(*notes, *origin.notes),
    ), trace


# --- Azure 2024: not in git, so rebuilt from what is published about it ------------------------------------------------


class Published(NamedTuple):
    """Median, interquartile range, 99th percentile and mean of a length."""

    median: float
    iqr: float
    p99: float
    mean: float


class Published2024(NamedTuple):
    """What is published of one of the 2024 traces; `ratio`: median and interquartile range of prompt:output."""

    prompt: Published
    output: Published
    ratio: tuple[float, float]
    rows: int


AZURE_2024 = {
    "code": Published2024(
        Published(1930, 2395, 7685, 2511), Published(8, 15, 271, 23), (238, 686), 16_803_695
    ),
    "conv": Published2024(
        Published(928, 1800, 6683, 1632), Published(41, 94, 694, 106), (21, 63), 27_303_999
    ),
}


def azure_2024(paths: Paths) -> Profile:
    """Shapes and copulas of 2023, warped to what is published of 2024; hourly rates as digitised."""
    hours = pq.read_table(paths.traces / "azure2024_hourly_digitised.parquet").to_pydict()
    clients = []
    for kind, app in (("code", "code"), ("conv", "chat")):
        published = AZURE_2024[kind]
        rates = Table(counts=tuple(float(n) for n in hours[f"{kind}_requests"]), every_s=3600.0)
        shape = from_trace(f"azure-{kind}-2023", paths)[0].clients[0].lengths
        clients.append(
            Client(
                name=kind,
                app=app,
                weight=published.rows,
                lengths=nearest_joint(shape, published),
                arrivals=rates,
            )
        )
    return Profile(
        name="azure-2024",
        about="Code completion and conversation, a week of each of Azure's LLM inference, May 2024: APPROXIMATE",
        source=f"{AZURE}: figures and published statistics of the 2024 traces",
        licence="CC-BY-4.0",
        app="chat",
        slo=FITTING_SLO["chat"],
        rows=0,
        clients=tuple(clients),
        notes=(
            (
                "APPROXIMATE: the 2024 files are not in the public repository; lengths are those of 2023, warped to the "
                "median, quartiles, p99, mean and prompt:output ratio that are published of 2024"
            ),
            "hourly rates were read off figures (3 %); within an hour arrivals are Poisson, for nothing else is known",
            "code is of 10-16 May and conversation of 12-18 May; both begin at the same moment here",
        ),
    )


def nearest_joint(shape: Joint, to: Published2024) -> Joint:
    """The warped shape, with the copula of 2023 or none, that is nearest to the published means and ratios."""
    best: tuple[float, Joint | None] = (np.inf, None)
    outputs = warped(shape.output, to.output)
    for prompt in warped(shape.prompt, to.prompt):
        for output in outputs:
            for copula in (shape.copula, None):
                joint = Joint(prompt=prompt, output=output, copula=copula)
                pair = joint.draw(Stream(0, "try"), 10_000)
                low, median, high = np.percentile(pair.prompt / pair.output, [25, 50, 75])
                ratio = [median / to.ratio[0], (high - low) / to.ratio[1]]
                distance = float(np.abs(np.log(ratio)).sum())
                if distance < best[0]:
                    best = (distance, joint)
    assert best[1] is not None
    return best[1]


def warped(table: tuple[int, ...], to: Published) -> list[tuple[int, ...]]:
    """A quantile table stretched, between fixed points and in logarithms, to published statistics, in several ways.

    What is free is how the interquartile range lies around the median, and how the tail is bent between the third
    quartile and p99; the bend is chosen to meet the mean.
    """
    source = np.log(np.array(table, dtype=np.float64) + 1.0)
    at = np.searchsorted(LEVELS, [0.0, 0.25, 0.5, 0.75, 0.99, 1.0])
    knots, unique = np.unique(source[at], return_index=True)
    middle = (np.arange(20_000) + 0.5) / 20_000
    out = []
    for below in np.linspace(0.05, 0.95, 19):
        low = to.median - below * to.iqr
        if low < max(1, table[0]):
            continue
        end = max(to.p99 * 1.05, np.exp(source[-1] - source[at[4]]) * to.p99)
        first = max(1, table[0])
        points = np.log(np.array([first, low, to.median, low + to.iqr, to.p99, end]) + 1.0)
        new = np.interp(source, knots, points[unique])
        tail = slice(at[3], at[4] + 1)
        part = (new[tail] - points[3]) / (points[4] - points[3])
        bent = []
        for power in np.geomspace(0.2, 5.0, 33):
            new[tail] = points[3] + part**power * (points[4] - points[3])
            tokens = np.exp(new) - 1.0
            bent.append((abs(read_table(tokens, middle).mean() - to.mean), tokens))
        off, tokens = min(bent, key=lambda pair: pair[0])
        if off < 0.03 * to.mean:
            out.append(tuple(np.rint(tokens).astype(int).tolist()))
    return out


# --- ServeGen: mixtures of clients -------------------------------------------------------------------------------------

TOP = 8


class Pool(NamedTuple):
    """A pool's windows [W]: client, start [s], rate [requests/s], CV and family of gaps."""

    client: Any
    start_s: Any
    rate: Any
    cv: Any
    family: Any

    def of(self, clients: list[int]) -> Pool:
        """The windows of some clients."""
        mine = np.isin(self.client, clients) & (self.rate > 0)
        return Pool(*(column[mine] for column in self))


def pool(paths: Paths, name: str) -> Pool:
    """The windows of one model's clients."""
    file = paths.traces / "servegen_client_rates.parquet"
    table = pq.read_table(file, filters=[("model", "=", name)])
    names = ("client_id", "window_start_s", "rate_rps", "cv")
    columns = [table[column].to_numpy().astype(float) for column in names]
    columns[1:] = [np.nan_to_num(column) for column in columns[1:]]
    return Pool(*columns, np.array(table["pattern"].to_pylist(), dtype=object))


def played(windows: Pool) -> Any:
    """Arrival times [s] drawn from the windows, as ServeGen means them."""
    parts = []
    for client, start, rate, cv, family in zip(*windows, strict=True):
        stream = Stream(0, "servegen", int(client), int(start))
        gaps = (weibull_gaps if family == "Weibull" else gamma_gaps)(
            stream, min(max(cv, 0.02), 200)
        )
        parts.append(steady(rate).draw(*gaps, None, 600 * SECOND) / SECOND + start)
    return np.sort(np.concatenate(parts))


def servegen(
    name: str,
    of: Pool,
    lengths: Callable[[Pool], Joint],
    *,
    about: str,
    app: str,
    notes: tuple[str, ...] = (),
) -> Profile:
    """The busiest clients of a pool one by one, and all others as one."""
    ids, place = np.unique(of.client, return_inverse=True)
    total = np.bincount(place, weights=of.rate)
    busiest = ids[np.argsort(-total)]
    groups = [(f"client-{int(c)}", [c]) for c in busiest[:TOP]] + [("others", list(busiest[TOP:]))]
    clients = []
    for label, members in groups:
        windows = of.of(members)
        table = fit_arrivals(played(windows), span_s=86_400.0, most_rows=150)
        clients.append(
            Client(
                name=label,
                lengths=lengths(windows),
                weight=round(float(windows.rate.sum() / of.rate.sum()), 6),
                arrivals=table,
            )
        )
    return Profile(
        name=name,
        about=about,
        source=SERVEGEN,
        licence="Apache-2.0",
        app=app,
        slo=FITTING_SLO[app],
        rows=0,
        clients=tuple(clients),
        notes=(
            "made from published distributions, not from requests: prompt and output lengths are independent",
            f"the {TOP} busiest of {len(ids)} clients one by one, all others as one",
            *notes,
        ),
    )


class Pdfs:
    """The published length distributions of the reasoning pool: by client and by 6 h window."""

    def __init__(self, paths: Paths) -> None:
        table = pq.read_table(paths.traces / "servegen_deepseek-r1_length_pdfs.parquet")
        self._client, self._window = (
            table[n].to_numpy().astype(int) for n in ("client_id", "window_start_s")
        )
        self._field = np.array(table["field"].to_pylist())
        self._value, self._prob = table["value"].to_numpy(), table["prob"].to_numpy()

    def weighted(self, name: str, windows: Pool) -> tuple[Any, Any]:
        """The lengths of the requests in those windows: values, ascending, and their shares, summed up to 1."""
        load: dict[tuple[int, int], float] = {}
        for c, start, rate in zip(windows.client, windows.start_s, windows.rate, strict=True):
            key = (int(c), int(start) // 21_600 * 21_600)
            load[key] = load.get(key, 0.0) + rate
        rows = np.flatnonzero((self._field == name) & np.isin(self._client, windows.client))
        keys = zip(self._client[rows].tolist(), self._window[rows].tolist(), strict=True)
        weight = self._prob[rows] * np.array([load.get(key, 0.0) for key in keys])
        order = np.argsort(self._value[rows])
        edge = np.cumsum(weight[order])
        return self._value[rows][order], edge / edge[-1]


def deepseek_r1(paths: Paths) -> Profile:
    """ServeGen's reasoning pool."""
    pdfs = Pdfs(paths)

    def quantiles(name: str, windows: Pool) -> tuple[int, ...]:
        value, edge = pdfs.weighted(name, windows)
        at = np.searchsorted(edge, LEVELS * (1 - 1e-12))
        return tuple(np.rint(value[at]).astype(int).tolist())

    def lengths(windows: Pool) -> Joint:
        return Joint(
            prompt=quantiles("input_tokens", windows), output=quantiles("output_tokens", windows)
        )

    about = "One day of a reasoning model (DeepSeek-R1) behind an API, as a mixture of clients"
    return servegen(
        "deepseek-r1", pool(paths, "deepseek-r1"), lengths, about=about, app="reasoning"
    )


def mm_image(paths: Paths) -> Profile:
    """ServeGen's image pool, images as so much text."""
    assert paths.servegen is not None
    folder = paths.servegen / "data" / "multimodal" / "mm-image"

    def lengths(windows: Pool) -> Joint:
        parts = [
            read_servegen(folder / f"chunk-{int(c)}-trace.csv") for c in np.unique(windows.client)
        ]
        return fit_joint(
            np.concatenate([part.prompt_tokens for part in parts]),
            np.concatenate([part.output_tokens for part in parts]),
            independent=True,
        )

    about = "One day of a vision-language model behind an API, as a mixture of clients"
    note = "images are out of scope: their tokens are counted as text"
    return servegen(
        "servegen-mm-image",
        pool(paths, "mm-image"),
        lengths,
        about=about,
        app="chat",
        notes=(note,),
    )


# --- the whole of it ---------------------------------------------------------------------------------------------------


def made(name: str, paths: Paths) -> Profile | None:
    """The profile of that name; None where its source is absent."""
    if name == "azure-2024":
        return azure_2024(paths)
    if name == "deepseek-r1":
        return deepseek_r1(paths)
    if name == "servegen-mm-image":
        return mm_image(paths) if paths.servegen is not None else None
    return from_trace(name, paths)[0]


NAMES = (*ORIGINS, "azure-2024", "deepseek-r1", "servegen-mm-image")


def main() -> int:
    """Make the profiles that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--traces", type=Path, default=ROOT.parent / "shared" / "traces")
    parser.add_argument("--servegen", type=Path)
    asked = parser.parse_args()
    for name in asked.names or NAMES:
        profile = made(name, Paths(asked.traces, asked.servegen))
        if profile is None:
            print(f"{name}: left as it is (needs --servegen)")
            continue
        content = encoded(profile)
        (SHIPPED / f"{name}.json").write_bytes(content)
        print(f"{name}: {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
