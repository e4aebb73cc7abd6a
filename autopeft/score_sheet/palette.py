"""Colours of the score sheet: one teal hue in seven steps, for light and dark; every text on it has contrast ≥ 4.5."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 7
"""Shades of the rank scale: 1, 2, 4, … 64 and above."""


@dataclass(frozen=True, slots=True)
class Palette:
    """One theme.

    Attributes:
        background: Of the sheet.
        text: Titles and row names.
        muted: Axis labels and sums.
        line: Base lines.
        bar: Bars of sums.
        learned: Bars of what was learned of a layer.
        hatch: Background and stripes of a module that is not adapted.
        shades: (fill, text on it) of the seven steps, rank 1 first.
    """

    background: str
    text: str
    muted: str
    line: str
    bar: str
    learned: str
    hatch: tuple[str, str]
    shades: tuple[tuple[str, str], ...]


_INK, _PAPER = "#12262b", "#ffffff"

LIGHT = Palette(
    background="#ffffff",
    text="#1f2937",
    muted="#5b6472",
    line="#dfe3e8",
    bar="#9aa2ae",
    learned="#c67f48",
    hatch=("#f6f7f9", "#dde1e7"),
    shades=(
        ("#e0f3ef", _INK),
        ("#bfe5dd", _INK),
        ("#93d2c7", _INK),
        ("#5cb9ad", _INK),
        ("#1a7f75", _PAPER),
        ("#0f6a63", _PAPER),
        ("#0a4a46", _PAPER),
    ),
)

DARK = Palette(
    background="#0e1117",
    text="#f3f5f8",
    muted="#9aa4b2",
    line="#2b313b",
    bar="#6b7482",
    learned="#bf9320",
    hatch=("#141921", "#232b36"),
    shades=(
        ("#12332f", _PAPER),
        ("#174640", _PAPER),
        ("#1c5c53", _PAPER),
        ("#217a6e", _PAPER),
        ("#3aae9e", _INK),
        ("#6ad5c5", _INK),
        ("#b5f3e7", _INK),
    ),
)
