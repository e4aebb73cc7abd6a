"""Own data in each format, what is found by name, and every way in which files can be wrong."""

import json

import pytest

from autopeft.errors import TaskError
from autopeft.tasks import TaskSpec, load_task, training_defaults

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_folder_in_each_format_gives_the_same_task(suffix, tmp_path, write, rows):
    for split in ("train", "validation", "test"):
        write(tmp_path / "reviews" / f"{split}.{suffix}", rows)
    before = sorted(path.name for path in (tmp_path / "reviews").iterdir())
    task = load_task(TaskSpec(str(tmp_path / "reviews")))
    assert task.name == "reviews"
    assert task.label_names == ("no", "yes")
    assert task.train.texts[:2] == ("good number 0", "bad number 0")
    assert task.train.labels[:2] == (1, 0)
    assert task.validation == task.train == task.read_test()
    assert task.notes == ("columns: text=text, label=label",)
    assert sorted(path.name for path in (tmp_path / "reviews").iterdir()) == before


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_single_file_is_training_rows(suffix, tmp_path, write, rows):
    task = load_task(TaskSpec(str(write(tmp_path / f"all.{suffix}", rows))))
    assert (len(task.train), len(task.validation)) == (18, 2)
    assert set(task.validation.labels) == {0, 1}
    assert "no validation split: 2 of 20 training rows carved, data seed 0" in task.notes
    with pytest.raises(TaskError, match="all has no test split"):
        task.read_test()


@pytest.mark.parametrize("name", ["valid", "dev", "val", "Validation"])
def test_other_names_of_the_validation_file_are_known(name, tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / f"{name}.jsonl", rows[:4])
    assert len(load_task(TaskSpec(str(tmp_path))).validation) == 4


def test_the_same_data_has_the_same_hash_and_any_change_another(tmp_path, write, rows):
    write(tmp_path / "a" / "train.jsonl", rows)
    write(tmp_path / "b" / "train.csv", rows)
    first = load_task(TaskSpec(str(tmp_path / "a"))).data_sha256
    assert first == load_task(TaskSpec(str(tmp_path / "b"))).data_sha256
    assert first != load_task(TaskSpec(str(tmp_path / "a"), seed=1)).data_sha256
    rows[3]["text"] += "!"
    write(tmp_path / "a" / "train.jsonl", rows)
    assert first != load_task(TaskSpec(str(tmp_path / "a"))).data_sha256


