"""A final run on its way: checkpoints that a killed run goes on from, and figures for those who watch.

A checkpoint is whole before ``latest.json`` names it, and the one before goes only then.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path

from autopeft.adapters.head import Classifier
from autopeft.adapters.saving import write_whole
from autopeft.study import Checkpoint
from workers.checkpoints import write_checkpoint
from workers.evaluate import Start
from workers.tracking import Tracker

LATEST = "latest.json"

_log = logging.getLogger("autopeft.final")


class Journal:
    """Keeps one run.

    Args:
        classifier: That is trained.
        folder: Of its checkpoints.
        every: Steps between two.
        tracker: What is told of the losses.
        writes: Whether this process writes.
    """

    def __init__(self, classifier: Classifier, folder: Path, every: int, tracker: Tracker, *, writes: bool) -> None:
        self._classifier, self._folder, self._every = classifier, folder, every
        self._tracker, self._writes = tracker, writes

    def advance(self, start: Start, until: int) -> None:
        """Trains up to step ``until``, with a checkpoint every so many steps."""
        while start.run.step < until:
            told = len(start.run.curve)
            start.run.run(min(until, (start.run.step // self._every + 1) * self._every))
            for step, loss in start.run.curve[told:]:
                self._tracker.log({"train/loss": loss}, step)
            if self._writes and start.run.step < until:
                self._keep(start)

    def latest(self) -> tuple[Checkpoint, ...]:
        """The checkpoint to go on from, if there is one."""
        try:
            found = json.loads((self._folder / LATEST).read_text(encoding="utf-8"))
            return (Checkpoint(0, str((self._folder / found["path"]).absolute()), found["sha256"]),)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be read (%s); the run begins anew", self._folder / LATEST, error)
            return ()

    def _keep(self, start: Start) -> None:
        name = f"step-{start.run.step}"
        state = start.run.state(start.seconds(time.perf_counter()))
        sha256 = write_checkpoint(self._classifier, state, self._folder / name)
        write_whole(self._folder / LATEST, json.dumps({"path": name, "sha256": sha256}).encode())
        for other in self._folder.glob("step-*"):
            if other.name != name:
                shutil.rmtree(other, ignore_errors=True)
