"""Language-modelling rows: prompts with answers, the instruction form, options, and plain text."""

import pytest

from autopeft.errors import TaskError
from autopeft.tasks import TaskKind, TaskSpec, load_task, training_defaults
from autopeft.tasks.folders import BLOCK_CHARACTERS
from autopeft.tasks.options import options_named


@pytest.fixture
def load(write, tmp_path):
    """Writes rows as training rows and loads the task."""

    def loaded(rows, meta=None, **fields):
        folder = tmp_path / "asked"
        write(folder / "train.jsonl", rows)
        if meta is not None:
            write(folder / "meta.json", meta)
        return load_task(TaskSpec(str(folder), **fields))

    return loaded


def commonsense(row):
    answer = ("true", "false")[row % 2]
    return {
        "instruction": f"Is {row} even?\n\nAnswer format: true/false",
        "input": "",
        "output": f"the correct answer is {answer}",
        "answer": answer,
    }


@pytest.mark.parametrize(
    ("asked", "said"), [("prompt", "completion"), ("question", "answer"), ("query", "response"), ("input", "output")]
)
def test_prompts_and_answers_are_known_by_their_columns(load, asked, said):
    task = load([{asked: f"What is {n}?", said: f"it is {n}"} for n in range(20)])
    assert task.kind is TaskKind.CAUSAL_LM
    assert task.metric == "exact_match"
    assert task.train.texts[0] == "What is 0?\n"
    assert task.train.answers[0] == "it is 0"
    assert (len(task.train), len(task.validation), task.quality_floor, task.label_names) == (18, 2, 0.0, ())


@pytest.mark.parametrize(("prompt", "answer"), [("Say: ", "yes"), ("Say:", " yes"), ("Say:\n", "yes")])
def test_white_space_between_prompt_and_answer_is_kept_as_given(load, prompt, answer):
    task = load([{"prompt": prompt, "completion": f"{answer} {n}"} for n in range(20)])
    assert task.train.texts[0] + task.train.answers[0] == f"{prompt}{answer} 0"


def test_the_instruction_form_is_laid_out_and_its_answers_are_options(load):
    task = load([commonsense(row) for row in range(40)])
    assert task.metric == "option_accuracy"
    assert task.quality_floor == 0.5
    assert task.train.texts[0] == ("### Instruction:\nIs 0 even?\n\nAnswer format: true/false\n\n### Response:\n")
    assert task.train.answers[0] == "the correct answer is true"
    assert task.train.options[0] == ("the correct answer is true", "the correct answer is false")
    answers = [row[label] for row, label in zip(task.train.options, task.train.labels, strict=True)]
    assert tuple(answers) == task.train.answers


def test_an_input_stands_under_its_instruction(load):
    task = load([{"instruction": "Add.", "input": f"{n} + 1", "output": str(n + 1)} for n in range(20)])
    assert task.train.texts[0] == "### Instruction:\nAdd.\n\n### Input:\n0 + 1\n\n### Response:\n"
    assert task.metric == "exact_match"


def test_a_set_of_many_parts_gives_each_row_the_options_that_its_prompt_names():
    known = ("answer1", "answer2", "ending1", "ending2", "false", "true")
    assert options_named("…\n\nAnswer format: ending1/ending2", known, "ending2") == ("ending1", "ending2")
    assert options_named("and/or (true/false).", known, "true") == ("true", "false")
    assert options_named("choose answer1/answer3", known, "answer1") == ()
    assert options_named("answer1/answer2", known, "true") == ()


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["red", "green", "blue"], "green"),
        (["red", "green", "blue"], 1),
        (["red", "green", "blue"], "B"),
        ({"text": ["red", "green", "blue"], "label": ["1", "2", "3"]}, "2"),
    ],
)
def test_the_right_option_is_named_by_text_index_letter_or_label(load, options, answer):
    task = load([{"question": f"Which, {n}?", "choices": options, "answer": answer} for n in range(20)])
    assert set(task.train.labels) == {1}
    assert set(task.train.answers) == {"green"}
    assert task.quality_floor == pytest.approx(1 / 3)


def test_options_with_a_label_are_no_classification(load):
    task = load([{"question": f"{n}?", "options": ["a b", "c d"], "label": n % 2} for n in range(20)])
    assert task.kind is TaskKind.CAUSAL_LM
    assert set(task.train.answers) == {"a b", "c d"}


