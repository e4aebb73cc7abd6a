"""The plan for one backbone: a row per layer, what is inserted where and how large, and the training choices beside it.

A configuration is canonical by construction: equal plans are equal values with equal digests. It says nothing of
cost (``search_spaces.cost``) and nothing of how it is proposed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

from search_spaces.backbone import SITES, Backbone
from search_spaces.dimensions import significant
from search_spaces.errors import ConfigurationError
from search_spaces.methods import ADDED_UPDATES, METHODS, WEIGHT_UPDATES, LayerMethod, Method
from search_spaces.methods.lora import MOVE_THE_WEIGHT, Lora
from search_spaces.methods.mola import Mola
from search_spaces.schedule import UpdateSchedule
from search_spaces.selection import Entry, Selection, is_cut

SCHEMA = "autopeft.configuration/1"


@dataclass(frozen=True, slots=True)
class Placement:
    """One method at one site of a layer: the role of a module, or one of ``LAYER_SITES``."""

    site: str
    method: Method

    def __post_init__(self) -> None:
        """Takes a MoLA of one expert, which has nothing to route, for the plain LoRA that it is."""
        method = self.method
        if isinstance(method, Mola) and method.experts == 1:
            object.__setattr__(self, "method", Lora(method.rank, method.alpha, method.scaling))


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
        schedule: Which layers each step updates; None, and a schedule that changes nothing is None too: all of them.
        selection: How a trial chooses among the modules of the table before it trains those that it keeps; None, and a
            selection that drops nothing is None too: it trains all of them.
        backbone: Whether the pretrained weights themselves are trained (full fine-tuning). Nothing is inserted then.
    """

    learning_rate: float
    schedule: UpdateSchedule | None = None
    selection: Selection | None = None
    backbone: bool = False

    def __post_init__(self) -> None:
        """Rounds to the canonical precision and refuses what no optimiser takes."""
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate) or not 0 < rate <= 1:
            raise ConfigurationError(f"learning rate {rate!r}: expected a number in (0, 1]")
        object.__setattr__(self, "learning_rate", significant(float(rate)))
        if self.schedule is not None and self.schedule.changes_nothing:
            object.__setattr__(self, "schedule", None)
        if self.selection is not None and self.selection.ratio == 1:
            object.__setattr__(self, "selection", None)
        if self.schedule is not None and self.selection is not None:
            raise ConfigurationError("training: give an update schedule (IST) or a selection (DiffoRA), not both")
        if not isinstance(self.backbone, bool):
            raise ConfigurationError(f"training backbone {self.backbone!r}: expected true or false")
        if self.backbone and (self.schedule is not None or self.selection is not None):
            raise ConfigurationError(
                "full fine-tuning has no adapters that a schedule or a selection could choose among"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not chosen is left out, so that digests outlast new choices."""
        chosen: dict[str, Any] = {"learning_rate": self.learning_rate}
        if self.schedule is not None:
            chosen["schedule"] = self.schedule.to_json()
        if self.selection is not None:
            chosen["selection"] = self.selection.to_json()
        if self.backbone:
            chosen["backbone"] = True
        return chosen

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Training:
        """The choices that ``to_json`` wrote, validated.

        Raises:
            ConfigurationError: If a key or a value is not known.
        """
        _expect_keys(data, {"learning_rate"}, "training", optional={"schedule", "selection", "backbone"})
        schedule, selection = data.get("schedule"), data.get("selection")
        return cls(
            data["learning_rate"],
            None if schedule is None else UpdateSchedule.from_json(schedule),
            None if selection is None else Selection.from_json(selection),
            data.get("backbone", False),
        )


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole PEFT plan; value type, hashable, JSON both ways."""

    layers: tuple[LayerPlan, ...]
    training: Training

    def __post_init__(self) -> None:
        """Refuses adapters beside full fine-tuning."""
        if self.training.backbone and not self.is_empty:
            raise ConfigurationError("full fine-tuning trains every weight of the backbone; insert nothing beside it")

    def placements(self) -> Iterator[tuple[int, str, Method]]:
        """Each (layer, site, method), lowest layer first."""
        for index, layer in enumerate(self.layers):
            for placement in layer.placements:
                yield index, placement.site, placement.method

    @property
    def is_empty(self) -> bool:
        """Whether nothing is inserted anywhere (head alone, or full fine-tuning; in no search space)."""
        return not any(layer.placements for layer in self.layers)

    @property
    def supernet(self) -> Configuration:
        """All that stands in the table, with nothing to choose: what a selection starts from; else itself."""
        if self.training.selection is None:
            return self
        return replace(self, training=replace(self.training, selection=None))

    def keeping(self, entries: Set[Entry]) -> Configuration:
        """What is trained when a selection has kept the placements at these (layer, site), and chooses no more."""
        rows = (
            LayerPlan(tuple(placement for placement in row.placements if (layer, placement.site) in entries))
            for layer, row in enumerate(self.layers)
        )
        return Configuration(tuple(rows), self.supernet.training)

    def may_become(self, trained: Configuration) -> bool:
        """Whether ``trained`` is what a trial of this configuration may leave: itself, or a cut of its table."""
        selection = self.training.selection
        if selection is None:
            return trained == self
        entries = {(layer, site) for layer, site, _ in self.placements()}
        kept = {(layer, site) for layer, site, _ in trained.placements()}
        return is_cut(kept, entries, selection.ratio, selection.scope) and trained == self.keeping(kept)

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
            "training": self.training.to_json(),
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
        if not isinstance(data["layers"], Sequence):
            raise ConfigurationError("configuration layers: expected a list with one object a layer")
        layers = tuple(_row_from_json(row, index) for index, row in enumerate(data["layers"]))
        return cls(layers, Training.from_json(data["training"]))

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
        if self.training.selection is not None:
            self._require_choice()
        refusals = dict(backbone.refusals)
        for layer, site, method in self.placements():
            if method.name in refusals:
                raise ConfigurationError(f"{method.name} on {backbone.family}: {refusals[method.name]}")
            if isinstance(method, LayerMethod):
                method.require_fit(backbone.layer_shape(layer, site))
            else:
                method.require_fit(backbone.module(layer, site))

    def _require_choice(self) -> None:
        """Nothing, if a selection has LoRA to choose among that starts at zero, one at a module."""
        found = list(self.placements())
        other = sorted({method.name for _, _, method in found if not isinstance(method, Lora)})
        starts = sorted({method.init for _, _, method in found if isinstance(method, Lora)} - {"default"})
        if other or starts or not found:
            got = ", ".join(other) or ", ".join(f"LoRA with init {init}" for init in starts) or "nothing"
            raise ConfigurationError(f"a selection (DiffoRA) chooses among modules with plain LoRA; there is {got}")


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
    if len(updates) < 2:
        return
    named = " and ".join(updates)
    if not set(updates) <= set(ADDED_UPDATES):
        raise ConfigurationError(
            f"{named} at {site!r}: of updates of one weight only {', '.join(ADDED_UPDATES)} may stand together, since "
            "they add up; any other stands alone, with ia3 and bias beside it"
        )
    for method in methods:
        if isinstance(method, Lora) and method.init in MOVE_THE_WEIGHT:
            raise ConfigurationError(
                f"{named} at {site!r}: LoRA init {method.init!r} starts from the weight's own directions; "
                "use another init beside other updates"
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


def _expect_keys(data: Any, keys: set[str], what: str, optional: Set[str] = frozenset()) -> None:
    if not isinstance(data, Mapping) or not keys <= set(data) <= keys | optional:
        got = ", ".join(sorted(data)) if isinstance(data, Mapping) else type(data).__name__
        beside = f" (and {', '.join(sorted(optional))} if wanted)" if optional else ""
        raise ConfigurationError(f"{what}: expected the keys {', '.join(sorted(keys))}{beside}, got {got}")
