"""What every export holds, whatever its target: plan, study, provenance, score sheet, model card, verification."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from autopeft.export import axolotl, llamafactory, native, peft, script, trl, vllm
from autopeft.export.card import model_card
from autopeft.export.folder import MARKER
from autopeft.export.holding import hold
from autopeft.export.provenance import provenance
from autopeft.export.rows import write_template
from autopeft.export.trained import Trained, fixed_batch, load_trained, reduced
from autopeft.promise import Promise
from autopeft.score_sheet import svg_sheet
from autopeft.study import Measurement, Study, Trial

VERIFY_SCHEMA = "autopeft.verification/1"

WRITERS: dict[str, Callable[[Trained, Path], dict[str, Any]]] = {
    "peft": peft.write,
    "script": script.write,
    "axolotl": axolotl.write,
    "llamafactory": llamafactory.write,
    "trl": trl.write,
    "vllm": vllm.write,
    "autopeft": native.write,
}
"""What writes the files of each target and says what was compared."""


def write_export(
    study: Study,
    trial: Trial,
    measurement: Measurement,
    artifacts: Path,
    target: str,
    folder: Path,
    *,
    lossy: bool,
    promise: Promise | None = None,
) -> None:
    """Fills the empty ``folder`` with the export of ``trial`` and verifies it.

    Raises:
        LossyExportError: If the target cannot hold the trial, and ``lossy`` does not allow it.
        ExportError: If what was written reads back as something else.
    """
    trained = load_trained(study, trial, measurement, artifacts)
    plan, selection = trained.trial.configuration, trial.configuration.training.selection
    held = hold(target, plan, study.backbone, trained.head, selection)
    held.require(trial.number, lossy=lossy)
    whole = held.configuration == plan
    exported = trained if whole else reduced(trained, held.configuration)
    write_json(folder / "configuration.json", plan.to_json())
    write_json(folder / "study.json", study.to_json())
    write_json(
        folder / "provenance.json", provenance(study, trained.trial, measurement, target, promise, trial.configuration)
    )
    checks = WRITERS[target](exported, folder)
    if held.lost:
        checks["lost"] = list(held.lost)
        checks["largest_difference_from_the_trial"] = 0.0 if whole else _difference(trained, exported)
    if study.model.load_in is not None:
        checks["quantisation"] = {"trained_in": study.model.load_in, "verified_on": "the same weights, not quantised"}
    write_template(study, folder)
    (folder / "score_sheet.svg").write_text(_picture(study, trial, measurement), encoding="utf-8")
    (folder / "README.md").write_text(model_card(trained, target, checks), encoding="utf-8")
    write_json(folder / MARKER, _verification(target, checks, folder))


def _difference(trained: Trained, exported: Trained) -> float:
    """Largest difference of the logits, on the fixed input, that the loss makes."""
    batch = fixed_batch(trained.classifier)
    with torch.no_grad():
        return float((trained.classifier(batch) - exported.classifier(batch)).abs().max())


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes ``data`` for people and machines alike."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _picture(study: Study, trial: Trial, measurement: Measurement) -> str:
    title = f"{study.name} · trial {trial.number} · {study.metric} {trial.values[study.metric]:.4f}"
    return svg_sheet(trial.configuration, study.backbone, title=title, details=measurement.details)


def _verification(target: str, checks: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "schema": VERIFY_SCHEMA,
        "target": target,
        "passed": True,
        "checks": dict(checks),
        "versions": {name: version(name) for name in ("peft", "transformers", "torch", "safetensors")},
        "files": {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
