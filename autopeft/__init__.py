"""AutoPEFT: multi-objective search for per-layer PEFT configurations.

``import autopeft`` stays light: the public functions are imported on first use.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
"""Once imported, which peft does where it is installed, it says which kernels it lacks, and at each call of an 8-bit
layer that it rounds inputs."""

_PUBLIC = {
    "TrainingRows": "autopeft.adapters.calibration",
    "apply": "autopeft.adapters.plan",
    "auxiliary_loss": "autopeft.adapters.parts",
    "load_adapter": "autopeft.adapters.saving",
    "merge": "autopeft.adapters.plan",
    "remove": "autopeft.adapters.plan",
    "save_adapter": "autopeft.adapters.saving",
    "search": "autopeft.api",
}


def __getattr__(name: str) -> Any:
    """A public function, imported when it is first asked for."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'autopeft' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names, also those not yet imported."""
    return sorted([*globals(), *_PUBLIC])
