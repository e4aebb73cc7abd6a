"""Grades of generated texts, by hand."""

from decimal import Decimal

import pytest

from autopeft.errors import TaskError
from autopeft.tasks import TaskSpec, load_task
from autopeft.tasks.grading import GRADERS, last_number, overlap, words
from autopeft.tasks.metrics import find_metric, score


@pytest.mark.parametrize(
    ("said", "reference", "grade"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("cat", "cat sat", 2 / 3),
        ("cat cat", "cat sat mat", 2 / 5),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("the", "", 1.0),
    ],
)
def test_token_f1_is_squads(said, reference, grade):
    assert overlap(said, reference) == pytest.approx(grade)
    assert GRADERS["token_f1"]([said], [reference]).tolist() == pytest.approx([grade])


def test_words_are_compared_without_case_punctuation_and_articles():
    assert words("An apple, THE apple's core!") == ["apple", "apples", "core"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She pays 3 * 4 = 12 dollars. #### 12", "12"),
        ("It is 1,234.50.", "1234.50"),
        ("-7", "-7"),
        ("from 3 to .5", "0.5"),
        ("1,2,3", "3"),
        ("no number", None),
    ],
)
def test_the_last_number_of_a_text(text, number):
    assert last_number(text) == (None if number is None else Decimal(number))


def test_numbers_are_equal_however_they_are_written():
    said = ["so 12.0", "12 apples", "eleven", "1,000"]
    assert GRADERS["number"](said, ["#### 12", "#### 13", "#### 11", "1000"]).tolist() == [1, 0, 0, 1]


def test_an_exact_match_leaves_white_space_aside():
    assert GRADERS["exact_match"]([" yes\n", "Yes"], ["yes", "yes"]).tolist() == [1, 0]


def test_a_score_is_the_mean_grade():
    assert score("token_f1", [1.0, 0.5], [1.0, 1.0]) == 0.75
    assert score("custom_mine", [1.0, 0.0], [1.0, 1.0]) == 0.5
    assert find_metric("custom_mine").is_causal
    with pytest.raises(TaskError, match="perplexity, which falls with quality; choose likelihood"):
        find_metric("perplexity")


def test_f1_means_words_where_texts_are_generated_and_classes_elsewhere(write, tmp_path):
    texts = [{"prompt": f"{n}?", "completion": f"it is {n} of many words that are here now"} for n in range(20)]
    classes = [{"text": f"{n}", "label": ("no", "yes")[n % 2]} for n in range(20)]
    assert load_task(TaskSpec(str(write(tmp_path / "a.jsonl", texts)), metric="f1")).metric == "token_f1"
    assert load_task(TaskSpec(str(write(tmp_path / "b.jsonl", classes)), metric="f1")).metric == "f1"
    assert load_task(TaskSpec(str(write(tmp_path / "c.jsonl", texts)), metric="number")).metric == "number"


def test_answers_without_a_number_are_named(write, tmp_path):
    rows = [{"prompt": f"{n}?", "completion": "none" if n == 3 else f"it is {n}"} for n in range(20)]
    write(tmp_path / "data" / "train.jsonl", rows)
    write(tmp_path / "data" / "validation.jsonl", rows)
    with pytest.raises(TaskError, match="row 4 of the validation rows: the answer holds no number"):
        load_task(TaskSpec(str(tmp_path / "data"), metric="number"))
    with pytest.raises(TaskError, match=r"the metric is token_f1, and t\.txt is plain text"):
        (tmp_path / "t.txt").write_text("word " * 1000)
        load_task(TaskSpec(str(tmp_path / "t.txt"), metric="token_f1"))
