"""Every way in which own data can be wrong gives one message: what was got, what was expected, what to do."""

import pytest

from autopeft.errors import TaskError
from autopeft.tasks import TaskSpec, load_task


def refused(path, message, **fields):
    with pytest.raises(TaskError, match=message) as caught:
        load_task(TaskSpec(str(path), **fields))
    assert "\n" not in str(caught.value)


def test_an_unknown_task_lists_the_built_in_ones_and_how_to_give_a_path():
    with pytest.raises(
        TaskError, match=r"no file 'aspectz'; expected a built-in task \(aspects\), the path of a folder"
    ):
        load_task(TaskSpec("aspectz"))


def test_a_path_that_is_not_there_is_said(tmp_path):
    refused(tmp_path / "nothing.csv", "there is no task and no file")


def test_an_unknown_file_format_lists_the_known(tmp_path):
    (tmp_path / "train.doc").write_text("hello")
    refused(tmp_path / "train.doc", r"ends in '\.doc'; expected one of \.jsonl, \.json, \.csv, \.tsv, \.parquet")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_an_empty_file_is_said(suffix, tmp_path):
    (tmp_path / f"train.{suffix}").touch()
    refused(tmp_path, f"train.{suffix} is empty; expected rows with a text and a label")


@pytest.mark.parametrize(
    ("suffix", "content"), [("csv", "text,label\n"), ("tsv", "text\tlabel\n"), ("jsonl", "\n\n"), ("json", "[]")]
)
def test_a_file_without_rows_is_said(suffix, content, tmp_path):
    (tmp_path / f"train.{suffix}").write_text(content)
    refused(tmp_path, rf"train\.{suffix} holds no rows; expected rows with a text and a label")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_that_is_not_what_its_name_says_is_said(suffix, tmp_path):
    (tmp_path / f"train.{suffix}").write_text("<html>no</html>")
    refused(tmp_path, f"train.{suffix} cannot be read as {suffix}: .*check the file")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_in_another_encoding_is_to_be_saved_as_utf_8(suffix, tmp_path):
    rows = {"csv": "text,label\ncafé,a\nfoo,b\n", "jsonl": '{"text": "café", "label": "a"}\n'}
    (tmp_path / f"train.{suffix}").write_bytes(rows[suffix].encode("latin-1") * 3)
    refused(tmp_path, f"train.{suffix} cannot be read as {suffix}: .*expected text in UTF-8: save the file as that$")


def test_a_folder_without_training_rows_lists_what_it_holds(tmp_path, write, rows):
    write(tmp_path / "test.csv", rows)
    refused(tmp_path, r"has no training rows: it holds test\.csv; expected a file named train")


def test_mixed_formats_are_listed(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "validation.csv", rows)
    refused(tmp_path, r"mixes file formats: train\.jsonl, validation\.csv")


def test_two_files_of_one_split_are_listed(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "train.csv", rows)
    refused(tmp_path, r"has train\.csv and train\.jsonl for train; expected one file a split")


def test_a_missing_text_column_lists_the_columns(tmp_path, write):
    write(tmp_path / "train.csv", [{"words": "a", "label": 0}])
    refused(
        tmp_path, r"train\.csv has no column of the text; its columns are: words, label\. Name them with --text-col"
    )


def test_a_missing_label_column_lists_the_columns(tmp_path, write):
    write(tmp_path / "train.csv", [{"text": "a", "verdict": 0}])
    refused(tmp_path, "has no column of the label; its columns are: text, verdict")


def test_a_column_named_by_flag_that_is_not_there_is_said(tmp_path, write, rows):
    write(tmp_path / "train.csv", rows)
    refused(tmp_path, "has no column 'body'; its columns are: text, label", text="body")


def test_one_column_for_two_roles_is_refused(tmp_path, write, rows):
    write(tmp_path / "train.csv", rows)
    refused(tmp_path, "names one column twice", text="label")


def test_a_validation_file_without_the_columns_is_said(tmp_path, write, rows):
    write(tmp_path / "train.csv", rows)
    write(tmp_path / "dev.csv", [{"sentence": "a", "label": "yes"}])
    refused(
        tmp_path, r"dev\.csv has no column 'text'; its columns are: sentence, label\. The training rows have it: name"
    )


@pytest.mark.parametrize(
    ("suffix", "text", "shown"), [("jsonl", None, "None"), ("csv", "", "''"), ("jsonl", ["a"], "'a'")]
)
def test_rows_without_a_text_are_given_by_number(suffix, text, shown, tmp_path, write, rows):
    bad = rows[:3] if isinstance(text, list) else [rows[2], rows[6]]
    for row in rows if isinstance(text, list) else bad:
        row["text"] = text
    write(tmp_path / f"train.{suffix}", rows)
    where = "1, 2, 3, 4, 5 and 15 more" if isinstance(text, list) else "3, 7"
    refused(tmp_path, rf"rows {where} of train\.{suffix}: text is .*{shown}.*; expected a text in every row")


