"""Reads a model's anatomy: its layers and the linear modules in each, as a ``Backbone``; from config and module tree.

Works on a meta device too. What a family looks like stands in ``autopeft.adapters.families``.
"""

from __future__ import annotations

from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from autopeft.adapters.families import Family, family_of
from autopeft.errors import BackboneError
from search_spaces.backbone import Backbone, ModuleShape


def describe(model: PreTrainedModel, name: str) -> Backbone:
    """The shapes of ``model`` without its head and without adapters.

    Args:
        model: With or without a head.
        name: Short name for people.

    Raises:
        BackboneError: If its family is not known, or its modules are not those of the family.
    """
    headless = model.base_model
    family = family_of(getattr(model.config, "model_type", None), name)
    layers = _layers(headless, family, name)
    if len(layers) != model.config.num_hidden_layers:
        raise BackboneError(f"model {name}: config says {model.config.num_hidden_layers} layers, found {len(layers)}")
    return Backbone(
        name=name,
        family=model.config.model_type,
        hidden_size=model.config.hidden_size,
        parameter_count=sum(parameter.numel() for parameter in backbone_parameters(model).values()),
        layers=tuple(_layer_shapes(layer, f"{family.layers}.{i}", family, name) for i, layer in enumerate(layers)),
    )


def backbone_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The pretrained parameters of the headless model by their names without adapters; shared ones once."""
    headless = model.base_model
    found = {}
    inside = tuple(f"{path}." for path, module in headless.named_modules() if isinstance(module, BaseTunerLayer))
    for path, parameter in headless.named_parameters():
        if not path.startswith(inside):
            found[path] = parameter
        elif ".base_layer." in path:
            found[path.replace(".base_layer.", ".")] = parameter
    return found


def path_prefix(model: PreTrainedModel) -> str:
    """What stands before a path of the headless backbone in the names of ``model``: empty, or like ``bert.``."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def longest_input(config: Any) -> int:
    """Most tokens that a model with this configuration can read in one row."""
    family = family_of(getattr(config, "model_type", None), "of this configuration")
    return int(config.max_position_embeddings) - family.reserved_positions


def _layers(headless: nn.Module, family: Family, name: str) -> nn.ModuleList:
    try:
        layers = headless.get_submodule(family.layers)
    except AttributeError as error:
        raise BackboneError(f"model {name}: no list of layers at {family.layers!r}") from error
    if not isinstance(layers, nn.ModuleList):
        raise BackboneError(f"model {name}: {family.layers!r} is a {type(layers).__name__}, expected a list of layers")
    return layers


def _layer_shapes(layer: nn.Module, path: str, family: Family, name: str) -> tuple[ModuleShape, ...]:
    shapes = []
    for role, inner in family.sites.items():
        try:
            module = layer.get_submodule(inner)
        except AttributeError as error:
            raise BackboneError(f"model {name}: no module {path}.{inner}, which {role} should be") from error
        linear = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        if not isinstance(linear, nn.Linear):
            kind = type(linear).__name__
            raise BackboneError(f"model {name}: {path}.{inner} is a {kind}, expected a plain linear module")
        has_bias = linear.bias is not None
        shapes.append(ModuleShape(role, f"{path}.{inner}", linear.in_features, linear.out_features, has_bias))
    return tuple(shapes)
