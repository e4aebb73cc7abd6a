"""Budgets on trainable parameters: reads ``0.5%``, ``0.005``, ``110k``, ``1.2M`` against a backbone's size.

And shares of anything else, such as of the rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from autopeft.errors import BudgetError

_FORM = re.compile(r"\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)\s*(%|[kKmMbBgG])?\s*")
_SCALE = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}


class BudgetSyntaxError(BudgetError):
    """The text is not a budget."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """Most parameters a configuration may train, head not counted.

    Attributes:
        parameters: The limit.
        text: As the user wrote it.
    """

    parameters: int
    text: str


def parse_budget(text: str, backbone_parameters: int) -> Budget:
    """The budget that ``text`` names.

    A number with ``%``, one below 1 or ``1.0`` is a fraction of the backbone; any other a count, with k, M or B as
    thousand, million, billion. Fractions round down.

    Args:
        text: What the user wrote.
        backbone_parameters: Size of the headless backbone.

    Raises:
        BudgetError: If it cannot be read, is a count that is not whole, or is not between one parameter and the whole
            backbone.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise BudgetSyntaxError(f"budget {text!r}: expected a fraction (0.5%, 0.005) or a count (110k, 1.2M)")
    number, unit = float(match[1]), (match[2] or "").lower()
    if unit == "%":
        count = number / 100 * backbone_parameters
    elif unit:
        count = number * _SCALE[unit]
    else:
        is_fraction = number < 1 or (number == 1 and "." in match[1])
        if not is_fraction and not number.is_integer():
            raise BudgetSyntaxError(f"budget {text!r} is no whole number of parameters: expected 2500 or 2.5k, or 2.5%")
        count = number * backbone_parameters if is_fraction else number
    parameters = int(count + 1e-6)
    if not 1 <= parameters <= backbone_parameters:
        raise BudgetSyntaxError(
            f"budget {text!r} is {parameters:,} parameters: expected 1 to the backbone's {backbone_parameters:,}"
        )
    return Budget(parameters, text)


def parse_share(text: str, what: str) -> float:
    """The share, in (0, 1], that ``text`` names as ``10%`` or ``0.1``.

    Args:
        text: What the user wrote.
        what: What it is a share of, for the error.

    Raises:
        BudgetError: If it is no share.
    """
    match = _FORM.fullmatch(text)
    share = -1.0
    if match is not None and (match[2] or "%") == "%":
        share = float(match[1]) / (100 if match[2] else 1)
    if not 0 < share <= 1:
        raise BudgetSyntaxError(f"{what} {text!r}: expected a share above 0 and up to 1, such as 10% or 0.1")
    return share
