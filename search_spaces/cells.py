"""Spaces whose choices add up: a LoRA rank for each (layer group, module group), each on its own.

Knows neither learning rates nor names; ``search_spaces.space`` adds those.
"""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan, Placement
from search_spaces.definition import ModuleGroup, SpaceDefinition
from search_spaces.dimensions import Ordinal
from search_spaces.errors import ConfigurationError
from search_spaces.grid import AdditiveGrid, Indices, OrdinalPoints, layer_groups, span
from search_spaces.methods.lora import Lora


class CellGrid(OrdinalPoints, AdditiveGrid):
    """The points of a definition with ``modules`` on one backbone, as value indices of its ordinals.

    Args:
        definition: What may be tried.
        backbone: What it is tried on.

    Raises:
        ConfigurationError: If the definition names sites or layers that the backbone lacks.
    """

    def __init__(self, definition: SpaceDefinition, backbone: Backbone) -> None:
        self._backbone = backbone
        self._scaling = definition.scaling
        self._cells = _cells(definition, backbone)
        ordinals = tuple(
            Ordinal(f"{span(layers)} {'+'.join(group.sites)} rank", group.ranks) for layers, group in self._cells
        )
        costs = tuple(
            tuple(_cell_cost(backbone, layers, group, rank) for rank in group.ranks) for layers, group in self._cells
        )
        super().__init__(definition.name, ordinals, costs, len(ordinals))

    def rows(self, indices: Indices) -> tuple[LayerPlan, ...]:
        """The table of the configuration at that point."""
        rows: list[list[Placement]] = [[] for _ in range(self._backbone.layer_count)]
        for (layers, group), index in zip(self._cells, indices, strict=True):
            rank = group.ranks[index]
            for layer in layers if rank else ():
                method = Lora(rank, self._scaling * rank)
                rows[layer].extend(Placement(site, method) for site in _present(self._backbone, layer, group))
        return tuple(LayerPlan(tuple(row)) for row in rows)

    def indices_of(self, configuration: Configuration) -> Indices:
        """The point whose table may be that of ``configuration``.

        Raises:
            ConfigurationError: If there is none.
        """
        indices = []
        for layers, group in self._cells:
            methods = {
                configuration.layers[layer].at(site, "lora")
                for layer in layers
                for site in _present(self._backbone, layer, group)
            }
            method = methods.pop()
            rank = method.rank if method else 0
            if methods or rank not in group.ranks:
                raise ConfigurationError(f"not in space {self._name}: {span(layers)} {'+'.join(group.sites)}")
            indices.append(group.ranks.index(rank))
        return tuple(indices)


def _cells(definition: SpaceDefinition, backbone: Backbone) -> tuple[tuple[tuple[int, ...], ModuleGroup], ...]:
    """Every (layer group, module group) of which the backbone has at least one module."""
    groups = layer_groups(definition, backbone)
    for site in (site for group in definition.modules for site in group.sites if site not in backbone.roles):
        backbone.module(groups[0][0], site)
    return tuple(
        (layers, group)
        for layers in groups
        for group in definition.modules
        if any(_present(backbone, layer, group) for layer in layers)
    )


def _present(backbone: Backbone, layer: int, group: ModuleGroup) -> list[str]:
    """The sites of ``group`` in ``layer``: an encoder's layers lack the cross-attention of its decoder."""
    roles = {module.role for module in backbone.layers[layer]}
    return [site for site in group.sites if site in roles]


def _cell_cost(backbone: Backbone, layers: Sequence[int], group: ModuleGroup, rank: int) -> int:
    if rank == 0:
        return 0
    return sum(
        Lora(rank, 1.0).parameter_count(backbone.module(layer, site))
        for layer in layers
        for site in _present(backbone, layer, group)
    )
