"""The task's training and validation rows as JSON lines, for other trainers; never the test rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autopeft.errors import AutopeftError
from autopeft.export.trained import Trained
from autopeft.tasks import Split, TaskSpec, load_task

TRAIN_FILE, VALIDATION_FILE = "train.jsonl", "validation.jsonl"


def write_rows(trained: Trained, folder: Path) -> bool:
    """Writes both splits; False, and nothing written, where the task cannot be read any more or holds images."""
    try:
        task = load_task(TaskSpec.from_json(trained.study.task))
    except AutopeftError:
        return False
    if task.train.images is not None:
        return False
    for name, split in ((TRAIN_FILE, task.train), (VALIDATION_FILE, task.validation)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(split))
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return True


def _rows(split: Split) -> Iterator[dict[str, Any]]:
    for index, text in enumerate(split.texts):
        if split.answers is not None:
            yield {"prompt": text, "completion": split.answers[index]}
            continue
        row: dict[str, Any] = {"text": text, "label": split.labels[index]}
        if split.pairs is not None:
            row["pair"] = split.pairs[index]
        yield row
