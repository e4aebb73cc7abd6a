"""A metric from a user's file, as a worker runs it."""

import pytest

from autopeft.errors import EvaluationError, TaskError
from autopeft.tasks.metric_files import MetricFile
from workers.metric_files import grader_of


@pytest.fixture
def grader(tmp_path):
    """The function ``score`` of such a file, as a grader."""

    def made(body):
        file = tmp_path / "grading.py"
        file.write_text(f"import statistics\n\ndef score(predictions, references):\n    {body}\n")
        return grader_of(MetricFile.find(f"{file}:score"))

    return made


def test_a_function_grades_each_row_or_all(grader):
    by_row = grader("return [float(a == b) for a, b in zip(predictions, references)]")
    assert by_row(["x", "y"], ["x", "z"]).tolist() == [1.0, 0.0]
    assert grader("return statistics.mean([1, 0])")(["x", "y"], ["x", "z"]).tolist() == [0.5]


def test_nothing_is_written_beside_the_file(grader, tmp_path):
    grader("return 1")
    assert [entry.name for entry in tmp_path.iterdir()] == ["grading.py"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 'good'", "returned 'good'; expected a number, or one a row"),
        ("return [1.0, 1.0, 1.0]", r"an array of shape \(3,\); expected one number, or 2"),
        ("return 1.5", "returned 1.5; expected numbers from 0 to 1"),
        ("return float('nan')", "returned nan"),
        ("return references['x']", r"score failed: TypeError: .* \(line 4\)"),
    ],
)
def test_what_is_no_grade_is_refused(grader, body, said):
    with pytest.raises(EvaluationError, match=said):
        grader(body)(["x", "y"], ["x", "z"])


def test_a_file_that_cannot_be_loaded_or_has_changed_is_refused(grader, tmp_path):
    file = tmp_path / "grading.py"
    file.write_text("import no_such_package\ndef score(a, b): ...\n")
    with pytest.raises(TaskError, match=r"cannot be loaded: ModuleNotFoundError: .*no_such_package.* \(line 1\)"):
        grader_of(MetricFile.find(f"{file}:score"))
    found = MetricFile.find(f"{file}:score")
    file.write_text("def score(a, b): return 1\n")
    with pytest.raises(TaskError, match="the file has changed"):
        grader_of(found)
