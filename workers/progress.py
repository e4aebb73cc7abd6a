"""How far a training is, said on standard error for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

PROGRESS_SECONDS = 2.0

Progress = Callable[[int], None]
"""Called with the number of steps done."""


def to_standard_error(steps: int, prefix: str = "") -> Progress:
    """Says, every few seconds and at the end, how far a training of so many steps is."""
    started = said = time.monotonic()

    def show(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= PROGRESS_SECONDS or done == steps:
            said = now
            left = (now - started) / done * (steps - done)
            print(f"{prefix}step {done} of {steps}, about {left:.0f} s left", file=sys.stderr, flush=True)

    return show
