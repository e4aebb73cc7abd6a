"""Watching a final training with TensorBoard, MLflow or Weights & Biases, through the trackers of accelerate.

Everything stays in the output folder unless the tracker's own environment variables say otherwise
(``MLFLOW_TRACKING_URI``; ``WANDB_MODE``, without which W&B is offline).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from autopeft.trackers import require_tracker


class Tracker(Protocol):
    """Is told figures of one run."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Notes figures at a step."""
        ...

    def close(self) -> None:
        """Writes what is not yet written."""
        ...


class Untold:
    """Tells nobody."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


UNTOLD = Untold()


class _Told:
    """One of accelerate's trackers."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._tracker.log(dict(values), step=step)

    def close(self) -> None:
        self._tracker.finish()


def open_tracker(name: str | None, folder: Path, project: str, run: str, facts: Mapping[str, Any]) -> Tracker:
    """The tracker of one run, started and told what it is of.

    Args:
        name: One of ``autopeft.trackers.TRACKERS``, or None for nobody.
        folder: Where it writes.
        project: Name of what the runs belong to.
        run: Name of the run.
        facts: What is trained, as plain values.

    Raises:
        ConfigurationError: If the package is not installed.
    """
    require_tracker(name)
    if name is None:
        return UNTOLD
    from accelerate import PartialState
    from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker

    PartialState()
    folder.mkdir(parents=True, exist_ok=True)
    tracker: Any
    if name == "tensorboard":
        tracker = TensorBoardTracker(run, logging_dir=folder)
    elif name == "mlflow":
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        tracker = MLflowTracker(experiment_name=project, run_name=run)
    else:
        os.environ.setdefault("WANDB_MODE", "offline")
        tracker = WandBTracker(project, name=run, dir=str(folder))
    tracker.start()
    tracker.store_init_configuration(dict(facts))
    return _Told(tracker)
