"""Methods that peft has: their configurations, and their insertion through ``peft.inject_adapter_in_model``.

The layers are peft's own; nothing is re-implemented. A method that peft has is one row in ``STOCK``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import peft
from transformers import PreTrainedModel

from search_spaces.methods import Method

ADAPTER_NAME = "autopeft"
"""Name under which peft keeps the adapters in the model."""


def lora_config(modules: Mapping[str, Method]) -> peft.LoraConfig:
    """A peft configuration for LoRA (arXiv 2106.09685) at modules named in full, each with its own rank and alpha.

    The most frequent rank and alpha are the defaults, the others stand in the patterns.
    """
    ranks = {name: method.rank for name, method in modules.items()}
    alphas = {name: int(a) if (a := method.alpha).is_integer() else a for name, method in modules.items()}
    rank, alpha = (Counter(sizes.values()).most_common(1)[0][0] for sizes in (ranks, alphas))
    return peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(modules),
        rank_pattern={name: size for name, size in ranks.items() if size != rank},
        alpha_pattern={name: size for name, size in alphas.items() if size != alpha},
        lora_dropout=0.0,
        bias="none",
    )


STOCK: dict[str, Callable[[Mapping[str, Method]], peft.PeftConfig]] = {"lora": lora_config}
"""For each method that stock peft has, what makes its configuration from full module names and sizes."""


def inject(model: PreTrainedModel, method_name: str, modules: Mapping[str, Method]) -> None:
    """Inserts one method at the modules of ``model`` that are named in full; the model stays the same object."""
    peft.inject_adapter_in_model(STOCK[method_name](modules), model, adapter_name=ADAPTER_NAME)
