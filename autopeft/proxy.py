"""A smaller sibling that stands in for a study's model while it searches: what is trained on which of the two.

Configurations are proposed for the model, and costs, budget and front are the model's. Trials of the search train on
the sibling, to which plans are carried by relative depth (``search_spaces.relative_depth``); what is trained again to
confirm the front trains on the model itself, so that the verdict is about that, and so do references. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autopeft.errors import ConfigurationError
from autopeft.objectives import KINDS, Scored
from autopeft.ranks import RankAgreement, rank_agreement
from autopeft.study import Origin, Study, Trial, TrialState
from search_spaces.configuration import Configuration
from search_spaces.errors import ConfigurationError as NoPlanError
from search_spaces.relative_depth import RelativeDepth, require_sibling


def stands_in(study: Study, origin: Origin, plan: Configuration) -> bool:
    """Whether a trial of ``plan`` and that origin trains on the sibling.

    References but the head alone stand beside what is confirmed on the model, and train on that.
    """
    if study.proxy is None or origin is Origin.CONFIRMATION:
        return False
    return origin is not Origin.REFERENCE or (plan.is_empty and not plan.training.backbone)


def on_proxy(study: Study) -> Study:
    """``study`` as its sibling is trained for it; the study itself, if it has none."""
    if study.proxy is None:
        return study
    return replace(study, model=study.proxy.model, backbone=study.proxy.backbone, proxy=None)


def carried(study: Study, configuration: Configuration) -> Configuration:
    """``configuration`` as the sibling is trained with it; the same, if the study has none."""
    if study.proxy is None:
        return configuration
    depth = RelativeDepth(study.backbone.layer_count, study.proxy.backbone.layer_count)
    return depth.carried(configuration)


def require_fit(study: Study, plans: Sequence[Configuration]) -> None:
    """Nothing, if the study can be searched on its sibling.

    Args:
        study: With a proxy.
        plans: Of its space, to be tried on the sibling.

    Raises:
        ConfigurationError: If the sibling is none, one of the plans does not fit it, or a cost would have to be
            measured, which it cannot tell of the model.
    """
    if study.proxy is None:
        return
    costs = dict.fromkeys((*(objective.name for objective in study.objectives[1:]), *study.limits))
    if measured := [name for name in costs if not KINDS[name].exact]:
        raise ConfigurationError(
            f"proxy model {study.proxy.backbone.name}: {' and '.join(measured)} would be measured on it and not on "
            f"{study.backbone.name}; trade off and limit exact costs only: "
            f"{', '.join(name for name, kind in KINDS.items() if kind.exact)}"
        )
    require_sibling(study.backbone, study.proxy.backbone)
    for plan in plans:
        if plan.training.selection is not None:
            raise ConfigurationError(
                f"space {study.space.name} lets trials choose their own modules, which a proxy model cannot do for "
                "another; choose another space"
            )
        try:
            carried(study, plan).validate(study.proxy.backbone)
        except NoPlanError as error:
            raise ConfigurationError(
                f"proxy model {study.proxy.backbone.name}: a plan of space {study.space.name} does not fit it: {error}"
            ) from error


def exportable(study: Study, member: Trial, trials: Sequence[Trial]) -> Trial | None:
    """The trial whose weights are the model's: the member, or with a sibling the first that confirmed it."""
    if not stands_in(study, member.origin, member.configuration):
        return member
    return next(
        (
            trial
            for trial in trials
            if trial.origin is Origin.CONFIRMATION
            and trial.digest == member.digest
            and trial.state is TrialState.COMPLETE
        ),
        None,
    )


def agreement(study: Study, trials: Sequence[Scored]) -> RankAgreement | None:
    """How well the sibling's qualities order what was also trained on the model; None before three were.

    The front among these was chosen by the sibling's values, which lowers the agreement; the control was not.
    """
    if study.proxy is None:
        return None
    seen: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for trial in trials:
        if trial.state is TrialState.COMPLETE and trial.origin is not Origin.REFERENCE:
            side = seen[trial.origin is Origin.CONFIRMATION]
            side.setdefault(trial.digest, []).append(trial.values[study.metric])
    both = [digest for digest in seen[0] if digest in seen[1]]
    pairs = np.array([[np.mean(side[digest]) for side in seen] for digest in both]).reshape(len(both), 2)
    return rank_agreement(pairs[:, 0], pairs[:, 1], np.random.default_rng(study.seed))


def trained_on(study: Study) -> str:
    """The model's name, and where a sibling stands in that of the sibling, for people."""
    name = study.backbone.name
    return name if study.proxy is None else f"{name} (searched on {study.proxy.backbone.name})"


def lines(study: Study, found: RankAgreement | None = None) -> list[str]:
    """What is measured on which model, and the agreement of ranks, for people; nothing without a sibling."""
    proxy, model = study.proxy, study.backbone
    if proxy is None:
        return []
    said = (
        f"proxy    search and head alone train on {proxy.backbone.name} ({proxy.backbone.layer_count} layers for "
        f"{model.layer_count}), so its quality is measured; parameters and budget are those of {model.name}, and what "
        "is trained again to confirm the front, and references, train on that"
    )
    return [said, *([] if found is None else [f"ranks    {found.text}"])]


def document(study: Study, found: RankAgreement | None) -> dict[str, Any]:
    """The same as plain values under ``proxy``; nothing for a study without a sibling."""
    if study.proxy is None:
        return {}
    return {"proxy": {"model": study.proxy.backbone.name, "ranks": None if found is None else found.to_json()}}
