"""Plans whose fingerprints are written down, one for each generator; run as a script, it prints them.

python tests/workload/golden_plans.py > tests/workload/golden_plans.json      (with src on the path; other Pythons and numpys must print the same)
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import msgspec

from inferometer.workload import Prompts, WorkloadSpec, load, make_plan

SPECS = {
    "constant": {"arrivals": "constant:rate=7.3", "requests": 500},
    "poisson": {"arrivals": "poisson:rate=5", "duration_s": 99.5},
    "gamma": {"arrivals": "gamma:rate=5,cv=3.3", "requests": 2000},
    "smooth gamma": {"arrivals": "gamma:rate=5,cv=0.4", "requests": 2000},
    "weibull": {"arrivals": "weibull:rate=5,cv=2.1", "requests": 2000},
    "ramp": {"arrivals": "ramp:start=1,end=30,over_s=60,cv=1.5", "requests": 2000},
    "steps": {"arrivals": "steps:start=1,end=30,steps=7,each_s=10", "duration_s": 80},
    "sine": {"arrivals": "sine:rate=9,amplitude=0.7,period_s=60,phase=0.3", "requests": 2000},
    "spikes": {"arrivals": "spikes:rate=1,peak=90,every_s=20,length_s=2,cv=2", "requests": 2000},
    "lengths": {
        "prompt_tokens": "lognormal:mean=700,sigma=1.1,high=9000",
        "output_tokens": "zipf:exponent=1.2,high=4096",
        "requests": 3000,
    },
    "closed": {
        "arrivals": "closed:concurrency=9",
        "requests": 200,
        "prompt_tokens": "uniform:low=1,high=999",
    },
    "sessions": {
        "arrivals": "poisson:rate=2",
        "requests": 900,
        "prompt_tokens": "lognormal:median=90,p99=900",
        "sessions": {"turns": "uniform:low=1,high=9", "think_cv": 1.7, "forks": {"chance": 0.2}},
        "shared_prefix": {"tokens": 1024, "groups": 8, "zipf": 1.1},
        "adapter": {"count": 20, "zipf": 1.3, "none_share": 0.4},
        "tenant": {"a": 3, "b": 1},
        "replies": "real",
    },
    "mixture": {
        "clients": [
            {"profile": "azure-code-2023"},
            {"profile": "mooncake-conversation"},
            {"arrivals": "gamma:rate=3,cv=2", "output_tokens": 5},
        ],
        "duration_s": 120,
    },
    "agents": {"profile": "claude-code-agent", "arrivals": "poisson:rate=0.5", "requests": 2000},
    "pool": {"profile": "deepseek-r1", "requests": 5000},
    "week": {"profile": "azure-2024", "arrivals": "natural:rate=3", "duration_s": 900},
    "trace": {"trace": {"file": "TRACE", "rate_scale": 1.5, "speed": 2.0, "start_s": 20}},
}


def fingerprints(folder):
    """name -> fingerprint."""
    trace = Path(folder) / "ticks.csv"
    rows = (f"{3 * (k // 11)},{k * 37 % 900 + 1},{k * 11 % 70}\n" for k in range(900))
    trace.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + "".join(rows))
    out = {}
    for name, spec in SPECS.items():
        plain = json.loads(json.dumps(spec).replace("TRACE", str(trace)))
        plan = make_plan(msgspec.convert(plain, WorkloadSpec, strict=False), 11)
        out[name] = plan.fingerprint
        if name == "sessions":
            text = "\n".join(Prompts(plan, load()).texts(range(50)))
            out["prompts"] = hashlib.sha256(text.encode()).hexdigest()
    return out


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(json.dumps(fingerprints(folder), indent=1) + "\n")
