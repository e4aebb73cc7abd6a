"""Plans for trainers that start from scratch: stock peft builds them, and what it built is counted; nothing is written.

A pattern that matches nothing only warns in peft, so ranks and alphas are read again from the model that was built.
"""

from __future__ import annotations

from typing import Any

import peft
from peft.tuners.tuners_utils import BaseTunerLayer

from autopeft.errors import ExportError
from autopeft.export import trained as training
from autopeft.export.quiet import quiet
from autopeft.export.stock import PREFIX, configuration_for, modules_of
from autopeft.export.trained import Trained
from search_spaces.cost import trainable_parameters
from search_spaces.methods.dora import Dora
from search_spaces.methods.lora import Lora


def starting_configuration(trained: Trained) -> peft.PeftConfig:
    """Peft's configuration of the plan with its own initialisation."""
    config = configuration_for(modules_of(trained))
    config.task_type = "CAUSAL_LM" if trained.is_causal else None
    return config


def verified_anew(trained: Trained, config: peft.PeftConfig) -> dict[str, Any]:
    """What agrees between the plan and the model that stock peft builds from ``config``.

    Raises:
        ExportError: If anything does not.
    """
    model = training.load_model(trained.study, trained.output_count).model
    model.requires_grad_(False)
    with quiet():
        built = peft.PeftModel(model, config)
    modules = modules_of(trained)
    layers = {n.removeprefix(PREFIX): m for n, m in built.named_modules() if isinstance(m, BaseTunerLayer)}
    if set(layers) != set(modules):
        different = ", ".join(sorted(set(layers) ^ set(modules))[:3])
        raise ExportError(f"verification failed: stock peft adapts other modules than planned: {different}")
    for name, target in modules.items():
        if isinstance(target.method, Lora | Dora):
            got = layers[name].r["default"], layers[name].lora_alpha["default"]
            if got != (target.method.rank, target.method.alpha):
                raise ExportError(f"verification failed: {name} has rank and alpha {got} in stock peft")
    count = sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad)
    expected = trainable_parameters(trained.trial.configuration, trained.study.backbone)
    if count != expected:
        raise ExportError(f"verification failed: stock peft counts {count:,} parameters, the plan has {expected:,}")
    return {"modules": len(modules), "trainable_parameters": count, "largest_difference": {}}
