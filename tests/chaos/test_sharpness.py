"""The fault tests are sharp: with the bug that each is there for, it fails (and without it, it passes: see there)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("mutant", "chosen", "count"),
    [
        (
            "fence",
            {
                "test_processes.py": "test_4_a_zombie",
                "test_database_faults.py": "test_5_of_two",
                "test_protocol_machine.py": "test_23",
            },
            6,
        ),
        ("counter", {"test_storms.py": "dense_storm"}, 2),
        ("begin", {"test_contention.py": "nobody_changes"}, 2),
    ],
    ids=["fence", "counter", "begin"],
)
def test_with_the_bug_the_tests_fail_on_each_database(mutant, chosen, count):
    command = [sys.executable, "-m", "pytest", "-q", "-m", "chaos", *(str(HERE / name) for name in chosen)]
    command += ["-k", " or ".join(chosen.values()), "-p", "no:cacheprovider", "--no-header", "--timeout", "200"]
    environment = {**os.environ, "CHAOS_MUTANT": mutant}
    done = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    ended = {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+)", done.stdout.splitlines()[-1])}
    assert done.returncode == 1, done.stdout[-3000:]
    assert ended["failed"] + ended.get("skipped", 0) == count, done.stdout[-3000:]
    assert "passed" not in ended, done.stdout[-3000:]
