"""Chooses how a study is computed by the memory that its training takes, before anything is loaded.

A pure function of shapes, batch and device memory, so the same study always gets the same regime; it is written into
the study and all trials share it. What is predicted is ``search_spaces.memory``'s arithmetic for the longest rows that
the study allows, of the widest plan that is certain to be trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from autopeft.errors import ConfigurationError
from autopeft.regime import Regime
from autopeft.study import Study
from search_spaces.configuration import Configuration, LayerPlan
from search_spaces.memory import Peak, TrainingMemory, Workload
from search_spaces.tape import FULL, HALF

USABLE = 0.92
"""Share of a device's memory that training may take; the rest is the driver's context and what the allocator loses."""


@dataclass(frozen=True, slots=True)
class Head:
    """What stands on the backbone, for the arithmetic.

    Attributes:
        kind: One of ``search_spaces.memory.HEADS``.
        outputs: Classes, or the vocabulary of a language model.
        others: Frozen weights of it outside the backbone.
    """

    kind: str = "mean"
    outputs: int = 2
    others: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user leaves open, None, and what not.

    Attributes:
        precision: As ``Regime`` has it.
        gradient_checkpointing: Likewise.
        gpus: GPUs of a worker.
        liger: Whether Liger's kernels are asked for.
        halves: Whether the device computes in bfloat16.
    """

    precision: str | None = None
    gradient_checkpointing: bool | None = None
    gpus: int = 1
    liger: bool = False
    halves: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """A regime, and what it was chosen by.

    Attributes:
        regime: What was chosen.
        micro_batch: Most rows of a forward pass; None: all of a step's.
        predicted: The peak of the plan that was to fit, in bytes; None where no memory was known.
        memory: What there is, in bytes; None where that is not known.
        fits: Whether that plan does.
    """

    regime: Regime
    micro_batch: int | None
    predicted: int | None = None
    memory: int | None = None
    fits: bool = True

    @property
    def note(self) -> str:
        """A line for people."""
        regime, rows = self.regime, self.micro_batch
        parts = [regime.precision or "precision as the device has it"]
        parts += ["layers recomputed"] * regime.gradient_checkpointing + ["Liger's kernels"] * regime.liger
        parts += [] if rows is None else [f"at most {rows} row{'s' if rows > 1 else ''} a forward pass"]
        parts += [f"{regime.gpus} GPUs a worker"] if regime.gpus > 1 else []
        said = f"compute  {', '.join(parts)}"
        if self.predicted is None or self.memory is None:
            return said
        figures = f"{gigabytes(self.predicted)} predicted of {gigabytes(self.memory)}"
        return f"{said}; {figures}" + ("" if self.fits else ": plans as wide as the control's widest will be refused")


def gigabytes(size: float) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.3g} GB"


def computing(regime: Regime, load_in: str | None) -> dict[str, Any]:
    """The fields of ``Workload`` that say how the backbone is kept and computed."""
    return {
        "precision": "bfloat16" if regime.precision in ("mixed", "bf16") else "float32",
        "weight_bytes": HALF if regime.precision == "bf16" else FULL,
        "checkpointed": regime.gradient_checkpointing,
        "quantisation": load_in,
    }


def predicted(study: Study, plan: Configuration, head: Head, rows: int) -> Peak:
    """The peak of training ``plan`` with ``rows`` of the study's greatest length in a forward pass.

    Raises:
        BackboneError: If no arithmetic is known for the family.
    """
    work = Workload(
        rows,
        study.fidelity.max_length,
        head.kind,
        head_parameters=(study.backbone.hidden_size + 1) * head.outputs if head.kind in ("mean", "stock") else 0,
        other_parameters=head.others,
        outputs=head.outputs,
        **computing(study.regime, study.model.load_in),
    )
    return TrainingMemory(study.backbone, work).peak(plan)


def choose(study: Study, widest: Configuration, head: Head, asked: Asked, memory: int | None) -> Fit:
    """The first regime under which ``widest`` fits; the most sparing one if none does.

    Layers kept come before layers recomputed, more rows a forward pass before fewer, and of two regimes that differ in
    neither, frozen weights in float32 before those in bfloat16.

    Args:
        study: Its regime does not count.
        widest: The plan to go by.
        head: What stands on the backbone.
        asked: What is not left open.
        memory: Of a device, in bytes; None: what is left open stays as it is without any choice.

    Raises:
        ConfigurationError: If not even the head alone can be trained in ``memory``.
    """
    if memory is None:
        usual = "fp32" if study.model.load_in and asked.precision is None else asked.precision
        fixed = Regime(usual, bool(asked.gradient_checkpointing), asked.gpus, asked.liger)
        return Fit(fixed, study.fidelity.micro_batch)
    whole, usable = memory * asked.gpus, int(memory * asked.gpus * USABLE)
    fit = None
    for regime, rows in _candidates(study, asked):
        peak = predicted(replace(study, regime=regime), widest, head, rows)
        divided = None if rows == study.fidelity.batch_size else rows
        fit = Fit(regime, divided, peak.total, whole, peak.total <= usable)
        if fit.fits:
            return fit
    assert fit is not None
    require_room(replace(study, regime=fit.regime), _nothing(widest), head, usable, "the head alone")
    return fit


def require_room(study: Study, plan: Configuration, head: Head, usable: int, what: str) -> None:
    """Nothing, if ``plan`` can be trained a row at a time in ``usable`` bytes.

    Raises:
        ConfigurationError: If it is predicted not to; with the figures, and what to try.
        BackboneError: If no arithmetic is known for the family.
    """
    peak = predicted(study, plan, head, rows=1)
    if peak.total <= usable:
        return
    adapters = peak.trained + peak.gradients + peak.optimizer
    rest = peak.total - peak.weights - adapters
    raise ConfigurationError(
        f"{what}: training it is predicted to take {gigabytes(peak.total)} even with one row of "
        f"{study.fidelity.max_length} tokens a forward pass (frozen weights {gigabytes(peak.weights)}, adapters with "
        f"gradients and moments {gigabytes(adapters)}, activations {gigabytes(rest)}); at most {gigabytes(usable)} may "
        f"be used; try {', '.join(_ways_out(study, shorter=rest > peak.total / 10))}"
    )


def _ways_out(study: Study, *, shorter: bool) -> Iterator[str]:
    regime = study.regime
    if study.model.load_in != "4bit":
        yield "--load-in 4bit"
    if regime.precision != "bf16":
        yield "--precision bf16"
    if not regime.gradient_checkpointing:
        yield "--gradient-checkpointing on"
    yield f"--gpus-per-worker {regime.gpus + 1}"
    if shorter:
        yield f"--max-length {max(1, study.fidelity.max_length // 2)}"


def _candidates(study: Study, asked: Asked) -> Iterator[tuple[Regime, int]]:
    recomputed = (False, True) if asked.gradient_checkpointing is None else (asked.gradient_checkpointing,)
    precisions: tuple[str, ...] = ("fp32",) if asked.precision is None else (asked.precision,)
    if asked.precision is None and asked.halves:
        precisions = ("bf16",) if study.model.load_in else ("mixed", "bf16")
    for again in recomputed:
        rows = min(study.fidelity.micro_batch or study.fidelity.batch_size, study.fidelity.batch_size)
        while rows:
            for precision in precisions:
                yield Regime(precision, again, asked.gpus, asked.liger), rows
            rows //= 2


def _nothing(plan: Configuration) -> Configuration:
    return Configuration(tuple(LayerPlan() for _ in plan.layers), plan.training)
