"""What a configuration costs, by exact arithmetic: trained parameters. Nothing here is measured or estimated.

Counts leave the newly initialised head out: it is the same for every configuration and counted apart.
"""

from __future__ import annotations

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration


def trainable_parameters(configuration: Configuration, backbone: Backbone) -> int:
    """Every weight that is trained and is not a newly initialised head, to the unit."""
    return sum(parameters_by_layer(configuration, backbone))


def parameters_by_layer(configuration: Configuration, backbone: Backbone) -> tuple[int, ...]:
    """Trained parameters of each layer, lowest first.

    Raises:
        ConfigurationError: If the configuration does not fit the backbone.
    """
    configuration.validate(backbone)
    counts = [0] * backbone.layer_count
    for layer, site, method in configuration.placements():
        counts[layer] += method.parameter_count(backbone.module(layer, site))
    return tuple(counts)
