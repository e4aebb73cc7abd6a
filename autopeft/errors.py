"""The error tree, drawn whole; the lowest errors live in ``search_spaces.errors`` and are re-exported here.

::

    AutopeftError
    ├── ConfigurationError   exit 2
    ├── BudgetError          exit 5
    ├── BackboneError        exit 2
    ├── TaskError            exit 2
    ├── StoreError           exit 1
    │   ├── NotFoundError    exit 3
    │   ├── SchemaError      exit 4
    │   ├── StudyDrivenError exit 1
    │   └── LeaseLostError   exit 1
    ├── EvaluationError      exit 1
    │   ├── OutOfMemoryError exit 1
    │   └── DivergedError    exit 1
    └── ExportError          exit 6
        └── LossyExportError exit 6
"""

from search_spaces.errors import AutopeftError, BackboneError, BudgetError, ConfigurationError

__all__ = [
    "AutopeftError",
    "BackboneError",
    "BudgetError",
    "ConfigurationError",
    "DivergedError",
    "EvaluationError",
    "ExportError",
    "LeaseLostError",
    "LossyExportError",
    "NotFoundError",
    "OutOfMemoryError",
    "SchemaError",
    "StoreError",
    "StudyDrivenError",
    "TaskError",
]


class TaskError(AutopeftError):
    """A task or its data cannot be used."""

    exit_code = 2


class StoreError(AutopeftError):
    """The record cannot be read or written (locked, away, full)."""


class NotFoundError(StoreError):
    """A study, trial or path does not exist."""

    exit_code = 3


class SchemaError(StoreError):
    """The database is of another revision than this version of autopeft."""

    exit_code = 4


class LeaseLostError(StoreError):
    """The trial is no longer this worker's: stop, and report nothing."""


class StudyDrivenError(StoreError):
    """Another driver holds the study.

    Attributes:
        owner: That driver, as ``host:process``.
    """

    def __init__(self, message: str, owner: str) -> None:
        super().__init__(message)
        self.owner = owner


class EvaluationError(AutopeftError):
    """A trial could not be trained or scored."""


class OutOfMemoryError(EvaluationError):
    """The host or the device has too little memory for this trial."""


class DivergedError(EvaluationError):
    """The loss is not finite: a result of the configuration, not a fault."""


class ExportError(AutopeftError):
    """A trial cannot be exported, or an export did not pass its own verification."""

    exit_code = 6


class LossyExportError(ExportError):
    """The target cannot hold the configuration; the message names what would be lost."""
