"""A search space as data, before it meets a backbone: read from JSON or YAML, every key and value checked.

Nothing here knows a backbone's shapes; ``search_spaces.space`` binds a definition to one.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.choice import Choice
from search_spaces.cut import Cuts
from search_spaces.dimensions import Continuous, Ordinal
from search_spaces.errors import ConfigurationError
from search_spaces.patterns import PATTERNS
from search_spaces.schedule import UpdateSchedule

SCHEMA = "autopeft.space/1"


@dataclass(frozen=True, slots=True)
class ModuleGroup:
    """Sites that share one rank in a layer group, and the ranks they may have."""

    sites: tuple[str, ...]
    ranks: tuple[int, ...]


SIZED_METHODS = ("serial", "parallel", "prefix", "lora")
"""Methods that a space of shared sizes can hold: those with one size that matters."""


@dataclass(frozen=True, slots=True)
class MethodSizes:
    """A method, the sizes that it may have in all chosen layers alike, and for LoRA the modules that it adapts."""

    method: str
    sizes: tuple[int, ...]
    sites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpaceDefinition:
    """A search space as data, before it meets a backbone; of one of four kinds.

    With ``modules``, every layer group has a LoRA rank of its own for each group of sites. With ``methods``, as in the
    AutoPEFT paper (arXiv 2301.12132), sizes are shared by all layers, and each layer group is on or off. With
    ``choices``, every layer group has one method in one of its forms, or nothing. With ``cuts``, LoRA of one rank
    stands at the modules that DiffoRA's matrix keeps.

    Attributes:
        name: Name for people.
        modules: Groups of sites with their ranks; empty for the second kind.
        layers: Groups of layer indices that share their sizes; None for each layer on its own.
        scaling: LoRA alpha / rank.
        learning_rate: Range searched on a log scale (equal ends: fixed).
        methods: Methods with their sizes; empty for the other kinds.
        choices: What a layer group may hold; empty for the other kinds.
        nothing: Whether a layer group may hold nothing; of the third kind, like the rest.
        schedules: Update schedules that may be chosen; None is to update everything at every step.
        patterns: Names of expert allocations (``search_spaces.patterns``) that are tried first.
        cuts: Ways to cut a matrix; None for the other kinds.
    """

    name: str
    modules: tuple[ModuleGroup, ...]
    layers: tuple[tuple[int, ...], ...] | None
    scaling: float
    learning_rate: tuple[float, float]
    methods: tuple[MethodSizes, ...] = ()
    choices: tuple[Choice, ...] = ()
    nothing: bool = True
    schedules: tuple[UpdateSchedule | None, ...] = (None,)
    patterns: tuple[str, ...] = ()
    cuts: Cuts | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back; the same keys as a YAML space."""
        low, high = self.learning_rate
        return {
            "schema": SCHEMA,
            "name": self.name,
            "layers": "each" if self.layers is None else [list(group) for group in self.layers],
            **self._choices_to_json(),
            "scaling": self.scaling,
            "learning_rate": {"low": low, "high": high},
        }

    def _choices_to_json(self) -> dict[str, Any]:
        if self.choices:
            data: dict[str, Any] = {"choices": [choice.to_json() for choice in self.choices]}
            if not self.nothing:
                data["nothing"] = False
            if self.schedules != (None,):
                data["schedules"] = [schedule and schedule.to_json() for schedule in self.schedules]
            return data | ({"patterns": list(self.patterns)} if self.patterns else {})
        if self.cuts is not None:
            return {"cuts": self.cuts.to_json()}
        if not self.methods:
            return {"modules": [{"sites": list(group.sites), "ranks": list(group.ranks)} for group in self.modules]}
        rows: list[dict[str, Any]] = []
        for choice in self.methods:
            sites = {"sites": list(choice.sites)} if choice.sites else {}
            rows.append({"method": choice.method, "sizes": list(choice.sizes), **sites})
        return {"methods": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SpaceDefinition:
        """The definition in ``data`` (parsed JSON or YAML), validated.

        Raises:
            ConfigurationError: If a key is unknown or missing, or a value is of the wrong kind.
        """
        if not isinstance(data, Mapping):
            raise ConfigurationError(f"a space is an object with name and modules, got {type(data).__name__}")
        _known_keys(data, {*_KINDS, *_OF_CHOICES, "schema", "name", "layers", "scaling", "learning_rate"}, "space")
        if data.get("schema", SCHEMA) != SCHEMA:
            raise ConfigurationError(f"space schema {data['schema']!r}: this version reads {SCHEMA!r}")
        name = data.get("name", "custom")
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"space key 'name': expected a text, got {name!r}")
        kinds = [kind for kind in _KINDS if kind in data]
        if len(kinds) > 1:
            raise ConfigurationError(
                f"space {name}: give 'modules' (ranks by layer), 'methods' (sizes that layers share), 'choices' "
                f"(a method for each layer group) or 'cuts' (of a matrix), not {' and '.join(kinds)}"
            )
        groups = () if kinds and kinds != ["modules"] else _groups(data.get("modules"), name)
        cuts = Cuts.from_json(data["cuts"]) if "cuts" in data else None
        methods = _methods(data["methods"], name) if "methods" in data else ()
        scaling = _number(data.get("scaling", 2.0), "scaling")
        layers = _layers_from_json(data.get("layers", "each"))
        if cuts is not None and layers is not None:
            raise ConfigurationError(f"space {name}: a matrix is cut by single layers; leave 'layers' out")
        return cls(name, groups, layers, scaling, _range(data), methods, **_of_choices(data, name), cuts=cuts)


