"""Driving a recorded study to its end, and what has come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autopeft.arranging import pack_size
from autopeft.asking import reference_sweep
from autopeft.confirming import Confirmed, confirmed, numbers
from autopeft.driver import Driver, Interrupt
from autopeft.errors import BudgetError, ConfigurationError
from autopeft.launch import make_engine
from autopeft.progress import Ending, Progress
from autopeft.proxy import require_fit
from autopeft.rungs import proposed_count
from autopeft.settings import SearchSettings, artifact_root
from autopeft.standing import Standing, standing
from autopeft.store import Store
from autopeft.store.overlook import Overlook
from autopeft.study import Study, Trial


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """A study after a search.

    Attributes:
        study: What was asked.
        trials: Every trial, as recorded.
        standing: Front, control and hypervolumes.
        ending: Why the search ended.
        confirmed: What fresh seeds say of the front and its control, with the verdict.
    """

    study: Study
    trials: Sequence[Trial]
    standing: Standing
    ending: Ending
    confirmed: Confirmed

    @property
    def front(self) -> Sequence[Trial]:
        """Members of the front, cheapest first."""
        return self.standing.front


def run(
    store: Store,
    url: str,
    study: Study,
    show: Callable[[Progress], None],
    interrupt: Interrupt,
    settings: SearchSettings,
) -> SearchOutcome:
    """Drives a recorded study to its target, with the workers and the engine that ``settings`` name."""
    artifacts = artifact_root(url, settings.artifacts)
    engine = make_engine(
        settings.engine,
        url,
        study.name,
        artifacts,
        settings.workers,
        settings.engine_address,
        settings.cache,
        study.regime.gpus,
        pack_size(study, settings),
    )
    ending = Driver(store, study, engine, show, interrupt, artifacts).run()
    trials = store.trials(study.name)
    now = standing(study, trials)
    with Overlook.open(url) as reader:
        again = confirmed(study, trials, now, reader.marks(study.name, numbers(trials)))
    return SearchOutcome(study, trials, now, ending, again)


def compare_with(
    store: Store,
    url: str,
    name: str | None,
    references: tuple[str, ...],
    show: Callable[[Progress], None],
    interrupt: Interrupt,
    settings: SearchSettings,
) -> SearchOutcome:
    """Trains ``references`` beside what a study has; proposes nothing new.

    Raises:
        NotFoundError: If there is no such study.
        ConfigurationError: If a reference is unknown, or none of its sizes fits the budget.
    """
    study = store.study(name)
    study = replace(
        study, trials=proposed_count(store.trials(study.name)), hours=None, device_hours=None, references=references
    )
    require_fit(study, ())
    if not any(reference_sweep(study).values()):
        raise ConfigurationError(
            f"references {', '.join(references)}: none of their sizes fits the budget of "
            f"{study.budget.parameters:,} parameters on {study.backbone.name}; ask for others, or for full"
        )
    return run(store, url, study, show, interrupt, settings)


def confirm(
    store: Store,
    url: str,
    name: str | None,
    seeds: int,
    show: Callable[[Progress], None],
    interrupt: Interrupt,
    settings: SearchSettings,
) -> SearchOutcome:
    """Trains the front and the control of a study with fresh seeds, up to ``seeds`` each; proposes nothing new.

    Raises:
        NotFoundError: If there is no such study.
        BudgetError: If its front is empty.
    """
    study = store.study(name)
    trials = store.trials(study.name)
    if not standing(study, trials).front:
        raise BudgetError(f"the front of {study.name} is empty: there is nothing to confirm; autopeft resume goes on")
    return run(
        store,
        url,
        replace(study, trials=proposed_count(trials), hours=None, device_hours=None, confirmations=seeds),
        show,
        interrupt,
        settings,
    )
