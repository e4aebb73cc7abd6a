"""How the trials of a study are computed: precision, recomputed layers, GPUs a worker, fused kernels. Plain values.

One regime serves all trials of a study, so that their figures compare; it stands in the study and, in words, in the
environment of every measurement. ``autopeft.fitting`` chooses one by the memory that training takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autopeft.errors import ConfigurationError

PRECISIONS = ("fp32", "mixed", "bf16")
"""``fp32`` throughout; ``mixed``: frozen weights in float32, arithmetic in bfloat16; ``bf16``: frozen weights too.
What is trained, and the optimiser's state, stay in float32."""

FP16 = "fp16"
"""As ``mixed``, with float16 and a scaled loss: for GPUs without bfloat16, in the final training only."""


@dataclass(frozen=True, slots=True)
class Regime:
    """How a training step is computed.

    Attributes:
        precision: One of ``PRECISIONS`` or ``FP16``; None: ``mixed`` on GPUs that have bfloat16, else ``fp32``.
        gradient_checkpointing: Whether each layer is computed anew in the backward pass (arXiv 1604.06174).
        gpus: GPUs that hold the backbone of one worker between them.
        liger: Whether Liger's fused kernels (arXiv 2410.10989) stand in for those of transformers.
    """

    precision: str | None = None
    gradient_checkpointing: bool = False
    gpus: int = 1
    liger: bool = False

    def __post_init__(self) -> None:
        """Refuses what is no regime."""
        if self.precision not in (None, *PRECISIONS, FP16):
            raise ConfigurationError(f"precision {self.precision!r}: expected one of {', '.join((*PRECISIONS, FP16))}")
        if self.gpus < 1:
            raise ConfigurationError(f"gpus per worker {self.gpus}: expected a whole number ≥ 1")

    def fingerprint(self, load_in: str | None) -> dict[str, str]:
        """What of it an environment names: trials that differ here do not share a front.

        Args:
            load_in: How the backbone is quantised, or None.
        """
        found = {"quantisation": load_in or "none", "precision": self.precision or "as the device has it"}
        return found | ({"kernels": "liger"} if self.liger else {})

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back; what is not set is left out."""
        usual = asdict(USUAL)
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Regime:
        """The regime that ``to_json`` wrote."""
        return cls(**data)


USUAL = Regime()
"""What a study has that asks for nothing: one device, every layer kept, precision as the device has it."""
