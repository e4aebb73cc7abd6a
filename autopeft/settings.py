"""What the user asked for, merged from its sources: defaults < YAML file < environment < ``-o key=value`` < flags.

Made once and frozen; nothing here is checked against a model or a task (``autopeft.api`` does that).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from autopeft.errors import ConfigurationError
from search_spaces.errors import why_unread

DEFAULT_CACHE_GB = 20
DEFAULT_DATABASE = "sqlite:///autopeft.db"
NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


class CacheMode(StrEnum):
    """How the hidden states that enter the lowest trained layer are kept, instead of computed for every trial anew.

    ``fp32`` and ``off`` give the same numbers but for the order of sums; ``fp16`` rounds, so it is an environment of
    its own; ``auto`` is ``fp32`` where reading is measured to be quicker than computing, else ``off``.
    """

    OFF = "off"
    FP32 = "fp32"
    FP16 = "fp16"
    AUTO = "auto"


def cache_mode(text: str) -> CacheMode:
    """The mode of that name.

    Raises:
        ConfigurationError: If there is none.
    """
    try:
        return CacheMode(text)
    except ValueError as error:
        raise ConfigurationError(f"cache {text!r}: expected one of {', '.join(CacheMode)}") from error


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Everything that ``autopeft search`` takes; None means: the default that suits the task or the machine.

    Attributes:
        model: ``minilm`` (embedded), a local folder or a hub id.
        proxy_model: Likewise: a smaller sibling that the trials of the search train on.
        task: A built-in task, a path, or ``hf:NAME[/CONFIG]``.
        budget: Most trainable parameters, as a fraction or a count.
        space: A named space or a YAML file.
        proposer: Who proposes configurations.
        pooling: ``mean`` or ``stock``; None as the checkpoint declares.
        trials: Configurations to propose; the control and the head-only reference come on top.
        confirm: Fresh seeds that front and control are trained with at the end, for the verdict.
        control_rates: Learning rates that the control chooses among, spread over the range that the search has.
        references: What is trained beside front and control, names with commas between; see
            ``search_spaces.references``.
        hours: Wall-clock limit; whichever of the limits ends first.
        gpu_hours: Limit on the device time of all workers together, of CPU workers too.
        price_per_gpu_hour: What an hour of device time costs, in any currency.
        initial: Proposals before the model takes over.
        workers: Number of worker processes, or ``auto``.
        engine: ``local``, ``ray`` or ``slurm``: what starts the workers.
        engine_address: Of a running Ray cluster, or the cluster that submitit is to use.
        artifacts: Root folder of adapters and logs, shared where workers sit on several hosts; None: see
            ``artifact_root``.
        study: Name of the study.
        seed: Study seed: design, data order, initialisations.
        epochs: Passes over the training rows in a trial.
        steps: Optimiser steps of a trial, instead of epochs.
        train_rows: Most training rows.
        data_fraction: Share of the training rows that trials train on, such as 10%; instead of ``train_rows``.
        validation_rows: Most validation rows.
        batch_size: Rows a step.
        max_length: Most tokens of a row.
        fidelity: ``rungs``, ``full``, or growing shares of the full run at which the better half of the trials goes on.
        micro_batch: Most rows in one forward pass; gradients are added up to a step.
        packing: Whether the rows of a forward pass lie end to end instead of being padded; of language models.
        text: Column of the text.
        text_pair: Column of the second text.
        label: Column of the label.
        chat_template: Of conversations: ``chatml``, ``headings``, ``plain`` or a file; None: the tokenizer's own.
        metric: Quality objective: a name, or FILE.py:function.
        max_new_tokens: Most tokens that are generated for a row.
        objectives: What is traded off, names with commas between; None: the metric against trained parameters.
        max_memory: Most memory in training, such as 16GB.
        max_train_seconds: Longest training of a trial.
        max_inference_seconds: Longest scoring of a row, such as 20ms.
        max_stored: Largest saved adapter, such as 1MB.
        max_flops: Most operations that the adapters may add to the forward pass of a row, such as 5M.
        cache: ``off``, ``fp32``, ``fp16`` or ``auto``: how hidden states are kept that all trials share.
        pack: Trials that a local worker trains together: a number, ``auto`` or ``off``; None: off.
        prior: Probes, kinds of probes or JSON files of scores, with commas between, that guide the search.
        repeats: Most measurements of one configuration; above 1 the proposer repeats where that decides the front.
    """

    model: str = "minilm"
    proxy_model: str | None = None
    task: str = "aspects"
    budget: str = "0.5%"
    space: str = "joint"
    proposer: str = "closed-form"
    pooling: str | None = None
    trials: int | None = None
    confirm: int = 1
    control_rates: int = 3
    references: str | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    price_per_gpu_hour: float | None = None
    initial: int | None = None
    workers: str = "auto"
    engine: str = "local"
    engine_address: str | None = None
    artifacts: str | None = None
    study: str | None = None
    seed: int = 0
    epochs: float | None = None
    steps: int | None = None
    train_rows: int | None = None
    data_fraction: str | None = None
    validation_rows: int | None = None
    batch_size: int | None = None
    max_length: int | None = None
    fidelity: str = "full"
    micro_batch: int | None = None
    packing: bool = False
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    chat_template: str | None = None
    metric: str | None = None
    max_new_tokens: int | None = None
    objectives: str | None = None
    max_memory: str | None = None
    max_train_seconds: str | None = None
    max_inference_seconds: str | None = None
    max_stored: str | None = None
    max_flops: str | None = None
    cache: str | None = None
    pack: str | None = None
    prior: str | None = None
    repeats: int = 1
    load_in: str | None = None
    precision: str | None = None
    gradient_checkpointing: str | None = None
    gpus_per_worker: int = 1
    device_memory: str | None = None
    kernels: str | None = None


