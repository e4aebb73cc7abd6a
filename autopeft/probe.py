"""What a probe learned of where adapters matter: a value, with all that it rests on. No I/O, no torch.

A probe is a short training of its own, in no study: ``importance`` (IST) scores layers, ``selection`` (DiffoRA) scores
modules. Its scores may guide a search as a prior (``autopeft.priors``); neighbours swap from seed to seed, so they are
no truth.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from autopeft.errors import ConfigurationError

SCHEMA = "autopeft.probe/1"
LAYER = "layer"
"""Key of scores that belong to whole layers."""


class ProbeKind(StrEnum):
    """What is scored, and how."""

    IMPORTANCE = "importance"
    SELECTION = "selection"


@dataclass(frozen=True, slots=True)
class Probe:
    """Scores and their origin.

    Attributes:
        name: Unique in a database.
        kind: What is scored.
        model: Name of the backbone.
        model_sha256: Hash of its weights.
        task: Name of the task.
        data_sha256: Hash of its rows.
        configuration: What was trained (``Configuration.to_json``).
        settings: How: steps, batch size, and the fields of the schedule or the selection.
        seed: Of rows held out, order of rows and starting values.
        repeats: Runs that the scores are the mean of.
        split_sha256: Hash of the numbers of the rows held out.
        scores: A value a layer, lowest first, None where nothing stood: by site, or under ``LAYER``.
        details: What else the runs said.
    """

    name: str
    kind: ProbeKind
    model: str
    model_sha256: str
    task: str
    data_sha256: str
    configuration: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    repeats: int
    split_sha256: str
    scores: Mapping[str, Sequence[float | None]]
    details: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuses scores that are none."""
        require_scores(self.scores)

    @property
    def layer_count(self) -> int:
        """Layers that the scores are for."""
        return len(next(iter(self.scores.values())))

    @property
    def sha256(self) -> str:
        """Of the canonical JSON, in hexadecimal."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        scores = {site: list(row) for site, row in self.scores.items()}
        return {"schema": SCHEMA, **values, "kind": self.kind.value, "scores": scores}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Probe:
        """The probe that ``to_json`` wrote.

        Raises:
            ConfigurationError: If it is of another schema, or a field is missing or unknown.
        """
        if data.get("schema") != SCHEMA:
            raise ConfigurationError(f"probe schema {data.get('schema')!r}: this version reads {SCHEMA!r}")
        try:
            return cls(**{**{k: v for k, v in data.items() if k != "schema"}, "kind": ProbeKind(data["kind"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"probe cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Guide:
    """Scores that guide a search, and where they are from.

    Attributes:
        name: Of a probe or a file.
        sha256: Of its content.
        scores: As of a probe; larger for what is likelier to be worth adapting.
    """

    name: str
    sha256: str
    scores: Mapping[str, Sequence[float | None]]

    def __post_init__(self) -> None:
        """Refuses scores that are none."""
        require_scores(self.scores)

    @property
    def layer_count(self) -> int:
        """Layers that the scores are for."""
        return len(next(iter(self.scores.values())))

    def to_json(self) -> dict[str, Any]:
        """Plain values, which are its fields."""
        return {"name": self.name, "sha256": self.sha256, "scores": {k: list(v) for k, v in self.scores.items()}}


def require_scores(scores: Any) -> None:
    """Nothing, if ``scores`` are lists of numbers by site, all of one length, with at least one number.

    Raises:
        ConfigurationError: If not.
    """
    expected = 'expected lists of a number (or null) a layer, by site or under "layer"'
    if not isinstance(scores, Mapping) or not scores:
        raise ConfigurationError(f"scores: {expected}, got {type(scores).__name__}")
    lengths = set()
    for site, row in scores.items():
        if not isinstance(row, Sequence) or isinstance(row, str):
            raise ConfigurationError(f"scores of {site}: {expected}, got {type(row).__name__}")
        wrong = [value for value in row if value is not None and not _is_number(value)]
        if wrong:
            raise ConfigurationError(f"scores of {site}: {expected}, got {wrong[0]!r}")
        lengths.add(len(row))
    if len(lengths) != 1:
        raise ConfigurationError(f"scores: lists of {sorted(lengths)} values; expected one value a layer in each")
    if not any(value is not None for row in scores.values() for value in row):
        raise ConfigurationError("scores: no value at all; expected at least one")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
