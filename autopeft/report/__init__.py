"""What commands print: versioned JSON documents and plain-text tables of one study.

``front`` is the front with control and verdict, ``trials`` all trials and how far the study is, ``trial`` one in full.
No torch, no SQL, no terminal control.
"""

from autopeft.report.cells import first_line, further, layer_bars, rank_sum
from autopeft.report.front import front_document, front_text, left_out, odds_document
from autopeft.report.trial import trial_text
from autopeft.report.trials import (
    state_text,
    status_document,
    status_text,
    trial_line,
    trial_row,
    trials_document,
    trials_text,
)

__all__ = [
    "first_line",
    "front_document",
    "front_text",
    "further",
    "layer_bars",
    "left_out",
    "odds_document",
    "rank_sum",
    "state_text",
    "status_document",
    "status_text",
    "trial_line",
    "trial_row",
    "trial_text",
    "trials_document",
    "trials_text",
]
