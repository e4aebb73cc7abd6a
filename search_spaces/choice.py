"""What a layer group may hold, as data: a method, the modules it may stand at, the values its sizes may have.

Read from JSON or YAML; every key and value is checked by building the method. Layers and backbones are not known here.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from search_spaces.backbone import SITES
from search_spaces.errors import ConfigurationError
from search_spaces.methods import METHODS, Method

Value = int | float | str
COMBINATIONS_LIMIT = 20_000
"""Most combinations of sizes that one choice may have: all are held in memory."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One method with all the forms that it may take in a layer group.

    Attributes:
        method: Its name.
        sites: Alternatives, each a set of sites that are adapted together.
        sizes: Name of each size with the values that it may have, lowest first; others stand at their defaults.
            ``alpha``, where it is not among them, is the space's scaling times the rank; ``top_k`` is at most the
            number of experts.
        groups: Numbers of the layer groups where it may stand, from 0; None for all.
    """

    method: str
    sites: tuple[tuple[str, ...], ...]
    sizes: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    groups: tuple[int, ...] | None = None

    def forms(self, scaling: float) -> Iterator[tuple[tuple[int, ...], Method]]:
        """Every combination of sizes as indices into ``sizes``, and the method that has them.

        Raises:
            ConfigurationError: If a size is unknown, missing or out of range.
        """
        for indices in itertools.product(*(range(len(values)) for _, values in self.sizes)):
            given = {name: values[index] for (name, values), index in zip(self.sizes, indices, strict=True)}
            yield indices, _method(self.method, given, scaling)

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        data: dict[str, Any] = {"method": self.method}
        if self.sites != _only_site(self.method):
            data["sites"] = [list(sites) for sites in self.sites]
        if self.sizes:
            data["sizes"] = {name: list(values) for name, values in self.sizes}
        return data if self.groups is None else data | {"groups": list(self.groups)}

    @classmethod
    def from_json(cls, data: Any) -> Choice:
        """The choice in ``data``, validated.

        Raises:
            ConfigurationError: If a key is unknown or missing, or a value is of the wrong kind.
        """
        if not isinstance(data, Mapping):
            raise ConfigurationError(f"a choice is an object with method, sites and sizes, got {data!r}")
        for key in data:
            if key not in ("method", "sites", "sizes", "groups"):
                close = difflib.get_close_matches(str(key), ("method", "sites", "sizes", "groups"), n=1)
                hint = f"; did you mean {close[0]!r}?" if close else "; known: method, sites, sizes, groups"
                raise ConfigurationError(f"unknown choice key {key!r}{hint}")
        method = data.get("method")
        if method not in METHODS:
            raise ConfigurationError(f"choice of method {method!r}: expected one of {', '.join(METHODS)}")
        choice = cls(
            str(method), _sites(method, data.get("sites")), _sizes(method, data.get("sizes", {})), _numbers(data)
        )
        for _ in choice.forms(1.0):  # refuses what the method cannot have
            pass
        return choice


def _method(name: str, given: Mapping[str, Value], scaling: float) -> Method:
    kind = METHODS[name]
    usual = {field.name: field.default for field in fields(kind) if isinstance(field.default, int | float | str)}
    sizes: dict[str, Any] = {**usual, **given}
    rank, experts = sizes.get("rank"), sizes.get("experts")
    if "alpha" in {field.name for field in fields(kind)} and "alpha" not in sizes and rank is not None:
        sizes["alpha"] = scaling * rank if isinstance(rank, int) else scaling  # such a rank is refused by the method
    if isinstance(experts, int) and isinstance(top_k := sizes.get("top_k"), int):
        sizes["top_k"] = max(1, min(top_k, experts))
    return kind.from_json(sizes)


def _only_site(method: str) -> tuple[tuple[str, ...], ...]:
    """The site of a method that has but one; none for the others."""
    sites = METHODS[method].sites
    return (sites,) if len(sites) == 1 else ()


def _sites(method: str, data: Any) -> tuple[tuple[str, ...], ...]:
    if data is None and (only := _only_site(method)):
        return only
    if not isinstance(data, Sequence) or isinstance(data, str) or not data:
        raise ConfigurationError(
            f"choice of {method}, key 'sites': expected a list of alternatives like [[query, value], [up, down]], "
            f"got {data!r}"
        )
    rows = [data] if all(isinstance(site, str) for site in data) else data
    for row in rows:
        if not isinstance(row, Sequence) or isinstance(row, str) or not row or len(set(row)) != len(row):
            raise ConfigurationError(f"choice of {method}, key 'sites': expected different sites, got {row!r}")
        for site in row:
            if site not in METHODS[method].sites:
                known = [name for name in SITES if name in METHODS[method].sites]
                raise ConfigurationError(f"choice of {method}: it cannot stand at {site!r}; known: {', '.join(known)}")
    return tuple(tuple(row) for row in rows)


def _sizes(method: str, data: Any) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    if not isinstance(data, Mapping):
        raise ConfigurationError(
            f"choice of {method}, key 'sizes': expected an object like {{rank: [1, 4]}}, got {data!r}"
        )
    rows, combinations = [], 1
    for name, values in data.items():
        listed = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else (values,)
        plain = all(isinstance(value, int | float | str) and not isinstance(value, bool) for value in listed)
        numbers = [value for value in listed if isinstance(value, int | float)]
        if not listed or not plain or len(set(listed)) != len(listed) or numbers != sorted(numbers):
            raise ConfigurationError(
                f"choice of {method}, size {name!r}: expected different values, lowest first, got {values!r}"
            )
        rows.append((str(name), listed))
        combinations *= len(listed)
    if combinations > COMBINATIONS_LIMIT:
        raise ConfigurationError(f"choice of {method}: {combinations:,} combinations of sizes; at most 20,000")
    return tuple(rows)


def _numbers(data: Mapping[str, Any]) -> tuple[int, ...] | None:
    groups = data.get("groups")
    if groups is None:
        return None
    if not isinstance(groups, Sequence) or isinstance(groups, str) or not all(type(group) is int for group in groups):
        raise ConfigurationError(f"choice key 'groups': expected numbers of layer groups like [0, 1], got {groups!r}")
    return tuple(groups)
