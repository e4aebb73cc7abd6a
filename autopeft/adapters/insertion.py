"""From placements to parts: stock methods through peft, then what stands around its layers."""

from __future__ import annotations

from dataclasses import replace

import peft
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.adapters.calibration import TrainingRows, fix_signs, prepare, principal_directions, require_rows, tidy
from autopeft.adapters.methods import stock
from autopeft.adapters.methods.bias import BiasPart
from autopeft.adapters.methods.bottleneck import BottleneckPart
from autopeft.adapters.methods.mola import MolaPart
from autopeft.adapters.methods.prefix import PrefixPart
from autopeft.adapters.methods.stock import StockPart, Target
from autopeft.adapters.parts import Part
from autopeft.errors import EvaluationError
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration
from search_spaces.methods.bias import Bias
from search_spaces.methods.lora import MOVE_THE_WEIGHT, Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.norm import Norm
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial


def insert(
    headless: PreTrainedModel,
    configuration: Configuration,
    backbone: Backbone,
    rows: TrainingRows | None,
    *,
    loading: bool = False,
) -> tuple[Part, ...]:
    """Inserts every placement; the parts come back, those on top of others last.

    If anything fails, the model is left without adapters.

    Args:
        headless: Where to.
        configuration: What.
        backbone: The shapes of ``headless``.
        rows: Training rows, for initialisations that read some.
        loading: Whether saved values will replace all initial ones, so that no initialisation need be computed.

    Raises:
        BackboneError: If the family cannot take a method.
        ConfigurationError: If an initialisation lacks rows.
    """
    parts: list[Part] = []
    try:
        _insert_stock(headless, _targets(configuration, backbone, loading=loading), rows, parts)
        for layer, site, method in configuration.placements():
            if isinstance(method, Bias):
                parts.append(BiasPart.insert(headless, backbone.module(layer, site).path))
            elif isinstance(method, Prefix):
                parts.append(_insert_prefix(headless, backbone, layer, method))
        parts += _insert_experts(headless, configuration, backbone)
        parts += _insert_bottlenecks(headless, configuration, backbone)
    except BaseException:
        for part in reversed(parts):
            part.take_out()
        raise
    return tuple(parts)


def _insert_stock(
    headless: PreTrainedModel,
    targets: dict[str, dict[str, Target]],
    rows: TrainingRows | None,
    parts: list[Part],
) -> None:
    """Adds to ``parts`` one for each module that gets any of peft's layers."""
    at_module: dict[str, StockPart] = {}
    for method_name in stock.STOCK:
        chosen = targets.get(method_name)
        for group, make_config in stock.groups(chosen) if chosen else ():
            config = stock.quiet_config(make_config)
            for path in group:
                if path not in at_module:
                    at_module[path] = StockPart(headless, path, ())
                    parts.append(at_module[path])
                part = at_module[path]
                part.method_names = (*part.method_names, method_name)
            _inject(headless, config, {path: at_module[path] for path in group}, group, rows)


def _targets(configuration: Configuration, backbone: Backbone, *, loading: bool) -> dict[str, dict[str, Target]]:
    """For each stock method, where it goes by module name; a norm placement goes to every norm of its layer."""
    targets: dict[str, dict[str, Target]] = {}
    for layer, site, method in configuration.placements():
        if isinstance(method, Norm):
            shape = backbone.layer_shape(layer, site)
            targets.setdefault(method.name, {}).update({norm.path: Target(method) for norm in shape.norms})
        elif method.name in stock.STOCK:
            module = backbone.module(layer, site)
            moves = isinstance(method, Lora) and method.init in MOVE_THE_WEIGHT
            if loading and isinstance(method, Lora):
                method = replace(method, init="default")
            target = Target(method, module.transposed, module.role, moves)
            targets.setdefault(method.name, {})[module.path] = target
    return targets


def _inject(
    headless: PreTrainedModel,
    config: peft.PeftConfig,
    parts: dict[str, StockPart],
    group: dict[str, Target],
    rows: TrainingRows | None,
) -> None:
    """Inserts one group of modules that share one peft configuration, starting values included."""
    first = next(iter(group.values())).method
    init = first.init if isinstance(first, Lora) else "default"
    modules = {path: headless.get_submodule(path) for path in group}
    for path, target in group.items():
        if target.moves:
            parts[path].original = modules[path].weight.detach().clone()
    if init == "eva":
        directions = principal_directions(modules, require_rows(init, rows))
    prepare(headless, config, init, rows)
    if init == "lora_ga" and not all(hasattr(module, "_peft_loraga_grad") for module in modules.values()):
        raise EvaluationError("LoRA-GA: some modules got no gradient from the training rows' loss")
    stock.inject(headless, config)
    for path, target in group.items():
        tidy(modules[path])
        if init == "eva":
            _set_a(parts[path], directions[path])
        if init == "lora_ga":
            fix_signs(parts[path].parameters())
        if target.moves:
            parts[path].note_start()
            # peft's own way to the moved weight rounds otherwise than loading does: go on from what loading finds
            parts[path].restore(parts[path].kept())


def _set_a(part: StockPart, directions: Tensor) -> None:
    weight = part.parameters()[f"{part.path}.lora_A.weight"]
    with torch.no_grad():
        weight.copy_(directions[:, : weight.shape[0]].T)


def _insert_prefix(headless: PreTrainedModel, backbone: Backbone, layer: int, method: Prefix) -> PrefixPart:
    roles = {module.role: module.path for module in backbone.layers[layer]}
    attention = (roles.get("query") or roles["qkv"]).rpartition(".")[0]
    width = backbone.layer_shape(layer, "attention").key_value_width
    return PrefixPart.insert(headless, attention, method.length, width)


def _insert_experts(headless: PreTrainedModel, configuration: Configuration, backbone: Backbone) -> list[MolaPart]:
    """All experts of one layer are one part, since their routers share one loss."""
    parts = []
    for layer, row in enumerate(configuration.layers):
        methods = {backbone.module(layer, p.site): p.method for p in row.placements if isinstance(p.method, Mola)}
        if methods:
            path = _layer_path(headless, next(iter(methods)).path)
            parts.append(MolaPart.insert(headless, path, methods))
    return parts


def _insert_bottlenecks(
    headless: PreTrainedModel, configuration: Configuration, backbone: Backbone
) -> list[BottleneckPart]:
    """Both kinds in one layer are one part, since they share the end of the feed-forward sublayer."""
    parts = []
    for layer, row in enumerate(configuration.layers):
        methods = tuple(p.method for p in row.placements if isinstance(p.method, Serial | Parallel))
        if methods:
            roles = {module.role: module.path for module in backbone.layers[layer]}
            first = next(roles[role] for role in ("up", "gate_up") if role in roles)
            part = BottleneckPart(headless, _layer_path(headless, roles["down"]), first, roles["down"], methods)
            part.insert(backbone.hidden_size)
            parts.append(part)
    return parts


def _layer_path(headless: PreTrainedModel, inside: str) -> str:
    """Dotted name of the layer that the module ``inside`` belongs to: the entry of a list just above it."""
    names = inside.split(".")
    for end in range(1, len(names)):
        path = ".".join(names[:end])
        if isinstance(headless.get_submodule(path), nn.ModuleList):
            return ".".join(names[: end + 1])
    raise AssertionError(f"{inside} lies in no list of layers")
