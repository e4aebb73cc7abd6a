"""Whether a task's rows and a model go together: chat template, room for what is generated, packing.

Looked at before a study is recorded; weights are not loaded, and only the first conversations are laid out.
"""

from __future__ import annotations

from autopeft.errors import ConfigurationError
from autopeft.fidelity import Fidelity
from autopeft.study import ModelSpec
from autopeft.tasks import Task, TaskKind
from search_spaces.backbone import Backbone

TRIED_CHATS = 500
"""Conversations of a split that are laid out; workers do all."""


def matched(task: Task, model: ModelSpec, backbone: Backbone, fidelity: Fidelity) -> Task:
    """The task, with the chat template in its hash if it holds conversations.

    Raises:
        AutopeftError: If the model has no chat template or it refuses a row, an answer has no room, or rows cannot be
            packed.
    """
    if (most := task.spec.max_new_tokens) is not None and most >= fidelity.max_length:
        raise ConfigurationError(
            f"max new tokens {most}: expected less than max length, {fidelity.max_length}, which holds prompt and "
            "answer; raise --max-length"
        )
    if fidelity.packing:
        _require_packable(task, backbone)
    return _laid_out(task, model)


def _require_packable(task: Task, backbone: Backbone) -> None:
    from autopeft.adapters.packing import require_packable

    if task.kind is not TaskKind.CAUSAL_LM:
        raise ConfigurationError(
            f"packing: {task.name} is {task.kind.value}, whose rows need a sequence each; expected a task of language "
            "modelling: leave --packing out"
        )
    require_packable(backbone.family, backbone.name)


def _laid_out(task: Task, model: ModelSpec) -> Task:
    if task.train.chats is None:
        return task
    from autopeft.adapters.models import load_template

    template = load_template(model, task.chat_template)
    for split in (task.train, task.validation):
        chats, numbers = split.chats or (), split.numbers or ()
        template.lay_out(chats[:TRIED_CHATS], numbers[:TRIED_CHATS])
    return task.laid_out_by(template.text)
