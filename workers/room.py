"""Whether a trial's training can fit this worker's devices: by arithmetic, before the backbone is loaded."""

from __future__ import annotations

import os

import torch

from autopeft.adapters.models import head_figures
from autopeft.errors import BackboneError, ConfigurationError, EvaluationError
from autopeft.fitting import USABLE, require_room
from autopeft.study import Study
from autopeft.tasks.metrics import is_causal
from search_spaces.configuration import Configuration


def usable_bytes(device: torch.device, gpus: int = 1) -> int:
    """What training may take: of its GPU, of all that this process sees if the backbone is spread, or of the machine.

    Args:
        device: Of the worker.
        gpus: That hold its backbone between them.
    """
    if device.type == "cuda":
        share = float(os.environ.get("AUTOPEFT_GPU_FRACTION") or 1.0)
        held = [device] if gpus == 1 else [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
        whole = sum(int(torch.cuda.get_device_properties(one).total_memory) for one in held)
        return int(USABLE * share * whole)
    return int(USABLE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def require_room_for(study: Study, plan: Configuration, usable: int, what: str) -> None:
    """Nothing, if ``plan`` can be trained, a row at a time if need be, or no arithmetic is known for the family.

    Args:
        study: The study.
        plan: What is to be trained.
        usable: Bytes.
        what: It is called.

    Raises:
        EvaluationError: If it is predicted not to fit; with the figures, and what to try.
    """
    kind = "causal-lm" if is_causal(study.metric) else "classification"
    try:
        require_room(study, plan, head_figures(study.model, kind, 1), usable, what)
    except BackboneError:
        return
    except ConfigurationError as error:
        raise EvaluationError(str(error)) from None
