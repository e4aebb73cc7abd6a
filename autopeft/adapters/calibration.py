"""Initialisations of LoRA that read training rows: EVA (arXiv 2410.07170), CorDA (2406.05223), LoRA-GA (2407.05000).

CorDA and LoRA-GA are peft's own; EVA's vectors come from one pass over the rows (exact principal directions of a
module's inputs, where peft iterates until they no longer move, which it may never do). Rows of other splits never come
here: the caller hands in training rows, and its time is the trial's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import peft
import torch
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from torch import Tensor, nn

from autopeft.errors import ConfigurationError
from search_spaces.methods.lora import CORDA, DATA_DRIVEN

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Rows that an initialisation may read.

    Attributes:
        batches: Makes a fresh pass over some batches, each a mapping of tensors with one entry a row. An
            ``attention_mask`` of shape [rows, tokens] says which tokens count.
        loss: The training loss of a batch, computed with the whole model, head included.
    """

    batches: Callable[[], Iterable[Batch]]
    loss: Callable[[Batch], Tensor]


def require_rows(init: str, rows: TrainingRows | None) -> TrainingRows:
    """``rows``, if they are there.

    Raises:
        ConfigurationError: If they are not.
    """
    if rows is None:
        raise ConfigurationError(
            f"LoRA init {init!r} reads training rows: give them, as apply(model, configuration, rows=TrainingRows(…))"
        )
    return rows


def prepare(headless: nn.Module, config: peft.LoraConfig, init: str, rows: TrainingRows | None) -> None:
    """Leaves at the modules of ``config`` what peft's initialisation will look for; nothing for most of them.

    Raises:
        ConfigurationError: If ``init`` needs rows and there are none.
    """
    if init not in DATA_DRIVEN:
        return
    given = require_rows(init, rows)
    if init in CORDA:
        preprocess_corda(headless, config, run_model=lambda: _run_singly(given))
    elif init == "lora_ga":
        modes = {module: module.training for module in headless.modules()}
        with warnings.catch_warnings():
            # the first modules read frozen embeddings, and the hooks with which peft counts say so
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            preprocess_loraga(headless, config, lambda: _backward(headless, given))
        for module, mode in modes.items():
            module.training = mode


def tidy(module: nn.Module) -> None:
    """Takes off what ``prepare`` left at a module."""
    for name in ("eigens", "_peft_loraga_grad"):
        if hasattr(module, name):
            delattr(module, name)


def fix_signs(parameters: Mapping[str, Tensor]) -> None:
    """Turns each singular vector that LoRA-GA starts from so that its largest entry is positive.

    A decomposition says nothing of the signs, and LoRA-GA pairs vectors of different singular values, so that rounding
    decided where training began.

    Args:
        parameters: A and B of one module, shape [rank, in] and [out, rank].
    """
    with torch.no_grad():
        for name, weight in parameters.items():
            axis = 1 if name.endswith("lora_A.weight") else 0
            largest = weight.gather(axis, weight.abs().argmax(dim=axis, keepdim=True))
            weight.mul_(torch.where(largest < 0, -1.0, 1.0))


def principal_directions(modules: Mapping[str, nn.Module], rows: TrainingRows) -> dict[str, Tensor]:
    """For each module the eigenvectors of its inputs' covariance, strongest first, shape [in, in]."""
    moments: dict[str, Tensor] = {}
    mask: list[Tensor | None] = [None]

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            states = _counting(inputs[0].detach().float(), mask[0])
            ones = torch.ones(states.shape[0], 1, device=states.device)
            extended = torch.cat([states, ones], dim=1)
            moments[name] = moments.get(name, 0) + extended.T @ extended

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, module in modules.items():
            hooks.callback(module.register_forward_pre_hook(watch(name)).remove)
        for batch in rows.batches():
            mask[0] = batch.get("attention_mask")
            rows.loss(batch)
    return {name: torch.linalg.eigh(_covariance(moment)).eigenvectors.flip(1) for name, moment in moments.items()}


def _covariance(moment: Tensor) -> Tensor:
    """The covariance in sums of products of (input, 1)."""
    mean = moment[:-1, -1:] / moment[-1, -1]
    return moment[:-1, :-1] / moment[-1, -1] - mean @ mean.T


def _counting(states: Tensor, mask: Tensor | None) -> Tensor:
    """The states of tokens that are no padding, shape [tokens, width]."""
    if mask is not None and states.shape[:-1] == mask.shape:
        return states[mask.bool()]
    return states.flatten(0, -2)


def _run_singly(rows: TrainingRows) -> None:
    """One row at a time and without padding: peft's CorDA takes no batches."""
    for batch in rows.batches():
        for row in _rows_of(batch):
            rows.loss(row)


def _rows_of(batch: Batch) -> Iterator[dict[str, Tensor]]:
    mask = batch.get("attention_mask")
    for index in range(len(next(iter(batch.values())))):
        row = {name: tensor[index : index + 1] for name, tensor in batch.items()}
        if mask is not None:
            kept = mask[index].bool()
            row = {name: tensor[:, kept] if tensor.shape[1:2] == kept.shape else tensor for name, tensor in row.items()}
        yield row


def _backward(headless: nn.Module, rows: TrainingRows) -> None:
    headless.eval()  # peft puts the model into training mode: dropout would blur the gradient
    for batch in rows.batches():
        rows.loss(batch).backward()  # type: ignore[no-untyped-call]
