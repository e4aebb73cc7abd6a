"""A trained plan as one stock peft adapter: sizes, peft's configuration and tensors by the names that peft gives them.

LoRA of any scaling and initialisation becomes plain LoRA: a rank-stabilised scaling becomes an alpha, and a start
``s B0 A0`` that was taken off the frozen weight (PiSSA and its kin) becomes as much rank again, with B0 negated.
Writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import peft
import torch
from torch import Tensor

from autopeft.adapters.anatomy import path_prefix
from autopeft.adapters.methods.stock import STOCK, Target, quiet_config
from autopeft.adapters.saving import adapter_tensors
from autopeft.export.trained import Trained
from search_spaces.methods import Method
from search_spaces.methods.lora import MOVE_THE_WEIGHT, Lora
from search_spaces.methods.norm import Norm

PREFIX = "base_model.model."
"""What peft puts before the names of the model that it wraps."""


def modules_of(trained: Trained) -> dict[str, Target]:
    """The methods as they were trained, by full module name in the stock model."""
    backbone = trained.study.backbone
    found: dict[str, Target] = {}
    prefix = path_prefix(trained.classifier.model)
    for layer, site, method in trained.trial.configuration.placements():
        if isinstance(method, Norm):
            found |= {prefix + norm.path: Target(method) for norm in backbone.layer_shape(layer, site).norms}
        else:
            module = backbone.module(layer, site)
            found[prefix + module.path] = Target(method, module.transposed, module.role)
    return found


def plain_modules(trained: Trained) -> dict[str, Target]:
    """The same for an adapter that is loaded and not trained: all LoRA in its plain form."""
    return {
        name: Target(plain(target.method), target.transposed, target.role)
        if isinstance(target.method, Lora)
        else target
        for name, target in modules_of(trained).items()
    }


def scale(method: Lora) -> float:
    """The factor before B A."""
    return method.alpha / (math.sqrt(method.rank) if method.scaling == "rank-stabilised" else method.rank)


def plain(method: Lora) -> Lora:
    """LoRA with scaling alpha / rank and default start that computes the same."""
    rank = method.rank * (2 if method.init in MOVE_THE_WEIGHT else 1)
    alpha = method.alpha if (rank, method.scaling) == (method.rank, "alpha/r") else scale(method) * rank
    return Lora(rank, alpha)


def configuration_for(modules: Mapping[str, Target]) -> peft.PeftConfig:
    """Peft's configuration of these modules, which share all that peft keeps once."""
    first = next(iter(modules.values()))
    row, methods = STOCK[first.method.name], {name: target.method for name, target in modules.items()}
    options = row.options(first) | ({"inputs": False} if first.method.name == "ia3" else {})
    config = quiet_config(lambda: row.config(methods, **options))
    if isinstance(config, peft.IA3Config):
        config.feedforward_modules = {name for name, target in modules.items() if target.role == "down"}
    return config


def tensors_for(trained: Trained) -> dict[str, Tensor]:
    """The adapter's tensors as peft names them, for ``plain_modules``."""
    prefix = PREFIX + path_prefix(trained.classifier.model)
    saved = adapter_tensors(trained.classifier.model)
    named = {}
    for name, tensor in saved.items():
        _, is_start, _ = name.partition(".start.")
        low = saved.get(f"{name.removesuffix('.lora_A.weight')}.start.lora_A.weight")
        high = saved.get(f"{name.removesuffix('.lora_B.weight')}.start.lora_B.weight")
        if is_start:
            continue
        if low is not None:
            tensor = torch.cat([tensor, low], dim=0)
        if high is not None:
            tensor = torch.cat([tensor, -high], dim=1)
        # peft keeps DoRA's magnitudes under a shorter name than they have in the model
        short = name.removesuffix(".weight") if name.endswith("lora_magnitude_vector.weight") else name
        named[prefix + short] = tensor
    return named


def planned_count(trained: Trained, modules: Mapping[str, Target]) -> int:
    """Parameters that peft has to count in its adapters."""
    backbone, prefix = trained.study.backbone, path_prefix(trained.classifier.model)
    shapes = {prefix + module.path: module for layer in backbone.layers for module in layer}
    norms = {prefix + norm.path: norm.width * (2 if norm.bias else 1) for layer in backbone.norms for norm in layer}
    return sum(norms[name] if name in norms else _count(modules[name].method, shapes[name]) for name in modules)


def _count(method: Method, shape: object) -> int:
    count: int = method.parameter_count(shape)  # type: ignore[arg-type]
    return count
