"""Members of a front with error bars, as the pages pick from them, and the verdict: reads marks, knows no Streamlit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from autopeft.candidates import candidates, noise_of, repeat_numbers
from autopeft.confirming import UNCONFIRMED, Confirmed, confirmed, numbers
from autopeft.picking import Candidate
from autopeft.precision import Noise
from autopeft.study import Origin
from dashboard import queries
from dashboard.board import Board

MOST_KEPT = 16
_AGAIN: dict[tuple[object, ...], Confirmed] = {}
"""What fresh seeds say, by what it rests on, the oldest first."""


@lru_cache(maxsize=32)
def members(board: Board, url: str, budget: int | None = None) -> list[Candidate]:
    """The front within ``budget`` as candidates."""
    front = board.standing_within(budget).front
    known = queries.marks(board, url, queries.same_numbers(repeat_numbers(board.complete, front)))
    return candidates(board.study, board.complete, front, known)


@lru_cache(maxsize=32)
def with_errors(board: Board, url: str, budget: int | None = None) -> Mapping[int, Candidate]:
    """Front, control and references by number, for error bars."""
    standing = board.standing_within(budget)
    beside = (Origin.CONTROL, Origin.REFERENCE)
    shown = [*standing.front, *(one for one in board.complete if one.origin in beside)]
    known = queries.marks(board, url, queries.same_numbers(repeat_numbers(board.complete, shown)))
    return {candidate.number: candidate for candidate in candidates(board.study, board.complete, shown, known)}


@lru_cache(maxsize=16)
def noise(board: Board, name: str) -> Noise:
    """What another seed changes in the value ``name``."""
    return noise_of(board.complete, name)


@lru_cache(maxsize=16)
def again(board: Board, url: str, budget: int | None = None) -> Confirmed:
    """What fresh seeds say of front and control within ``budget``.

    The bootstrap takes up to a second, so what comes back is kept until what it rests on is another, whatever else the
    study's revisions bring: the same runs, the same front, the same box of hypervolumes.
    """
    standing = board.standing_within(budget)
    if not any(one.origin is Origin.CONFIRMATION for one in board.complete):
        return UNCONFIRMED
    wanted = queries.same_numbers(numbers(board.complete))
    members = tuple((one.number, *one.values.items()) for one in standing.front)
    key = (url, board.study.name, budget, wanted, members, standing.box)
    if key not in _AGAIN:
        while len(_AGAIN) >= MOST_KEPT:
            _AGAIN.pop(next(iter(_AGAIN)), None)
        found = confirmed(board.study, board.glances, standing, queries.marks(board, url, wanted), budget)
        _AGAIN[key] = found
    return _AGAIN[key]
