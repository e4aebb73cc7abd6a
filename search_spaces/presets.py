"""Spaces by name and the configurations of the control, for any backbone; and spaces read from a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from search_spaces import named_spaces
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, uniform
from search_spaces.cost import trainable_parameters
from search_spaces.errors import ConfigurationError, why_unread
from search_spaces.methods.lora import Lora
from search_spaces.named_spaces import RANKS, SCALING, autopeft, layerwise
from search_spaces.paper_spaces import PAPER_DESCRIPTIONS, PAPERS
from search_spaces.space import SearchSpace, SpaceDefinition

__all__ = ["CONTROL_RANKS", "DEFAULT_LEARNING_RATE", "DESCRIPTIONS", "NAMED", "RANKS", "SCALING", "autopeft", "build"]
__all__ += ["control", "layerwise"]

CONTROL_RANKS = (1, 2, 4, 8, 16, 32)
DEFAULT_LEARNING_RATE = (2e-4, 1e-2)
"""Range that is searched where the task says nothing else."""

DESCRIPTIONS = named_spaces.DESCRIPTIONS | PAPER_DESCRIPTIONS
"""What each named space holds, in one line."""

NAMED = named_spaces.NAMED | PAPERS
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
        raise ConfigurationError(f"space file {path}: cannot be read as YAML: {why_unread(error)}") from error
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
