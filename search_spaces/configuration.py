"""The plan for one backbone: a row per layer, what is inserted where and how large, and the training choices beside it.

A configuration is canonical by construction: equal plans are equal values with equal digests. It says nothing of
cost (``search_spaces.cost``) and nothing of how it is proposed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

from search_spaces.backbone import SITES, Backbone
from search_spaces.dimensions import significant
from search_spaces.errors import ConfigurationError
from search_spaces.methods import METHODS, WEIGHT_UPDATES, LayerMethod, Method
from search_spaces.methods.lora import Lora

SCHEMA = "autopeft.configuration/1"


@dataclass(frozen=True, slots=True)
class Placement:
    """One method at one site of a layer: the role of a module, or one of ``LAYER_SITES``."""

    site: str
    method: Method


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One row of the table: the placements in one layer, in the order of ``SITES``."""

    placements: tuple[Placement, ...] = ()

    def __post_init__(self) -> None:
        """Puts placements in canonical order and refuses those that cannot stand where or beside what they do."""
        for placement in self.placements:
            if placement.site not in SITES:
                raise ConfigurationError(f"unknown site {placement.site!r}; sites are {', '.join(SITES)}")
            if placement.site not in placement.method.sites:
                name, sites = placement.method.name, ", ".join(placement.method.sites)
                raise ConfigurationError(f"{name} cannot stand at {placement.site!r}; it may stand at: {sites}")
        keys = [(SITES.index(placement.site), placement.method.name) for placement in self.placements]
        if len(set(keys)) != len(keys):
            raise ConfigurationError("a method stands twice at one site of a layer; give it once")
        ordered = tuple(
            placement for _, placement in sorted(zip(keys, self.placements, strict=True), key=lambda p: p[0])
        )
        object.__setattr__(self, "placements", ordered)
        for site in {placement.site for placement in ordered}:
            _require_compatible(site, [placement.method for placement in ordered if placement.site == site])

    @property
    def extent(self) -> int:
        """The sizes of all methods in it, added up: what a bar for the layer is as high as."""
        return sum(placement.method.extent for placement in self.placements)

    @overload
    def at(self, site: str, method: Literal["lora"]) -> Lora | None: ...

    @overload
    def at(self, site: str, method: str) -> Method | None: ...

    def at(self, site: str, method: str) -> Method | None:
        """The method of that name at ``site``, or None."""
        for placement in self.placements:
            if placement.site == site and placement.method.name == method:
                return placement.method
        return None


