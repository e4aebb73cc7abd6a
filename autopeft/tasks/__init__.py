"""Tasks: what a study trains on and is ranked by. No torch, no tokenizers: the command line checks a task with this."""

from autopeft.tasks.builtin import BUILTIN_TASKS
from autopeft.tasks.defaults import TrainingDefaults, training_defaults
from autopeft.tasks.grading import GRADERS, Grader
from autopeft.tasks.kinds import TaskKind
from autopeft.tasks.loading import load_task, split_sha256
from autopeft.tasks.metrics import (
    EXACT_MATCH,
    LIKELIHOOD,
    METRICS,
    NUMBER,
    OPTION_ACCURACY,
    TOKEN_F1,
    Metric,
    is_causal,
    score,
)
from autopeft.tasks.task import Split, Task, TaskSpec

__all__ = [
    "BUILTIN_TASKS",
    "EXACT_MATCH",
    "GRADERS",
    "Grader",
    "LIKELIHOOD",
    "METRICS",
    "Metric",
    "NUMBER",
    "OPTION_ACCURACY",
    "Split",
    "TOKEN_F1",
    "Task",
    "TaskKind",
    "TaskSpec",
    "TrainingDefaults",
    "is_causal",
    "load_task",
    "score",
    "split_sha256",
    "training_defaults",
]
