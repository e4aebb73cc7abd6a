"""Where a trial stands between two steps, on disk: adapters and head as safetensors, and the state of its training.

What is written is what a trained trial leaves (``autopeft.adapters.saving``) and one more file, ``training.pt``, which
``torch.load`` reads with ``weights_only=True``, and only after the hash of the whole folder matched. Another process
that reads it goes on bit for bit on a CPU. Which checkpoints there are stands in the record.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict
from pathlib import Path

import torch

from autopeft.adapters.head import Classifier
from autopeft.adapters.saving import artifact_sha256, save_adapter, write_whole
from autopeft.errors import ConfigurationError, EvaluationError, NotFoundError
from search_spaces.configuration import Configuration
from workers.training import TrainingState

TRAINING_FILE = "training.pt"


def write_checkpoint(classifier: Classifier, state: TrainingState, folder: Path) -> str:
    """Writes adapters, head and ``state`` into ``folder``; the SHA-256 over names and contents comes back."""
    save_adapter(classifier.model, folder)
    classifier.save_head(folder)
    content = io.BytesIO()
    torch.save(asdict(state), content)
    write_whole(folder / TRAINING_FILE, content.getvalue())
    return checkpoint_sha256(folder)


def read_checkpoint(
    classifier: Classifier, configuration: Configuration, folder: Path, sha256: str, device: torch.device
) -> TrainingState:
    """Inserts the adapters in ``folder`` into ``classifier``, with their head; the state of their training comes back.

    Nothing is left in the classifier if that fails.

    Raises:
        NotFoundError: If a file is missing.
        ConfigurationError: If the adapters do not fit, or are of another configuration.
        EvaluationError: If the files are not those that were written.
    """
    found = checkpoint_sha256(folder)
    if found != sha256:
        raise EvaluationError(f"checkpoint {folder}: SHA-256 {found[:12]}…, the record says {sha256[:12]}…")
    try:
        classifier.readapt(folder)
        _require_same(classifier, configuration, folder)
        state = TrainingState(**torch.load(folder / TRAINING_FILE, map_location=device, weights_only=True))
    except BaseException:
        classifier.strip()
        raise
    return state


def checkpoint_sha256(folder: Path) -> str:
    """SHA-256 over names and contents of a checkpoint's files, in hexadecimal.

    Raises:
        NotFoundError: If a file is missing.
    """
    file = folder / TRAINING_FILE
    if not file.is_file():
        raise NotFoundError(f"checkpoint in {folder}: {TRAINING_FILE} is missing")
    text = f"{artifact_sha256(folder)}\n{TRAINING_FILE}:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"
    return hashlib.sha256(text.encode()).hexdigest()


def _require_same(classifier: Classifier, configuration: Configuration, folder: Path) -> None:
    held = classifier.configuration
    if held is None or not configuration.may_become(held):
        raise ConfigurationError(f"checkpoint {folder}: holds another configuration than was ordered")
