"""Tasks from ``datasets``: ``hf:NAME[/CONFIG]`` through its cache and the hub, or a folder that it saved.

GLUE and SuperGLUE are known by their columns and metrics (text and text-pair classification, and STS-B); their parts
that are no classification of a text or a pair (COPA, MultiRC, ReCoRD, WSC) are refused. Whether the hub may be asked
is decided by HF_HUB_OFFLINE, as everywhere in that library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autopeft.errors import TaskError
from autopeft.tasks.tables import Source, Table, quiet_datasets, read_json, table_of

VALIDATION_NAMES = ("validation", "valid", "val", "dev")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What is known of a public task: columns, metric, and splits where their names differ."""

    text: str
    text_pair: str | None = None
    metric: str = "accuracy"
    validation: str = "validation"
    test: str = "test"

    @property
    def columns(self) -> dict[str, str]:
        """Column of each role that the task has."""
        return {"text": self.text, "label": "label"} | ({"text_pair": self.text_pair} if self.text_pair else {})


GLUE: Mapping[str, Benchmark] = MappingProxyType(
    {
        "cola": Benchmark("sentence", metric="matthews"),
        "sst2": Benchmark("sentence"),
        "mrpc": Benchmark("sentence1", "sentence2", metric="f1"),
        "qqp": Benchmark("question1", "question2", metric="f1"),
        "stsb": Benchmark("sentence1", "sentence2", metric="pearson_spearman"),
        "mnli": Benchmark("premise", "hypothesis", validation="validation_matched", test="test_matched"),
        "qnli": Benchmark("question", "sentence"),
        "rte": Benchmark("sentence1", "sentence2"),
        "wnli": Benchmark("sentence1", "sentence2"),
    }
)
SUPER_GLUE: Mapping[str, Benchmark] = MappingProxyType(
    {
        "boolq": Benchmark("question", "passage"),
        "cb": Benchmark("premise", "hypothesis", metric="macro_f1"),
        "rte": Benchmark("premise", "hypothesis"),
        "wic": Benchmark("sentence1", "sentence2"),
    }
)
_COLLECTIONS: Mapping[str, Mapping[str, Benchmark]] = MappingProxyType({"glue": GLUE, "super_glue": SUPER_GLUE})
_OWNERS: Mapping[str, str] = MappingProxyType({"glue": "nyu-mll/glue", "super_glue": "aps/super_glue"})


def read_hub(name: str) -> Source:
    """The source behind ``hf:NAME[/CONFIG]``: from the cache of the library, or from the hub.

    Raises:
        TaskError: If it cannot be had, has no training split, or is not a classification of texts or pairs.
    """
    parts = tuple(part for part in name.split("/") if part)
    if not 1 <= len(parts) <= 3:
        raise TaskError(f"the task is hf:{name}; expected hf:NAME or hf:NAME/CONFIG, for example hf:glue/sst2")
    benchmark = find_benchmark(parts)
    builder = _find_builder(name, parts)
    splits = tuple(builder.info.splits or ())
    return _source(parts, benchmark, splits, lambda split: _read_prepared(builder, name, split))


def read_saved(folder: Path) -> Source:
    """The source in a folder that ``save_to_disk`` wrote; one that ends in glue/sst2 is known as that task.

    Raises:
        TaskError: If it cannot be read, or has no training split.
    """
    known = len(folder.parts) > 1 and folder.name in _COLLECTIONS.get(folder.parts[-2], {})
    benchmark = find_benchmark(folder.parts) if known else None
    return _source(folder.parts, benchmark, _saved_splits(folder), lambda split: _read_split(folder, split))


