"""Processes that train one run together: each takes a share of every step's rows, and gradients are added up.

The step is that of one process up to the order of sums, whatever the number of processes: the loss of a share is
divided by what the whole step counts. No wrapper is put around the model, because an update schedule changes from step
to step what gets a gradient. Started by torch's own
launcher or by ``accelerate launch``, which set the same environment; accelerate finds this process's place in it.
One GPU a process, or CPUs over gloo.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from autopeft.errors import ConfigurationError


class Processes(Protocol):
    """Who trains together."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0; the first writes files."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def add_up(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Replaces gradients by their sums over all processes; the sum of the losses comes back."""
        ...


class Alone:
    """One process."""

    rank, count = 0, 1

    def add_up(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The loss; gradients are whole already."""
        return loss


ALONE = Alone()


class Together:
    """The processes of one launch.

    Args:
        cpu: Whether they train on CPUs.

    Attributes:
        rank: Number of this process.
        count: How many there are.
        device: Where this one trains.
    """

    def __init__(self, cpu: bool) -> None:
        from accelerate import PartialState

        state = PartialState(cpu=cpu)
        self.rank, self.count = int(state.process_index), int(state.num_processes)
        self.device: torch.device = state.device
        self._wait = state.wait_for_everyone

    def add_up(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Replaces gradients by their sums over all processes, in one message; the sum of the losses comes back.

        A parameter without a gradient here counts as 0: another process may have one.
        """
        from accelerate.utils import reduce

        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        message = torch.cat([loss.detach().float().reshape(1), *(one.reshape(-1).float() for one in gradients)])
        total: Tensor = reduce(message, reduction="sum")
        sizes = [gradient.numel() for gradient in gradients]
        for parameter, piece in zip(parameters, torch.split(total[1:], sizes), strict=True):
            parameter.grad = piece.view_as(parameter).to(parameter.dtype)
        return total[0]

    def wait(self) -> None:
        """Returns when every process is here."""
        self._wait()


def launched_together() -> bool:
    """Whether this process is one of several that train one run."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def require_rows(batch_size: int, count: int) -> None:
    """Nothing, if every process gets a row of each step.

    Raises:
        ConfigurationError: If not.
    """
    if batch_size < count:
        raise ConfigurationError(
            f"{count} processes for steps of {batch_size} rows: expected at most one process a row; give fewer "
            "--processes"
        )
