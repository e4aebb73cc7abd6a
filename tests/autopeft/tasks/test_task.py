"""The values of a task: JSON both ways, and what they refuse."""

from pathlib import Path

import numpy as np
import pytest

from autopeft.errors import TaskError
from autopeft.tasks import Split, Task, TaskSpec


def test_a_spec_survives_json():
    spec = TaskSpec("hf:glue/sst2", text="sentence", metric="accuracy", train_rows=100, seed=7)
    assert TaskSpec.from_json(spec.to_json()) == spec
    assert TaskSpec.from_json({"source": "aspects"}) == TaskSpec("aspects")


@pytest.mark.parametrize(
    ("source", "stored"),
    [
        ("aspects", "aspects"),
        ("hf:glue/sst2", "hf:glue/sst2"),
        ("hf:imdb", "hf:imdb"),
        ("data/train.csv", str(Path.cwd() / "data" / "train.csv")),
        ("train.csv", str(Path.cwd() / "train.csv")),
        ("../data", str(Path.cwd().parent / "data")),
        ("~/data", str(Path.home() / "data")),
        ("/data/", "/data"),
        ("hf:./saved", f"hf:{Path.cwd() / 'saved'}"),
    ],
)
def test_a_path_is_stored_absolute_and_a_name_as_it_is(source, stored):
    assert TaskSpec(source).source == stored


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": " "}, "expected a built-in task"),
        ({"source": "aspects", "train_rows": 0}, "train_rows is 0; expected at least 1"),
        ({"source": "aspects", "validation_rows": -5}, "validation_rows is -5"),
        ({"source": "aspects", "train_rows": "many"}, "train_rows of the task is 'many'; expected a whole number"),
        ({"source": "aspects", "text": 3}, "text of the task is 3; expected a name"),
        ({"source": "aspects", "seed": -1}, "the seed of the task is -1"),
        ({"source": "aspects", "seed": True}, "the seed of the task is True"),
    ],
)
def test_a_spec_refuses_what_it_cannot_mean(fields, message):
    with pytest.raises(TaskError, match=message):
        TaskSpec(**fields)


@pytest.mark.parametrize("document", [{}, {"source": "aspects", "rows": 3}])
def test_a_spec_of_unknown_keys_is_refused(document):
    with pytest.raises(TaskError, match="expected source and, where needed, some of text, text_pair"):
        TaskSpec.from_json(document)


def test_a_split_takes_rows_by_index():
    split = Split(("a", "b", "c"), ("x", "y", "z"), (0, 1, 0))
    assert split.take(np.array([2, 0])) == Split(("c", "a"), ("z", "x"), (0, 0))
    assert len(split) == 3


def test_a_split_of_unequal_columns_is_refused():
    with pytest.raises(TaskError, match="expected one label and pair for each text"):
        Split(("a", "b"), None, (0,))


def test_a_task_without_test_rows_says_so():
    split = Split(("a", "b"), None, (0.5, 1.0))
    task = Task("scores", TaskSpec("aspects"), (), "pearson", split, split, (), "0" * 64)
    assert task.is_regression
    assert task.quality_floor == 0.0
    with pytest.raises(TaskError, match="scores has no test split"):
        task.read_test()
