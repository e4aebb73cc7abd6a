"""Parallel bottleneck adapter (arXiv 2110.04366): ``h = f(x) + s U relu(D x)`` beside the feed-forward sublayer f.

``x`` is the input of the sublayer; D and U are as in ``search_spaces.bottleneck``, U starts at zero, s is 4 as in the
paper. Arithmetic only; ``autopeft.adapters.methods.bottleneck`` trains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.bottleneck import Bottleneck


@dataclass(frozen=True, slots=True)
class Parallel(Bottleneck):
    """A bottleneck beside the feed-forward sublayer."""

    name: ClassVar[str] = "parallel"

    scaling: float = 4.0
