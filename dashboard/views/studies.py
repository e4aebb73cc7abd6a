"""All studies of the database in one table, the latest first."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from autopeft.errors import AutopeftError
from autopeft.spending import target_text
from autopeft.store.overlook import StudyLine
from dashboard import queries
from dashboard.frame import guarded, plain
from dashboard.views.headline import duration


@guarded
def page() -> None:
    """The whole page."""
    st.title("Studies")
    try:
        rows = [_row(line) for line in queries.study_lines(queries.database())]
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
        },
    )


def _row(line: StudyLine) -> dict[str, object]:
    study = line.study
    finished = sum(count for state, count in line.counts.items() if state.rests)
    return {
        "study": study.name,
        "task": study.task_name,
        "backbone": study.backbone.name,
        "space": study.space.name,
        "objectives": ", ".join(objective.name for objective in study.objectives),
        "budget": study.budget.parameters,
        "finished": f"{finished:,} of {sum(line.counts.values()):,} asked, target {target_text(study)}",
        "on the front": line.front_size,
        "hypervolume": line.hypervolume,
        "begun": f"{duration(line.age_seconds)} ago",
        "open": f"/front?study={study.name}",
    }
