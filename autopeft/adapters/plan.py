"""Puts a configuration into a model and takes it out again; the model stays a plain ``PreTrainedModel``.

Inserting and removing never touches a pretrained value: after ``remove`` the model computes, bit for bit, what it did.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from autopeft.adapters.anatomy import describe, path_prefix
from autopeft.adapters.methods import stock
from autopeft.errors import ConfigurationError, EvaluationError
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration
from search_spaces.cost import trainable_parameters
from search_spaces.methods import Method


def apply(model: PreTrainedModel, configuration: Configuration, *, seed: int | None = None) -> None:
    """Inserts the adapters of ``configuration`` into ``model`` and freezes its backbone.

    What lies outside the backbone (a head) keeps its ``requires_grad``; the empty plan only freezes.

    Args:
        model: With or without a head, of a known family.
        configuration: What is inserted.
        seed: Of the adapters' initial values; None draws from torch's global generator.

    Raises:
        BackboneError: If the model's family is not known.
        ConfigurationError: If the configuration does not fit, or adapters are in the model already.
        EvaluationError: If the adapters built do not count what the arithmetic says.
    """
    if adapter_parameters(model):
        raise ConfigurationError("the model has adapters already: call autopeft.remove(model) first")
    backbone = describe(model, type(model).__name__)
    configuration.validate(backbone)
    head = {name: p.requires_grad for name, p in model.named_parameters() if not _is_backbone(model, name)}
    model.base_model.requires_grad_(False)
    with _seeded(seed):
        for method_name, modules in _modules_by_method(model, configuration, backbone).items():
            stock.inject(model, method_name, modules)
    for name, requires_grad in head.items():
        model.get_parameter(name).requires_grad_(requires_grad)
    _require_exact_count(model, configuration, backbone)


def remove(model: PreTrainedModel) -> None:
    """Takes all adapters out of ``model``; its backbone stays frozen and is bit-identical to what it was before."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def adapter_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Every adapter parameter by its name in the headless backbone, like ``encoder.layer.0….query.lora_A.weight``."""
    found = {}
    headless = model.base_model
    inside = tuple(f"{name}." for name, module in headless.named_modules() if isinstance(module, BaseTunerLayer))
    for name, parameter in headless.named_parameters():
        if name.startswith(inside) and ".base_layer." not in name:
            found[name.replace(f".{stock.ADAPTER_NAME}.", ".")] = parameter
    return found


def _modules_by_method(
    model: PreTrainedModel, configuration: Configuration, backbone: Backbone
) -> dict[str, dict[str, Method]]:
    """For each method, its sizes by the full names of the modules in ``model``."""
    prefix = path_prefix(model)
    modules: dict[str, dict[str, Method]] = {}
    for layer, site, method in configuration.placements():
        modules.setdefault(method.name, {})[prefix + backbone.module(layer, site).path] = method
    return modules


def _is_backbone(model: PreTrainedModel, name: str) -> bool:
    return name.startswith(path_prefix(model))


def _require_exact_count(model: PreTrainedModel, configuration: Configuration, backbone: Backbone) -> None:
    """Nothing, if what was built counts what the budget was held against, to the unit."""
    built = sum(parameter.numel() for parameter in adapter_parameters(model).values() if parameter.requires_grad)
    expected = trainable_parameters(configuration, backbone)
    if built != expected:
        remove(model)
        raise EvaluationError(
            f"the adapters built train {built:,} parameters, the configuration says {expected:,}; "
            "the installed peft builds other layers than this version of autopeft knows"
        )


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Makes torch's global generator, which peft draws from, start at ``seed``, and puts it back."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
