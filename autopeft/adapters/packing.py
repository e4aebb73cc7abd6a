"""Several rows in one sequence: what a model is told of them, and which tokens are padding.

A model gets no attention mask but positions that begin anew with each row: transformers then lets a token see its own
row alone (``find_packed_sequence_indices``), and rotary and learned positions are those that the row has alone. Rows
have two tokens at least, and every token of padding has position 0, so that padding can be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from autopeft.errors import ConfigurationError

NOT_PACKED: Mapping[str, str] = MappingProxyType({"opt": "its attention mask is made without positions"})
"""Families whose rows cannot lie in one sequence, and why."""


def require_packable(family: str, name: str) -> None:
    """Nothing, if several rows can lie in one sequence.

    Raises:
        ConfigurationError: If they cannot.
    """
    if family in NOT_PACKED:
        raise ConfigurationError(f"packing on {name}: {family} cannot, {NOT_PACKED[family]}; leave --packing out")


def counted_tokens(positions: Tensor) -> Tensor:
    """1 for a token and 0 for padding, shape [sequences, tokens], like an attention mask.

    Args:
        positions: Of each token in its row, shape [sequences, tokens].
    """
    following = torch.nn.functional.pad(positions[:, 1:], (0, 1))
    return ((positions > 0) | (following == 1)).long()
