"""The same plan on every machine: numpy's vector instructions, and its version, leave no trace in a fingerprint."""

import os
import subprocess
import sys

CODE = """
import numpy
from inferometer.workload import WorkloadSpec, make_plan
for name in ("azure-code-2023", "claude-code-agent", "mooncake-conversation"):
    print(make_plan(WorkloadSpec(profile=name, requests=3000, seed=5)).fingerprint)
"""
# Names of old and new versions of numpy; it warns of those that it does not know.
SLOW = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL X86_V3 X86_V4"


def _fingerprints(**environment):
    command = [sys.executable, "-W", "ignore", "-c", CODE]
    done = subprocess.run(
        command,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


def test_plans_are_the_same_without_the_processors_vector_instructions():
    """With and without AVX, to the last nanosecond of the last request."""
    fast, slow = _fingerprints(), _fingerprints(NPY_DISABLE_CPU_FEATURES=SLOW)
    assert len(fast) == 3
    assert fast == slow
