"""Tasks: what a study trains on and is ranked by. No torch, no tokenizers: the command line checks a task with this."""

from autopeft.tasks.builtin import BUILTIN_TASKS
from autopeft.tasks.defaults import TrainingDefaults, training_defaults
from autopeft.tasks.kinds import TaskKind
from autopeft.tasks.loading import load_task
from autopeft.tasks.metrics import EXACT_MATCH, LIKELIHOOD, METRICS, OPTION_ACCURACY, Metric, score
from autopeft.tasks.task import Split, Task, TaskSpec

__all__ = [
    "BUILTIN_TASKS",
    "EXACT_MATCH",
    "LIKELIHOOD",
    "METRICS",
    "Metric",
    "OPTION_ACCURACY",
    "Split",
    "Task",
    "TaskKind",
    "TaskSpec",
    "TrainingDefaults",
    "load_task",
    "score",
    "training_defaults",
]
