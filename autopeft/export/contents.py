"""What every export holds, whatever its target: plan, study, provenance, score sheet, model card, verification."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autopeft import __version__
from autopeft.export import native, peft
from autopeft.export.card import model_card
from autopeft.export.folder import MARKER
from autopeft.export.trained import load_trained
from autopeft.score_sheet import svg_sheet
from autopeft.study import PARAMETERS, Measurement, Study, Trial

PROVENANCE_SCHEMA = "autopeft.provenance/1"
VERIFY_SCHEMA = "autopeft.verification/1"


def write_export(
    study: Study, trial: Trial, measurement: Measurement, artifacts: Path, target: str, folder: Path
) -> None:
    """Fills the empty ``folder`` with the export of ``trial`` and verifies it.

    Raises:
        ExportError: If the target cannot hold the trial, or what was written reads back as something else.
    """
    trained = load_trained(study, trial, measurement, artifacts)
    write_json(folder / "configuration.json", trial.configuration.to_json())
    write_json(folder / "study.json", study.to_json())
    write_json(folder / "provenance.json", provenance(study, trial, measurement, target))
    checks = peft.write(trained, folder) if target == "peft" else native.write(trained, folder)
    (folder / "score_sheet.svg").write_text(_picture(study, trial), encoding="utf-8")
    (folder / "README.md").write_text(model_card(trained, target, checks), encoding="utf-8")
    write_json(folder / MARKER, _verification(target, checks, folder))


def provenance(study: Study, trial: Trial, measurement: Measurement, target: str) -> dict[str, Any]:
    """Where the export comes from, as plain values."""
    return {
        "schema": PROVENANCE_SCHEMA,
        "target": target,
        "study": study.name,
        "trial": trial.number,
        "origin": trial.origin.value,
        "label": trial.label,
        "replicate": trial.replicate,
        "digest": trial.configuration.digest,
        "values": dict(measurement.values),
        "trainable_fraction": measurement.values[PARAMETERS] / study.backbone.parameter_count,
        "artifact_sha256": measurement.sha256,
        "environment": dict(study.environment),
        "autopeft": __version__,
    }


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes ``data`` for people and machines alike."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _picture(study: Study, trial: Trial) -> str:
    title = f"{study.name} · trial {trial.number} · {study.metric} {trial.values[study.metric]:.4f}"
    return svg_sheet(trial.configuration, study.backbone, title=title)


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
