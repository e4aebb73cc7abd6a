"""Counts workers that die right after their start: an engine that starts them again for ever hides what is wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass

from autopeft.errors import EvaluationError

QUICK_DEATH_SECONDS = 30.0
QUICK_DEATHS_LIMIT = 3
"""So many workers in a row that die within ``QUICK_DEATH_SECONDS`` of their start stop the search."""


@dataclass(slots=True)
class Deaths:
    """How many workers in a row died right after their start."""

    count: int = 0

    def died(self, started: float, last_words: str) -> None:
        """Notes a death of a worker that was started at ``started`` on the monotonic clock.

        Raises:
            EvaluationError: If too many died so in a row; the message ends with the last one's words.
        """
        self.count = self.count + 1 if time.monotonic() - started < QUICK_DEATH_SECONDS else 0
        if self.count >= QUICK_DEATHS_LIMIT:
            raise EvaluationError(f"{self.count} workers in a row died right after their start: {last_words}")