@pytest.mark.parametrize(("suffix", "label"), [("jsonl", None), ("csv", "")])
def test_rows_without_a_label_are_given_by_number(suffix, label, tmp_path, write, rows):
    rows[4]["label"] = label
    write(tmp_path / f"train.{suffix}", rows)
    refused(tmp_path, rf"row 5 of train\.{suffix}: label is {label!r}; expected a label in every row")


@pytest.mark.parametrize("label", [-1, 20, 7_000_000_000])
def test_labels_out_of_range_are_given_by_row(label, tmp_path, write, rows):
    for number, row in enumerate(rows):
        row["label"] = label if number == 9 else number % 2
    write(tmp_path / "train.jsonl", rows)
    refused(tmp_path, rf"row 10 of train\.jsonl: label is {label}; expected whole numbers from 0")


def test_labels_beyond_the_declared_names_are_given_by_row(tmp_path, write, rows):
    for number, row in enumerate(rows):
        row["label"] = number % 3
    write(tmp_path / "train.jsonl", rows)
    (tmp_path / "meta.json").write_text('{"label_names": ["no", "yes"]}')
    refused(
        tmp_path, r"rows 3, 6, 9, 12, 15 and 1 more of train\.jsonl: label is 2; expected a whole number from 0 to 1"
    )


def test_labels_that_are_no_declared_name_are_given_by_row(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    (tmp_path / "meta.json").write_text('{"label_names": ["no", "maybe"]}')
    refused(tmp_path, r"rows 1, 3, .*: label is 'yes'; expected one of no, maybe")


def test_class_numbers_with_a_gap_are_refused(tmp_path, write, rows):
    for number, row in enumerate(rows):
        row["label"] = 1 + number % 2
    write(tmp_path / "train.jsonl", rows)
    refused(tmp_path, r"train\.jsonl has no row of '0'; expected every class of 3 in train")


def test_a_class_that_train_does_not_hold_is_an_error(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "dev.jsonl", [*rows, {"text": "so so", "label": "maybe"}])
    refused(tmp_path, r"row 21 of dev\.jsonl: label is 'maybe'; expected one of no, yes")


def test_a_class_that_only_the_test_rows_hold_is_an_error_when_they_are_read(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", [{"text": "so so", "label": "maybe"}])
    with pytest.raises(TaskError, match=r"row 1 of test\.jsonl: label is 'maybe'"):
        load_task(TaskSpec(str(tmp_path))).read_test()


def test_one_class_only_is_refused(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows[::2])
    refused(tmp_path, "holds the one class 'yes'; expected at least two")


def test_validation_rows_of_one_class_are_refused(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "dev.jsonl", rows[::2])
    refused(tmp_path, "all 10 validation rows have the label 'yes'")


def test_too_few_rows_to_carve_are_refused(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows[:2])
    refused(tmp_path, "2 training rows are too few to carve a validation split from")


def test_fewer_rows_than_classes_are_refused(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    refused(tmp_path, "1 training rows for 2 classes; expected at least one of each", train_rows=1)


def test_a_metric_of_the_other_kind_is_refused(tmp_path, write, rows):
    write(tmp_path / "a" / "train.jsonl", rows)
    refused(tmp_path / "a", "label holds 'yes', and the metric needs numbers", metric="pearson")
    for number, row in enumerate(rows):
        row["label"] = number / 4
    write(tmp_path / "b" / "train.jsonl", rows)
    refused(tmp_path / "b", "numbers with a fraction, and the metric needs classes", metric="accuracy")


def test_the_same_number_everywhere_is_no_regression(tmp_path, write, rows):
    for row in rows:
        row["label"] = 0.5
    write(tmp_path / "train.jsonl", rows)
    refused(tmp_path, r"all labels of train\.jsonl are 0\.5")


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("{", "meta.json cannot be read as JSON"),
        ("[]", "meta.json holds a list; expected a JSON object"),
        ('{"label_names": "yes"}', "label_names in .*meta.json is 'yes'; expected a list of names"),
        ('{"label_names": ["no", "no"]}', "names something twice"),
        ('{"metrics": [1]}', "metrics in .* expected a list of names"),
    ],
)
def test_a_bad_meta_file_is_said(meta, message, tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    (tmp_path / "meta.json").write_text(meta)
    refused(tmp_path, message)