_KINDS = ("modules", "methods", "choices", "cuts")
_OF_CHOICES = ("nothing", "schedules", "patterns")


def _of_choices(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields that only a space of choices has."""
    if "choices" not in data:
        if given := [key for key in _OF_CHOICES if key in data]:
            raise ConfigurationError(f"space {name}: the key {given[0]!r} belongs to a space with 'choices'")
        return {}
    choices, nothing, patterns = data["choices"], data.get("nothing", True), data.get("patterns", ())
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        raise ConfigurationError(
            "space key 'choices': expected a list like [{method: lora, sites: [query, value], sizes: {rank: [1, 4]}}]"
        )
    if not isinstance(nothing, bool):
        raise ConfigurationError(f"space key 'nothing': expected true or false, got {nothing!r}")
    if not isinstance(patterns, Sequence) or isinstance(patterns, str) or not set(patterns) <= set(PATTERNS):
        raise ConfigurationError(f"space key 'patterns': expected a list of {', '.join(PATTERNS)}, got {patterns!r}")
    return {
        "choices": tuple(Choice.from_json(choice) for choice in choices),
        "nothing": nothing,
        "schedules": _schedules(data.get("schedules", [None])),
        "patterns": tuple(patterns),
    }


def _schedules(data: Any) -> tuple[UpdateSchedule | None, ...]:
    if not isinstance(data, Sequence) or isinstance(data, str) or not data:
        raise ConfigurationError(
            f"space key 'schedules': expected a list like [null, {{update_fraction: 0.5}}], got {data!r}"
        )
    read = [None if one is None else UpdateSchedule.from_json(one) for one in data]
    schedules = tuple(None if one is None or one.changes_nothing else one for one in read)
    if len(set(schedules)) != len(schedules):
        raise ConfigurationError(f"space key 'schedules': one stands twice in {data!r}; give each once")
    return schedules


def _groups(modules: Any, name: str) -> tuple[ModuleGroup, ...]:
    if not isinstance(modules, Sequence) or isinstance(modules, str) or not modules:
        raise ConfigurationError("space key 'modules': expected a list like [{sites: [query, value], ranks: [0, 4]}]")
    groups = tuple(_group_from_json(group) for group in modules)
    sites = [site for group in groups for site in group.sites]
    if len(set(sites)) != len(sites):
        raise ConfigurationError(
            f"space {name}: a site stands in two module groups ({', '.join(sites)}); use each once"
        )
    return groups


def _methods(data: Any, name: str) -> tuple[MethodSizes, ...]:
    if not isinstance(data, Sequence) or isinstance(data, str) or not data:
        raise ConfigurationError("space key 'methods': expected a list like [{method: serial, sizes: [0, 24, 48]}]")
    methods = tuple(_method_from_json(choice) for choice in data)
    names = [choice.method for choice in methods]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"space {name}: a method stands twice ({', '.join(names)}); use each once")
    return methods


def _method_from_json(data: Any) -> MethodSizes:
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"a method choice is an object with method and sizes, got {data!r}")
    _known_keys(data, {"method", "sizes", "sites"}, "method choice")
    method, sizes, sites = data.get("method"), data.get("sizes"), data.get("sites", ())
    if method not in SIZED_METHODS:
        raise ConfigurationError(f"method choice {method!r}: expected one of {', '.join(SIZED_METHODS)}")
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise ConfigurationError(f"method choice key 'sizes': expected a list like [0, 24, 48], got {sizes!r}")
    if not isinstance(sites, Sequence) or isinstance(sites, str) or bool(sites) != (method == "lora"):
        raise ConfigurationError(
            f"method choice {method!r}, key 'sites': expected a list like [query, value] for lora, none for others; "
            f"got {sites!r}"
        )
    return MethodSizes(method, Ordinal(f"sizes of {method}", tuple(sizes)).values, tuple(map(str, sites)))


def _group_from_json(data: Any) -> ModuleGroup:
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"a module group is an object with sites and ranks, got {data!r}")
    _known_keys(data, {"sites", "ranks"}, "module group")
    sites, ranks = data.get("sites"), data.get("ranks")
    if not isinstance(sites, Sequence) or isinstance(sites, str) or not sites:
        raise ConfigurationError(f"module group key 'sites': expected a list like [query, value], got {sites!r}")
    if not isinstance(ranks, Sequence) or isinstance(ranks, str):
        raise ConfigurationError(f"module group key 'ranks': expected a list like [0, 1, 4], got {ranks!r}")
    return ModuleGroup(tuple(map(str, sites)), Ordinal(f"ranks of {'+'.join(map(str, sites))}", tuple(ranks)).values)


def _layers_from_json(data: Any) -> tuple[tuple[int, ...], ...] | None:
    if data == "each":
        return None
    if (
        not isinstance(data, Sequence)
        or isinstance(data, str)
        or not all(
            isinstance(group, Sequence) and group and all(type(layer) is int for layer in group) for group in data
        )
    ):
        raise ConfigurationError(f"space key 'layers': expected 'each' or a list like [[0, 1], [2, 3]], got {data!r}")
    flat = [layer for group in data for layer in group]
    if not flat or len(set(flat)) != len(flat):
        raise ConfigurationError(f"space key 'layers': each layer may stand in one group only, got {data!r}")
    return tuple(tuple(group) for group in data)


def _range(data: Mapping[str, Any]) -> tuple[float, float]:
    value = data.get("learning_rate", {"low": 2e-4, "high": 1e-2})
    if isinstance(value, Mapping):
        _known_keys(value, {"low", "high"}, "learning_rate")
        ends = _number(value.get("low"), "learning_rate.low"), _number(value.get("high"), "learning_rate.high")
    else:
        ends = (_number(value, "learning_rate"),) * 2
    rate = Continuous("learning_rate", *ends)
    if rate.high > 1:
        raise ConfigurationError(f"learning_rate up to {rate.high}: expected at most 1")
    return rate.low, rate.high


def _number(value: Any, key: str) -> float:
    if isinstance(value, str):
        value = _yaml_exponent(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"space key '{key}': expected a number above 0, got {value!r}")
    return float(value)


def _yaml_exponent(text: str) -> float | str:
    """``1e-3`` as a number: YAML 1.1 takes it for a text."""
    try:
        return float(text)
    except ValueError:
        return text


def _known_keys(data: Mapping[str, Any], known: set[str], what: str) -> None:
    for key in data:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
            raise ConfigurationError(f"unknown {what} key {key!r}{hint}")
