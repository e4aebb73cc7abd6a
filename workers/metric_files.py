"""Runs a metric from the user's file: the very bytes that the study's hash is of, and nothing from the record."""

from __future__ import annotations

import importlib.abc
import importlib.util
import math
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autopeft.errors import EvaluationError, TaskError
from autopeft.tasks.grading import Grader, Grades
from autopeft.tasks.metric_files import MetricFile


class _Bytes(importlib.abc.SourceLoader):
    """A module of bytes that are at hand: nothing is read again, and nothing kept beside the file."""

    def __init__(self, path: str, content: bytes) -> None:
        self._path, self._content = path, content

    def get_filename(self, _fullname: str) -> str:
        """Where the bytes are from, for tracebacks."""
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        """The bytes."""
        if path != self._path:
            raise OSError(f"{path!r}: only {self._path} is read")
        return self._content


def grader_of(file: MetricFile) -> Grader:
    """The function in ``file`` as a grader, loaded now.

    Raises:
        TaskError: If the file is gone, has changed, or cannot be loaded.
    """
    loader = _Bytes(file.file, file.read())
    spec = importlib.util.spec_from_loader(f"autopeft_metric_{file.sha256[:12]}", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
        function = getattr(module, file.function)
    except Exception as error:
        raise TaskError(f"metric {file.file} cannot be loaded: {_cause(error)}; correct the file") from error
    return lambda said, references: _graded(file, function, said, references)


def _graded(file: MetricFile, function: Callable[..., Any], said: Sequence[str], references: Sequence[str]) -> Grades:
    """What the function makes of the texts: a grade a row, or one for all."""
    try:
        answer = function(list(said), list(references))
    except Exception as error:
        raise EvaluationError(f"metric {file.file}:{file.function} failed: {_cause(error)}") from error
    name = f"metric {file.file}:{file.function} returned"
    try:
        grades = np.atleast_1d(np.asarray(answer, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{name} {answer!r:.100}; expected a number, or one a row") from error
    if grades.ndim != 1 or len(grades) not in (1, len(said)):
        raise EvaluationError(f"{name} an array of shape {grades.shape}; expected one number, or {len(said)}")
    bad = [value for value in grades.tolist() if not (math.isfinite(value) and 0 <= value <= 1)]
    if bad:
        raise EvaluationError(f"{name} {bad[0]}; expected numbers from 0 to 1, higher is better")
    return grades


def _cause(error: Exception) -> str:
    """The error, and the line of the file that it is from."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} (line {frames[-1].lineno})" if frames else str(error)
