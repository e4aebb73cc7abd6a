"""Scales down what an adapter answers, for a moment: its values move to where it would answer nothing.

``value ← neutral + factor (value − neutral)`` scales the response of every part that is linear in the value by
``factor``, exactly; for the few that are not (rotations, DoRA's direction, a share of attention), it is the same idea
with the same ends: 1 changes nothing, 0 switches the part off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Response = tuple[Tensor, Tensor | float]
"""A value of a part, and where it answers nothing."""


@contextmanager
def moved(responses: Iterable[Response], factor: float) -> Iterator[None]:
    """Keeps each value at ``neutral + factor (value − neutral)`` inside, and puts it back bit for bit."""
    held = [(value, neutral, value.detach().clone()) for value, neutral in responses]
    with torch.no_grad():
        for value, neutral, original in held:
            start = neutral if isinstance(neutral, Tensor) else torch.full_like(original, neutral)
            value.copy_(torch.lerp(start.to(original), original, factor))
    try:
        yield
    finally:
        with torch.no_grad():
            for value, _, original in held:
                value.copy_(original)
