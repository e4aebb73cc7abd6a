"""The backbone families that are known: where each keeps its layers, its linear modules and its output layer.

A table and nothing else; ``autopeft.adapters.anatomy`` reads models by it. A new family is a new row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autopeft.errors import BackboneError

_BERT_SITES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one family are put together.

    Attributes:
        layers: Dotted name of the list of layers in the headless model.
        sites: Role of each linear module to its dotted name in a layer.
        output_layer: Dotted name of the last linear module in the stock model for sequence classification.
        reserved_positions: Position embeddings that no token can use.
    """

    layers: str
    sites: Mapping[str, str]
    output_layer: str
    reserved_positions: int = 0


FAMILIES: dict[str, Family] = {
    "bert": Family("encoder.layer", _BERT_SITES, "classifier"),
    "roberta": Family("encoder.layer", _BERT_SITES, "classifier.out_proj", reserved_positions=2),
    "distilbert": Family(
        "transformer.layer",
        {
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "output": "attention.out_lin",
            "up": "ffn.lin1",
            "down": "ffn.lin2",
        },
        "classifier",
    ),
}
"""Every family by the model type that transformers gives it."""


def family_of(model_type: str | None, name: str) -> Family:
    """The family of a model type.

    Raises:
        BackboneError: If it is not known.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    raise BackboneError(f"model {name}: family {model_type!r} is not known; known families: {', '.join(FAMILIES)}")
