"""Serial bottleneck adapter (arXiv 1902.00751, placed as in arXiv 2005.00247): ``h = f + s U relu(D f)``.

``f`` is the output of the feed-forward sublayer, before it joins the residual stream; D and U are as in
``search_spaces.bottleneck``, U starts at zero. Arithmetic only; ``autopeft.adapters.methods.bottleneck`` trains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.bottleneck import Bottleneck


@dataclass(frozen=True, slots=True)
class Serial(Bottleneck):
    """A bottleneck after the feed-forward sublayer."""

    name: ClassVar[str] = "serial"

    scaling: float = 1.0
