"""Spaces of conditional choices: each layer group holds one method in one of its forms, or nothing.

A layer group is one coordinate, whose values are all the different tables that it may have: what has no effect (a rank
where a prefix stands) is no coordinate, so no plan is there twice. Costs add up over the groups. A last coordinate is
the update schedule, where several may be chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.backbone import Backbone
from search_spaces.choice import Choice
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.cost import layer_parameters
from search_spaces.definition import SpaceDefinition
from search_spaces.dimensions import Ordinal
from search_spaces.errors import ConfigurationError
from search_spaces.grid import MIDDLE, AdditiveGrid, Array, Indices, layer_groups, span, steps_away
from search_spaces.methods import Method
from search_spaces.methods.lora import Lora
from search_spaces.patterns import experts_at

SHARES = (1.0, 0.75, 0.5, 0.25)
"""How far an expert allocation is scaled down to fit a budget, before lower ranks are not enough."""

PLAIN_SHARES = ((1.0, 0.875), (1 / 4, 1.0), (1 / 16, 1.0), (1 / 64, 0.875))
"""Shares of the budget at which plain LoRA is tried first, each with the place of its learning rate in the range.

In short trials the upper end learns most, at every size (docs/experiments.md).
"""

Key = tuple[int, int, tuple[int, ...]]
"""Number of a choice, of its sites and of the value of each of its sizes."""


@dataclass(frozen=True, slots=True)
class Option:
    """One table that a layer group may have.

    Attributes:
        key: The first form that makes it; None for nothing.
        extent: Size of the method.
        rows: A row for each layer of the group.
        cost: Trained parameters of them all.
    """

    key: Key | None
    extent: int
    rows: tuple[LayerPlan, ...]
    cost: int


@dataclass(frozen=True, slots=True)
class Group:
    """The options of one layer group.

    Attributes:
        layers: Of the group.
        options: All different; nothing first, where it is allowed.
        forms: The option of every form, also of those that make the same.
    """

    layers: tuple[int, ...]
    options: tuple[Option, ...]
    forms: Mapping[Key, int]


class ChoiceGrid(AdditiveGrid):
    """The points of a definition with ``choices`` on one backbone, as value indices of its ordinals.

    Args:
        definition: What may be tried.
        backbone: What it is tried on.

    Raises:
        ConfigurationError: If the definition names sites, layers or groups that are not there, or the backbone cannot
            take a method.
    """

    def __init__(self, definition: SpaceDefinition, backbone: Backbone) -> None:
        self._backbone = backbone
        self._definition = definition
        self._groups = _groups(definition, backbone)
        self._schedules = definition.schedules
        self._schedule_ordinals: tuple[Ordinal, ...] = ()
        if len(self._schedules) > 1:
            self._schedule_ordinals = (Ordinal("update schedule", tuple(range(len(self._schedules)))),)
        ordinals = tuple(
            Ordinal(f"{span(group.layers)} choice", tuple(range(len(group.options)))) for group in self._groups
        )
        costs = [tuple(option.cost for option in group.options) for group in self._groups]
        costs += [(0,) * len(self._schedules) for _ in self._schedule_ordinals]
        super().__init__(definition.name, ordinals + self._schedule_ordinals, tuple(costs), len(ordinals))
        self._tables = [_feature_table(definition.choices, group) for group in self._groups]
        self._near = [_near_table(definition.choices, group) for group in self._groups]
        self._found = [{option.rows: i for i, option in enumerate(group.options)} for group in self._groups]

    def features(self, indices: NDArray[np.int64]) -> Array:
        """Shape [n, d]: for each layer group what ``_feature_table`` says, then which schedule, but for the first."""
        columns = [table[indices[:, position]] for position, table in enumerate(self._tables)]
        columns += [np.eye(len(self._schedules))[indices[:, -1], 1:] for _ in self._schedule_ordinals]
        return np.concatenate([np.empty((len(indices), 0)), *columns], axis=1)

    def near(self, indices: Indices) -> Iterator[Indices]:
        """The points with one layer group changed a little or to another method of about that cost, or the schedule."""
        for position, table in enumerate(self._near):
            for index in table[indices[position]]:
                yield (*indices[:position], index, *indices[position + 1 :])
        if self._schedule_ordinals:
            yield from ((*indices[:-1], moved) for (moved,) in steps_away(self._schedule_ordinals, indices[-1:]))

    def anchors(self, budget: int) -> list[tuple[Indices, float]]:
        """For every pattern of the definition the largest allocation within ``budget`` that follows it.

        Where several methods may be chosen and LoRA is one, plain LoRA comes first, at falling costs.
        """
        found = [self._scaled(pattern, budget) for pattern in self._definition.patterns]
        return self._plain(budget) + [(indices, MIDDLE) for indices in found if indices is not None]

    def _plain(self, budget: int) -> list[tuple[Indices, float]]:
        """LoRA alike in all or the upper groups, updated at every step: the dearest within each of ``PLAIN_SHARES``."""
        choices = self._definition.choices
        if len({choice.method for choice in choices}) < 2:
            return []
        forms = set.intersection(*(set(group.forms) for group in self._groups))
        plain = sorted(key for key in forms if choices[key[0]].method == Lora.name)
        unscheduled = (0,) * len(self._schedule_ordinals)
        empty = range(len(self._groups) if self._definition.nothing else 1)
        points = [
            (*(0 if place < lowest else group.forms[key] for place, group in enumerate(self._groups)), *unscheduled)
            for key in plain
            for lowest in empty
        ]
        costs = self.costs_of(np.array(points, dtype=np.int64).reshape(len(points), len(self.ordinals)))
        found: dict[Indices, float] = {}
        for share, rate in PLAIN_SHARES:
            fitting = np.flatnonzero(costs <= share * budget)
            if len(fitting):
                found.setdefault(points[int(fitting[np.argmax(costs[fitting])])], rate)
        return list(found.items())

    def _scaled(self, pattern: str, budget: int) -> Indices | None:
        for share in SHARES:
            plans = {*self._following(pattern, share)}
            rows = np.array(sorted(plans), dtype=np.int64).reshape(len(plans), len(self.ordinals))
            costs = self.costs_of(rows)
            if (costs <= budget).any():
                best = int(np.argmax(np.where(costs <= budget, costs, -1)))
                return tuple(int(index) for index in rows[best])
        return None

    def _following(self, pattern: str, share: float) -> Iterator[Indices]:
        """Points where all groups have the same form but for the number of experts, which follows ``pattern``."""
        for number, choice in enumerate(self._definition.choices):
            names = [name for name, _ in choice.sizes]
            if "experts" not in names:
                continue
            place = names.index("experts")
            counts = [value for value in choice.sizes[place][1] if isinstance(value, int)]
            wanted = [
                _nearest(counts, experts_at(pattern, group.layers[0], self._backbone.layer_count, share))
                for group in self._groups
            ]
            for sites in range(len(choice.sites)):
                for sizes, _ in choice.forms(self._definition.scaling):
                    keys = [(number, sites, (*sizes[:place], at, *sizes[place + 1 :])) for at in wanted]
                    if all(key in group.forms for key, group in zip(keys, self._groups, strict=True)):
                        indices = [group.forms[key] for key, group in zip(keys, self._groups, strict=True)]
                        yield (*indices, *(0 for _ in self._schedule_ordinals))

    def training(self, indices: Indices, learning_rate: float) -> Training:
        """The rate, and the update schedule at that point."""
        return Training(learning_rate, self._schedules[indices[-1] if self._schedule_ordinals else 0])

    def rows(self, indices: Indices) -> tuple[LayerPlan, ...]:
        """The table of the configuration at that point."""
        rows = [LayerPlan()] * self._backbone.layer_count
        for group, index in zip(self._groups, indices, strict=False):
            for layer, row in zip(group.layers, group.options[index].rows, strict=True):
                rows[layer] = row
        return tuple(rows)

    def indices_of(self, configuration: Configuration) -> Indices:
        """The point whose table may be that of ``configuration``.

        Raises:
            ConfigurationError: If there is none.
        """
        indices = []
        for group, found in zip(self._groups, self._found, strict=True):
            rows = tuple(configuration.layers[layer] for layer in group.layers)
            if rows not in found:
                raise ConfigurationError(f"not in space {self._name}: {span(group.layers)}")
            indices.append(found[rows])
        schedule = configuration.training.schedule
        if schedule not in self._schedules:
            raise ConfigurationError(f"not in space {self._name}: its update schedule")
        return (*indices, *(self._schedules.index(schedule) for _ in self._schedule_ordinals))


def _groups(definition: SpaceDefinition, backbone: Backbone) -> tuple[Group, ...]:
    groups = layer_groups(definition, backbone)
    refusals = dict(backbone.refusals)
    for choice in definition.choices:
        if choice.method in refusals:
            raise ConfigurationError(f"{choice.method} on {backbone.family}: {refusals[choice.method]}")
        for number in choice.groups or ():
            if not 0 <= number < len(groups):
                raise ConfigurationError(f"space {definition.name}: no layer group {number} of {len(groups)}")
        for site in (site for sites in choice.sites for site in sites):
            if not any(site in backbone.sites(layer) for layer in range(backbone.layer_count)):
                known = ", ".join(dict.fromkeys(s for i in range(backbone.layer_count) for s in backbone.sites(i)))
                raise ConfigurationError(f"no layer of {backbone.name} has a site {site!r}; it has: {known}")
    return tuple(_group(definition, backbone, number, layers) for number, layers in enumerate(groups))


def _group(definition: SpaceDefinition, backbone: Backbone, number: int, layers: tuple[int, ...]) -> Group:
    nothing = (LayerPlan(),) * len(layers)
    options, forms = {nothing: Option(None, 0, nothing, 0)} if definition.nothing else {}, {}
    for which, choice in enumerate(definition.choices):
        if choice.groups is not None and number not in choice.groups:
            continue
        for place, sites in enumerate(choice.sites):
            for sizes, method in choice.forms(definition.scaling):
                rows = tuple(_row(backbone, layer, sites, method) for layer in layers)
                if rows == nothing:
                    continue  # an encoder's layers lack the cross-attention of its decoder
                if rows not in options:
                    cost = sum(layer_parameters(row, backbone, layer) for row, layer in zip(rows, layers, strict=True))
                    options[rows] = Option((which, place, sizes), method.extent, rows, cost)
                forms[which, place, sizes] = rows
    if not options:
        raise ConfigurationError(f"space {definition.name}: nothing may stand in {span(layers)}; allow it or a choice")
    order = {rows: index for index, rows in enumerate(options)}
    return Group(layers, tuple(options.values()), {key: order[rows] for key, rows in forms.items()})


def _row(backbone: Backbone, layer: int, sites: Sequence[str], method: Method) -> LayerPlan:
    present = backbone.sites(layer)
    return LayerPlan(tuple(Placement(site, method) for site in sites if site in present))


def _feature_table(choices: Sequence[Choice], group: Group) -> Array:
    """Features of every option, shape [options, k]: log cost, which choice, log size at each of its sites, its sizes.

    Each in [0, 1]; what all options have alike is left out.
    """
    costs = np.log1p([option.cost for option in group.options])
    columns = [costs / max(1e-9, costs.max())]
    extents = np.log1p([option.extent for option in group.options])
    for number, choice in enumerate(choices):
        own = np.array([option.key is not None and option.key[0] == number for option in group.options])
        columns.append(own.astype(float))
        largest = max([1e-9, *extents[own]])
        for place in range(len(choice.sites)):
            there = [option.key is not None and option.key[:2] == (number, place) for option in group.options]
            columns.append(np.where(there, extents / largest, 0.0))
        varying = [at for at, (_, values) in enumerate(choice.sizes) if len(values) > 1]
        for at in varying if len(varying) > 1 else ():
            top = len(choice.sizes[at][1])
            columns.append(np.array([_place(option, number, at) for option in group.options]) / top)
    table = np.column_stack(columns)
    return table[:, np.ptp(table, axis=0) > 0]


def _place(option: Option, number: int, at: int) -> int:
    """The place, from 1, of the option's value of size ``at`` of choice ``number``; 0 if it is of another choice."""
    return option.key[2][at] + 1 if option.key is not None and option.key[0] == number else 0


