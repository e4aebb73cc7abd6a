"""All studies of the database in one table, the latest first."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from autopeft.errors import AutopeftError
from dashboard import queries
from dashboard.frame import plain


def page() -> None:
    """The whole page."""
    st.title("Studies")
    try:
        url = queries.database()
        rows = [_row(queries.snapshot(url, name)) for name in queries.study_names(url)]
    except AutopeftError as error:
        st.error(plain(str(error)), icon=":material/database_off:")
        return
    if not rows:
        st.info("The database holds no study yet. Start one with `autopeft search`.")
        return
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        alt="All studies, the latest first",
        column_config={
            "open": st.column_config.LinkColumn("open", display_text="front", width=64),
            "budget": st.column_config.NumberColumn(format="localized"),
            "hypervolume": st.column_config.NumberColumn(format="%.4f"),
            "control": st.column_config.NumberColumn("hypervolume of the control", format="%.4f"),
        },
    )


def _row(snapshot: queries.Snapshot) -> dict[str, object]:
    study, standing = snapshot.study, snapshot.standing
    return {
        "study": study.name,
        "task": study.task_name,
        "backbone": study.backbone.name,
        "space": study.space.name,
        "budget": study.budget.parameters,
        "finished": f"{sum(trial.state.is_final for trial in snapshot.trials)} / {snapshot.expected}",
        "on the front": len(standing.front),
        "hypervolume": standing.hypervolume,
        "control": standing.control_hypervolume,
        "open": f"/?study={study.name}",
    }
