"""What a configuration costs, by exact arithmetic: parameters, bytes, operations. Nothing here is measured.

Counts leave the newly initialised head out: it is the same for every configuration and counted apart. Operations are
counted as torch's counter does: two for each multiplication and addition of a matrix product, none elsewhere. Where a
trial chooses its modules itself, the costs are those of the dearest choice that it may make: none comes out above.
"""

from __future__ import annotations

from collections.abc import Iterator

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan
from search_spaces.methods import LayerMethod
from search_spaces.selection import cut


def trainable_parameters(configuration: Configuration, backbone: Backbone) -> int:
    """Every weight that is trained and is not a newly initialised head, to the unit."""
    if configuration.training.backbone:
        configuration.validate(backbone)
        return backbone.parameter_count
    return sum(parameters_by_layer(configuration, backbone))


def parameters_by_layer(configuration: Configuration, backbone: Backbone) -> tuple[int, ...]:
    """Trained parameters of what is inserted in each layer, lowest first.

    Raises:
        ConfigurationError: If the configuration does not fit the backbone.
    """
    configuration.validate(backbone)
    counts = [0] * backbone.layer_count
    for layer, trained, _, _, _ in _figures(configuration, backbone, 0):
        counts[layer] += trained
    return tuple(counts)


def layer_parameters(row: LayerPlan, backbone: Backbone, layer: int) -> int:
    """Trained parameters of one row of a table.

    Raises:
        ConfigurationError: If it does not fit that layer.
    """
    total = 0
    for placement in row.placements:
        method = placement.method
        if isinstance(method, LayerMethod):
            total += method.parameter_count(backbone.layer_shape(layer, placement.site))
        else:
            module = backbone.module(layer, placement.site)
            method.require_fit(module)
            total += method.parameter_count(module)
    return total


def stored_elements(configuration: Configuration, backbone: Backbone) -> int:
    """Elements of all tensors in the saved adapter; more than are trained where a start has to be kept.

    Of full fine-tuning all weights, which is what it would have to keep.
    """
    configuration.validate(backbone)
    if configuration.training.backbone:
        return backbone.parameter_count
    return sum(stored for _, _, stored, _, _ in _figures(configuration, backbone, 0))


def stored_bytes(configuration: Configuration, backbone: Backbone, element_bytes: int = 4) -> int:
    """Bytes of all tensors in the saved adapter (the file has a header of names besides)."""
    return element_bytes * stored_elements(configuration, backbone)


def forward_flops(configuration: Configuration, backbone: Backbone, tokens: int, merged: bool = False) -> int:
    """Operations that the adapters add to one forward pass.

    Args:
        configuration: What is inserted.
        backbone: On what.
        tokens: In the whole batch, padding included; each layer sees as many.
        merged: Whether all that can be merged into the frozen weights is; it costs nothing then.
    """
    configuration.validate(backbone)
    figures = _figures(configuration, backbone, tokens)
    return sum(operations for _, _, _, operations, mergeable in figures if not (merged and mergeable))


def lowest_trainable_layer(configuration: Configuration) -> int | None:
    """The lowest layer in which anything is inserted; None for the empty plan."""
    return next((index for index, layer in enumerate(configuration.layers) if layer.placements), None)


def frozen_layer_count(configuration: Configuration) -> int:
    """How many layers from the bottom compute the same whatever is trained: all where only the head is.

    Training may change nothing below ``lowest_trainable_layer``; a schedule picks among the layers that hold adapters.
    Full fine-tuning leaves none.
    """
    if configuration.training.backbone:
        return 0
    lowest = lowest_trainable_layer(configuration)
    return len(configuration.layers) if lowest is None else lowest


def dearest(configuration: Configuration, backbone: Backbone) -> Configuration:
    """The dearest of what a trial may train: the costliest cut of a selection; else the configuration itself.

    LoRA costs ``rank (in + out)`` in parameters, and all other figures in proportion, so one cut is dearest in all.
    """
    selection = configuration.training.selection
    if selection is None:
        return configuration
    costs: dict[tuple[int, str], float] = {
        (layer, site): method.parameter_count(backbone.module(layer, site))
        for layer, site, method in configuration.placements()
        if not isinstance(method, LayerMethod)
    }
    return configuration.keeping(cut(costs, selection.ratio, selection.scope))


def _figures(
    configuration: Configuration, backbone: Backbone, tokens: int
) -> Iterator[tuple[int, int, int, int, bool]]:
    """Layer, trained, stored, operations of ``tokens`` and whether it merges, of each placement."""
    for layer, site, method in dearest(configuration, backbone).placements():
        if isinstance(method, LayerMethod):
            shape = backbone.layer_shape(layer, site)
            trained, stored = method.parameter_count(shape), method.stored_count(shape)
            operations = method.forward_flops(shape, tokens)
        else:
            module = backbone.module(layer, site)
            trained, stored = method.parameter_count(module), method.stored_count(module)
            operations = method.forward_flops(module, tokens)
            if (beside := backbone.tokens_beside(site)) and tokens:
                operations += method.forward_flops(module, beside)  # in a call of its own
        yield layer, trained, stored, operations, method.mergeable
