"""What the user asked for, merged from its sources: defaults < YAML file < environment < ``-o key=value`` < flags.

Made once and frozen; nothing here is checked against a model or a task (``autopeft.api`` does that).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from autopeft.errors import ConfigurationError

DEFAULT_DATABASE = "sqlite:///autopeft.db"
NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Everything that ``autopeft search`` takes; None means: the default that suits the task or the machine.

    Attributes:
        model: ``minilm`` (embedded), a local folder or a hub id.
        task: A built-in task, a path, or ``hf:NAME[/CONFIG]``.
        budget: Most trainable parameters, as a fraction or a count.
        space: A named space or a YAML file.
        proposer: Who proposes configurations.
        pooling: ``mean`` or ``stock``; None as the checkpoint declares.
        trials: Configurations to propose; the control and the head-only reference come on top.
        hours: Wall-clock limit; whichever of the two ends first.
        initial: Proposals before the model takes over.
        workers: Number of worker processes, or ``auto``.
        engine: ``local``, ``ray`` or ``slurm``: what starts the workers.
        engine_address: Of a running Ray cluster, or the cluster that submitit is to use.
        study: Name of the study.
        seed: Study seed: design, data order, initialisations.
        epochs: Passes over the training rows in a trial.
        steps: Optimiser steps of a trial, instead of epochs.
        train_rows: Most training rows.
        validation_rows: Most validation rows.
        batch_size: Rows a step.
        max_length: Most tokens of a row.
        text: Column of the text.
        text_pair: Column of the second text.
        label: Column of the label.
        metric: Quality objective.
    """

    model: str = "minilm"
    task: str = "aspects"
    budget: str = "0.5%"
    space: str = "layerwise"
    proposer: str = "closed-form"
    pooling: str | None = None
    trials: int | None = None
    hours: float | None = None
    initial: int | None = None
    workers: str = "auto"
    engine: str = "local"
    engine_address: str | None = None
    study: str | None = None
    seed: int = 0
    epochs: float | None = None
    steps: int | None = None
    train_rows: int | None = None
    validation_rows: int | None = None
    batch_size: int | None = None
    max_length: int | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    metric: str | None = None


_KINDS: dict[str, type] = {
    field.name: next(kind for kind in (int, float, str) if kind.__name__ in str(field.type))
    for field in fields(SearchSettings)
}
_POSITIVE = {
    "trials",
    "hours",
    "initial",
    "epochs",
    "steps",
    "train_rows",
    "validation_rows",
    "batch_size",
    "max_length",
}


def merge(
    flags: Mapping[str, Any],
    pairs: list[str] | None = None,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[SearchSettings, dict[str, str]]:
    """The settings, and for each key where its value came from.

    Args:
        flags: Flags by key; None where not given.
        pairs: ``key=value`` texts of ``-o``.
        file: YAML file of keys.
        environment: Process environment (``AUTOPEFT_SEED`` sets ``seed``).

    Raises:
        ConfigurationError: If a key is unknown or a value is of the wrong kind.
    """
    values: dict[str, Any] = {}
    origins = {field.name: "default" for field in fields(SearchSettings)}
    environment = os.environ if environment is None else environment
    from_environment = {
        k: environment[f"AUTOPEFT_{k.upper()}"] for k in _KINDS if f"AUTOPEFT_{k.upper()}" in environment
    }
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (f"file {file}", _from_file(file)),
        ("environment", from_environment),
        ("-o", _from_pairs(pairs or [])),
        ("flag", {key: value for key, value in flags.items() if value is not None}),
    ]
    for origin, layer in layers:
        for key, value in layer.items():
            values[key] = _checked(key, value, origin)
            origins[key] = origin
    settings = SearchSettings(**values)
    if settings.epochs is not None and settings.steps is not None:
        raise ConfigurationError("both epochs and steps are set; give one of them")
    if settings.study is not None and not NAME.fullmatch(settings.study):
        raise ConfigurationError(f"study name {settings.study!r}: use letters, digits, '.', '_' and '-', at most 128")
    return settings, origins


def _from_file(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"settings file {file}: cannot be read as YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigurationError(f"settings file {file}: expected keys and values, got {type(data).__name__}")
    return {str(key).replace("-", "_"): value for key, value in data.items() if value is not None}


def _from_pairs(pairs: list[str]) -> dict[str, str]:
    result = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found:
            raise ConfigurationError(f"-o {pair!r}: expected key=value")
        result[key.strip().replace("-", "_")] = value.strip()
    return result


def _checked(key: str, value: Any, origin: str) -> Any:
    if key not in _KINDS:
        close = difflib.get_close_matches(key, _KINDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(_KINDS)}"
        raise ConfigurationError(f"unknown setting {key!r} ({origin}){hint}")
    kind = _KINDS[key]
    if isinstance(value, bool | list | dict) or (kind is int and isinstance(value, float)):
        raise ConfigurationError(f"setting {key} ({origin}): expected {_NAMES[kind]}, got {value!r}")
    try:
        converted = kind(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"setting {key} ({origin}): expected {_NAMES[kind]}, got {value!r}") from error
    finite = kind is str or abs(converted) < float("inf")
    if not finite or (key in _POSITIVE and converted <= 0) or (key == "seed" and converted < 0):
        raise ConfigurationError(f"setting {key} ({origin}): expected a number above 0, got {value!r}")
    return converted


_NAMES: dict[type, str] = {int: "a whole number", float: "a number", str: "a text"}


def database_url(flag: str | None) -> str:
    """The database to use: flag, else ``AUTOPEFT_DB``, else ``autopeft.db`` here; a plain path means SQLite.

    Raises:
        ConfigurationError: If the text is neither.
    """
    text = flag or os.environ.get("AUTOPEFT_DB") or DEFAULT_DATABASE
    if "://" in text:
        return text
    if not text.strip() or ":" in text:
        raise ConfigurationError(f"database {text!r}: expected sqlite:///FILE or the path of a SQLite file")
    return f"sqlite:///{text}"


def artifact_root(url: str) -> Path:
    """Folder of adapters, plans and logs: ``AUTOPEFT_ARTIFACTS``, else beside the SQLite file."""
    named = os.environ.get("AUTOPEFT_ARTIFACTS")
    if named:
        return Path(named).absolute()
    if url.startswith("sqlite:///"):
        file = Path(unquote(url.removeprefix("sqlite:///").partition("?")[0]))
        return file.absolute().with_suffix(".artifacts")
    return Path("autopeft.artifacts").absolute()
