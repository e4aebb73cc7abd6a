"""Rows of images: which column holds them, and each as a path or as the bytes of its file. No pixels are read here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autopeft.errors import TaskError
from autopeft.tasks.columns import differing_column, first_known, rows_named
from autopeft.tasks.tables import IMAGE_SUFFIXES, Table

IMAGES = ("image", "img", "picture", "photo", "image_path", "file_name")


def find_image_column(table: Table, named: str | None) -> str | None:
    """The column of images: the named one, else one of a known name that holds images; None if there is none."""
    column = named if named in table.columns else first_known(IMAGES, table)
    if column is None or not len(table):
        return None
    value = table.columns[column][0]
    is_path = isinstance(value, str) and value.lower().endswith(IMAGE_SUFFIXES)
    return column if is_path or isinstance(value, bytes) or (isinstance(value, Mapping) and "bytes" in value) else None


def read_images(table: Table, column: str, folder: Path | None) -> tuple[tuple[str, ...], tuple[str | bytes, ...]]:
    """The name and the image of each row; paths become absolute.

    Args:
        table: The rows.
        column: Column of the images.
        folder: Where relative paths start.

    Raises:
        TaskError: If a row has no image, or a file is not there; with rows.
    """
    if column not in table.columns:
        raise differing_column(column, table)
    names, images, bad = [], [], []
    for row, value in enumerate(table.columns[column], 1):
        image = _image_of(value, folder)
        if image is None or (isinstance(image, str) and not Path(image).is_file()):
            bad.append(row)
            continue
        names.append(image if isinstance(image, str) else f"row {row}")
        images.append(image)
    if bad:
        got = table.columns[column][bad[0] - 1]
        raise TaskError(
            f"{rows_named(bad)} of {table.origin}: {column} is {got!r:.200}; expected the path of an image that is "
            f"there, or its bytes, in every row: correct the paths (relative ones start beside the data)"
        )
    return tuple(names), tuple(images)


def _image_of(value: object, folder: Path | None) -> str | bytes | None:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        return str((folder or Path.cwd()) / value)
    return value if isinstance(value, bytes) and value else None
