"""Which trials can share a forward pass with others, and why the rest run alone; known before anything is loaded."""

from __future__ import annotations

from autopeft.regime import FP16
from autopeft.study import Order, Study
from search_spaces.configuration import Configuration
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola

MEASURED = ("inference_seconds", "peak_memory", "train_seconds", "evaluate_seconds")
"""What a trial of a pack has no figure of its own for, or only its share of one."""

STARTS = ("default", "orthogonal")
"""Initialisations of LoRA that read no rows and leave the frozen weight alone."""


def why_alone(order: Order) -> str | None:
    """Why ``order`` is trained alone; None if it can be a member of a pack."""
    if order.memory_failures:
        return "it ran out of memory before, and takes smaller pieces"
    return why_study_alone(order.study) or why_plan_alone(order.configuration)


def why_study_alone(study: Study) -> str | None:
    """Why every trial of ``study`` is trained alone; None if they can be packed."""
    regime, named = study.regime, {*study.limits, *(objective.name for objective in study.objectives)}
    if measured := sorted(named & set(MEASURED)):
        return f"{measured[0]} is measured, and several trials at once have no figure of their own for it"
    if study.model.load_in is not None:
        return "the backbone is quantised"
    if regime.gpus > 1:
        return "several GPUs hold the backbone between them"
    if regime.gradient_checkpointing or regime.liger:
        return "layers are computed anew in the backward pass, or by fused kernels"
    if regime.precision == FP16:
        return "its loss is scaled (float16)"
    if study.fidelity.accumulation(0) > 1:
        return "the rows of a step go through the model in pieces"
    if study.fidelity.packing:
        return "the rows of a step lie end to end"
    if study.backbone.projects_positions:
        return f"{study.backbone.family} leads its relative positions through modules that are adapted"
    return None


def why_plan_alone(plan: Configuration) -> str | None:
    """Why a trial of ``plan`` is trained alone; None if it can be packed."""
    training = plan.training
    if training.backbone:
        return "it trains every weight of the backbone"
    if plan.is_empty:
        return "nothing is inserted"
    if training.schedule is not None:
        return "an update schedule decides at each step what it trains"
    if training.selection is not None:
        return "it selects among its modules first"
    for _, _, method in plan.placements():
        if isinstance(method, Mola):
            return "routers see the whole batch"
        if isinstance(method, Lora) and method.init not in STARTS:
            return f"LoRA's initialisation {method.init} reads rows or changes the frozen weight"
    return None
