"""The story of one trial: adapters into the resident backbone, train, score, save, measure, adapters out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autopeft.adapters.head import Classifier
from autopeft.adapters.saving import artifact_sha256, save_adapter
from autopeft.study import PARAMETERS, Measurement, Order
from search_spaces.configuration import Configuration
from search_spaces.cost import trainable_parameters
from workers.backbones import Resident
from workers.batches import training_order
from workers.scoring import score_rows
from workers.seeds import initial_seed
from workers.training import BetweenSteps, go_on, memory_errors, train


def evaluate(order: Order, resident: Resident, artifacts: Path, between_steps: BetweenSteps = go_on) -> Measurement:
    """What comes of training ``order`` to its rung; the resident backbone is left as it was found.

    Args:
        order: Complete: nothing else is asked.
        resident: Of the order's study.
        artifacts: Root folder of artifacts.
        between_steps: Called after every step; what it raises ends the trial.

    Raises:
        DivergedError: If the loss is not finite.
        EvaluationError: If the trial cannot be trained.
    """
    study, configuration, classifier = order.study, order.configuration, resident.classifier
    seed = initial_seed(study.seed, order.replicate, configuration.digest)
    size = study.fidelity.batch_size
    rows = training_order(len(resident.train), size, study.fidelity.steps, study.seed, order.replicate)
    with memory_errors(), adapted(classifier, configuration, seed):
        started = time.perf_counter()
        curve = train(classifier, resident.train, rows, configuration.training.learning_rate, between_steps)
        trained = time.perf_counter()
        scored = score_rows(classifier, resident.validation, study.metric, between_steps)
        values = {
            study.metric: scored.value,
            "loss": scored.loss,
            PARAMETERS: trainable_parameters(configuration, study.backbone),
            "train_seconds": trained - started,
            "evaluate_seconds": time.perf_counter() - trained,
        }
        artifact = Path(study.name) / f"trial-{order.number}" / f"attempt-{order.attempt}"
        sha256 = save(classifier, configuration, artifacts / artifact)
    return Measurement(order.rung, values, tuple(curve), scored.correct, artifact.as_posix(), sha256)


@contextmanager
def adapted(classifier: Classifier, configuration: Configuration, seed: int) -> Iterator[None]:
    """Adapters in, and out again whatever happens."""
    try:
        classifier.adapt(configuration, seed)
        yield
    finally:
        classifier.strip()


def save(classifier: Classifier, configuration: Configuration, folder: Path) -> str:
    """Writes adapter, configuration and head; the SHA-256 over their names and contents comes back."""
    save_adapter(classifier.model, configuration, folder)
    classifier.save_head(folder)
    return artifact_sha256(folder)
