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
_LLAMA_SITES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "up": "mlp.up_proj",
    "gate": "mlp.gate_proj",
    "down": "mlp.down_proj",
}


def _t5_sites(feed_forward: int) -> dict[str, str]:
    dense = f"layer.{feed_forward}.DenseReluDense"
    return {
        **{role: f"layer.0.SelfAttention.{role[0]}" for role in ("query", "key", "value", "output")},
        # the plain form has wi, the gated one wi_0 (through the activation) and wi_1
        "up": f"{dense}.wi|{dense}.wi_1",
        "gate": f"{dense}.wi_0",
        "down": f"{dense}.wo",
    }


_T5_CROSS = {f"cross_{role}": f"layer.1.EncDecAttention.{role[0]}" for role in ("query", "key", "value", "output")}


@dataclass(frozen=True, slots=True)
class Stack:
    """One list of layers.

    Attributes:
        layers: Dotted name of the list in the headless model.
        sites: Role of each linear module to its dotted name in a layer; alternatives are parted by ``|``.
        optional: Roles that not every model of the family has.
    """

    layers: str
    sites: Mapping[str, str]
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one family are put together.

    Attributes:
        stacks: Its lists of layers; of an encoder, then of its decoder.
        output_layer: Dotted name of the last linear module in the stock model for classification.
        reserved_positions: Position embeddings that no token can use.
        entry: Dotted names of what leads to the first layer and need not run where a run begins at a later one.
        tuple_layers: Whether a layer answers with a pair, hidden states first.
    """

    stacks: tuple[Stack, ...]
    output_layer: str
    reserved_positions: int = 0
    entry: tuple[str, ...] = ()
    tuple_layers: bool = False


def _one(
    layers: str,
    sites: Mapping[str, str],
    output_layer: str,
    reserved_positions: int = 0,
    entry: tuple[str, ...] = ("embeddings",),
    tuple_layers: bool = False,
) -> Family:
    return Family((Stack(layers, sites),), output_layer, reserved_positions, entry, tuple_layers)


_TOKENS = ("embed_tokens",)


FAMILIES: dict[str, Family] = {
    "bert": _one("encoder.layer", _BERT_SITES, "classifier"),
    "roberta": _one("encoder.layer", _BERT_SITES, "classifier.out_proj", reserved_positions=2),
    "distilbert": _one(
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
    "deberta-v2": _one(
        "encoder.layer",
        _BERT_SITES | {role: f"attention.self.{role}_proj" for role in ("query", "key", "value")},
        "classifier",
        entry=("embeddings", "encoder.conv"),
        tuple_layers=True,
    ),
    "electra": _one("encoder.layer", _BERT_SITES, "classifier.out_proj", entry=("embeddings", "embeddings_project")),
    "modernbert": _one(
        "layers", {"qkv": "attn.Wqkv", "output": "attn.Wo", "gate_up": "mlp.Wi", "down": "mlp.Wo"}, "classifier"
    ),
    "llama": _one("layers", _LLAMA_SITES, "score", entry=_TOKENS),
    "mistral": _one("layers", _LLAMA_SITES, "score", entry=_TOKENS),
    "qwen2": _one("layers", _LLAMA_SITES, "score", entry=_TOKENS),
    "qwen3": _one("layers", _LLAMA_SITES, "score", entry=_TOKENS),
    "gemma": _one("layers", _LLAMA_SITES, "score", entry=_TOKENS),
    "phi3": _one(
        "layers",
        {
            "qkv": "self_attn.qkv_proj",
            "output": "self_attn.o_proj",
            "gate_up": "mlp.gate_up_proj",
            "down": "mlp.down_proj",
        },
        "score",
        entry=_TOKENS,
    ),
    "gpt2": _one(
        "h",
        {"qkv": "attn.c_attn", "output": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"},
        "score",
        entry=("wte",),
    ),
    "opt": _one(
        "decoder.layers",
        {
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "output": "self_attn.out_proj",
            "up": "fc1",
            "down": "fc2",
        },
        "score",
        entry=(),
    ),
    "t5": Family(
        (
            Stack("encoder.block", _t5_sites(1), frozenset({"gate"})),
            Stack("decoder.block", _t5_sites(2) | _T5_CROSS, frozenset({"gate"})),
        ),
        "classification_head.out_proj",
    ),
    "vit": _one(
        "layers",
        {
            "query": "attention.q_proj",
            "key": "attention.k_proj",
            "value": "attention.v_proj",
            "output": "attention.o_proj",
            "up": "mlp.fc1",
            "down": "mlp.fc2",
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
