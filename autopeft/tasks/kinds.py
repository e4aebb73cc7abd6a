"""The kinds of task: what a row is, and what a model is asked to make of it. A name each, no behaviour."""

from __future__ import annotations

from enum import StrEnum


class TaskKind(StrEnum):
    """What is learned; ``meta.json`` may name one under ``kind``."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    CAUSAL_LM = "causal-lm"
    IMAGE_CLASSIFICATION = "image-classification"
