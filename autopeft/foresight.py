"""Peak memory before training: the arithmetic of ``search_spaces.memory``, fitted to what the first trials showed.

How long rows really are, and what head and loss hold, is not in a study. So the head-only trial tells what stands on
the backbone, and the first adapted ones the length of the widest batch; what is left is arithmetic. Before any trial is
measured there is a lower bound: one row of one token. Serves limits, not objectives: what a trial showed counts there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autopeft.errors import BackboneError
from autopeft.fitting import computing
from autopeft.objectives import exact, figures
from autopeft.study import PARAMETERS, Origin, Study, Trial, TrialState
from search_spaces.configuration import Configuration
from search_spaces.memory import TrainingMemory, Workload

PEAK_MEMORY, FORESEEN = "peak_memory", "foreseen_memory"

FITTED_ON = 8
"""Adapted trials that the length of the widest batch is fitted on: the control, mostly."""

MARGIN = 1.05
"""How far the foreseen memory may lie above a limit before a configuration is not tried at all."""


@dataclass(slots=True)
class _Foresight:
    """Peaks with batches of one size.

    Attributes:
        memory: The arithmetic.
        beside: Bytes of what stands on the backbone, head and loss.
        on_gpu: Whether temporaries count: an allocator sees them, the meter on a CPU does not.
    """

    memory: TrainingMemory
    beside: float
    on_gpu: bool

    def __call__(self, plan: Configuration) -> float:
        """The peak of ``plan`` in bytes."""
        peak = self.memory.peak(plan)
        return (peak.total if self.on_gpu else peak.held) + self.beside


def foretold(
    study: Study, trials: Sequence[Trial]
) -> tuple[dict[str, Callable[[Configuration], float]], dict[str, float]]:
    """Costs beside parameters that are known of a configuration before it is tried, and the study's limits on them.

    The peak memory is among them, as far as it is foreseen, where there is a limit on it.
    """
    known = {name: function for name, function in exact(study).items() if name != PARAMETERS}
    limits = {name: limit for name, limit in study.limits.items() if name in known}
    if PEAK_MEMORY in study.limits and (foreseen := foreseen_memory(study, trials)) is not None:
        known[FORESEEN], limits[FORESEEN] = foreseen, study.limits[PEAK_MEMORY] * MARGIN
    return known, limits


def foreseen_memory(study: Study, trials: Sequence[Trial]) -> Callable[[Configuration], float] | None:
    """Bytes at the peak of training a configuration, or None for a family that no arithmetic is known of.

    Args:
        study: The study.
        trials: All its trials; with none measured, what comes back is a lower bound.
    """
    on_gpu = study.environment.get("device") == "cuda"

    def with_batches(rows: int, tokens: int, beside: float = 0.0) -> _Foresight:
        work = Workload(rows, tokens, head="none", **computing(study.regime, study.model.load_in))
        return _Foresight(TrainingMemory(study.backbone, work), beside, on_gpu)

    try:
        least = with_batches(1, 1)
    except BackboneError:
        return None
    seen = [
        (trial, found[PEAK_MEMORY])
        for trial in trials
        if trial.state is TrialState.COMPLETE and (found := figures(study, trial, [PEAK_MEMORY]))
    ]
    adapted = [(trial.configuration, peak) for trial, peak in seen if trial.origin is not Origin.REFERENCE][:FITTED_ON]
    if not adapted:
        return least
    alone = [peak - least(trial.configuration) for trial, peak in seen if _is_head_only(trial)]
    beside = max([0.0, *alone])
    rows = min(study.fidelity.batch_size, study.fidelity.micro_batch or study.fidelity.batch_size)
    measured, low, high = sum(peak for _, peak in adapted), 1, study.fidelity.max_length
    while low < high:
        tokens = (low + high) // 2
        foresight = with_batches(rows, tokens, beside)
        if sum(foresight(plan) for plan, _ in adapted) < measured:
            low = tokens + 1
        else:
            high = tokens
    return with_batches(rows, low, beside)


def _is_head_only(trial: Trial) -> bool:
    return trial.configuration.is_empty and not trial.configuration.training.backbone
