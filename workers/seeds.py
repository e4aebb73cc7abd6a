"""Seeds from what a trial is: never from the attempt, the worker or the time, so that a repeat is a repeat."""

from __future__ import annotations

import hashlib


def initial_seed(study_seed: int, replicate: int, digest: str) -> int:
    """Seed of the initial values of adapters and head: another for every configuration and replicate."""
    text = f"initial/{study_seed}/{replicate}/{digest}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def order_seed(study_seed: int, replicate: int) -> tuple[int, int]:
    """Seed of the data order: the same for every configuration of a study, so trials differ by configuration only."""
    return study_seed % 2**63, replicate
