"""A backbone as shapes: its layers, the modules in each with role, path and size. No torch, no weights.

The torch side (``autopeft.adapters.anatomy``) reads these from a model; everything here is plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from search_spaces.errors import BackboneError, ConfigurationError

ROLES = (
    "query",
    "key",
    "value",
    "qkv",
    "output",
    "cross_query",
    "cross_key",
    "cross_value",
    "cross_output",
    "up",
    "gate",
    "gate_up",
    "down",
)
"""Roles that a linear module can play in a transformer layer, in the order in which they are shown.

``qkv`` is query, key and value in one projection, ``gate_up`` gate and up in one; ``cross_…`` is the attention of a
decoder to its encoder.
"""

LAYER_SITES = ("attention", "feed_forward", "norms")
"""Sites that are no single linear module: the self-attention, the feed-forward sublayer, all norms of the layer."""

SITES = (*ROLES, *LAYER_SITES)
"""Everything that a placement can name, in the order in which it is shown."""


@dataclass(frozen=True, slots=True)
class ModuleShape:
    """One linear module of a layer.

    Attributes:
        role: Part it plays, one of ``ROLES``.
        path: Dotted name inside the headless backbone, e.g. ``encoder.layer.0.attention.self.query``.
        in_features: Width of its input.
        out_features: Width of its output.
        bias: Whether it has a bias.
        transposed: Whether its weight is kept as [in, out] (GPT-2's Conv1D).
    """

    role: str
    path: str
    in_features: int
    out_features: int
    bias: bool = True
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class NormShape:
    """One norm of a layer: its dotted name in the headless backbone, its width, and whether it has a bias."""

    path: str
    width: int
    bias: bool = True


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What methods that belong to no single linear module need to know of a layer.

    Attributes:
        hidden_size: Width of the residual stream.
        attention_width: Width of all query heads together.
        key_value_width: Width of all key heads together; smaller where heads share keys and values.
        norms: Its norms, in the order of the module tree.
    """

    hidden_size: int
    attention_width: int
    key_value_width: int
    norms: tuple[NormShape, ...]


@dataclass(frozen=True, slots=True)
class Backbone:
    """The shapes of a pretrained model, as loaded and without a head.

    Attributes:
        name: Short name for people.
        family: Model type as transformers names it, e.g. ``bert``.
        hidden_size: Width of the residual stream.
        parameter_count: All parameters of the headless backbone (pooler included); the denominator of fractions.
        layers: Modules of each transformer layer, lowest first (of an encoder, then of its decoder).
        norms: Norms of each layer.
        head_count: Query heads of a layer.
        key_value_head_count: Key heads of a layer; fewer than ``head_count`` where they are shared.
        head_size: Width of one head.
        intermediate_size: Width inside the feed-forward sublayer.
        relative_positions: Embeddings of relative positions that attention compares with (DeBERTa); 0 for none.
        projects_positions: Whether the query and key modules of each layer read those too.
        refusals: Pairs of a method's name and why no layer of this family can take it.
    """

    name: str
    family: str
    hidden_size: int
    parameter_count: int
    layers: tuple[tuple[ModuleShape, ...], ...]
    norms: tuple[tuple[NormShape, ...], ...] = ()
    head_count: int = 0
    key_value_head_count: int = 0
    head_size: int = 0
    intermediate_size: int = 0
    refusals: tuple[tuple[str, str], ...] = ()
    relative_positions: int = 0
    projects_positions: bool = False

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

    def tokens_beside(self, site: str) -> int:
        """What a module at ``site`` reads in each pass besides the tokens of the batch."""
        return self.relative_positions if self.projects_positions and site in ("query", "key") else 0

    def sites(self, layer: int) -> tuple[str, ...]:
        """Everything in ``layer`` that a placement can name, in the order of ``SITES``."""
        present = {module.role for module in self.layers[layer]}
        if self.key_value_head_count:
            present.add("attention")
        if "down" in present:
            present.add("feed_forward")
        if self.norms and self.norms[layer]:
            present.add("norms")
        return tuple(site for site in SITES if site in present)

    def layer_shape(self, layer: int, site: str) -> LayerShape:
        """The shape of ``layer`` for a method at one of its ``LAYER_SITES``.

        Raises:
            ConfigurationError: If that layer has no such site.
        """
        if site not in self.sites(layer):
            raise ConfigurationError(
                f"layer {layer} of {self.name} has no site {site!r}; it has: {', '.join(self.sites(layer))}"
            )
        return LayerShape(
            hidden_size=self.hidden_size,
            attention_width=self.head_count * self.head_size,
            key_value_width=self.key_value_head_count * self.head_size,
            norms=self.norms[layer] if self.norms else (),
        )

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
            norms = tuple(tuple(NormShape(**norm) for norm in layer) for layer in data.get("norms", ()))
            refusals = tuple((method, reason) for method, reason in data.get("refusals", ()))
            return cls(**{**data, "layers": layers, "norms": norms, "refusals": refusals})
        except (KeyError, TypeError, ValueError) as error:
            raise BackboneError(f"not a backbone description: {error}; expected the fields of Backbone") from error
