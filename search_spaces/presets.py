"""Spaces by name and the configurations of the control, for any backbone; and spaces read from a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, uniform
from search_spaces.cost import trainable_parameters
from search_spaces.errors import ConfigurationError
from search_spaces.methods.lora import Lora
from search_spaces.space import MethodSizes, ModuleGroup, SearchSpace, SpaceDefinition

RANKS = (0, 1, 2, 4, 8, 16, 32)
CONTROL_RANKS = (1, 2, 4, 8, 16, 32)
DEFAULT_LEARNING_RATE = (2e-4, 1e-2)
"""Range that is searched where the task says nothing else."""

SCALING = 2.0
"""LoRA alpha / rank wherever nothing else is said."""

DESCRIPTIONS = {
    "layerwise": "LoRA rank in {0, 1, 2, 4, 8, 16, 32} per layer and module group, learning rate",
    "autopeft": "sizes of serial adapter, parallel adapter and prefix, each layer on or off (arXiv 2301.12132)",
}
"""What each named space holds, in one line."""


def layerwise(backbone: Backbone, learning_rate: tuple[float, float]) -> SpaceDefinition:
    """LoRA ranks per layer for three groups of modules: query and value, key and output, the feed-forward pair."""
    groups = [
        ("query", "value", "qkv", "cross_query", "cross_value"),
        ("key", "output", "cross_key", "cross_output"),
        ("up", "gate", "gate_up", "down"),
    ]
    present = [tuple(site for site in group if site in backbone.roles) for group in groups]
    modules = tuple(ModuleGroup(sites, RANKS) for sites in present if sites)
    return SpaceDefinition("layerwise", modules, None, SCALING, learning_rate)


def autopeft(backbone: Backbone, learning_rate: tuple[float, float]) -> SpaceDefinition:
    """The space of the AutoPEFT paper: one size for each of three methods, and which layers have them."""
    sizes = [0]
    halves = backbone.hidden_size
    while halves:
        sizes.insert(1, halves)
        halves //= 2
    methods = tuple(MethodSizes(name, tuple(sizes)) for name in ("serial", "parallel", "prefix"))
    return SpaceDefinition("autopeft", (), None, SCALING, learning_rate, methods)


NAMED = {"layerwise": layerwise, "autopeft": autopeft}
"""What makes the definition of each named space."""


def build(name_or_file: str, backbone: Backbone, learning_rate: tuple[float, float]) -> SearchSpace:
    """The named space, or the one in a YAML file, on ``backbone``.

    Args:
        name_or_file: A key of ``DESCRIPTIONS`` or the path of a YAML file.
        backbone: Shapes to bind it to.
        learning_rate: Range for named spaces and for files that give none.

    Raises:
        ConfigurationError: If the name is unknown, or the file is missing or not valid.
    """
    if name_or_file in NAMED:
        return SearchSpace(NAMED[name_or_file](backbone, learning_rate), backbone)
    path = Path(name_or_file)
    if not path.is_file():
        names = ", ".join(DESCRIPTIONS)
        raise ConfigurationError(f"space {name_or_file!r}: neither a named space ({names}) nor a YAML file that exists")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"space file {path}: cannot be read as YAML: {error}") from error
    if isinstance(data, dict):
        data = {"name": path.stem, "learning_rate": {"low": learning_rate[0], "high": learning_rate[1]}, **data}
    try:
        return SearchSpace(SpaceDefinition.from_json(data), backbone)
    except ConfigurationError as error:
        raise ConfigurationError(f"space file {path}: {error}") from error


def control(backbone: Backbone, budget: int, learning_rate: float) -> dict[str, Configuration]:
    """The plain LoRA rank sweep that fits ``budget``: ranks × {query and value, all linear}, by label."""
    query_value = [role for role in ("query", "value", "qkv") if role in backbone.roles]
    choices: dict[str, Sequence[str]] = {"query+value": query_value, "all linear": backbone.roles}
    sweep: dict[str, Configuration] = {}
    for label, sites in choices.items():
        for rank in CONTROL_RANKS:
            configuration = uniform(backbone, sites, Lora(rank, SCALING * rank), learning_rate)
            if trainable_parameters(configuration, backbone) <= budget:
                sweep[f"LoRA r={rank} {label}"] = configuration
    return sweep
