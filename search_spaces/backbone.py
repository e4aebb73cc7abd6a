"""A backbone as shapes: its layers, the modules in each with role, path and size. No torch, no weights.

The torch side (``autopeft.adapters.anatomy``) reads these from a model; everything here is plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from search_spaces.errors import BackboneError, ConfigurationError

ROLES = ("query", "key", "value", "output", "up", "gate", "down")
"""Roles that a linear module can play in a transformer layer, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class ModuleShape:
    """One linear module of a layer.

    Attributes:
        role: Part it plays, one of ``ROLES``.
        path: Dotted name inside the headless backbone, e.g. ``encoder.layer.0.attention.self.query``.
        in_features: Width of its input.
        out_features: Width of its output.
        bias: Whether it has a bias.
    """

    role: str
    path: str
    in_features: int
    out_features: int
    bias: bool = True


@dataclass(frozen=True, slots=True)
class Backbone:
    """The shapes of a pretrained model, as loaded and without a head.

    Attributes:
        name: Short name for people.
        family: Model type as transformers names it, e.g. ``bert``.
        hidden_size: Width of the residual stream.
        parameter_count: All parameters of the headless backbone (pooler included); the denominator of fractions.
        layers: Modules of each transformer layer, lowest first.
    """

    name: str
    family: str
    hidden_size: int
    parameter_count: int
    layers: tuple[tuple[ModuleShape, ...], ...]

    @property
    def layer_count(self) -> int:
        """Number of transformer layers."""
        return len(self.layers)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that occur in any layer, in the order of ``ROLES``."""
        present = {module.role for layer in self.layers for module in layer}
        return tuple(role for role in ROLES if role in present)

    def module(self, layer: int, role: str) -> ModuleShape:
        """The module that plays ``role`` in ``layer``.

        Raises:
            ConfigurationError: If that layer has no such module.
        """
        for module in self.layers[layer]:
            if module.role == role:
                return module
        known = ", ".join(module.role for module in self.layers[layer])
        raise ConfigurationError(f"layer {layer} of {self.name} has no module {role!r}; it has: {known}")

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Backbone:
        """The backbone that ``to_json`` wrote.

        Raises:
            BackboneError: If a field is missing or unknown.
        """
        try:
            layers = tuple(tuple(ModuleShape(**module) for module in layer) for layer in data["layers"])
            return cls(**{**data, "layers": layers})
        except (KeyError, TypeError) as error:
            raise BackboneError(f"not a backbone description: {error}; expected the fields of Backbone") from error
