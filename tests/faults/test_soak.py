"""A run that is stopped and resumed again and again holds no more than at its start."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_memory_handles_and_threads_stay_over_many_loaders():
    """The short form of ``python -m benchmarks.soak``, which is 10,000 steps and 50 sessions."""
    command = [sys.executable, "-m", "benchmarks.soak", "--steps", "300", "--sessions", "10"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    growth = dict(re.findall(r"^(\w+): .*\(([-+].*) %\)$", done.stdout, re.MULTILINE))
    assert growth.keys() == {"memory", "handles", "threads", "system_threads"}, done.stderr
    assert done.returncode == 0, done.stdout
