"""What came out of a trial, and the keys of what it learned beside its values. No I/O, no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autopeft.errors import EvaluationError
from search_spaces.configuration import Configuration

EXECUTION = "execution"
"""Key in a measurement's details: ``layer`` (the lowest that may be trained), ``states`` (``fp32``, ``fp16`` or
``computed``: how what enters it was had), ``why`` it was computed, and ``threads`` of the CPU."""

ROUTING = "routing"
"""Key of a measurement's details: what MoLA's routers did."""

IMPORTANCE = "importance"
"""Key of a measurement's details: what an update schedule (IST) learned and saved. ``importance`` and ``updates`` a
layer (None where it has no adapter), ``probes``, ``parameters`` trained in all and ``active_parameters`` a step on
average, ``saved_bytes`` kept for a backward pass at most and ``saved_bytes_of_all`` without the schedule,
``held_out_rows`` with their ``split_sha256``, ``seed``."""

SELECTION = "selection"
"""Key of a measurement's details: which modules a trial (DiffoRA) chose. The fields of its selection, ``scores`` (the
gate of each module, by site, a value a layer) and ``by_layer`` their means, ``kept`` as (layer, site), ``margins``
between the last kept and the first dropped, ``parameters`` trained of ``supernet_parameters``, ``search_steps`` that
were made for ``paid_steps`` of the trial's, ``losses`` of the search, ``split_sha256``, ``seed``."""

TRUNCATION = "truncation"
"""Key of a measurement's details: which splits have rows that did not fit (``training``, ``validation``), each with
``rows`` (how many), ``of`` (in all), ``tokens`` lost and ``share`` of all tokens, in (0, 1). Of language models."""


def truncation_lines(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """For people, what the key ``truncation`` of a measurement's details holds."""
    return [
        f"{cut['rows']:,} of {cut['of']:,} {split} rows do not fit and lose their beginning: {cut['tokens']:,} tokens, "
        f"{cut['share'] * 100:.2g} % of all"
        for split, cut in found.items()
    ]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What came out of one trial at one rung with one seed; every number finite.

    Attributes:
        rung: Step of the fidelity ladder, 0 first.
        values: The metric, ``loss`` (validation), ``trainable_parameters``, ``train_seconds``, ``evaluate_seconds``.
        curve: (step, training loss) pairs.
        correct: Per validation row 1 or 0, in data order; empty for regression.
        artifact: Folder of the saved adapter and head, relative to the artifact root, or None; below the top rung it
            is a checkpoint, which holds the state of the training too.
        sha256: Hash of that folder's files, or None.
        details: What the trial learned beside its values, as plain JSON values, one key a technique: ``routing`` (what
            MoLA's routers did on the validation rows, see ``autopeft.adapters.watching``), ``training`` (from which
            step on the attempt trained, ``from_step``, and in how many forward passes a step was made,
            ``accumulation``, where that is not 0 or 1).
    """

    rung: int
    values: Mapping[str, float]
    curve: tuple[tuple[int, float], ...] = ()
    correct: tuple[int, ...] = ()
    artifact: str | None = None
    sha256: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses NaN and infinity, so that nothing below needs to care."""
        numbers = [*self.values.values(), *(loss for _, loss in self.curve)]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
            raise EvaluationError(f"measurement is not finite: {json.dumps(dict(self.values))}")
        try:
            json.dumps(dict(self.details), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise EvaluationError(f"details of a measurement: expected finite JSON values: {error}") from error


def as_trained(configuration: Configuration, details: Mapping[str, Any] | None) -> Configuration:
    """What a trial of ``configuration`` trained, by its measurement's details: itself, or the modules that it chose."""
    chosen = (details or {}).get(SELECTION)
    if configuration.training.selection is None or chosen is None:
        return configuration
    return configuration.keeping({(layer, site) for layer, site in chosen["kept"]})
