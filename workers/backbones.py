"""The backbone of a study, loaded once and kept: model with head, task, and both splits as token ids.

Adapters come and go with the trials; the backbone stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from autopeft.adapters.head import Classifier
from autopeft.adapters.models import (
    DECODERS,
    load_for_task,
    load_image_processor,
    load_template,
    load_tokenizer,
    require_length,
)
from autopeft.adapters.turns import ChatTemplate
from autopeft.adapters.weights import Stand
from autopeft.errors import EvaluationError
from autopeft.settings import CacheMode, cache_folder, cache_quota_bytes
from autopeft.study import Study
from autopeft.tasks import Split, Task, TaskKind, TaskSpec, load_task
from workers.answers import AnswerRows, encode_answers
from workers.batches import TaskRows, encode
from workers.caching import StateCache, go_on
from workers.images import encode_images
from workers.intact import bit_sum
from workers.metric_files import grader_of
from workers.processes import ALONE, Processes
from workers.shelf import Shelf
from workers.tokens import TokenCache


@dataclass(frozen=True, slots=True)
class Resident:
    """What all trials of a study share.

    Attributes:
        classifier: Frozen backbone and head, on its device, without adapters.
        task: The task.
        train: Its training rows.
        validation: Its validation rows.
        states: Keeps what enters a layer.
        bits: What the frozen weights add up to.
        begun: How trials on these rows begin, for the measurement's details; empty: at the embeddings.
        processes: That train together.
    """

    classifier: Classifier
    task: Task
    train: TaskRows
    validation: TaskRows
    states: StateCache
    bits: Mapping[str, int]
    begun: Mapping[str, object] = field(default_factory=dict)
    processes: Processes = ALONE

    @property
    def changed(self) -> list[str]:
        """Names of frozen tensors, without adapters, that are no longer what was loaded."""
        now = frozen_bits(self.classifier)
        return sorted(name for name in {*now, *self.bits} if now.get(name) != self.bits.get(name))

    @property
    def truncation(self) -> dict[str, dict[str, float]]:
        """What of each split did not fit, as a measurement's details have it; of language models."""
        splits = {"training": self.train, "validation": self.validation}
        answers = {name: rows.truncation for name, rows in splits.items() if isinstance(rows, AnswerRows)}
        return {name: found for name, found in answers.items() if found is not None}

    def beginning_at(
        self, layer: int, between_steps: Callable[[int], None] = go_on, *, timed: bool = False
    ) -> Resident:
        """The same, with rows that carry the states that enter ``layer`` where that pays: see ``workers.caching``.

        Args:
            layer: The lowest that may be trained; the number of layers if only the head is.
            between_steps: Called again and again while states are computed; what it raises ends that.
            timed: Whether the seconds of scoring are to be those of inference, for which every layer computes.
        """
        found = self.states.begin(layer, (self.train,) if timed else (self.train, self.validation), between_steps)
        train, validation = (*found.splits, self.validation)[:2]
        return replace(self, train=train, validation=validation, begun=found.details)


def open_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        EvaluationError: If there is none.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EvaluationError(f"device {name}: torch {torch.__version__} sees no GPU here; use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise EvaluationError(f"device {name!r}: expected cpu or cuda:N") from error


def load_resident(study: Study, device: torch.device, cache: CacheMode | None = None) -> Resident:
    """Loads model and data of ``study``; ``cache`` says how states are kept, None: as the study does.

    Raises:
        AutopeftError: If the model or the task cannot be loaded, or the model cannot read rows that long.
    """
    task = load_task(TaskSpec.from_json(study.task))
    if task.train.chats is not None:
        task = task.laid_out_by(_template(study, task).text)
    stand = Stand(device, study.regime)
    classifier = load_for_task(study.model, task.kind, len(task.label_names), study.seed, stand)
    train = encode_training(study, task, task.train, classifier)
    validation = encode_split(study, task, task.validation, classifier)
    states = StateCache.of(classifier, study.model.sha256, study.cache if cache is None else cache)
    return Resident(classifier, task, train, validation, states, frozen_bits(classifier))


def frozen_bits(classifier: Classifier) -> dict[str, int]:
    """What every tensor of the model but the new head adds up to; see ``workers.intact``."""
    return bit_sum(classifier.model, leave_out=frozenset(classifier.head_parameters()))


def encode_training(study: Study, task: Task, split: Split, classifier: Classifier) -> TaskRows:
    """As ``encode_split``, for rows to train on: packed if the study asks for that."""
    rows = encode_split(study, task, split, classifier)
    if study.fidelity.packing and isinstance(rows, AnswerRows):
        return replace(rows, is_packed=True)
    return rows


def encode_split(study: Study, task: Task, split: Split, classifier: Classifier) -> TaskRows:
    """The rows of ``split`` as the study's tokenizer cuts them, or its image processor.

    Raises:
        ConfigurationError: If the study's rows may be longer than the backbone can read.
    """
    if task.kind is TaskKind.IMAGE_CLASSIFICATION:
        return encode_images(load_image_processor(study.model), split)
    config = classifier.model.config
    require_length(config, study.backbone.name, study.fidelity.max_length)
    tokens = TokenCache(Shelf(cache_folder() / "tokens", cache_quota_bytes()))
    if task.kind is TaskKind.CAUSAL_LM:
        template = None if split.chats is None else _template(study, task)
        tokenizer = load_tokenizer(study.model) if template is None else template.tokenizer
        rows = encode_answers(tokenizer, split, study.fidelity.max_length, tokens, template)
        grader = None if task.metric_file is None else grader_of(task.metric_file)
        return replace(rows, grader=grader, most_new=task.spec.max_new_tokens)
    if split.pairs is not None and config.model_type in DECODERS:  # whose tokenizers set nothing between two texts
        split = replace(split, pairs=tuple(f"\n{pair}" for pair in split.pairs))
    return encode(
        load_tokenizer(study.model),
        split,
        study.fidelity.max_length,
        with_types=getattr(config, "type_vocab_size", 1) > 1,
        regression=task.is_regression,
        cache=tokens,
    )


def _template(study: Study, task: Task) -> ChatTemplate:
    return load_template(study.model, task.chat_template)


@dataclass(slots=True)
class Residents:
    """Keeps the resident of the latest study, so that a worker loads a backbone once and not once a trial.

    Attributes:
        device: Where.
        cache: How states are kept; None: as each study says.
    """

    device: torch.device
    cache: CacheMode | None = None
    _study: Study | None = field(default=None)
    _resident: Resident | None = field(default=None)

    def of(self, study: Study) -> Resident:
        """The resident of ``study``, loaded if it is not there.

        Raises:
            AutopeftError: If it cannot be loaded.
        """
        if self._resident is None or self._study is None or _inputs(study) != _inputs(self._study):
            self._resident = None  # frees the memory of the one before
            self._resident = load_resident(study, self.device, self.cache)
            self._study = study
        return self._resident

    def forget(self) -> None:
        """Frees the resident, so that the next is loaded from the disk."""
        self._resident = None


def _inputs(study: Study) -> tuple[object, ...]:
    fidelity = study.fidelity
    return study.model, study.regime, dict(study.task), fidelity.max_length, fidelity.packing, study.seed, study.cache
