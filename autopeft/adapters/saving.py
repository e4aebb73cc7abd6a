"""Adapters on disk: ``adapter.safetensors`` and ``configuration.json``; no pickle anywhere.

Names of tensors are those of the headless backbone, so a file fits the model with and without its head. Files that
other libraries read are ``autopeft.export``'s work.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers import PreTrainedModel

from autopeft.adapters.parts import inserted_in
from autopeft.adapters.plan import adapter_parameters, apply, remove
from autopeft.errors import ConfigurationError, NotFoundError
from search_spaces.configuration import Configuration

ADAPTER_FILE = "adapter.safetensors"
CONFIGURATION_FILE = "configuration.json"
HEAD_FILE = "head.safetensors"


def save_adapter(model: PreTrainedModel, folder: Path | str) -> None:
    """Writes the adapters in ``model`` and the configuration that they came from into ``folder``; adapters first.

    Raises:
        ConfigurationError: If nothing was applied to the model.
    """
    inserted = inserted_in(model)
    if inserted is None:
        raise ConfigurationError("the model has no adapters to save: call autopeft.apply(model, configuration) first")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / ADAPTER_FILE, adapter_tensors(model))
    text = json.dumps(inserted.configuration.to_json(), indent=1, allow_nan=False) + "\n"
    write_whole(folder / CONFIGURATION_FILE, text.encode())


def adapter_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """All that a saved adapter holds: what is trained, and where training started if that was taken off a weight."""
    inserted = inserted_in(model)
    tensors = {name: parameter.detach() for name, parameter in adapter_parameters(model).items()}
    for part in inserted.parts if inserted else ():
        tensors |= part.kept()
    return tensors


def load_adapter(model: PreTrainedModel, folder: Path | str) -> Configuration:
    """Inserts the adapters in ``folder`` into ``model``; the configuration comes back.

    Raises:
        NotFoundError: If a file is missing.
        ConfigurationError: If a file cannot be read, or does not fit the model or the other file.
    """
    folder = Path(folder)
    configuration = read_configuration(folder / CONFIGURATION_FILE)
    tensors = read_tensors(folder / ADAPTER_FILE)
    apply(model, configuration, seed=0, loading=True)
    try:
        require_equal_shapes(adapter_tensors(model), tensors, folder / ADAPTER_FILE)
    except ConfigurationError:
        remove(model)
        raise
    inserted = inserted_in(model)
    for part in inserted.parts if inserted else ():
        part.restore(tensors)
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            parameter.copy_(tensors[name])
    return configuration


def read_configuration(file: Path) -> Configuration:
    """The configuration in a JSON file.

    Raises:
        NotFoundError: If there is no such file.
        ConfigurationError: If it holds no valid configuration.
    """
    try:
        return Configuration.from_json(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise NotFoundError(f"no adapter in {file.parent}: {file.name} is missing") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: cannot be read as JSON: {error}") from error


def artifact_sha256(folder: Path) -> str:
    """SHA-256 over names and contents of a trained trial's files (adapter, configuration, head), in hexadecimal.

    Raises:
        NotFoundError: If a file is missing.
    """
    digest = hashlib.sha256()
    for name in (ADAPTER_FILE, CONFIGURATION_FILE, HEAD_FILE):
        if not (folder / name).is_file():
            raise NotFoundError(f"saved adapter in {folder}: {name} is missing")
        digest.update(f"{name}:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def assign(parameters: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Copies ``tensors`` into the parameters of the same names.

    Raises:
        ConfigurationError: If a name or a shape is missing or too many.
    """
    require_equal_shapes(parameters, tensors, file)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def require_equal_shapes(expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Nothing, if ``tensors`` have the names and shapes of ``expected``.

    Raises:
        ConfigurationError: If not; the message names the first that differs.
    """
    if set(expected) != set(tensors):
        different = sorted(set(expected) ^ set(tensors))
        raise ConfigurationError(f"{file}: {len(different)} tensors do not fit the model, the first is {different[0]}")
    for name, tensor in expected.items():
        if tensor.shape != tensors[name].shape:
            got, wanted = list(tensors[name].shape), list(tensor.shape)
            raise ConfigurationError(f"{file}: {name} has shape {got}, the model expects {wanted}")


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors in a safetensors file.

    Raises:
        NotFoundError: If there is no such file.
        ConfigurationError: If it is no whole safetensors file.
    """
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file")
    try:
        tensors: dict[str, torch.Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ConfigurationError(f"{file}: cannot be read as safetensors: {error}") from error
    return tensors


def write_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes a safetensors file that is either whole or not there."""
    write_whole(file, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file that is, also after a crash, either whole or not there."""
    part = file.with_name(f"{file.name}.part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)