def _near_table(choices: Sequence[Choice], group: Group) -> list[tuple[int, ...]]:
    """For every option those one step away: a size up or down, other sites, any other choice at the nearest cost."""
    table = []
    for here, option in enumerate(group.options):
        near = set() if option.key is None else set(_variations(choices, group, option.key))
        for number in range(len(choices)):
            if option.key is None or option.key[0] != number:
                own = [i for i, other in enumerate(group.options) if other.key is not None and other.key[0] == number]
                near |= {min(own, key=lambda i: abs(group.options[i].cost - option.cost))} if own else set()
        near |= {index for index, other in enumerate(group.options) if other.key is None}
        table.append(tuple(sorted(near - {here})))
    return table


def _variations(choices: Sequence[Choice], group: Group, key: Key) -> Iterator[int]:
    number, place, sizes = key
    keys = [(number, other, sizes) for other in range(len(choices[number].sites)) if other != place]
    for at, index in enumerate(sizes):
        keys += [(number, place, (*sizes[:at], moved, *sizes[at + 1 :])) for moved in (index - 1, index + 1)]
    yield from (group.forms[key] for key in keys if key in group.forms)


def _nearest(values: Sequence[int], wanted: int) -> int:
    """The place of the value nearest to ``wanted``."""
    return min(range(len(values)), key=lambda at: abs(values[at] - wanted))
