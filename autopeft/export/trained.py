"""A trial as it was trained, back in memory: backbone, adapter and head, from the files that its worker saved."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from autopeft.adapters.families import family_of
from autopeft.adapters.head import HEAD_FILE, Classifier
from autopeft.adapters.models import (
    IMAGE_FAMILIES,
    ResolvedModel,
    load_classifier,
    load_image_classifier,
    load_language_model,
    resolve,
)
from autopeft.adapters.plan import apply, remove
from autopeft.adapters.saving import (
    ADAPTER_FILE,
    CONFIGURATION_FILE,
    adapter_tensors,
    artifact_sha256,
    load_adapter,
    read_tensors,
    write_tensors,
)
from autopeft.errors import AutopeftError, ExportError, NotFoundError
from autopeft.study import Measurement, Study, Trial
from autopeft.tasks import metrics
from search_spaces.configuration import Configuration

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

    @property
    def is_causal(self) -> bool:
        """Whether it is a language model with its own head."""
        return is_causal(self.study)

    @property
    def head(self) -> str | None:
        """The newly initialised head in words; None where there is none."""
        count = sum(parameter.numel() for parameter in self.classifier.head_parameters().values())
        return f"{self.study.model.pooling}, {count:,} parameters" if count else None


def load_trained(study: Study, trial: Trial, measurement: Measurement, artifacts: Path) -> Trained:
    """The trial as its worker saved it.

    Raises:
        ExportError: If it kept no files, or they are not those that were recorded.
        NotFoundError: If the files are not there.
    """
    source = _saved_folder(trial, measurement, artifacts)
    outputs = output_count(study, source)
    classifier = load_model(study, outputs)
    saved = load_adapter(classifier.model, source)
    if not trial.configuration.may_become(saved):
        raise ExportError(f"{source}: holds another configuration than trial {trial.number} of {study.name}")
    if saved != trial.configuration:  # the trial chose its modules: what it left is an ordinary plan
        trial = replace(trial, configuration=saved, digest=saved.digest)
    classifier.load_head(source)
    return Trained(study, trial, source, classifier.eval(), resolve(study.model.source), _labels(study, outputs))


def reduced(trained: Trained, configuration: Configuration) -> Trained:
    """The trained trial with only those adapters that ``configuration``, a part of its plan, names."""
    classifier = load_model(trained.study, trained.output_count)
    apply(classifier.model, configuration, seed=0, loading=True)
    names = list(adapter_tensors(classifier.model))
    remove(classifier.model)
    tensors = read_tensors(trained.source / ADAPTER_FILE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tensors(folder / ADAPTER_FILE, {name: tensors[name] for name in names})
        (folder / CONFIGURATION_FILE).write_text(configuration.canonical_text(), encoding="utf-8")
        load_adapter(classifier.model, folder)
    classifier.load_head(trained.source)
    trial = replace(trained.trial, configuration=configuration, digest=configuration.digest)
    return replace(trained, trial=trial, classifier=classifier.eval())


def is_causal(study: Study) -> bool:
    """Whether the study is of a language model with its own head."""
    return metrics.is_causal(study.metric)


def load_model(study: Study, outputs: int) -> Classifier:
    """The study's backbone with the head that its task needs, without adapters.

    Never quantised: an adapter is the same on either, and what is compared is exact on plain weights alone.
    """
    spec = replace(study.model, load_in=None)
    if is_causal(study):
        return load_language_model(spec)
    if study.backbone.family in IMAGE_FAMILIES:
        return load_image_classifier(spec, outputs, seed=0)
    return load_classifier(spec, outputs, outputs == 1, seed=0)


def output_count(study: Study, folder: Path) -> int:
    """Width of the head that is saved in ``folder``; 0 for a language model's own."""
    if is_causal(study):
        return 0
    output_layer = family_of(study.backbone.family, study.backbone.name).output_layer
    name = f"{output_layer if study.model.pooling == 'stock' else 'classifier'}.weight"
    tensors = read_tensors(folder / HEAD_FILE)
    if name not in tensors:
        raise ExportError(f"{folder / HEAD_FILE}: has no {name}; it holds {', '.join(sorted(tensors))}")
    return int(tensors[name].shape[0])


def fixed_batch(classifier: Classifier) -> dict[str, Tensor]:
    """A small input that is the same on every machine: random tokens, the last row half padding."""
    config = classifier.model.config
    generator = torch.Generator().manual_seed(0)
    if config.model_type in IMAGE_FAMILIES:
        size = config.image_size
        return {"pixel_values": torch.randn(ROWS, config.num_channels, size, size, generator=generator)}
    lowest = min(10, config.vocab_size - 1)
    tokens = torch.randint(lowest, config.vocab_size, (ROWS, TOKENS), generator=generator)
    mask = torch.ones_like(tokens)
    if config.model_type == "t5":  # its head reads the states of the end
        tokens[:, -1] = tokens[-1, TOKENS // 2 - 1] = config.eos_token_id
    tokens[-1, TOKENS // 2 :] = config.pad_token_id or 0
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
