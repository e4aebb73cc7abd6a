"""Tasks from the user's own files: a folder with a file a split, one file of training rows, plain text, or images.

A test file is known by its name and opened by nobody until ``Task.read_test``. Nothing is written beside the data.
"""

from __future__ import annotations

from pathlib import Path

from autopeft.errors import TaskError
from autopeft.tasks.folders import find_image_folder, find_text_folder, read_text_file
from autopeft.tasks.kinds import TaskKind
from autopeft.tasks.tables import FORMATS, SPLIT_NAMES, Source, Table, read_json, read_table

META_FILE = "meta.json"
_KNOWN = ", ".join(FORMATS)


def read_files(path: Path) -> Source:
    """The source at ``path``: a folder, or a single file of training rows.

    Raises:
        TaskError: If it is not there, not of a known format, or has no training rows.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == ".txt":
        return read_text_file(path)
    if path.suffix.lower() not in FORMATS:
        raise TaskError(f"{path} ends in {path.suffix or 'nothing'!r}; expected one of {_KNOWN}: convert the file")
    return Source(path.stem, read_table(path), None, None, folder=path.parent)


def _read_folder(folder: Path) -> Source:
    files = {split: file for split in SPLIT_NAMES if (file := _file_of(split, folder)) is not None}
    if "train" not in files:
        if (tableless := find_text_folder(folder) or find_image_folder(folder)) is not None:
            return tableless
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
        raise TaskError(
            f"{folder} has no training rows: it holds {found}; expected a file named train "
            f"({_KNOWN}), and if you have them validation and test: rename the files; or .txt files, or a folder of "
            f"images for each class"
        )
    _require_one_format(files, folder)
    label_names, metrics, kind = _read_meta(folder / META_FILE)
    validation, test = files.get("validation"), files.get("test")
    return Source(
        folder.name,
        read_table(files["train"]),
        read_table(validation) if validation else None,
        (lambda: _read_test(test)) if test else None,
        label_names,
        metrics,
        kind=kind,
        folder=folder,
    )


def _read_test(file: Path) -> Table:
    if not file.is_file():
        raise TaskError(f"{file} is gone; expected the test rows where they were: put the file back")
    return read_table(file)


def _file_of(split: str, folder: Path) -> Path | None:
    """The file of a split, by its name; it is not opened."""
    found = [
        entry
        for entry in sorted(folder.iterdir())
        if entry.stem.lower() in SPLIT_NAMES[split] and entry.suffix.lower() in FORMATS and entry.is_file()
    ]
    if len(found) > 1:
        names = " and ".join(entry.name for entry in found)
        raise TaskError(f"{folder} has {names} for {split}; expected one file a split: move the others away")
    return found[0] if found else None


def _require_one_format(files: dict[str, Path], folder: Path) -> None:
    if len({FORMATS[file.suffix.lower()] for file in files.values()}) > 1:
        names = ", ".join(file.name for file in files.values())
        raise TaskError(f"{folder} mixes file formats: {names}; expected the same format for all splits: convert them")


def _read_meta(file: Path) -> tuple[tuple[str, ...], tuple[str, ...], TaskKind | None]:
    """Label names, metrics and kind that a ``meta.json`` declares; a kind of another vocabulary is a remark."""
    if not file.is_file():
        return (), (), None
    document = read_json(file)
    label_names = _names(document.get("label_names", []), "label_names", file)
    known = next((kind for kind in TaskKind if kind == document.get("kind")), None)
    return label_names, _names(document.get("metrics", []), "metrics", file), known


def _names(value: object, key: str, file: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TaskError(f"{key} in {file} is {value!r}; expected a list of names: correct or remove it")
    if len(set(value)) < len(value):
        raise TaskError(f"{key} in {file} names something twice; expected each once: correct it")
    return tuple(value)
