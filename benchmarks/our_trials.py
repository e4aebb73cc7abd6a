"""Trials as the worker trains them, timed part by part: in full, and on rungs with the search's own promotions.

``trials.py`` times them beside the ways of ``stock_trials.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from stock_trials import Clock


def loaded(study, folder: Path, clock: Clock):
    """Backbone and data on an empty cache in ``folder``; tokenising and loading apart."""
    import torch

    from autopeft.settings import CacheMode
    from workers import backbones

    os.environ["AUTOPEFT_CACHE_DIR"] = str(folder / "cache")
    encode = backbones.encode_split

    def timed(*given):
        clock.lap("load")
        rows = encode(*given)
        clock.lap("tokenise")
        return rows

    backbones.encode_split = timed
    try:
        resident = backbones.load_resident(study, torch.device("cpu"), CacheMode.FP32)
    finally:
        backbones.encode_split = encode
    clock.lap("load")
    return resident


def measured(order, resident, folder: Path, clock: Clock):
    """The worker's own evaluation; the first trial of a k pays for the states that the others read."""
    from search_spaces.cost import frozen_layer_count
    from workers.evaluate import evaluate, straight

    def advance(start, until: int) -> None:
        straight(start, until)
        clock.lap("train")

    clock.resume()
    resident.beginning_at(frozen_layer_count(order.configuration))
    clock.lap("cache fill")
    found = evaluate(order, resident, folder, advance=advance)
    clock.lap("evaluate")
    return found


def our_trial(study, configuration, resident, number: int, folder: Path) -> dict:
    """A trial in full."""
    from autopeft.study import Order

    clock = Clock()
    found = measured(Order(1, 1, number, study, configuration, 0, 0), resident, folder, clock)
    losses = [loss for _, loss in found.curve]
    return {"accuracy": found.values["accuracy"], "loss": found.values["loss"], "losses": losses, "parts": clock.parts}


@dataclass
class Rungs:
    """A search's trials on a ladder, one worker: what may go on goes on before the next one begins.

    Args:
        study: With its ladder.
        resident: Of the study.
        folder: For checkpoints.
    """

    study: object
    resident: object
    folder: Path
    trials: list = field(default_factory=list)
    spent: dict[int, Clock] = field(default_factory=dict)
    checkpoints: dict[int, tuple] = field(default_factory=dict)
    losses: dict[int, list[float]] = field(default_factory=dict)

    def start(self, configuration, *, last: bool) -> None:
        """Trains the next configuration to the first rung, then what its result promotes."""
        from autopeft.study import Origin, Trial, TrialState

        number = len(self.trials)
        state, origin = TrialState.QUEUED, Origin.MODEL
        fresh = Trial(number, configuration, configuration.digest, state, origin, None, 0, 0, 0, None, {}, None)
        self.trials.append(fresh)
        self._work(number)
        self._climb(more_to_come=not last)

    def _climb(self, *, more_to_come: bool) -> None:
        from autopeft.rungs import promotions

        while promoted := promotions(self.study, self.trials, more_to_come=more_to_come):
            self._work(promoted[0])

    def _work(self, number: int) -> None:
        from autopeft.study import Checkpoint, Order, TrialState

        trial = self.trials[number]
        clock = self.spent.setdefault(number, Clock())
        order = Order(1, trial.rung + 1, number, self.study, trial.configuration, 0, trial.rung)
        order = replace(order, checkpoints=self.checkpoints.get(number, ()))
        found = measured(order, self.resident, self.folder, clock)
        top = trial.rung == self.study.fidelity.top
        if not top:
            self.checkpoints[number] = (Checkpoint(trial.rung, found.artifact, found.sha256),)
        self.losses[number] = [loss for _, loss in found.curve]
        state = TrialState.COMPLETE if top else TrialState.PAUSED
        lower = {**trial.lower, trial.rung - 1: trial.values} if trial.rung else {}
        self.trials[number] = replace(trial, state=state, rung=trial.rung + 1, values=found.values, lower=lower)

    def found(self) -> Iterator[dict]:
        """Of each trial what ``our_trial`` tells, and how many rungs it has finished."""
        for trial in self.trials:
            values = {name: trial.values[name] for name in ("accuracy", "loss")}
            told = {"losses": self.losses[trial.number], "parts": self.spent[trial.number].parts}
            yield {**values, **told, "rungs": trial.rung}
