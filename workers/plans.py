"""The JSON plans that ``train`` and ``time-step`` take from the command line's other side."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopeft.errors import ConfigurationError


def read_plan(source: str) -> Mapping[str, Any]:
    """The plan in a JSON file, or on standard input for ``-``.

    Raises:
        ConfigurationError: If it cannot be read, or holds no study.
    """
    try:
        plan = json.loads(sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"plan {source}: cannot be read as JSON: {error}") from error
    if not isinstance(plan, dict) or "study" not in plan:
        raise ConfigurationError(f"plan {source}: expected an object with a study")
    return plan


def threads_of(plan: Mapping[str, Any]) -> int:
    """CPU threads that the plan asks for; without a word, all that this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(plan.get("threads") or available)
