"""The story of one trial: adapters into the resident backbone, train, score, save, measure, adapters out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from autopeft.adapters.calibration import TrainingRows
from autopeft.adapters.head import Classifier
from autopeft.adapters.saving import artifact_sha256, save_adapter
from autopeft.study import PARAMETERS, Measurement, Order
from search_spaces.configuration import Configuration
from search_spaces.cost import trainable_parameters
from workers.backbones import Resident
from workers.batches import Rows, TaskRows, training_order
from workers.memory import MemoryMeter
from workers.scoring import score_rows
from workers.seeds import initial_seed
from workers.training import BetweenSteps, go_on, loss_of, memory_errors, precision, train

INFERENCE_SECONDS, PEAK_MEMORY = "inference_seconds", "peak_memory_bytes"
CALIBRATION_STEPS = 8
LABELS = "labels"


def evaluate(order: Order, resident: Resident, artifacts: Path, between_steps: BetweenSteps = go_on) -> Measurement:
    """What comes of training ``order`` to its rung; the resident backbone is left as it was found.

    Seconds of training count from the insertion of the adapters, so initialisations that read rows pay for it; seconds
    of inference are those of scoring, a row. Peak memory is of training: see ``workers.memory``.

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
    meter = MemoryMeter(classifier, next(classifier.parameters()).device)
    started = time.perf_counter()
    with memory_errors(), adapted(classifier, configuration, seed, calibration(classifier, resident.train, rows)):
        rate = configuration.training.learning_rate
        curve = train(classifier, resident.train, rows, rate, between_steps, meter)
        peak, trained = meter.peak_bytes, time.perf_counter()
        scored = score_rows(classifier, resident.validation, study.metric, between_steps)
        evaluated = time.perf_counter()
        values = {
            study.metric: scored.value,
            "loss": scored.loss,
            PARAMETERS: trainable_parameters(configuration, study.backbone),
            "train_seconds": trained - started,
            "evaluate_seconds": evaluated - trained,
            INFERENCE_SECONDS: (evaluated - trained) / len(resident.validation),
            PEAK_MEMORY: peak,
        }
        artifact = Path(study.name) / f"trial-{order.number}" / f"attempt-{order.attempt}"
        sha256 = save(classifier, configuration, artifacts / artifact)
    return Measurement(order.rung, values, tuple(curve), scored.correct, artifact.as_posix(), sha256)


@contextmanager
def adapted(
    classifier: Classifier, configuration: Configuration, seed: int, rows: TrainingRows | None = None
) -> Iterator[None]:
    """Adapters in, and out again whatever happens; ``rows`` are for initialisations that read some."""
    try:
        classifier.adapt(configuration, seed, rows)
        yield
    finally:
        classifier.strip()


def calibration(classifier: Classifier, rows: TaskRows, order: Rows) -> TrainingRows:
    """The training rows of the first steps, for initialisations that read some; nothing is read before they do."""
    device = next(classifier.parameters()).device

    def batches() -> Iterator[dict[str, Tensor]]:
        for chosen in order[:CALIBRATION_STEPS]:
            inputs, labels = rows.batch(chosen, device)
            yield {**inputs, LABELS: labels}

    def loss(batch: Mapping[str, Tensor]) -> Tensor:
        inputs = {name: tensor for name, tensor in batch.items() if name != LABELS}
        with precision(device):
            return loss_of(classifier(inputs), batch[LABELS])

    return TrainingRows(batches, loss)


def save(classifier: Classifier, configuration: Configuration, folder: Path) -> str:
    """Writes adapter, configuration and head; the SHA-256 over their names and contents comes back."""
    save_adapter(classifier.model, folder)
    classifier.save_head(folder)
    return artifact_sha256(folder)
