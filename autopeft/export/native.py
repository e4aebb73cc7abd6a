"""The target ``autopeft``: the files as a worker saved them, with the plan that they came from; lossless."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autopeft.adapters.head import HEAD_FILE, Classifier
from autopeft.adapters.saving import ADAPTER_FILE, load_adapter
from autopeft.errors import ExportError, NotFoundError
from autopeft.export import trained as training
from autopeft.export.trained import Trained, fixed_batch, output_count
from autopeft.study import Study
from search_spaces.configuration import Configuration


@dataclass(frozen=True, slots=True)
class Imported:
    """An export, read back.

    Attributes:
        configuration: The plan, checked against its recorded digest.
        study: The study that it was found in.
        provenance: Trial, values, versions.
    """

    configuration: Configuration
    study: Study
    provenance: dict[str, Any]


def write(trained: Trained, folder: Path) -> dict[str, Any]:
    """Copies adapter and head into ``folder``; what was compared comes back.

    Raises:
        ExportError: If the folder reads back as something else.
    """
    for name in (ADAPTER_FILE, HEAD_FILE):
        shutil.copyfile(trained.source / name, folder / name)
    imported = read_export(folder)
    if imported.configuration != trained.trial.configuration or imported.study.to_json() != trained.study.to_json():
        raise ExportError("verification failed: plan or study read back from the export differ from the record")
    batch = fixed_batch(trained.classifier)
    with torch.no_grad():
        difference = float((load_model(folder)(batch) - trained.classifier(batch)).abs().max())
    if difference != 0:
        raise ExportError(f"verification failed: the logits read back differ by {difference:.3g}, expected none")
    return {"configuration_equal": True, "digest": imported.configuration.digest, "largest_difference": {"logits": 0.0}}


def read_export(folder: Path) -> Imported:
    """The plan and provenance in an export of any target.

    Raises:
        NotFoundError: If a file is missing.
        ConfigurationError: If a file is of another schema.
        ExportError: If a file is damaged, or the plan is not the one that was exported.
    """
    configuration = Configuration.from_json(_document(folder / "configuration.json"))
    study = Study.from_json(_document(folder / "study.json"))
    provenance = _document(folder / "provenance.json")
    if provenance.get("digest") != configuration.digest:
        raise ExportError(f"{folder}: configuration.json was changed after the export (its digest is another)")
    return Imported(configuration, study, provenance)


def load_model(folder: Path) -> Classifier:
    """The trained model in an export for ``autopeft``, ready to answer.

    Raises:
        NotFoundError: If a file is missing.
        ConfigurationError: If a file does not fit.
        BackboneError: If the backbone cannot be loaded.
    """
    imported = read_export(folder)
    outputs = output_count(imported.study, folder)
    classifier = training.load_model(imported.study, outputs)
    load_adapter(classifier.model, folder)
    classifier.load_head(folder)
    return classifier.eval()


def _document(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(f"{path.parent}: no {path.name}; give a folder that 'autopeft export' wrote") from error
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise ExportError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data
