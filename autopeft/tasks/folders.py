"""Folders without tables: plain text (``.txt`` files cut into blocks) and images (a folder for each class).

A block is ``BLOCK_CHARACTERS`` long and ends at a word; tokens are counted by nobody here. Pixels are not read: an
image is its path until a worker opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from autopeft.errors import TaskError
from autopeft.tasks.kinds import TaskKind
from autopeft.tasks.tables import IMAGE_SUFFIXES, SPLIT_NAMES, Source, Table

BLOCK_CHARACTERS = 1_000
"""About 250 tokens of English."""


def find_text_folder(folder: Path) -> Source | None:
    """The source in a folder of ``.txt`` files; None if it holds none.

    Files named train, validation or test are those splits; without one named train, every file that is neither
    validation nor test is training text.

    Raises:
        TaskError: If a file cannot be read.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".txt" and file.is_file())
    if not files:
        return None
    named = {split: [file for file in files if file.stem.lower() in names] for split, names in SPLIT_NAMES.items()}
    train = named["train"] or [file for file in files if file not in (*named["validation"], *named["test"])]
    if not train:
        raise TaskError(f"{folder} has no training text; expected a .txt file named train: rename a file")
    return _source(folder, train, named["validation"], named["test"], read_blocks)


def read_text_file(file: Path) -> Source:
    """The source in one ``.txt`` file of training text.

    Raises:
        TaskError: If it cannot be read.
    """
    return Source(file.stem, read_blocks(file.name, [file]), None, None, kind=TaskKind.CAUSAL_LM)


def find_image_folder(folder: Path) -> Source | None:
    """The source in a folder of images, ``[train|validation|test/]CLASS/IMAGE``; None if it is not one."""
    inner = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
    splits = {split: [inner[name] for name in names if name in inner] for split, names in SPLIT_NAMES.items()}
    roots = splits["train"] or [folder]
    if not any(_images_of(root) for root in roots):
        return None
    if not splits["train"]:
        return _source(folder, roots, [], [], read_classes)
    return _source(folder, roots, splits["validation"], splits["test"], read_classes)


def read_blocks(origin: str, files: list[Path]) -> Table:
    """The text of some files in blocks, as a table of the column ``text``.

    Raises:
        TaskError: If a file is not UTF-8, or all are empty.
    """
    blocks: list[object] = []
    for file in files:
        try:
            blocks.extend(_blocks(file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise TaskError(f"{file} cannot be read as text: {error}; expected UTF-8: convert the file") from error
    if not blocks:
        raise TaskError(f"{origin} holds no text; expected some in its .txt files: check how they were written")
    return Table(origin, {"text": blocks})


def read_classes(origin: str, roots: list[Path]) -> Table:
    """The images under ``root/CLASS`` as a table of the columns ``image`` (path) and ``label`` (name of the class)."""
    found = [pair for root in roots for pair in _images_of(root)]
    if not found:
        raise TaskError(f"{origin} holds no images; expected folders of {', '.join(IMAGE_SUFFIXES)}, one a class")
    return Table(origin, {"image": [str(image) for image, _ in found], "label": [name for _, name in found]})


def _source(
    folder: Path,
    train: list[Path],
    validation: list[Path],
    test: list[Path],
    read: Callable[[str, list[Path]], Table],
) -> Source:
    return Source(
        folder.name,
        read(folder.name, train),
        read(f"{folder.name}, validation", validation) if validation else None,
        partial(read, f"{folder.name}, test", test) if test else None,
        kind=TaskKind.CAUSAL_LM if read is read_blocks else TaskKind.IMAGE_CLASSIFICATION,
    )


def _blocks(text: str) -> Iterator[str]:
    """Pieces of at most ``BLOCK_CHARACTERS``, cut at white space where there is some."""
    start = 0
    while start < len(text):
        end = start + BLOCK_CHARACTERS
        if end < len(text):
            cut = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            end = cut + 1 if cut > start else end
        if block := text[start:end].strip():
            yield block
        start = end


def _images_of(root: Path) -> list[tuple[Path, str]]:
    return [
        (image, group.name)
        for group in sorted(root.iterdir())
        if group.is_dir()
        for image in sorted(group.iterdir())
        if image.suffix.lower() in IMAGE_SUFFIXES and image.is_file()
    ]