def test_a_list_of_options_is_answered_by_the_column_that_names_one(load):
    rows = [
        {"instruction": f"{n}?", "options": ["a b", "c d"], "output": "it is c d", "answer": "B"} for n in range(20)
    ]
    assert set(load(rows).train.answers) == {"c d"}


def test_an_answer_that_is_none_of_its_options_is_refused_with_its_row(load):
    rows = [{"question": f"{n}?", "options": ["yes", "no"], "answer": "yes"} for n in range(20)]
    rows[6]["answer"] = "perhaps"
    with pytest.raises(TaskError, match=r"row 7 of train.jsonl: answer is 'perhaps'; expected a list"):
        load(rows)


@pytest.mark.parametrize("label", ["label", "score"])
def test_questions_with_a_label_stay_a_classification(load, label):
    rows = [{"question": f"q {n}", "answer": f"a {n}", label: n % 2} for n in range(20)]
    task = load(rows)
    assert task.kind is TaskKind.CLASSIFICATION
    assert task.train.pairs is not None


def test_a_category_beside_an_instruction_is_a_remark(load):
    task = load([{"instruction": f"say {n}", "response": f"{n}", "category": "echo"} for n in range(20)])
    assert task.kind is TaskKind.CAUSAL_LM


def test_long_answers_are_ranked_by_their_likelihood(load):
    task = load([{"prompt": f"tell {n}", "completion": "one " * 40} for n in range(20)])
    assert (task.metric, task.quality_floor) == ("likelihood", 0.0)


def test_a_metric_or_a_declared_kind_makes_plain_rows_a_language_model(load):
    rows = [{"text": f"the day number {n}"} for n in range(20)]
    assert load(rows, metric="likelihood").train.texts[0] == ""
    assert load(rows, {"kind": "causal-lm"}).kind is TaskKind.CAUSAL_LM
    with pytest.raises(TaskError, match="no column of the label"):
        load(rows, {"kind": "free text about the data"})
    with pytest.raises(TaskError, match="is plain text; choose likelihood"):
        load(rows, metric="exact_match")


def test_options_are_asked_for_where_there_are_none(load):
    with pytest.raises(TaskError, match="no options to choose from"):
        load([{"prompt": f"p {n}", "completion": f"c {n}"} for n in range(20)], metric="option_accuracy")


def test_a_metric_of_classes_is_refused_on_answers(load):
    with pytest.raises(
        TaskError, match="labels are texts; expected one of option_accuracy, exact_match, token_f1, number, likelihood"
    ):
        load([{"prompt": f"p {n}", "completion": f"c {n}"} for n in range(20)], {"metrics": ["accuracy"]})


def test_columns_can_be_named(load):
    rows = [{"a": f"first {n}", "b": f"second {n}", "c": f"third {n}"} for n in range(20)]
    task = load(rows, metric="likelihood", text="a", text_pair="b", label="c")
    assert task.train.texts[0] == "first 0\nsecond 0\n"
    assert task.train.answers[0] == "third 0"


def test_a_folder_of_text_is_cut_into_blocks_at_words(tmp_path):
    words = [f"word{n}" for n in range(2_000)]
    (tmp_path / "a.txt").write_text(" ".join(words))
    (tmp_path / "test.txt").write_text("never trained on")
    (tmp_path / "manifest.json").write_text("{}")
    task = load_task(TaskSpec(str(tmp_path)))
    assert (task.kind, task.metric) == (TaskKind.CAUSAL_LM, "likelihood")
    blocks = [*task.train.answers, *task.validation.answers]
    assert sorted(word for block in blocks for word in block.split()) == sorted(words)
    assert all(len(block) <= BLOCK_CHARACTERS for block in blocks)
    assert task.read_test().answers == ("never trained on",)


def test_a_file_of_text_is_a_task(tmp_path):
    (tmp_path / "notes.txt").write_text("some words " * 500)
    assert load_task(TaskSpec(str(tmp_path / "notes.txt"))).metric == "likelihood"


def test_the_corpus_loads(data_folder):
    task = load_task(TaskSpec(str(data_folder / "corpus"), train_rows=200, validation_rows=50))
    assert (len(task.train), len(task.validation)) == (200, 50)
    assert training_defaults(task).max_length == 256
    assert task.data_sha256 != load_task(TaskSpec(str(data_folder / "corpus"), train_rows=201)).data_sha256
