"""Tasks of the datasets library: what is known by name, saved folders, and what is said when there is no network."""

import json

import pytest

from autopeft.errors import TaskError
from autopeft.tasks import METRICS, TaskSpec, load_task
from autopeft.tasks.hub import GLUE, SUPER_GLUE, find_benchmark


@pytest.fixture
def save(tmp_path):
    """Saves splits of (text, pair, label) rows under the columns of a benchmark."""
    import datasets

    def saver(collection, name, benchmark, splits, labels=("no", "yes")):
        target = datasets.Value("float32") if labels is None else datasets.ClassLabel(names=list(labels))
        columns = [benchmark.text, *([benchmark.text_pair] if benchmark.text_pair else [])]
        features = datasets.Features({column: datasets.Value("string") for column in columns} | {"label": target})
        parts = {
            split: datasets.Dataset.from_dict(
                {column: [f"{column} {row}" for row in range(len(given))] for column in columns} | {"label": given},
                features=features,
            )
            for split, given in splits.items()
        }
        folder = tmp_path / collection / name
        datasets.disable_progress_bars()
        datasets.DatasetDict(parts).save_to_disk(str(folder))
        return folder

    return saver


BENCHMARKS = [("glue", *entry) for entry in GLUE.items()] + [("super_glue", *entry) for entry in SUPER_GLUE.items()]


@pytest.mark.parametrize(("collection", "name", "benchmark"), BENCHMARKS)
def test_every_benchmark_maps_to_its_columns_and_metric(collection, name, benchmark, save):
    regression = METRICS[benchmark.metric].is_regression
    labels = [0.5, 4.0, 2.5, 1.0] if regression else [0, 1, 1, 0]
    hidden = [-1.0] * 2 if regression else [-1] * 2
    splits = {"train": labels, benchmark.validation: labels, benchmark.test: hidden}
    folder = save(collection, name, benchmark, splits, None if regression else ("no", "yes"))
    task = load_task(TaskSpec(f"hf:{folder}"))
    assert task.metric == benchmark.metric
    assert task.name == f"{collection}-{name}"
    assert task.train.texts[0] == f"{benchmark.text} 0"
    assert task.train.pairs == (benchmark.text_pair and tuple(f"{benchmark.text_pair} {row}" for row in range(4)))
    assert task.label_names == (() if regression else ("no", "yes"))
    assert len(task.validation) == 4
    with pytest.raises(TaskError, match=r"have no labels \(they are held back"):
        task.read_test()


def test_the_matched_part_of_mnli_is_validation(save):
    splits = {
        "train": [0, 1, 2] * 2,
        "validation_matched": [0, 1, 2],
        "validation_mismatched": [0, 0, 0],
        "test_matched": [0, 1],
    }
    folder = save("glue", "mnli", GLUE["mnli"], splits, ("entailment", "neutral", "contradiction"))
    task = load_task(TaskSpec(str(folder)))
    assert task.validation.labels == (0, 1, 2)
    assert task.read_test().labels == (0, 1)


def test_a_saved_folder_of_any_name_is_read_by_column_names(save):
    folder = save("own", "reviews", GLUE["sst2"], {"train": [0, 1] * 10, "test": [1, 0]})
    task = load_task(TaskSpec(f"hf:{folder}"))
    assert (task.name, task.metric, len(task.validation)) == ("reviews", "accuracy", 2)
    assert task.spec.source == str(folder)
    assert task.read_test().labels == (1, 0)


def test_a_poisoned_saved_test_split_is_not_opened(save):
    folder = save("own", "reviews", GLUE["sst2"], {"train": [0, 1] * 10, "test": [1, 0]})
    for file in (folder / "test").iterdir():
        file.write_bytes(b"\x00")
    task = load_task(TaskSpec(f"hf:{folder}"))
    with pytest.raises(TaskError, match="cannot be read"):
        task.read_test()


