"""The workers page: who works, since when, when last heard of, and which attempts brought nothing."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from autopeft.store.rows import Worker
from dashboard import frame, queries
from dashboard.board import Board
from dashboard.frame import guarded
from dashboard.views.headline import duration

SILENT_SECONDS = 90.0
"""A worker is heard of every few seconds; a lease outlives its last word by a minute."""


@guarded
def page() -> None:
    """The whole page."""
    st.title("Workers")
    board = frame.chosen_board()
    if board is None:
        return
    url = queries.database()
    found = queries.workers(url)
    if not found:
        st.info("No worker has registered yet: `autopeft search` starts its own, `autopeft worker` adds one.")
    else:
        # heartbeats are no events, so this part looks on its own
        st.fragment(partial(_table, board, url, found), run_every=5)()
    _retried(board, url)


def _table(board: Board, url: str, known: list[Worker]) -> None:
    found = queries.workers(url) or known
    done = queries.finished_by(url, board.study.name)
    holding = {glance.owner: glance.number for glance in board.glances if glance.owner}
    alive = sum(worker.silent_seconds < SILENT_SECONDS for worker in found)
    st.caption(f"{alive} of {len(found)} heard of within the last {SILENT_SECONDS:.0f} s.")
    rows = [
        {
            "worker": worker.name,
            "state": "alive" if worker.silent_seconds < SILENT_SECONDS else "silent",
            "trial": holding.get(worker.name),
            "finished here": done.get(worker.name, 0),
            "last heard of": f"{duration(worker.silent_seconds)} ago",
            "started": f"{duration(worker.age_seconds)} ago",
            "device": worker.device,
            "host": worker.host,
            "process": worker.pid,
        }
        for worker in found[:200]
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt="All workers, the latest first")


def _retried(board: Board, url: str) -> None:
    st.subheader("Attempts that brought no measurement")
    found = queries.retried(url, board.study.name)
    if not found:
        st.caption("None.")
        return
    rows = [
        {
            "trial": number,
            "attempt": one.number,
            "state now": board.by_number[number].state.value.lower() if number in board.by_number else "",
            "cause": one.failure.value if one.failure else "",
            "worker": one.worker,
            "reason": one.reason or "",
        }
        for number, one in found
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt="Attempts that failed, the latest first")
