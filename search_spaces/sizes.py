"""Checks that the sizes of all methods share: whole numbers, positive numbers, known keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.errors import ConfigurationError

SCALINGS = ("alpha/r", "rank-stabilised")
"""How a low-rank update is scaled: alpha / rank, or alpha / sqrt(rank)."""


def require_whole(value: Any, what: str, least: int = 1) -> None:
    """Nothing, if ``value`` is a whole number of at least ``least``.

    Raises:
        ConfigurationError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        advice = "; leave it out for 0" if value == 0 and value is not False else ""
        raise ConfigurationError(f"{what} {value!r}: expected a whole number ≥ {least}{advice}")


def positive(value: Any, what: str) -> float:
    """``value`` as a float.

    Raises:
        ConfigurationError: If it is no number in (0, 1e6).
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise ConfigurationError(f"{what} {value!r}: expected a number in (0, 1e6)")
    return float(value)


def require_choice(value: Any, what: str, choices: tuple[str, ...]) -> None:
    """Nothing, if ``value`` is one of ``choices``.

    Raises:
        ConfigurationError: If it is not.
    """
    if value not in choices:
        raise ConfigurationError(f"{what} {value!r}: expected one of {', '.join(choices)}")


def known_sizes(data: Mapping[str, Any], method: str, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    """Nothing, if ``data`` has every needed size and no unknown one.

    Raises:
        ConfigurationError: If it has not.
    """
    if not set(needed) <= set(data) <= {*needed, *optional}:
        takes = " and ".join(needed) or "no size"
        extra = f" (and may take {' and '.join(optional)})" if optional else ""
        got = ", ".join(sorted(map(str, data))) or "nothing"
        raise ConfigurationError(f"{method} takes {takes}{extra}, got {got}")


def require_share(value: Any, what: str) -> None:
    """Nothing, if ``value`` is a number in [0, 1].

    Raises:
        ConfigurationError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{what} {value!r}: expected a number in [0, 1]")
