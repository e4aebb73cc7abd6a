"""The fault tests are sharp: with the bug that each is there for, it fails (and without it, it passes: see there)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("mutant", "place", "chosen"),
    [
        ("fence", "test_processes.py", "test_4_a_zombie and sqlite"),
        ("fence", "test_protocol_machine.py", "test_23 and sqlite"),
        ("counter", "test_storms.py", "storm_of_kills and sqlite"),
        ("begin", "test_contention.py", "nobody_changes and sqlite"),
    ],
)
def test_with_the_bug_the_test_fails(mutant, place, chosen):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "chaos", str(HERE / place), "-k", chosen]
    command += ["-p", "no:cacheprovider", "--no-header", "--timeout", "100"]
    environment = {**os.environ, "CHAOS_MUTANT": mutant}
    done = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 1, done.stdout[-3000:]
    assert "1 failed" in done.stdout, done.stdout[-3000:]
