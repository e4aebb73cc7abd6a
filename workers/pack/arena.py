"""What all members of a pack train, as one table: a row a member, and AdamW and clipping of all rows at once.

A name that several members train has the same columns in every row, as wide as the largest of them needs; what a
member does not fill is zero, gets no gradient, and stays zero. A step of all members costs the same few operations
whatever their number. The arithmetic is that of ``torch.optim.AdamW`` and ``clip_grad_norm_``, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workers.training import CLIP_NORM, WEIGHT_DECAY

FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8
"""As ``torch.optim.AdamW`` has them."""

_TINY = 1e-6
"""As ``clip_grad_norm_`` adds to a norm."""

Named = Mapping[str, nn.Parameter]


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a row a name stands.

    Attributes:
        start: First column.
        shape: Of the largest tensor of that name.
    """

    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """Behind the last column."""
        return self.start + math.prod(self.shape)


class Arena:
    """The table of some members.

    Args:
        members: What each trains, by name; the parameters lie in the table from now on.
        stacked: Of each member, the names whose values are asked for stacked, and whose gradients come that way.

    Attributes:
        values: Shape [members, columns]; so are ``gradients`` and the moments ``first`` and ``second``.
    """

    def __init__(self, members: Sequence[Named], stacked: Sequence[frozenset[str]]) -> None:
        self._members, self._stacked = list(members), list(stacked)
        self._columns = _columns(members)
        width = max(columns.stop for columns in self._columns.values())
        device = next(iter(members[0].values())).device
        self.values = torch.zeros(len(members), width, device=device)
        for row, member in enumerate(members):
            for name, parameter in member.items():
                self.view(self.values, row, name).copy_(parameter.detach())
        self.gradients, self.first, self.second = (torch.zeros_like(self.values) for _ in range(3))
        self._leaves: dict[str, nn.Parameter] = {}
        self._bind()

    def view(self, table: Tensor, row: int, name: str) -> Tensor:
        """What stands in ``table`` for one member under ``name``, in that member's own shape."""
        columns, shape = self._columns[name], self._members[row][name].shape
        whole = table[row, columns.start : columns.stop].view(columns.shape)
        return whole[tuple(slice(0, size) for size in shape)]

    def leaf(self, name: str) -> Tensor:
        """The values of all members under ``name``, shape [members, …]; gradients flow into them."""
        return self._leaves[name]

    def part(self, rows: Sequence[int]) -> Arena:
        """The same of some members, in a table of their own."""
        found = object.__new__(Arena)
        found._members = [self._members[row] for row in rows]
        found._stacked = [self._stacked[row] for row in rows]
        found._columns, found._leaves = self._columns, {}
        kept = torch.tensor(list(rows), device=self.values.device)
        found.values, found.gradients = self.values[kept], torch.zeros_like(self.values[kept])
        found.first, found.second = self.first[kept], self.second[kept]
        found._bind()
        return found

    def zero_gradients(self) -> None:
        """Forgets the gradients."""
        self.gradients.zero_()

    def forget_gradients(self) -> None:
        """Takes all gradients off, so that ``without_gradient`` tells what the next backward pass reaches."""
        for tensor in self._trained().values():
            tensor.grad = None

    def without_gradient(self) -> list[str]:
        """Names that the backward pass since ``forget_gradients`` did not reach; the others lie in the table now."""
        missing = [name for (_, name), tensor in self._trained().items() if tensor.grad is None]
        with torch.no_grad():
            for (row, name), tensor in self._trained().items():
                place = self._place(self.gradients, row, name)
                if tensor.grad is not None:
                    place.copy_(tensor.grad)
                tensor.grad = place
        return missing

    @torch.no_grad()
    def step(self, rates: Tensor, number: int) -> None:
        """Clips each row's gradient to ``CLIP_NORM`` and makes one AdamW step of each.

        Args:
            rates: Learning rate of each member now, shape [members].
            number: Of the step, from 1.
        """
        norms = torch.linalg.vector_norm(self.gradients, dim=1)
        self.gradients.mul_((CLIP_NORM / (norms + _TINY)).clamp(max=1.0)[:, None])
        rates = rates[:, None]
        self.values.mul_(1 - rates * WEIGHT_DECAY)
        self.first.lerp_(self.gradients, 1 - FIRST_DECAY)
        self.second.mul_(SECOND_DECAY).addcmul_(self.gradients, self.gradients, value=1 - SECOND_DECAY)
        size = (self.second.sqrt() / math.sqrt(1 - SECOND_DECAY**number)).add_(EPSILON)
        self.values.sub_(self.first / size * (rates / (1 - FIRST_DECAY**number)))

    def optimizer_state(self, row: int, number: int) -> dict[str, Any]:
        """The state of a ``torch.optim.AdamW`` over one member's parameters after ``number`` steps."""
        state = {}
        for index, name in enumerate(self._members[row]):
            moments = {"exp_avg": self.first, "exp_avg_sq": self.second}
            own = {key: self.view(table, row, name).clone() for key, table in moments.items()}
            state[index] = {"step": torch.tensor(float(number), device=self.values.device), **own}
        optimizer = torch.optim.AdamW(self._members[row].values(), weight_decay=WEIGHT_DECAY, fused=True)
        return {**optimizer.state_dict(), "state": state}

    def take_state(self, row: int, state: Mapping[str, Any]) -> None:
        """Takes in what ``optimizer_state`` gave, or that optimiser's own ``state_dict``."""
        for index, name in enumerate(self._members[row]):
            self.view(self.first, row, name).copy_(state["state"][index]["exp_avg"])
            self.view(self.second, row, name).copy_(state["state"][index]["exp_avg_sq"])

    def _bind(self) -> None:
        """Makes every parameter and leaf a view of the tables."""
        for row, member in enumerate(self._members):
            for name, parameter in member.items():
                parameter.data, parameter.grad = self.view(self.values, row, name), None
        names = frozenset[str]().union(*self._stacked)
        self._leaves = {name: nn.Parameter(self._stack(self.values, name)) for name in sorted(names)}
        for (place, name), tensor in self._trained().items():
            tensor.grad = self._place(self.gradients, place, name)

    def _trained(self) -> dict[tuple[int | None, str], nn.Parameter]:
        """What gradients come to: stacked by name, then by row and name what lies in none of the stacks.

        A row of a stack may be no part of its products: its gradient there is 0, and its own comes after.
        """
        found: dict[tuple[int | None, str], nn.Parameter] = {(None, name): leaf for name, leaf in self._leaves.items()}
        for row, (member, stacked) in enumerate(zip(self._members, self._stacked, strict=True)):
            found |= {(row, name): parameter for name, parameter in member.items() if name not in stacked}
        return found

    def _place(self, table: Tensor, row: int | None, name: str) -> Tensor:
        return self._stack(table, name) if row is None else self.view(table, row, name)

    def _stack(self, table: Tensor, name: str) -> Tensor:
        columns = self._columns[name]
        return table[:, columns.start : columns.stop].view(len(table), *columns.shape)


def _columns(members: Sequence[Named]) -> dict[str, Columns]:
    shapes: dict[str, tuple[int, ...]] = {}
    for member in members:
        for name, parameter in member.items():
            known = shapes.get(name, tuple(parameter.shape))
            shapes[name] = tuple(max(sizes) for sizes in zip(known, parameter.shape, strict=True))
    found: dict[str, Columns] = {}
    start = 0
    for name, shape in shapes.items():
        found[name] = Columns(start, shape)
        start = found[name].stop
    return found
