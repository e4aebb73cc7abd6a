"""Tasks: what a study trains on and is ranked by. No torch, no tokenizers: the command line checks a task with this."""

from autopeft.tasks.builtin import BUILTIN_TASKS
from autopeft.tasks.defaults import TrainingDefaults, training_defaults
from autopeft.tasks.loading import load_task
from autopeft.tasks.metrics import METRICS, Metric, score
from autopeft.tasks.task import Split, Task, TaskSpec

__all__ = [
    "BUILTIN_TASKS",
    "METRICS",
    "Metric",
    "Split",
    "Task",
    "TaskSpec",
    "TrainingDefaults",
    "load_task",
    "score",
    "training_defaults",
]
