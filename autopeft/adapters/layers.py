"""Which layer each part of a model stands in: layers are what update schedules (IST) know."""

from __future__ import annotations

from transformers import PreTrainedModel

from autopeft.adapters.anatomy import layer_paths
from autopeft.adapters.parts import Part, parts_of


def parts_by_layer(model: PreTrainedModel) -> tuple[tuple[Part, ...], ...]:
    """The parts of each layer, lowest layer first; empty for a layer without adapters."""
    parts = parts_of(model)
    return tuple(tuple(part for part in parts if f"{part.path}.".startswith(f"{path}.")) for path in layer_paths(model))
