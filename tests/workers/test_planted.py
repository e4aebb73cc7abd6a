"""Planted truth: IST finds the layers, and DiffoRA the modules, in which a teacher differs from its base.

The toy is ``benchmarks/planted.py``; what it reaches with five seeds stands in docs/experiments.md.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Selection

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def planted():
    path = Path(__file__).parents[2] / "benchmarks" / "planted.py"
    spec = importlib.util.spec_from_file_location("planted", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_planted_layers_are_among_the_most_important(planted):
    schedule = UpdateSchedule(update_fraction=1.0, candidates=5, step_size=2.0)
    ranks = [rank for seed in (1, 4) for rank in planted.importance(seed, 200, schedule, planted.RATE)]
    assert np.mean(ranks) <= 3  # of 8; chance is 4.5


def test_planted_modules_come_first_in_their_rows(planted):
    found = np.array([planted.selection(seed, 250, Selection(), planted.RATE) for seed in (0, 2)])
    first, among_six = found.mean(0)
    assert first >= 2  # of 6; chance is 1
    assert among_six >= 1.5  # chance is 0.75
