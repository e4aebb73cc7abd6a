"""Where a trained configuration comes from, as plain values: ``provenance.json`` in every export. Loads no torch."""

from __future__ import annotations

from typing import Any

from autopeft import __version__
from autopeft.promise import Promise
from autopeft.study import EXECUTION, PARAMETERS, Measurement, Study, Trial
from search_spaces.configuration import Configuration

PROVENANCE_SCHEMA = "autopeft.provenance/1"


def provenance(
    study: Study,
    trial: Trial,
    measurement: Measurement | None,
    target: str,
    promise: Promise | None,
    ordered: Configuration | None = None,
) -> dict[str, Any]:
    """Study, trial, what it measured and how, what the search promises of it, and what all of that rests on.

    Args:
        study: The study.
        trial: The trial.
        measurement: Of its full run; None before one.
        target: What was exported to.
        promise: What the search says of the configuration; None where no run of it is complete.
        ordered: What was ordered, where the trial chose some of its modules itself and so trained another.
    """
    origin = {
        "schema": PROVENANCE_SCHEMA,
        "target": target,
        "study": study.name,
        "trial": trial.number,
        "origin": trial.origin.value,
        "label": trial.label,
        "replicate": trial.replicate,
        "digest": trial.configuration.digest,
        "environment": dict(study.environment),
        "autopeft": __version__,
        "promise": None if promise is None else promise.to_json(),
    }
    if ordered is not None and ordered.digest != trial.configuration.digest:
        origin["ordered"] = ordered.to_json()
    if measurement is None:
        return origin
    return origin | {
        "values": dict(measurement.values),
        "trainable_fraction": measurement.values[PARAMETERS] / study.backbone.parameter_count,
        "artifact_sha256": measurement.sha256,
        "execution": dict(measurement.details.get(EXECUTION, {})),
        "training": dict(measurement.details.get("training", {})),
    }
