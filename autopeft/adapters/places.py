"""One model that serves the adapters of several configurations at once, each on its own rows of the batch.

A batch holds the same rows once for each member, member after member. LoRA and linear heads of all members are one
batched product over stacked weights, padded with zeros to the largest rank; whatever else stands at a place is led its
member's rows alone. No operation mixes rows, so what one member computes (a NaN, say) no other sees. The frozen module
is asked once for all members that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from autopeft.adapters.head import Classifier
from autopeft.adapters.lifting import Around, Lifted, LowRank, Sliced, Way, Whole
from autopeft.adapters.methods.prefix import PrefixPart, SlicedPrefix, use_prefixes

Stacked = Callable[[str], Tensor]
"""The values of that name of all members, stacked: shape [members, …], zero where a member's end or it has none."""


class PackedModule(nn.Module):
    """Stands in for a module that some members adapt.

    Args:
        frozen: The module, for members that have nothing here.
        ways: What each member has here, in the order of their rows; None for nothing.
        stacked: Gives stacked values.
    """

    def __init__(self, frozen: nn.Module, ways: Sequence[Way | None], stacked: Stacked) -> None:
        super().__init__()
        self.frozen = frozen
        self._count, self._stacked = len(ways), stacked
        asked = [(way.module if isinstance(way, Sliced) else frozen) for way in ways]
        # neighbours that ask the same module are one run of rows
        self._runs = [(module, len(list(run))) for module, run in groupby(asked)]
        low = [way for way in ways if isinstance(way, LowRank)]
        self._low = low[0] if low else None
        self._whole = next((way for way in ways if isinstance(way, Whole)), None)
        scalings = [way.scaling if isinstance(way, LowRank) else 0.0 for way in ways]
        self._scalings = torch.tensor(scalings, device=next(frozen.parameters()).device)[:, None, None]

    @property
    def weight(self) -> Any:
        """The frozen weight: some models ask for its type."""
        return self.frozen.weight

    @property
    def bias(self) -> Any:
        """The frozen bias."""
        return self.frozen.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """What the module answers, each member's rows in its own way.

        Args:
            inputs: Shape [members × rows, …, in].
        """
        if self._whole is not None:
            return self._own(inputs, self._whole)
        answer = self._run(inputs)
        return answer if self._low is None else self._adapted(inputs, answer, self._low)

    def _run(self, inputs: Tensor) -> Tensor:
        if len(self._runs) == 1:
            answer: Tensor = self._runs[0][0](inputs)
            return answer
        rows = inputs.shape[0] // self._count
        pieces = torch.split(inputs, [rows * members for _, members in self._runs])
        return torch.cat([module(piece) for (module, _), piece in zip(self._runs, pieces, strict=True)])

    def _adapted(self, inputs: Tensor, answer: Tensor, way: LowRank) -> Tensor:
        down, up = self._stacked(way.down), self._stacked(way.up)
        rows = inputs.reshape(self._count, -1, inputs.shape[-1]).to(down.dtype)
        inner = torch.bmm(rows, down.transpose(1, 2)) * self._scalings
        added = torch.bmm(inner, up.transpose(1, 2)).reshape(answer.shape)
        return (answer + added).to(answer.dtype)

    def _own(self, inputs: Tensor, way: Whole) -> Tensor:
        weight = self._stacked(way.weight)
        rows = inputs.reshape(self._count, -1, inputs.shape[-1]).to(weight.dtype)
        answer = torch.bmm(rows, weight.transpose(1, 2))
        if way.bias is not None:
            answer = answer + self._stacked(way.bias)[:, None]
        return answer.reshape(*inputs.shape[:-1], weight.shape[1])


class PackedBottlenecks:
    """The bottlenecks of all members in one layer.

    Args:
        members: Those of each member; None for none.
    """

    def __init__(self, members: Sequence[Around | None]) -> None:
        self._members = members
        self._entered: Tensor | None = None

    def enter(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Notes what enters the feed-forward sublayer."""
        self._entered = inputs[0]

    def leave(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """What leaves it, with each member's bottlenecks added to its rows."""
        assert self._entered is not None
        count, pieces = len(self._members), []
        for around, left, entered in zip(self._members, output.chunk(count), self._entered.chunk(count), strict=True):
            added = left
            for kind, bottleneck in around.modules if around is not None else ():
                added = added + bottleneck(left if kind == "serial" else entered)
            pieces.append(added)
        self._entered = None
        return torch.cat(pieces)


@contextmanager
def placed(classifier: Classifier, members: Sequence[Lifted], stacked: Stacked) -> Iterator[None]:
    """While it lasts, ``classifier`` takes batches of [members × rows] and answers each member's rows as its own.

    Args:
        classifier: Without adapters; it is left so.
        members: In the order of their rows.
        stacked: Gives stacked values.
    """
    with ExitStack() as standing:
        for place in _of_all([member.ways for member in members]):
            ways = [member.ways.get(place) for member in members]
            standing.enter_context(_put(classifier, place, ways, stacked))
        for place in _of_all([member.around for member in members]):
            standing.enter_context(_hung(classifier, [member.around.get(place) for member in members]))
        for place in _of_all([member.prefixes for member in members]):
            standing.enter_context(_prefixed(classifier, place, [member.prefixes.get(place) for member in members]))
        yield


def _of_all(found: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(place for one in found for place in one))


@contextmanager
def _put(classifier: Classifier, place: str, ways: Sequence[Way | None], stacked: Stacked) -> Iterator[None]:
    parent_path, _, name = place.rpartition(".")
    parent, frozen = classifier.get_submodule(parent_path), classifier.get_submodule(place)
    setattr(parent, name, PackedModule(frozen, ways, stacked))
    try:
        yield
    finally:
        setattr(parent, name, frozen)


@contextmanager
def _hung(classifier: Classifier, members: Sequence[Around | None]) -> Iterator[None]:
    around = next(member for member in members if member is not None)
    bottlenecks = PackedBottlenecks(members)
    entering = classifier.get_submodule(around.first).register_forward_pre_hook(bottlenecks.enter)
    leaving = classifier.get_submodule(around.last).register_forward_hook(bottlenecks.leave)
    try:
        yield
    finally:
        entering.remove()
        leaving.remove()


@contextmanager
def _prefixed(classifier: Classifier, place: str, prefixes: Sequence[Any]) -> Iterator[None]:
    headless = classifier.model.base_model
    use_prefixes(headless)
    classifier.get_submodule(place).add_module("prefix", SlicedPrefix(prefixes))
    attention = next(path for path, module in headless.named_modules() if module is classifier.get_submodule(place))
    try:
        yield
    finally:
        PrefixPart(headless, attention).take_out()
