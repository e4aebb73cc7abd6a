"""A trial as it was trained, back in memory: backbone, adapter and head, from the files that its worker saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autopeft.adapters.families import family_of
from autopeft.adapters.head import HEAD_FILE, Classifier
from autopeft.adapters.models import ResolvedModel, load_classifier, resolve
from autopeft.adapters.saving import artifact_sha256, load_adapter, read_tensors
from autopeft.errors import AutopeftError, ExportError, NotFoundError
from autopeft.study import Measurement, Study, Trial

ROWS, TOKENS = 3, 12
"""Size of the fixed input that models are compared on."""


@dataclass(frozen=True)
class Trained:
    """A trained trial.

    Attributes:
        study: Its study.
        trial: The trial.
        source: Folder that its worker saved.
        classifier: Backbone with adapter and head, on the CPU, in evaluation mode.
        base: The backbone's checkpoint.
        labels: Names of the outputs, or None where the task cannot be read any more.
    """

    study: Study
    trial: Trial
    source: Path
    classifier: Classifier
    base: ResolvedModel
    labels: tuple[str, ...] | None

    @property
    def output_count(self) -> int:
        """Width of the head."""
        return output_count(self.study, self.source)


def load_trained(study: Study, trial: Trial, measurement: Measurement, artifacts: Path) -> Trained:
    """The trial as its worker saved it.

    Raises:
        ExportError: If it kept no files, or they are not those that were recorded.
        NotFoundError: If the files are not there.
    """
    source = _saved_folder(trial, measurement, artifacts)
    outputs = output_count(study, source)
    classifier = load_classifier(study.model, outputs, outputs == 1, seed=0)
    saved = load_adapter(classifier.model, source)
    if saved != trial.configuration:
        raise ExportError(f"{source}: holds another configuration than trial {trial.number} of {study.name}")
    classifier.load_head(source)
    return Trained(study, trial, source, classifier.eval(), resolve(study.model.source), _labels(study, outputs))


def output_count(study: Study, folder: Path) -> int:
    """Width of the head that is saved in ``folder``."""
    output_layer = family_of(study.backbone.family, study.backbone.name).output_layer
    name = f"{output_layer if study.model.pooling == 'stock' else 'classifier'}.weight"
    tensors = read_tensors(folder / HEAD_FILE)
    if name not in tensors:
        raise ExportError(f"{folder / HEAD_FILE}: has no {name}; it holds {', '.join(sorted(tensors))}")
    return int(tensors[name].shape[0])


def fixed_batch(classifier: Classifier) -> dict[str, Tensor]:
    """A small input that is the same on every machine: random tokens, the last row half padding."""
    config = classifier.model.config
    padding = config.pad_token_id or 0
    generator = torch.Generator().manual_seed(0)
    lowest = min(10, config.vocab_size - 1)
    tokens = torch.randint(lowest, config.vocab_size, (ROWS, TOKENS), generator=generator)
    mask = torch.ones_like(tokens)
    tokens[-1, TOKENS // 2 :] = padding
    mask[-1, TOKENS // 2 :] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def _saved_folder(trial: Trial, measurement: Measurement, artifacts: Path) -> Path:
    if measurement.artifact is None:
        raise ExportError(f"trial {trial.number}: no adapter was kept; train it again with 'autopeft train'")
    root = artifacts.resolve()
    folder = (root / measurement.artifact).resolve()
    if not folder.is_relative_to(root):
        raise ExportError(f"trial {trial.number}: its adapter is recorded outside {root}: {measurement.artifact}")
    if not folder.is_dir():
        raise NotFoundError(f"trial {trial.number}: no saved adapter in {folder}; was the artifact folder moved?")
    if measurement.sha256 is not None and artifact_sha256(folder) != measurement.sha256:
        raise ExportError(f"trial {trial.number}: the files in {folder} have changed since they were recorded")
    return folder


def _labels(study: Study, outputs: int) -> tuple[str, ...] | None:
    from autopeft.tasks import TaskSpec, load_task

    try:
        names = tuple(load_task(TaskSpec.from_json(study.task)).label_names)
    except AutopeftError:
        return None
    return names if len(names) == outputs else None
