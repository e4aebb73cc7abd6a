"""Writes small data sets in each format."""

import csv
import json

import pytest

ROWS = [
    {"text": f"{word} number {number}", "label": label}
    for number in range(10)
    for word, label in (("good", "yes"), ("bad", "no"))
]


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


WRITERS = {
    "jsonl": write_jsonl,
    "json": lambda path, rows: path.write_text(json.dumps(rows)),
    "csv": write_csv,
    "tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "parquet": write_parquet,
}


@pytest.fixture
def write():
    """Writes rows into a file, in the format of its name."""

    def writer(path, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[path.suffix[1:]](path, rows)
        return path

    return writer


@pytest.fixture
def rows():
    """Twenty rows of two classes, written as names."""
    return [dict(row) for row in ROWS]
