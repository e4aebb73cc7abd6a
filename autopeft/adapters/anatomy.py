"""Reads a model's anatomy: its layers, the linear modules and norms in each, as a ``Backbone``; from config and tree.

Works on a meta device too. What a family looks like stands in ``autopeft.adapters.families``.
"""

from __future__ import annotations

import sys
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from autopeft.adapters.families import Stack, family_of
from autopeft.adapters.methods.prefix import NO_INTERFACE, has_interface
from autopeft.adapters.parts import parts_of
from autopeft.adapters.quantisation import unpacked_count
from autopeft.errors import BackboneError, ConfigurationError
from search_spaces.backbone import Backbone, ModuleShape, NormShape


def describe(model: PreTrainedModel, name: str) -> Backbone:
    """The shapes of ``model`` without its head and without adapters.

    Args:
        model: With or without a head.
        name: Short name for people.

    Raises:
        BackboneError: If its family is not known, or its modules are not those of the family.
    """
    headless, config = model.base_model, model.config
    stacks = family_of(getattr(config, "model_type", None), name).stacks
    layers = [(f"{stack.layers}.{i}", layer, stack) for stack in stacks for i, layer in _layers(headless, stack, name)]
    if len(stacks) == 1 and len(layers) != config.num_hidden_layers:
        raise BackboneError(f"model {name}: config says {config.num_hidden_layers} layers, found {len(layers)}")
    shapes = tuple(_layer_shapes(layer, path, stack, name) for path, layer, stack in layers)
    head_count = config.num_attention_heads
    return Backbone(
        name=name,
        family=config.model_type,
        hidden_size=config.hidden_size,
        parameter_count=sum(map(unpacked_count, backbone_parameters(model).values())),
        layers=shapes,
        norms=tuple(_norm_shapes(layer, path) for path, layer, _ in layers),
        head_count=head_count,
        key_value_head_count=getattr(config, "num_key_value_heads", None) or head_count,
        head_size=_head_size(shapes[0], head_count) if shapes else 0,
        intermediate_size=next((m.in_features for m in shapes[0] if m.role == "down"), 0) if shapes else 0,
        relative_positions=_relative_positions(config),
        projects_positions=bool(getattr(config, "share_att_key", False)),
        refusals=() if has_interface(headless) else (("prefix", NO_INTERFACE),),
    )


def layer_paths(model: PreTrainedModel) -> tuple[str, ...]:
    """Dotted name of each transformer layer in the headless backbone, in the order of ``describe``."""
    name = type(model).__name__
    stacks = family_of(getattr(model.config, "model_type", None), name).stacks
    return tuple(f"{stack.layers}.{i}" for stack in stacks for i, _ in _layers(model.base_model, stack, name))


def backbone_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The pretrained parameters of the headless model by their names without adapters; shared ones once."""
    headless = model.base_model
    added = {
        id(parameter)
        for part in parts_of(model)
        if part.method_names != ("bias",)
        for parameter in part.parameters().values()
    }
    return {
        path.replace(".base_layer.", "."): parameter
        for path, parameter in headless.named_parameters()
        if id(parameter) not in added
    }


def path_prefix(model: PreTrainedModel) -> str:
    """What stands before a path of the headless backbone in the names of ``model``: empty, or like ``bert.``."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def longest_input(config: Any) -> int:
    """Most tokens that a model with this configuration can read in one row; ``sys.maxsize`` where it sets no limit."""
    family = family_of(getattr(config, "model_type", None), "of this configuration")
    positions = getattr(config, "max_position_embeddings", None)
    return sys.maxsize if positions is None else int(positions) - family.reserved_positions


def require_length(config: Any, name: str, max_length: int) -> None:
    """Nothing, if a model with this configuration can read rows of ``max_length`` tokens.

    Raises:
        ConfigurationError: If they may be longer than it can read.
    """
    if max_length > (limit := longest_input(config)):
        raise ConfigurationError(
            f"max length {max_length}: {name} reads at most {limit} tokens; give --max-length {limit} or less"
        )


def _layers(headless: nn.Module, stack: Stack, name: str) -> list[tuple[int, nn.Module]]:
    try:
        layers = headless.get_submodule(stack.layers)
    except AttributeError as error:
        raise BackboneError(f"model {name}: no list of layers at {stack.layers!r}") from error
    if not isinstance(layers, nn.ModuleList):
        raise BackboneError(f"model {name}: {stack.layers!r} is a {type(layers).__name__}, expected a list of layers")
    return list(enumerate(layers))


def _layer_shapes(layer: nn.Module, path: str, stack: Stack, name: str) -> tuple[ModuleShape, ...]:
    shapes = []
    for role, alternatives in stack.sites.items():
        inner = next((inner for inner in alternatives.split("|") if _has(layer, inner)), None)
        if inner is not None:
            shapes.append(_module_shape(layer.get_submodule(inner), role, f"{path}.{inner}", name))
        elif role not in stack.optional:
            missing = f"{path}.{alternatives}"
            raise BackboneError(f"model {name}: no module {missing}, which {role} should be")
    return tuple(shapes)


def _has(layer: nn.Module, inner: str) -> bool:
    try:
        layer.get_submodule(inner)
    except AttributeError:
        return False
    return True


def _module_shape(module: nn.Module, role: str, path: str, name: str) -> ModuleShape:
    linear = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    if isinstance(linear, Conv1D):
        return ModuleShape(role, path, linear.nx, linear.nf, bias=True, transposed=True)
    if not isinstance(linear, nn.Linear):
        kind = type(linear).__name__
        raise BackboneError(f"model {name}: {path} is a {kind}, expected a plain linear module")
    return ModuleShape(role, path, linear.in_features, linear.out_features, linear.bias is not None)


def _norm_shapes(layer: nn.Module, path: str) -> tuple[NormShape, ...]:
    """Every norm in ``layer``: LayerNorm, RMSNorm and what families call their own."""
    shapes = []
    for inner, module in layer.named_modules():
        norm = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        inside_adapter = ".base_layer" in inner or ".ln_tuning_layers" in inner
        if type(norm).__name__.endswith("Norm") and isinstance(norm.weight, nn.Parameter) and not inside_adapter:
            bias = getattr(norm, "bias", None) is not None
            shapes.append(NormShape(f"{path}.{inner}", norm.weight.numel(), bias))
    return tuple(shapes)


def _relative_positions(config: Any) -> int:
    """Embeddings of relative positions, to the left and to the right, that DeBERTa's attention compares with."""
    if not getattr(config, "relative_attention", False):
        return 0
    buckets, most = getattr(config, "position_buckets", -1), getattr(config, "max_relative_positions", -1)
    return 2 * (buckets if buckets > 0 else most if most > 0 else int(config.max_position_embeddings))


def _head_size(modules: tuple[ModuleShape, ...], head_count: int) -> int:
    """Width of one head: the output projection reads all heads side by side."""
    return next(module.in_features for module in modules if module.role == "output") // head_count
