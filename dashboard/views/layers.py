"""The layers page: what the front agrees on, module by module and layer by layer, whole or in a band of budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from autopeft.agreement import agreement, bands, sentences
from autopeft.measurement import as_trained
from autopeft.score_sheet import html_agreement
from autopeft.score_sheet.strips import LEARNED, Strip, by_layer
from autopeft.study import PARAMETERS
from dashboard import frame, queries
from dashboard.board import Board
from dashboard.frame import guarded, plain
from dashboard.views import headline

_ALL = "whole front"


@guarded
def page() -> None:
    """The whole page."""
    st.title("Layers")
    board = frame.chosen_board()
    if board is None:
        return
    if not board.front:
        headline.nothing_yet(board)
        return
    members = _members(board)
    url, numbers = queries.database(), queries.same_numbers(members)
    plans = queries.configurations(board, url, numbers)
    learned = queries.details(board, url, numbers)
    found = agreement([as_trained(plans[number], learned.get(number)) for number in numbers])
    st.html(html_agreement(found, len(numbers), mean_strips(learned, board.study.backbone.layer_count)))
    st.markdown("\n".join(f"- {plain(line)}" for line in sentences(found, len(numbers))))
    if len(numbers) < 3:
        st.caption(f"{len(numbers)} member{'s' if len(numbers) > 1 else ''}: too few to speak of agreement.")
    st.caption(f"Members: {', '.join(map(str, numbers))}")


def _members(board: Board) -> list[int]:
    """Numbers of the members in the band of budgets that is shown."""
    costs = {trial.number: int(trial.values[PARAMETERS]) for trial in board.front}
    found = bands(list(costs.values()))
    if not found:
        return list(costs)
    names = {f"{low:,} to {high:,}": (low, high) for low, high in found}
    shown = st.segmented_control(
        "Trainable parameters", [_ALL, *names], default=_ALL, required=True, key="band", bind="query-params"
    )
    low, high = names.get(str(shown), (0, max(costs.values())))
    return [number for number, cost in costs.items() if low <= cost <= high]


def mean_strips(learned: Mapping[int, Mapping[str, Any]], layer_count: int) -> list[Strip]:
    """Means over the members that learned something, a strip for each technique; layers that none knows stay empty."""
    strips = []
    for key, name in LEARNED.items():
        rows = [row for details in learned.values() if (row := by_layer(details.get(key), layer_count)) is not None]
        if rows:
            strips.append(
                Strip(f"{name} (mean of {len(rows)})", tuple(_mean(column) for column in zip(*rows, strict=True)))
            )
    return strips


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
