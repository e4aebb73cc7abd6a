"""Configurations on real models: read a model's anatomy, insert adapters, remove, save and load them.

``autopeft.adapters.sources`` finds checkpoints and loads neither torch nor transformers; the rest does, when asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "TrainingRows": "autopeft.adapters.calibration",
    "adapter_parameters": "autopeft.adapters.parts",
    "apply": "autopeft.adapters.plan",
    "auxiliary_loss": "autopeft.adapters.parts",
    "merge": "autopeft.adapters.plan",
    "remove": "autopeft.adapters.plan",
    "load_adapter": "autopeft.adapters.saving",
    "save_adapter": "autopeft.adapters.saving",
}


def __getattr__(name: str) -> Any:
    """A public function, imported when it is first asked for."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'autopeft.adapters' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names, also those not yet imported."""
    return sorted([*globals(), *_PUBLIC])
