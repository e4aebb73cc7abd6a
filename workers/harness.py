"""A trained language model on tasks of lm-evaluation-harness, whose extra is ``lm-eval``.

The model is handed over as it stands, with its adapters in it, prefixes too. What a task's data need (a network, the
cache of ``datasets``) is the harness's affair, and so is what its figures mean; they judge, and choose nothing.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autopeft.adapters.head import Classifier
from autopeft.adapters.models import load_tokenizer
from autopeft.errors import ConfigurationError, EvaluationError, TaskError
from autopeft.study import Study
from autopeft.tasks import Task, is_causal
from workers.training import precision

PACKAGE, EXTRA = "lm_eval", "autopeft[lm-eval]"
BATCH = 8


def require_harness(tasks: Sequence[str], metric: str) -> None:
    """Nothing, if the harness is installed, has these tasks and takes such a model; before a training is lost.

    Args:
        tasks: Names of tasks, groups or tags, or YAML files of tasks.
        metric: Of the study.

    Raises:
        ConfigurationError: If it is not installed.
        TaskError: If it has no such task, or the study is not of a language model.
    """
    if not is_causal(metric):
        raise TaskError(f"lm-eval needs a language model, and {metric} ranks another kind of task; leave --lm-eval out")
    if importlib.util.find_spec(PACKAGE) is None:
        raise ConfigurationError(f"lm-eval {', '.join(tasks)}: the package is not here; pip install '{EXTRA}'")
    with _quiet():
        manager = _manager()
        unknown = [task for task in tasks if not Path(task).is_file() and not manager.match_tasks([task])]
    if unknown:
        raise TaskError(
            f"lm-eval has no task {', '.join(unknown)}; expected names that `lm-eval ls tasks` lists, or YAML files"
        )


def harness_scores(
    study: Study, task: Task, classifier: Classifier, asked: Sequence[str], limit: int | None = None
) -> dict[str, Any]:
    """What the harness measures, as plain JSON: ``version``, ``limit`` and ``tasks``, each with metrics and errors.

    Prompts are laid out by the chat template where the study learned conversations, else as a task writes them.

    Args:
        study: Names the tokenizer.
        task: What the study learned.
        classifier: A language model, with its adapters in.
        asked: As for ``require_harness``.
        limit: Most rows of a task; None: all.

    Raises:
        EvaluationError: If the harness fails, say because a data set cannot be had.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    tokenizer, as_chat = load_tokenizer(study.model), task.train.chats is not None
    if task.chat_template is not None:
        tokenizer.chat_template = task.chat_template
    with _quiet(), precision(classifier):
        try:
            model = HFLM(
                pretrained=classifier.model,
                tokenizer=tokenizer,
                backend="causal",
                batch_size=BATCH,
            )
            found = simple_evaluate(
                model=model,
                tasks=list(asked),
                limit=limit,
                log_samples=False,
                task_manager=_manager(),
                apply_chat_template=as_chat,
            )
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EvaluationError(f"lm-eval {', '.join(asked)}: {type(error).__name__}: {reason[:300]}") from error
    scores = {name: dict(_numbers(values)) for name, values in found["results"].items()}
    return {"version": version(PACKAGE), "limit": limit, "tasks": scores}


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """A task's metrics (``name,filter``) that are finite, by the harness's names without that of an idle filter."""
    for name, value in values.items():
        if "," in name and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name.removesuffix(",none"), float(value)


@cache
def _manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the harness's notices out of the log."""
    import logging

    log = logging.getLogger(PACKAGE)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
