"""The real data sets load as they are described; skipped where they are not at hand."""

import pytest

from autopeft.tasks import TaskSpec, load_task, training_defaults

KNOWN = [
    ("banking77", 77, 9038, 965, 3080, "accuracy"),
    ("hwu64", 64, 8954, 1076, 1076, "accuracy"),
    ("blimp_accept", 2, 6700, 1340, 2010, "accuracy"),
    ("semeval10_relations", 19, 7200, 800, 2717, "accuracy"),
    ("snli_small", 3, 8610, 1232, 3000, "accuracy"),
]


@pytest.mark.parametrize(("name", "classes", "train", "validation", "test", "metric"), KNOWN)
def test_a_real_data_set_loads_as_described(name, classes, train, validation, test, metric, data_folder):
    task = load_task(TaskSpec(str(data_folder / name)))
    assert (task.name, len(task.label_names), task.metric) == (name, classes, metric)
    assert (len(task.train), len(task.validation), len(task.read_test())) == (train, validation, test)
    assert (task.train.pairs is not None) == (name == "snli_small")
    assert 0 < task.quality_floor < 0.6
    assert training_defaults(task).max_length <= 128


def test_a_class_that_validation_lacks_is_said(data_folder):
    notes = load_task(TaskSpec(str(data_folder / "semeval10_relations"))).notes
    assert notes[-1] == "warning: 1 of 19 classes absent from validation: Entity-Destination(e2,e1)"


def test_few_rows_of_many_classes_keep_each_class(data_folder):
    task = load_task(TaskSpec(str(data_folder / "hwu64"), train_rows=128, validation_rows=100))
    assert len(set(task.train.labels)) == len(set(task.validation.labels)) == 64
