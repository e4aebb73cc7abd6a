"""Bytes of quantised weights as bitsandbytes keeps them: NF4 with double quantisation (arXiv 2305.14314), LLM.int8().

Only the linear modules of the layers are quantised; embeddings, norms, biases and heads keep their type. Counts of
parameters always mean unpacked weights: four bits or eight, a weight is one weight. ``autopeft.adapters.quantisation``
quantises; tests hold this arithmetic against the storage of what it builds.
"""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.backbone import Backbone, ModuleShape

QUANTISATIONS = ("4bit", "8bit")

BITSANDBYTES: Mapping[str, Mapping[str, bool | str]] = {
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "8bit": {"load_in_8bit": True},
}
"""What each is in transformers' ``BitsAndBytesConfig``."""

BLOCK = 64
"""Weights that share one scale (absmax) in NF4 …"""

NESTED_BLOCK = 256
"""… and scales, themselves a byte each, that share one in float32."""

_TABLES = 4 * (16 + 256 + 1)
"""Bytes beside each NF4 module: the 16 levels, the 256 levels of the scales, and the scales' mean."""

_KEPT_WHOLE = {("t5", "down")}
"""What transformers keeps in float32 in any case, by family and role."""


def is_quantised(backbone: Backbone, role: str) -> bool:
    """Whether modules of that role are quantised where the backbone is."""
    return (backbone.family, role) not in _KEPT_WHOLE


def packed_bytes(module: ModuleShape, quantisation: str) -> int:
    """Bytes of the weight of ``module`` with its scales: 0.516 a weight in 4 bits (arXiv 2305.14314, section 3).

    Args:
        module: Its widths.
        quantisation: One of ``QUANTISATIONS``.
    """
    weights = module.in_features * module.out_features
    if quantisation == "8bit":
        return weights + 4 * module.out_features  # a scale in float32 for each row
    scales = -(-weights // BLOCK)
    return (weights + 1) // 2 + scales + 4 * -(-scales // NESTED_BLOCK) + _TABLES


def frozen_bytes(backbone: Backbone, weight_bytes: int, quantisation: str | None, others: int = 0) -> int:
    """Bytes of all frozen weights.

    Args:
        backbone: The shapes.
        weight_bytes: Of each weight that is not quantised.
        quantisation: One of ``QUANTISATIONS``, or None.
        others: Frozen weights outside the backbone, like a language-model head that is not tied.
    """
    everything = weight_bytes * (backbone.parameter_count + others)
    if quantisation is None:
        return everything
    packed = [module for row in backbone.layers for module in row if is_quantised(backbone, module.role)]
    plain = sum(module.in_features * module.out_features for module in packed)
    return everything - weight_bytes * plain + sum(packed_bytes(module, quantisation) for module in packed)