def is_saved(folder: Path) -> bool:
    """Whether ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def find_benchmark(parts: Sequence[str]) -> Benchmark | None:
    """What is known of a task by the end of its name, such as (…, glue, sst2); None if nothing is.

    Raises:
        TaskError: If the collection is known and has no such text or pair classification.
    """
    if not parts:
        return None
    collection = parts[-2] if len(parts) > 1 else ""
    if collection not in _COLLECTIONS:
        if parts[-1] in _OWNERS:
            raise _no_such_part("nothing", parts[-1])
        return None
    if parts[-1] not in _COLLECTIONS[collection]:
        raise _no_such_part(repr(parts[-1]), collection)
    return _COLLECTIONS[collection][parts[-1]]


def _source(
    parts: Sequence[str], benchmark: Benchmark | None, splits: Sequence[str], read: Callable[[str], Table]
) -> Source:
    if "train" not in splits:
        found = ", ".join(splits) or "none"
        raise TaskError(f"{'/'.join(parts[-3:])} has the splits {found}; expected one named train: rename the split")
    wanted = (benchmark.validation,) if benchmark else VALIDATION_NAMES
    validation = next((split for split in wanted if split in splits), None)
    test = benchmark.test if benchmark else "test"
    return Source(
        "-".join(parts[-2:] if benchmark else parts[-1:]),
        read("train"),
        read(validation) if validation else None,
        (lambda: read(test)) if test in splits else None,
        metrics=(benchmark.metric,) if benchmark else (),
        columns=benchmark.columns if benchmark else {},
    )


def _saved_splits(folder: Path) -> tuple[str, ...]:
    """Splits of a saved folder by its index; no rows are opened. A single saved data set is training rows."""
    index = folder / "dataset_dict.json"
    if not index.is_file():
        return ("train",)
    splits = read_json(index).get("splits")
    if not isinstance(splits, list):
        raise TaskError(f"{index} lists no splits; expected what DatasetDict.save_to_disk writes: save it again")
    return tuple(str(split) for split in splits)


def _read_split(folder: Path, split: str) -> Table:
    path = folder / split if (folder / "dataset_dict.json").is_file() else folder
    if (path / "state.json").is_file() and read_json(path / "state.json").get("_data_files") == []:
        return Table(split, {})  # saved without rows, which the library writes and cannot read
    with quiet_datasets() as datasets:
        try:
            return table_of(datasets.Dataset.load_from_disk(str(path)), split)
        except Exception as error:
            raise TaskError(
                f"{path} cannot be read: {error}; expected what save_to_disk writes: save it again"
            ) from error


def _find_builder(name: str, parts: Sequence[str]) -> Any:
    """The prepared builder of the first reading of the name that the library knows."""
    reasons = []
    with quiet_datasets() as datasets:
        for repository, config in _readings(parts):
            try:
                builder = datasets.load_dataset_builder(repository, config)
                builder.download_and_prepare()
                return builder
            except Exception as error:
                reasons.append(f"{repository}{f' ({config})' if config else ''}: {_short(error)}")
    raise TaskError(
        f"hf:{name} cannot be had ({'; '.join(reasons)}); expected it in the cache of the datasets library or, "
        f"without HF_HUB_OFFLINE, on the hub: load it once where there is a network, or save it there with "
        f"save_to_disk, copy the folder here and give its path: hf:/path/to/{'/'.join(parts[-2:])}"
    )


def _read_prepared(builder: Any, name: str, split: str) -> Table:
    with quiet_datasets():
        try:
            return table_of(builder.as_dataset(split=split), split)
        except Exception as error:
            raise TaskError(
                f"split {split} of hf:{name} cannot be read: {_short(error)}; "
                f"expected it to load with the datasets library: try it there, and clear its cache"
            ) from error


def _readings(parts: Sequence[str]) -> list[tuple[str, str | None]]:
    """Ways to read a name as (repository, configuration), the likelier first."""
    if len(parts) == 1:
        return [(parts[0], None)]
    if len(parts) == 3:
        return [(f"{parts[0]}/{parts[1]}", parts[2])]
    if parts[0] in _OWNERS:
        return [(_OWNERS[parts[0]], parts[1]), (parts[0], parts[1])]
    return [(f"{parts[0]}/{parts[1]}", None), (parts[0], parts[1])]


def _no_such_part(got: str, collection: str) -> TaskError:
    known = ", ".join(_COLLECTIONS[collection])
    return TaskError(
        f"of {collection}, {got} was asked for; expected a part that classifies texts or pairs: "
        f"hf:{collection}/ and one of {known}"
    )


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
