"""One trial as other pages show it: a line that sums it up, its score sheet, its values. No export, no log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from autopeft.candidates import estimate_of
from autopeft.choices import value_text
from autopeft.measurement import as_trained
from autopeft.reasons import reasons
from autopeft.report import rank_sum
from autopeft.score_sheet import html_sheet
from autopeft.study import TrialState
from dashboard import picks, queries
from dashboard.board import Board, said, shown_value
from dashboard.frame import plain
from search_spaces.configuration import Configuration


def summary(board: Board, number: int, configuration: Configuration) -> str:
    """The trial in one line of Markdown."""
    study, glance = board.study, board.by_number[number]
    configuration = as_trained(configuration, _learned(board, number))
    cost = board.space.cost(configuration)
    score = f"{study.metric} **{_score(board, number)}** · " if study.metric in glance.values else ""
    label = plain(f" ({glance.label})") if glance.label else ""
    return (
        f"{score}{cost:,} trainable parameters ({cost / study.backbone.parameter_count:.3%}) · "
        f"Σ rank {rank_sum(configuration)} · learning rate {configuration.training.learning_rate:g} · "
        f"{glance.state.value.lower()}, {glance.origin.value}{label}"
    )


def show(board: Board, number: int, configuration: Configuration) -> None:
    """The score sheet, with what the trial learned of its layers."""
    st.html(html_sheet(configuration, board.study.backbone, details=_learned(board, number)))


def _learned(board: Board, number: int) -> Mapping[str, Any] | None:
    return queries.details(board, queries.database(), (number,)).get(number)


def because(board: Board, number: int) -> None:
    """Why it is on the front, or is not."""
    st.markdown("\n".join(f"- {plain(line)}" for line in reasons(board.rivals, board.glances, board.front, number)))


def values(board: Board, number: int) -> None:
    """Every measured value, the objectives first."""
    measured = board.by_number[number].values
    if not measured:
        st.caption("Nothing is measured yet.")
        return
    first = [objective.name for objective in board.study.objectives if objective.name in measured]
    names = [*first, *sorted(name for name in measured if name not in first)]
    rows = [(said(name), shown_value(name, measured[name])) for name in names]
    table = pd.DataFrame(rows, columns=["measured", "value"])
    st.table(table, border="horizontal", hide_index=True, alt=f"Measured values of trial {number}")


def _score(board: Board, number: int) -> str:
    """The quality with its standard error, as the rows and the repeats tell it."""
    glance, metric = board.by_number[number], board.study.metric
    if glance.state is not TrialState.COMPLETE:
        return shown_value(metric, glance.values[metric])
    known = queries.marks(board, queries.database(), (number,))
    return value_text(metric, estimate_of([glance], metric, known, picks.noise(board, metric)))
