"""Metrics from a user's file: known by path, name and hash; what is refused before anything runs."""

import pytest

from autopeft.errors import TaskError
from autopeft.tasks import TaskKind, TaskSpec, load_task
from autopeft.tasks.metric_files import MetricFile

SCORE = "def score(predictions, references):\n    return [0.5] * len(predictions)\n"


@pytest.fixture
def grading(tmp_path):
    """Writes a file with a metric and gives its path."""

    def made(code=SCORE, name="grading.py"):
        (tmp_path / name).write_text(code)
        return tmp_path / name

    return made


def test_a_study_keeps_path_name_and_hash_and_no_code(grading, write, tmp_path):
    file = grading()
    rows = [{"prompt": f"{n}?", "completion": f"it is {n}"} for n in range(20)]
    task = load_task(TaskSpec(str(write(tmp_path / "rows.jsonl", rows)), metric=f"{file}:score"))
    assert (task.metric, task.kind, task.quality_floor) == ("custom_score", TaskKind.CAUSAL_LM, 0.0)
    kept = task.spec.to_json()["metric"]
    assert kept == f"{file}:score#sha256={task.metric_file.sha256}"
    assert load_task(task.spec).metric_file == task.metric_file
    file.write_text(SCORE + "\n")
    with pytest.raises(TaskError, match="the file has changed since the study began"):
        load_task(task.spec)
    file.unlink()
    with pytest.raises(TaskError, match=r"cannot be read .No such file.*; expected it at the same path on every host"):
        load_task(task.spec)


def test_a_relative_path_is_the_users(grading, tmp_path, monkeypatch):
    grading()
    monkeypatch.chdir(tmp_path)
    assert MetricFile.find("grading.py:score").file == str(tmp_path / "grading.py")
    assert MetricFile.find("accuracy") is None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def other(a, b): ...", "no function score, its functions: other; expected def score"),
        ("x = 1", "no function score, its functions: none"),
        ("def score(", "not Python that can be read"),
        ("def score(predictions): ...", "score cannot be called with two arguments"),
        ("def score(a, b, c): ...", "score cannot be called with two arguments"),
        ("def score(a, b, *, c): ...", "score cannot be called with two arguments"),
    ],
)
def test_a_file_without_such_a_function_is_refused_before_it_runs(grading, code, said):
    with pytest.raises(TaskError, match=said):
        MetricFile.find(f"{grading(code)}:score")


@pytest.mark.parametrize("code", ["def score(a, b, c=1): ...", "def score(*texts): ...", "def score(a, *rest): ..."])
def test_whatever_takes_two_arguments_is_a_metric(grading, code):
    assert MetricFile.find(f"{grading(code)}:score").metric == "custom_score"


def test_the_built_in_task_has_no_answers_to_grade(grading):
    with pytest.raises(TaskError, match="aspects has no answers to generate"):
        load_task(TaskSpec("aspects", metric=f"{grading()}:score"))
