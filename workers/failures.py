"""What went wrong in a trial, as a value: its kind, one line, and the traceback or last words.

What becomes of the trial is not decided here: the record does that, by the kind.
"""

from __future__ import annotations

import errno
import traceback

from autopeft import errors
from autopeft.errors import AutopeftError, DivergedError, OutOfMemoryError
from autopeft.store.blame import Failure

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_SIGNS = ("no space left on device", "os error 28", "disk quota exceeded", "file write failed")
"""A full disk is no OSError where another language writes: torch raises RuntimeError, safetensors its own."""

_GPU_SIGNS = ("cuda", "gpu", "hip ", "cublas")


class TrialFailure(Exception):  # noqa: N818 - a result of a trial, not an error of the worker
    """A trial that brought no measurement.

    Args:
        kind: Why.
        reason: In one line.
        trace: Traceback or last words; may be empty.
    """

    def __init__(self, kind: Failure, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.trace = trace


class Unusable(Exception):  # noqa: N818 - carries the error that ends the worker
    """What a whole study rests on (model, data, device) cannot be had here: no trial is to blame.

    Args:
        cause: What to end the worker with.
    """

    def __init__(self, cause: AutopeftError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def failure_of(error: Exception) -> TrialFailure:
    """The failure that ``error``, raised by a trial, amounts to."""
    reason = str(error) if isinstance(error, AutopeftError) else f"{type(error).__name__}: {error}"
    return TrialFailure(classify(error), reason, "".join(traceback.format_exception(error)))


def classify(error: BaseException) -> Failure:
    """The kind of failure that ``error`` is, by itself or by what caused it."""
    if isinstance(error, DivergedError):
        return Failure.DIVERGED
    text = str(error).lower()
    if isinstance(error, OutOfMemoryError | MemoryError):
        return Failure.GPU_MEMORY if any(sign in text for sign in _GPU_SIGNS) else Failure.HOST_MEMORY
    if isinstance(error, OSError) and error.errno in _FULL:
        return Failure.DISK
    if any(sign in text for sign in _FULL_SIGNS):
        return Failure.DISK
    return classify(error.__cause__) if error.__cause__ is not None else Failure.EXCEPTION


def named_error(name: str, message: str) -> AutopeftError:
    """The error of the tree with that class name: how an error comes through a pipe."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, AutopeftError):
        return kind(message)
    return errors.EvaluationError(message)
