"""Takes the adapters of one configuration out of a model whole, so that those of several can stand there together.

The lifted modules are the very ones that ``apply`` built, with their values and names; ``autopeft.adapters.places``
leads rows through them. MoLA, initialisations that move the frozen weight, and full fine-tuning are not lifted.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from autopeft.adapters.anatomy import path_prefix
from autopeft.adapters.head import Classifier
from autopeft.adapters.methods.bias import BiasPart
from autopeft.adapters.methods.bottleneck import BottleneckPart
from autopeft.adapters.methods.prefix import Prefix, PrefixPart
from autopeft.adapters.methods.stock import ADAPTER_NAME, StockPart
from autopeft.adapters.parts import parts_of
from autopeft.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class LowRank:
    """``s B A x`` added to what a module answers.

    Attributes:
        down: Name of A, shape [rank, in].
        up: Name of B, shape [out, rank].
        scaling: s.
    """

    down: str
    up: str
    scaling: float


@dataclass(frozen=True, slots=True)
class Whole:
    """A linear module with weights of its own (a head).

    Attributes:
        weight: Name of its weight, shape [out, in].
        bias: Name of its bias; None without.
    """

    weight: str
    bias: str | None


@dataclass(frozen=True, slots=True)
class Sliced:
    """Any other module, that rows are led through on their own.

    Attributes:
        module: It answers in place of the frozen one, which it may hold.
    """

    module: nn.Module


Way = LowRank | Whole | Sliced


@dataclass(frozen=True, slots=True)
class Around:
    """The bottlenecks of one layer.

    Attributes:
        first: Name of the first linear module of the feed-forward sublayer.
        last: Name of the last one.
        modules: Kind (``serial`` or ``parallel``) and bottleneck, in the order in which they are added.
    """

    first: str
    last: str
    modules: tuple[tuple[str, nn.Module], ...]


@dataclass(frozen=True, slots=True)
class Lifted:
    """The adapters and the head of one configuration, out of the model.

    Places are dotted names in the ``Classifier``.

    Attributes:
        parameters: All that is trained, by the names that ``Classifier.trained_parameters`` gives.
        ways: By the place of the module that they stand for.
        prefixes: By the place of the attention module.
        around: By the place of the layer.
    """

    parameters: Mapping[str, nn.Parameter]
    ways: Mapping[str, Way]
    prefixes: Mapping[str, Prefix]
    around: Mapping[str, Around]


def lift(classifier: Classifier) -> Lifted:
    """What stands in ``classifier``, which is left as it was before it was adapted.

    Raises:
        ConfigurationError: If something stands there that cannot be lifted.
    """
    before = f"model.{path_prefix(classifier.model)}"
    head = {name: nn.Parameter(value.detach().clone()) for name, value in classifier.head_parameters().items()}
    parameters = {**classifier.trained_parameters(), **head}
    parts = parts_of(classifier.model)
    biases = {before + part.path: _own_bias(part) for part in parts if isinstance(part, BiasPart)}
    prefixes: dict[str, Prefix] = {}
    around: dict[str, Around] = {}
    layers: dict[str, StockPart] = {}
    stock: dict[str, list[Any]] = {}
    for part in parts:
        place = before + part.path
        if isinstance(part, StockPart):
            layers[place], stock[place] = part, part.layers
        elif isinstance(part, PrefixPart):
            prefixes[place] = part.headless.get_submodule(f"{part.path}.prefix")
        elif isinstance(part, BottleneckPart):
            around[place] = _around(part, before)
        elif not isinstance(part, BiasPart):
            raise ConfigurationError(f"{' and '.join(part.method_names)} at {part.path} cannot be taken out whole")
    classifier.strip()
    twins = {place: twin(classifier.get_submodule(place), {"bias": own}) for place, own in biases.items()}
    ways: dict[str, Way] = {place: Sliced(other) for place, other in twins.items()}
    ways |= {place: _stock_way(part, stock[place], twins.get(place)) for place, part in layers.items()}
    return Lifted(parameters, ways | _head_ways(classifier, head), prefixes, around)


def twin(module: nn.Module, own: Mapping[str, nn.Parameter]) -> nn.Module:
    """A module that shares everything with ``module`` but the parameters in ``own``, by their names in it."""
    other = copy.copy(module)
    other.__dict__["_parameters"] = {**module._parameters, **own}
    return other


def _stock_way(part: StockPart, layers: list[Any], frozen: nn.Module | None) -> Way:
    """How rows go through peft's layers, innermost first; around ``frozen``, if that is not the model's own module."""
    if part.original is not None:
        raise ConfigurationError(f"LoRA at {part.path} has changed the frozen weight and cannot be taken out whole")
    if part.method_names == ("lora",) and frozen is None:
        down, up = (f"{part.path}.lora_{which}.weight" for which in "AB")
        return LowRank(down, up, float(layers[0].scaling[ADAPTER_NAME]))
    if frozen is not None:
        layers[0].base_layer = frozen
    return Sliced(layers[-1])


def _own_bias(part: BiasPart) -> nn.Parameter:
    (own,) = part.parameters().values()
    return own


def _around(part: BottleneckPart, before: str) -> Around:
    layer = part.headless.get_submodule(part.path)
    modules = tuple((name, layer.get_submodule(f"{name}_adapter")) for name in part.method_names)
    return Around(before + part.first, before + part.last, modules)


def _head_ways(classifier: Classifier, head: Mapping[str, nn.Parameter]) -> dict[str, Way]:
    """A linear module of the head is whole, any other a twin with weights of its own."""
    root = classifier if not classifier.has_stock_head else classifier.model
    before = "" if root is classifier else "model."
    owners: dict[str, dict[str, str]] = {}
    for name in head:
        path, _, last = name.rpartition(".")
        owners.setdefault(path, {})[last] = name
    ways: dict[str, Way] = {}
    for path, names in owners.items():
        module = root.get_submodule(path)
        if not path or next(module.children(), None) is not None:
            raise ConfigurationError(f"the head's {', '.join(names.values())} cannot be taken out whole")
        if type(module) is nn.Linear and set(names) == set(dict(module.named_parameters())):
            ways[before + path] = Whole(names["weight"], names.get("bias"))
        else:
            ways[before + path] = Sliced(twin(module, {last: head[name] for last, name in names.items()}))
    return ways
