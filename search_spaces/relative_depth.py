"""A plan for one backbone carried over to another of the same kind with another number of layers, by relative depth.

What a smaller sibling shows of a configuration stands for what the larger model would: layers keep their relative
depth, methods, sizes and training choices stay as they are. Plain arithmetic; nothing is resized.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan
from search_spaces.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class RelativeDepth:
    """Layers of a target and of its sibling at like depth; the layer i of n has the depth (i + ½) / n.

    Equal counts give the identity, layers keep their order, and a plan that holds anything never becomes empty.

    Attributes:
        target_layers: Layers of the model that plans are made for.
        sibling_layers: Layers of the model that they are carried over to.
    """

    target_layers: int
    sibling_layers: int

    def __post_init__(self) -> None:
        """Refuses models without layers."""
        if min(self.target_layers, self.sibling_layers) < 1:
            raise ConfigurationError(
                f"{self.target_layers} and {self.sibling_layers} layers: expected at least one of each"
            )

    def stands_for(self, layer: int) -> tuple[int, ...]:
        """The target's layers that ``layer`` of the sibling stands for, the nearest in depth first, then the upper.

        A sibling with more layers has several that stand for the same one; with fewer, each stands for several.
        """
        many, few = self.target_layers, self.sibling_layers
        if many <= few:
            return ((2 * layer + 1) * many // (2 * few),)
        inside = [own for own in range(many) if (2 * own + 1) * few // (2 * many) == layer]
        return tuple(sorted(inside, key=lambda own: (abs((2 * own + 1) * few - (2 * layer + 1) * many), -own)))

    def carried(self, configuration: Configuration) -> Configuration:
        """``configuration`` of the target as one of the sibling.

        Each layer takes the row of the first layer that it stands for and that holds anything.

        Raises:
            ConfigurationError: If the configuration has another number of layers than the target.
        """
        if len(configuration.layers) != self.target_layers:
            raise ConfigurationError(
                f"the configuration has {len(configuration.layers)} layers, the target {self.target_layers}"
            )
        rows = configuration.layers
        taken = (
            next((rows[own] for own in self.stands_for(layer) if rows[own].placements), LayerPlan())
            for layer in range(self.sibling_layers)
        )
        return Configuration(tuple(taken), configuration.training)


def require_sibling(target: Backbone, sibling: Backbone) -> None:
    """Nothing, if plans for ``target`` can be carried over to ``sibling``.

    Raises:
        ConfigurationError: If they are of different families, or their layers do not offer the same sites.
    """
    if target.family != sibling.family:
        raise ConfigurationError(
            f"{sibling.name} is of family {sibling.family}, {target.name} of {target.family}: expected a smaller model "
            "of the same family"
        )
    offered = {sites for backbone in (target, sibling) for sites in map(backbone.sites, range(backbone.layer_count))}
    if len(offered) > 1:
        raise ConfigurationError(
            f"layers of {sibling.name} and {target.name} do not offer the same sites: expected a sibling of one "
            "architecture whose layers are all alike"
        )
