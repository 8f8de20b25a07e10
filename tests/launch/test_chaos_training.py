"""Faults in the real trainer on two hosts; the end is that of the run without any, bit for bit.

`python benchmarks/chaos.py` does thirty; here are as many as a test may take.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = 4


@pytest.mark.slow
def test_faults_change_nothing():
    program = Path(__file__).parents[2] / "benchmarks" / "chaos.py"
    command = [sys.executable, str(program), "--faults", str(FAULTS), "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert (seen["faults"], seen["bitwise_equal"]) == (FAULTS, True)
    assert len(seen["causes"]) == FAULTS and all(seen["causes"])
