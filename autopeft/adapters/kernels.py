"""Liger's fused kernels (arXiv 2410.10989) in place of transformers' own, on GPUs that Triton compiles for.

Liger patches the modules of the one model that it is given: RMSNorm, SwiGLU, rotary embeddings. Its fused loss is left
out: logits are computed from a batch's first answer on (``workers.training.said_tokens``), which are few where answers
come last; docs/large_models.md says what the rest weighs.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from transformers import PreTrainedModel

from autopeft.errors import BackboneError, ConfigurationError


def require_liger() -> None:
    """Nothing, if Liger's kernels can run here.

    Raises:
        ConfigurationError: If they cannot.
    """
    missing = [name for name in ("liger_kernel", "triton") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"kernels liger: {' and '.join(missing)} missing: pip install 'autopeft[liger]' on a machine with a GPU, "
            "or leave --kernels out"
        )
    if not torch.cuda.is_available():
        raise ConfigurationError(
            f"kernels liger: torch {torch.__version__} sees no GPU, for which they are compiled; leave --kernels out"
        )


def fuse(model: PreTrainedModel) -> None:
    """Puts Liger's kernels into ``model``.

    Raises:
        ConfigurationError: If they cannot run here.
        BackboneError: If Liger knows no kernels for the family.
    """
    require_liger()
    from liger_kernel.transformers import _apply_liger_kernel_to_instance
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    family = model.config.model_type
    if family not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise BackboneError(f"kernels liger: none for {family}; leave --kernels out")
    _apply_liger_kernel_to_instance(model=model, fused_linear_cross_entropy=False)
