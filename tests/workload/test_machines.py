"""The same plan on every machine: numpy's vector instructions, its version, and Python's, leave no trace in a fingerprint.

The fingerprints in `golden_plans.json` were found equal on CPython 3.11, 3.12 and 3.13 with numpy 2.4, 2.0 and 2.2, with
and without AVX. A change of one is a change of what users measure: raise `GENERATOR` in `workload/plan.py` with it.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("golden_plans.py")
GOLDEN = json.loads(SCRIPT.with_suffix(".json").read_text())
# Names of old and new versions of numpy; it warns of those that it does not know.
SLOW = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL X86_V3 X86_V4"


def test_every_generator_gives_the_fingerprint_that_is_written_down(tmp_path):
    """To the last nanosecond and token of the last request; and prompts to the last letter."""
    spec = importlib.util.spec_from_file_location("golden_plans", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.fingerprints(tmp_path) == GOLDEN


def test_plans_are_the_same_without_the_processors_vector_instructions():
    """The same numbers with AVX turned off."""
    command = [sys.executable, "-W", "ignore", str(SCRIPT)]
    done = subprocess.run(
        command,
        env=os.environ | {"NPY_DISABLE_CPU_FEATURES": SLOW},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == GOLDEN