def test_a_poisoned_test_file_is_not_opened_until_asked_for(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    (tmp_path / "test.jsonl").write_bytes(b"\x00 not json \xff")
    (tmp_path / "test.jsonl").chmod(0)
    task = load_task(TaskSpec(str(tmp_path)))
    assert len(task.train) == 18
    with pytest.raises(TaskError, match=r"test\.jsonl cannot be read"):
        task.read_test()


def test_a_test_file_that_went_away_is_missed_by_name(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", rows)
    task = load_task(TaskSpec(str(tmp_path)))
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(TaskError, match="put the file back"):
        task.read_test()


def test_hidden_test_labels_are_said(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", [{"text": "what", "label": None}])
    with pytest.raises(TaskError, match=r"have no labels .* carve a part of train off as test"):
        load_task(TaskSpec(str(tmp_path))).read_test()


def test_declared_label_names_and_metric_are_honoured(tmp_path, write, rows):
    for row in rows:
        row["label"] = int(row["label"] == "yes")
    write(tmp_path / "train.jsonl", rows)
    meta = {"label_names": ["worse", "better"], "metrics": ["bleu", "matthews_corrcoef", "accuracy"]}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    task = load_task(TaskSpec(str(tmp_path)))
    assert task.label_names == ("worse", "better")
    assert (task.metric, task.quality_floor) == ("matthews", 0.0)
    assert load_task(TaskSpec(str(tmp_path), metric="f1_macro")).metric == "macro_f1"


def test_declared_names_give_written_labels_their_order(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    (tmp_path / "meta.json").write_text('{"label_names": ["yes", "no"]}')
    assert load_task(TaskSpec(str(tmp_path))).train.labels[:2] == (0, 1)


def test_whole_numbers_are_class_indices(tmp_path, write, rows):
    for number, row in enumerate(rows):
        row["label"] = number % 4
    task = load_task(TaskSpec(str(write(tmp_path / "all.csv", rows))))
    assert task.label_names == ("0", "1", "2", "3")


def test_truth_values_are_classes(tmp_path, write, rows):
    for row in rows:
        row["label"] = row["label"] == "yes"
    assert load_task(TaskSpec(str(write(tmp_path / "all.jsonl", rows)))).label_names == ("False", "True")


def test_numbers_with_a_fraction_are_regression(tmp_path, write, rows):
    for number, row in enumerate(rows):
        row["label"] = number / 4
    task = load_task(TaskSpec(str(write(tmp_path / "all.csv", rows))))
    assert (task.label_names, task.metric, task.is_regression) == ((), "pearson_spearman", True)
    assert len(task.validation) == 2


def test_a_correlation_makes_regression_of_whole_numbers(tmp_path, write, rows):
    for number, row in enumerate(rows):
        row["label"] = number
    task = load_task(TaskSpec(str(write(tmp_path / "all.csv", rows)), metric="spearman"))
    assert task.is_regression
    assert all(isinstance(label, float) for label in task.train.labels)


def test_the_words_na_and_null_are_texts_in_csv(tmp_path, write, rows):
    rows[0]["text"], rows[1]["text"], rows[2]["text"] = "NA", "null", "None"
    task = load_task(TaskSpec(str(write(tmp_path / "all.csv", rows))))
    assert {"NA", "null", "None"} <= {*task.train.texts, *task.validation.texts}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("sentence", "label"), "text=sentence, label=label"),
        (("Review", "Sentiment"), "text=Review, label=Sentiment"),
        (("utterance", "intent"), "text=utterance, label=intent"),
        (("premise", "hypothesis", "label"), "text=premise, text_pair=hypothesis, label=label"),
        (("sentence1", "sentence2", "target"), "text=sentence1, text_pair=sentence2, label=target"),
        (("question", "passage", "class"), "text=question, text_pair=passage, label=class"),
        (("text", "text_pair", "category"), "text=text, text_pair=text_pair, label=category"),
    ],
)
def test_columns_are_found_by_name(names, found, tmp_path, write):
    *texts, label = names
    rows = [{name: f"{name} {i}" for name in texts} | {label: i % 2} for i in range(20)]
    task = load_task(TaskSpec(str(write(tmp_path / "all.jsonl", rows))))
    assert task.notes[0] == f"columns: {found}"
    assert (task.train.pairs is not None) == (len(names) == 3)


def test_columns_are_named_by_flag(tmp_path, write):
    rows = [{"a": f"x {i}", "b": f"y {i}", "text": "no", "c": i % 2} for i in range(20)]
    path = str(write(tmp_path / "all.jsonl", rows))
    task = load_task(TaskSpec(path, text="a", text_pair="b", label="c"))
    assert task.notes[0] == "columns: text=a, text_pair=b, label=c"
    single = load_task(TaskSpec(path, text="b", label="c"))
    assert single.train.pairs is None


def test_a_named_text_brings_its_partner(tmp_path, write):
    rows = [{"text": "no", "premise": f"x {i}", "hypothesis": f"y {i}", "label": i % 2} for i in range(20)]
    task = load_task(TaskSpec(str(write(tmp_path / "all.jsonl", rows)), text="premise"))
    assert task.notes[0] == "columns: text=premise, text_pair=hypothesis, label=label"


def test_fewer_rows_keep_the_classes_in_proportion(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "dev.jsonl", rows)
    task = load_task(TaskSpec(str(tmp_path), train_rows=6, validation_rows=4))
    assert (sorted(task.train.labels), sorted(task.validation.labels)) == ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    assert task.notes[1:] == (
        "6 of 20 training rows taken, classes in proportion, data seed 0",
        "4 of 20 validation rows taken, classes in proportion, data seed 0",
    )
    assert task == load_task(TaskSpec(str(tmp_path), train_rows=6, validation_rows=4))


def test_more_rows_than_there_are_is_said(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "dev.jsonl", rows)
    task = load_task(TaskSpec(str(tmp_path), train_rows=600))
    assert task.notes[1] == "600 training rows asked for, all 20 taken"


def test_a_class_absent_from_validation_is_a_warning(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", [*rows, {"text": "so so", "label": "maybe"}])
    write(tmp_path / "dev.jsonl", rows)
    assert load_task(TaskSpec(str(tmp_path))).notes[-1] == "warning: 1 of 3 classes absent from validation: maybe"


def test_a_bare_name_of_a_folder_here_is_found_and_stored_absolute(tmp_path, write, rows, monkeypatch):
    write(tmp_path / "mine" / "train.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    assert load_task(TaskSpec("mine")).spec.source == str(tmp_path / "mine")


def test_a_name_of_any_letters_becomes_a_short_plain_one(tmp_path, write, rows):
    write(tmp_path / "my data (v2)" / "train.jsonl", rows)
    assert load_task(TaskSpec(str(tmp_path / "my data (v2)"))).name == "my-data-v2"


def test_the_defaults_suit_the_size_of_the_data(tmp_path, write, rows):
    small = training_defaults(load_task(TaskSpec(str(write(tmp_path / "small.jsonl", rows)))))
    many = [{"text": " ".join(["word"] * 400), "label": i % 2} for i in range(6000)]
    large = training_defaults(load_task(TaskSpec(str(write(tmp_path / "large.jsonl", many)))))
    assert (small.epochs, small.batch_size, small.max_length) == (6.0, 16, 32)
    assert (large.epochs, large.batch_size, large.max_length) == (3.0, 32, 256)
    for defaults in (small, large, training_defaults(load_task(TaskSpec("aspects")))):
        low, high = defaults.learning_rate
        assert low < defaults.control_learning_rate < high
