"""The task's training and validation rows as JSON lines, for other trainers; never the test rows.

A conversation becomes a row for each assistant turn that is learned: what its chat template writes before the turn, and
the turn. So any trainer of prompts and completions learns the same tokens after the same tokens. The begin and end
tokens that trainers set themselves are left to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autopeft.adapters.models import load_template
from autopeft.adapters.turns import ChatTemplate
from autopeft.errors import AutopeftError
from autopeft.export.trained import Trained
from autopeft.study import Study
from autopeft.tasks import Split, TaskSpec, load_task
from autopeft.tasks.templates import template_text

TRAIN_FILE, VALIDATION_FILE = "train.jsonl", "validation.jsonl"
TEMPLATE_FILE = "chat_template.jinja"


def write_rows(trained: Trained, folder: Path) -> bool:
    """Writes both splits; False, and nothing written, where the task cannot be read any more or holds images."""
    try:
        task = load_task(TaskSpec.from_json(trained.study.task))
    except AutopeftError:
        return False
    if task.train.images is not None:
        return False
    template = None if task.train.chats is None else load_template(trained.study.model, task.chat_template)
    for name, split in ((TRAIN_FILE, task.train), (VALIDATION_FILE, task.validation)):
        rows = _rows(split) if template is None else _turns(template, split)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
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


def write_template(study: Study, folder: Path) -> None:
    """Writes the chat template that the study was given, for whoever serves the adapter; nothing if it was given none.

    A tokenizer's own template is with the tokenizer.
    """
    if given := study.task.get("chat_template"):
        (folder / TEMPLATE_FILE).write_text(template_text(str(given)), encoding="utf-8")


def _turns(template: ChatTemplate, split: Split) -> Iterator[dict[str, Any]]:
    tokenizer = template.tokenizer
    begin, end = tokenizer.bos_token or "", tokenizer.eos_token or ""
    begins = bool(begin) and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    for turns in template.lay_out(split.chats or (), split.numbers):
        for start, stop in turns.spans:
            prompt = turns.text[:start].removeprefix(begin) if begins else turns.text[:start]
            yield {"prompt": prompt, "completion": turns.text[start:stop].removesuffix(end)}