@dataclass(frozen=True, slots=True)
class Training:
    """Training choices beside the table.

    Attributes:
        learning_rate: Peak learning rate of the adapters and the head; kept to four significant digits.
    """

    learning_rate: float

    def __post_init__(self) -> None:
        """Rounds to the canonical precision and refuses what no optimiser takes."""
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate) or not 0 < rate <= 1:
            raise ConfigurationError(f"learning rate {rate!r}: expected a number in (0, 1]")
        object.__setattr__(self, "learning_rate", significant(float(rate)))


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole PEFT plan; value type, hashable, JSON both ways."""

    layers: tuple[LayerPlan, ...]
    training: Training

    def placements(self) -> Iterator[tuple[int, str, Method]]:
        """Each (layer, site, method), lowest layer first."""
        for index, layer in enumerate(self.layers):
            for placement in layer.placements:
                yield index, placement.site, placement.method

    @property
    def is_empty(self) -> bool:
        """Whether nothing is inserted anywhere (the head-only reference; in no search space)."""
        return not any(layer.placements for layer in self.layers)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal: equal for equal plans only."""
        return hashlib.sha256(self.canonical_text().encode()).hexdigest()

    def canonical_text(self) -> str:
        """The JSON text that the digest is taken of: sorted keys, no spaces."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def to_json(self) -> dict[str, Any]:
        """``{"schema", "layers": [{site: {method: sizes}}, …], "training": {…}}``."""
        return {
            "schema": SCHEMA,
            "layers": [_row_to_json(layer) for layer in self.layers],
            "training": {"learning_rate": self.training.learning_rate},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Configuration:
        """The configuration that ``to_json`` wrote, validated.

        Raises:
            ConfigurationError: If the schema, a key or a size is not known.
        """
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            got = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
            raise ConfigurationError(f"configuration schema {got!r}: this version reads {SCHEMA!r}")
        _expect_keys(data, {"schema", "layers", "training"}, "configuration")
        _expect_keys(data["training"], {"learning_rate"}, "training")
        if not isinstance(data["layers"], Sequence):
            raise ConfigurationError("configuration layers: expected a list with one object a layer")
        layers = tuple(_row_from_json(row, index) for index, row in enumerate(data["layers"]))
        return cls(layers, Training(data["training"]["learning_rate"]))

    def validate(self, backbone: Backbone) -> None:
        """Nothing, if every placement has a site in ``backbone`` that can take it.

        Raises:
            ConfigurationError: If the number of layers differs, a site is missing, or a method does not fit there;
                the message says why.
        """
        if len(self.layers) != backbone.layer_count:
            raise ConfigurationError(
                f"the configuration has {len(self.layers)} layers, {backbone.name} has {backbone.layer_count}"
            )
        refusals = dict(backbone.refusals)
        for layer, site, method in self.placements():
            if method.name in refusals:
                raise ConfigurationError(f"{method.name} on {backbone.family}: {refusals[method.name]}")
            if isinstance(method, LayerMethod):
                method.require_fit(backbone.layer_shape(layer, site))
            else:
                method.require_fit(backbone.module(layer, site))


def uniform(backbone: Backbone, sites: Sequence[str], method: Method, learning_rate: float) -> Configuration:
    """The same method at the same sites of every layer of ``backbone``; at those of them that a layer has.

    Raises:
        ConfigurationError: If no layer has one of the sites.
    """
    rows = []
    for layer in range(backbone.layer_count):
        present = backbone.sites(layer)
        rows.append(LayerPlan(tuple(Placement(site, method) for site in sites if site in present)))
    used = {placement.site for row in rows for placement in row.placements}
    for site in sites:
        if site not in used:
            raise ConfigurationError(f"no layer of {backbone.name} has a site {site!r}")
    return Configuration(tuple(rows), Training(learning_rate))


def _require_compatible(site: str, methods: Sequence[Method]) -> None:
    """Nothing, if these methods can share one module."""
    updates = [method.name for method in methods if method.name in WEIGHT_UPDATES]
    if len(updates) > 1:
        raise ConfigurationError(
            f"{' and '.join(updates)} at {site!r}: a module takes one update of its weight "
            f"({', '.join(WEIGHT_UPDATES)}), with ia3 and bias beside it"
        )


def _row_to_json(layer: LayerPlan) -> dict[str, dict[str, Any]]:
    row: dict[str, dict[str, Any]] = {}
    for placement in layer.placements:
        row.setdefault(placement.site, {})[placement.method.name] = placement.method.to_json()
    return row


def _row_from_json(row: Any, index: int) -> LayerPlan:
    if not isinstance(row, Mapping):
        raise ConfigurationError(f"layer {index}: expected an object of sites, got {type(row).__name__}")
    placements = []
    for site, methods in row.items():
        if not isinstance(methods, Mapping):
            raise ConfigurationError(f"layer {index}, {site}: expected an object of methods")
        for name, sizes in methods.items():
            if name not in METHODS:
                raise ConfigurationError(f"layer {index}, {site}: unknown method {name!r}; known: {', '.join(METHODS)}")
            if not isinstance(sizes, Mapping):
                raise ConfigurationError(f"layer {index}, {site}, {name}: expected an object of sizes")
            placements.append(Placement(site, METHODS[name].from_json(sizes)))
    return LayerPlan(tuple(placements))


def _expect_keys(data: Any, keys: set[str], what: str) -> None:
    if not isinstance(data, Mapping) or set(data) != keys:
        got = ", ".join(sorted(data)) if isinstance(data, Mapping) else type(data).__name__
        raise ConfigurationError(f"{what}: expected the keys {', '.join(sorted(keys))}, got {got}")
