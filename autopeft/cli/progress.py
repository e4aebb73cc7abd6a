"""Progress of a search: a live view on a terminal, one line a finished trial elsewhere.

SIGINT once drains, twice stops.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autopeft.cli.console import note
from autopeft.driver import Interrupt
from autopeft.objectives import KINDS, figures, show
from autopeft.progress import Progress
from autopeft.report import further, layer_bars, trial_line
from autopeft.study import PARAMETERS, UNLIMITED, TrialState

FRONT_ROWS = 12


class Display(Protocol):
    """Shows progress, and carries the user's wish to stop."""

    interrupt: Interrupt

    def show(self, progress: Progress) -> None:
        """Shows ``progress``."""


class LineDisplay:
    """One line on stderr for each trial that ended."""

    def __init__(self, quiet: bool) -> None:
        self.interrupt = Interrupt()
        self._quiet = quiet
        self._told: set[tuple[int, int]] | None = None

    def show(self, progress: Progress) -> None:
        """Prints what ended or paused since the last call; what had before the first is not told again."""
        resting = {(trial.number, trial.rung): trial for trial in progress.trials if trial.state.rests}
        if self._told is None:
            self._told = set(resting) if len(resting) > 1 else set()
        for key in sorted(set(resting) - self._told):
            self._told.add(key)
            if not self._quiet:
                count = len({number for number, _ in self._told})
                done = f"{trial_line(progress.study, resting[key], count, progress.target)}"
                note(f"{done}; front {progress.standing.hypervolume:.4f}{_eta(progress)}")


class LiveDisplay:
    """A view that redraws itself: front so far, hypervolume, trials by state, time left."""

    def __init__(self, live: Live) -> None:
        self.interrupt = Interrupt()
        self._live = live

    def show(self, progress: Progress) -> None:
        """Redraws."""
        self._live.update(live_view(progress, self.interrupt.count > 0))


def live_view(progress: Progress, draining: bool) -> Group:
    """What the live view shows for ``progress``."""
    counts = {state: sum(trial.state is state for trial in progress.trials) for state in TrialState}
    done = sum(trial.state.rests for trial in progress.trials)
    paused = f"{counts[TrialState.PAUSED]} of them paused, " if counts[TrialState.PAUSED] else ""
    of = "" if progress.study.trials >= UNLIMITED else f"/{progress.target}"
    standing = progress.standing
    head = Text.assemble(
        (f"{progress.study.name}  ", "bold"),
        f"{done}{of} trials done, {paused}{counts[TrialState.RUNNING]} running, "
        f"{counts[TrialState.QUEUED]} queued, {counts[TrialState.FAILED] + counts[TrialState.QUARANTINED]} failed",
    )
    scores = (
        f"hypervolume {standing.hypervolume:.4f} (control {standing.control_hypervolume:.4f})   "
        f"{_clock(progress.elapsed_seconds)} elapsed{_eta(progress)}"
    )
    table = Table(box=None, pad_edge=False)
    costs = further(progress.study)
    for name in ("trial", progress.study.metric, "parameters", *(KINDS[name].heading for name in costs), "layers"):
        table.add_column(name, justify="left" if name == "layers" else "right")
    for trial in standing.front[-FRONT_ROWS:]:
        quality, cost = trial.values[progress.study.metric], trial.values[PARAMETERS]
        more = [show(name, value) for name, value in figures(progress.study, trial, costs).items()]
        table.add_row(str(trial.number), f"{quality:.4f}", f"{cost:,.0f}", *more, layer_bars(trial.configuration))
    hint = "finishing the running trials; Ctrl-C again hands them back" if draining else "Ctrl-C drains"
    return Group(head, Text(scores), table, Text(hint, style="dim"))


@contextmanager
def progress_display(quiet: bool) -> Iterator[Display]:
    """The display that suits stderr, with SIGINT and SIGTERM turned into its ``interrupt``."""
    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")) or None)
    if quiet or not sys.stderr.isatty():
        line = LineDisplay(quiet)
        with _signals(line.interrupt):
            yield line
        return
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        display = LiveDisplay(live)
        with _signals(display.interrupt):
            yield display


@contextmanager
def _signals(interrupt: Interrupt) -> Iterator[None]:
    def request(_number: int, _frame: FrameType | None) -> None:
        interrupt.request()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _eta(progress: Progress) -> str:
    return "" if progress.eta_seconds is None else f", about {_clock(progress.eta_seconds)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
