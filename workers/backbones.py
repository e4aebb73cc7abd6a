"""The backbone of a study, loaded once and kept: model with head, task, and both splits as token ids.

Adapters come and go with the trials; the backbone stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from autopeft.adapters.head import Classifier
from autopeft.adapters.models import (
    DECODERS,
    load_for_task,
    load_image_processor,
    load_tokenizer,
    require_length,
)
from autopeft.errors import EvaluationError
from autopeft.study import Study
from autopeft.tasks import Split, Task, TaskKind, TaskSpec, load_task
from workers.answers import encode_answers
from workers.batches import TaskRows, encode
from workers.images import encode_images


@dataclass(frozen=True, slots=True)
class Resident:
    """What all trials of a study share.

    Attributes:
        classifier: Frozen backbone and head, on its device, without adapters.
        task: The task.
        train: Its training rows.
        validation: Its validation rows.
    """

    classifier: Classifier
    task: Task
    train: TaskRows
    validation: TaskRows


def open_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        EvaluationError: If there is none.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EvaluationError(f"device {name}: torch {torch.__version__} sees no GPU here; use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise EvaluationError(f"device {name!r}: expected cpu or cuda:N") from error


def load_resident(study: Study, device: torch.device) -> Resident:
    """Loads model and data of ``study``.

    Raises:
        AutopeftError: If the model or the task cannot be loaded, or the model cannot read rows that long.
    """
    task = load_task(TaskSpec.from_json(study.task))
    classifier = load_for_task(study.model, task.kind, len(task.label_names), study.seed)
    train = encode_split(study, task, task.train, classifier)
    validation = encode_split(study, task, task.validation, classifier)
    return Resident(classifier.to(device), task, train, validation)


def encode_split(study: Study, task: Task, split: Split, classifier: Classifier) -> TaskRows:
    """The rows of ``split`` as the study's tokenizer cuts them, or its image processor.

    Raises:
        ConfigurationError: If the study's rows may be longer than the backbone can read.
    """
    if task.kind is TaskKind.IMAGE_CLASSIFICATION:
        return encode_images(load_image_processor(study.model), split)
    config = classifier.model.config
    require_length(config, study.backbone.name, study.fidelity.max_length)
    if task.kind is TaskKind.CAUSAL_LM:
        return encode_answers(load_tokenizer(study.model), split, study.fidelity.max_length)
    if split.pairs is not None and config.model_type in DECODERS:  # whose tokenizers set nothing between two texts
        split = replace(split, pairs=tuple(f"\n{pair}" for pair in split.pairs))
    return encode(
        load_tokenizer(study.model),
        split,
        study.fidelity.max_length,
        with_types=getattr(config, "type_vocab_size", 1) > 1,
        regression=task.is_regression,
    )


@dataclass(slots=True)
class Residents:
    """Keeps the resident of the latest study, so that a worker loads a backbone once and not once a trial."""

    device: torch.device
    _study: Study | None = field(default=None)
    _resident: Resident | None = field(default=None)

    def of(self, study: Study) -> Resident:
        """The resident of ``study``, loaded if it is not there.

        Raises:
            AutopeftError: If it cannot be loaded.
        """
        if self._resident is None or self._study is None or _inputs(study) != _inputs(self._study):
            self._resident = None  # frees the memory of the one before
            self._resident = load_resident(study, self.device)
            self._study = study
        return self._resident


def _inputs(study: Study) -> tuple[object, ...]:
    return study.model, dict(study.task), study.fidelity.max_length, study.seed