_KINDS: dict[str, type] = {
    field.name: next(kind for kind in (bool, int, float, str) if kind.__name__ in str(field.type))
    for field in fields(SearchSettings)
}
_POSITIVE = {
    "control_rates",
    "trials",
    "hours",
    "gpu_hours",
    "initial",
    "repeats",
    "epochs",
    "steps",
    "train_rows",
    "validation_rows",
    "batch_size",
    "max_length",
    "micro_batch",
    "max_new_tokens",
    "gpus_per_worker",
}
_NOT_NEGATIVE = {"seed", "confirm", "price_per_gpu_hour"}


def merge(
    flags: Mapping[str, Any],
    pairs: list[str] | None = None,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    given: str = "flag",
) -> tuple[SearchSettings, dict[str, str]]:
    """The settings, and for each key where its value came from.

    Args:
        flags: Flags by key; None where not given.
        pairs: ``key=value`` texts of ``-o``.
        file: YAML file of keys.
        environment: Process environment (``AUTOPEFT_SEED`` sets ``seed``).
        given: What a flag is called where they were given: ``argument`` in Python.

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
        (given, {key: value for key, value in flags.items() if value is not None}),
    ]
    for origin, layer in layers:
        for key, value in layer.items():
            values[key] = _checked(key, value, origin)
            origins[key] = origin
    settings = SearchSettings(**values)
    if settings.epochs is not None and settings.steps is not None:
        raise ConfigurationError("both epochs and steps are set; give one of them")
    if settings.train_rows is not None and settings.data_fraction is not None:
        raise ConfigurationError("both train_rows and data_fraction are set; give one of them")
    if settings.study is not None and not NAME.fullmatch(settings.study):
        raise ConfigurationError(f"study name {settings.study!r}: use letters, digits, '.', '_' and '-', at most 128")
    return settings, origins


def _from_file(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"settings file {file}: cannot be read as YAML: {why_unread(error)}") from error
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
    if kind is bool:
        return _switch(key, value, origin)
    if isinstance(value, bool | list | dict) or (kind is int and isinstance(value, float)):
        raise ConfigurationError(f"setting {key} ({origin}): expected {_NAMES[kind]}, got {value!r}")
    try:
        converted = kind(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"setting {key} ({origin}): expected {_NAMES[kind]}, got {value!r}") from error
    finite = kind is str or abs(converted) < float("inf")
    if not finite or (key in _POSITIVE and converted <= 0) or (key in _NOT_NEGATIVE and converted < 0):
        least = "of 0 or more" if key in _NOT_NEGATIVE else "above 0"
        raise ConfigurationError(f"setting {key} ({origin}): expected a number {least}, got {value!r}")
    return converted


def _switch(key: str, value: Any, origin: str) -> bool:
    said = str(value).strip().lower()
    if said not in _SWITCHES:
        raise ConfigurationError(f"setting {key} ({origin}): expected true or false, got {value!r}")
    return _SWITCHES[said]


_SWITCHES = {**dict.fromkeys(("true", "on", "yes", "1"), True), **dict.fromkeys(("false", "off", "no", "0"), False)}
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


def cache_folder() -> Path:
    """Folder of what can be computed again: ``AUTOPEFT_CACHE_DIR``, else ``autopeft`` in the user's cache folder."""
    if named := os.environ.get("AUTOPEFT_CACHE_DIR"):
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "autopeft"


def cache_quota_bytes() -> int:
    """Most bytes of each kind of cached data: ``AUTOPEFT_CACHE_GB`` (a number of GB), else 20 GB.

    Raises:
        ConfigurationError: If it is no number from 0 on.
    """
    text = os.environ.get("AUTOPEFT_CACHE_GB") or str(DEFAULT_CACHE_GB)
    try:
        quota = float(text)
    except ValueError:
        quota = -1.0
    if not 0 <= quota < float("inf"):
        raise ConfigurationError(f"AUTOPEFT_CACHE_GB={text!r}: expected a number of gigabytes, 0 for none")
    return int(quota * 1e9)


def artifact_root(url: str, flag: str | Path | None = None) -> Path:
    """Folder of adapters, plans and logs: ``flag``, else ``AUTOPEFT_ARTIFACTS``, else beside the SQLite file."""
    named = flag or os.environ.get("AUTOPEFT_ARTIFACTS")
    if named:
        return Path(named).absolute()
    if url.startswith("sqlite:///"):
        file = Path(unquote(url.removeprefix("sqlite:///").partition("?")[0]))
        return file.absolute().with_suffix(".artifacts")
    return Path("autopeft.artifacts").absolute()