def test_a_single_saved_data_set_is_training_rows(tmp_path):
    import datasets

    datasets.disable_progress_bars()
    rows = {"text": [f"row {row}" for row in range(20)], "label": ["a", "b"] * 10}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "all"))
    task = load_task(TaskSpec(str(tmp_path / "all")))
    assert (len(task.train), len(task.validation), task.label_names) == (18, 2, ("a", "b"))


def test_a_saved_folder_without_train_lists_its_splits(save):
    folder = save("own", "reviews", GLUE["sst2"], {"test": [0, 1]})
    with pytest.raises(TaskError, match="own/reviews has the splits test; expected one named train"):
        load_task(TaskSpec(str(folder)))


@pytest.mark.parametrize("empty", ["train", "validation"])
def test_a_saved_split_without_rows_is_said(empty, save):
    folder = save("own", "reviews", GLUE["sst2"], {"train": [0, 1], "validation": [0, 1]} | {empty: []})
    with pytest.raises(TaskError, match=f"{empty} holds no rows"):
        load_task(TaskSpec(str(folder)))


def test_hf_with_a_plain_folder_reads_its_files(tmp_path, write, rows):
    write(tmp_path / "train.jsonl", rows)
    assert len(load_task(TaskSpec(f"hf:{tmp_path}")).train) == 18


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the datasets library."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def fill(cache, repository, config, rows):
    """Puts a data set into the cache, as if it had been loaded from the hub once."""
    import datasets

    datasets.disable_progress_bars()
    source = cache.parent / "source"
    source.mkdir()
    for split in ("train", "validation"):
        datasets.Dataset.from_dict(rows).to_parquet(source / f"{split}.parquet")
    files = {split: str(source / f"{split}.parquet") for split in ("train", "validation")}
    datasets.load_dataset("parquet", data_files=files, cache_dir=str(source))
    made = next(source.rglob("dataset_info.json")).parent
    prepared = cache / repository.replace("/", "___") / config / "0.0.0" / ("0" * 40)
    prepared.parent.mkdir(parents=True)
    made.rename(prepared)
    name = repository.split("/")[-1]
    for file in list(prepared.glob("parquet-*.arrow")):
        file.rename(prepared / file.name.replace("parquet-", f"{name}-"))
    described = json.loads((prepared / "dataset_info.json").read_text())
    described |= {"dataset_name": name, "config_name": config}
    (prepared / "dataset_info.json").write_text(json.dumps(described))


@pytest.mark.parametrize("name", ["glue/sst2", "nyu-mll/glue/sst2"])
def test_offline_the_cache_of_the_library_is_used(name, cache, capfd):
    fill(cache, "nyu-mll/glue", "sst2", {"sentence": [f"row {row}" for row in range(8)], "label": [0, 1] * 4})
    capfd.readouterr()
    task = load_task(TaskSpec(f"hf:{name}"))
    assert (task.name, len(task.train), len(task.validation)) == ("glue-sst2", 8, 8)
    assert capfd.readouterr() == ("", "")


def test_without_network_the_message_says_how_to_bring_a_local_copy(cache, capfd):
    with pytest.raises(TaskError, match=r"hf:glue/sst2 cannot be had \(nyu-mll/glue \(sst2\): ") as caught:
        load_task(TaskSpec("hf:glue/sst2"))
    assert "save_to_disk, copy the folder here and give its path: hf:/path/to/glue/sst2" in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:glue", "of glue, nothing was asked for; expected a part .* hf:glue/ and one of cola, sst2"),
        ("hf:super_glue/copa", "of super_glue, 'copa' was asked for; .* one of boolq, cb, rte, wic"),
        ("hf:", "expected hf:NAME or hf:NAME/CONFIG"),
        ("hf:a/b/c/d", "expected hf:NAME or hf:NAME/CONFIG"),
    ],
)
def test_names_that_mean_nothing_are_refused_before_any_network(name, message):
    with pytest.raises(TaskError, match=message):
        load_task(TaskSpec(name))


def test_a_benchmark_is_known_with_and_without_its_owner():
    assert find_benchmark(("glue", "qnli")) is find_benchmark(("nyu-mll", "glue", "qnli")) is GLUE["qnli"]
    assert find_benchmark(("imdb",)) is None
