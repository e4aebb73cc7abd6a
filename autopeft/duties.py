"""What a loop does again and again, each at its own interval."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

POLL_SECONDS = 0.3
"""Between two looks of a driver at the record."""


@dataclass(slots=True)
class Duties:
    """When each recurring duty was last done.

    Attributes:
        last: By duty, on the monotonic clock.
    """

    last: dict[str, float] = field(default_factory=dict)

    def due(self, duty: str, interval_seconds: float) -> bool:
        """Whether the duty is due; if so, it counts as done now."""
        now = time.monotonic()
        if now - self.last.get(duty, -1e9) < interval_seconds:
            return False
        self.last[duty] = now
        return True
