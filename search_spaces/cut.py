"""Ways to cut DiffoRA's matrix (arXiv 2502.08905), as data: ranks, ratios, scopes, and the matrix if there is one.

Read from JSON or YAML, every key and value checked. Layers and backbones are not known here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.backbone import ROLES
from search_spaces.errors import ConfigurationError
from search_spaces.selection import SCOPES, WEIGHTS, Selection

Matrix = tuple[tuple[str, tuple[float | None, ...]], ...]
"""By site, a score a layer, lowest first; None where a layer has no such module."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """LoRA of one rank at the modules that a matrix keeps.

    Attributes:
        ranks: Ranks that may be chosen, rising.
        ratios: Shares of the modules that are kept, each in (0, 1], rising.
        scopes: ``row``: of each layer; ``global``: of all.
        scores: A stored matrix; None where every trial learns its own.
        search_fractions: Where it learns: shares of the trial's steps that the search is worth.
        weights: Where it learns: whether what is kept starts anew (``retrain``) or goes on (``continue``).
    """

    ranks: tuple[int, ...]
    ratios: tuple[float, ...]
    scopes: tuple[str, ...] = ("row",)
    scores: Matrix | None = None
    search_fractions: tuple[float, ...] = (0.2,)
    weights: tuple[str, ...] = ("retrain",)

    def __post_init__(self) -> None:
        """Refuses what no trial can be."""
        _require(self.ranks, "ranks", "rising whole numbers ≥ 1", lambda rank: type(rank) is int and rank >= 1)
        _require(self.ratios, "ratios", "rising numbers in (0, 1]", _is_share)
        _require(self.search_fractions, "search_fractions", "rising numbers in (0, 0.9]", _is_share)
        for name, known in (("scopes", SCOPES), ("weights", WEIGHTS)):
            given = getattr(self, name)
            if not given or len(set(given)) != len(given) or not set(given) <= set(known):
                raise ConfigurationError(f"cuts, {name} {list(given)}: expected some of {', '.join(known)}, each once")
        if self.scores is None:
            if self.ratios[-1] == 1:
                raise ConfigurationError("cuts, ratios: 1 keeps every module, so that there is nothing to learn")
            for fraction in self.search_fractions:
                Selection(search_fraction=fraction)

    @property
    def learned(self) -> bool:
        """Whether every trial learns its own matrix."""
        return self.scores is None

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back."""
        data: dict[str, Any] = {
            "ranks": list(self.ranks),
            "ratios": list(self.ratios),
            "scopes": list(self.scopes),
        }
        if self.scores is not None:
            return {**data, "scores": {site: list(row) for site, row in self.scores}}
        return {**data, "search_fractions": list(self.search_fractions), "weights": list(self.weights)}

    @classmethod
    def from_json(cls, data: Any) -> Cuts:
        """The cuts in ``data``; scopes, fractions and weights stand at their defaults where they are not given.

        Raises:
            ConfigurationError: If a key is unknown or missing, or a value is of the wrong kind.
        """
        known = tuple(cls.__dataclass_fields__)
        if not isinstance(data, Mapping) or not {"ranks", "ratios"} <= set(data) <= set(known):
            got = ", ".join(sorted(map(str, data))) if isinstance(data, Mapping) else type(data).__name__
            raise ConfigurationError(f"cuts: expected ranks and ratios, and perhaps {', '.join(known[2:])}; got {got}")
        if idle := sorted({"search_fractions", "weights"} & set(data)) if "scores" in data else []:
            raise ConfigurationError(f"cuts, {idle[0]}: nothing is learned where scores are given; leave one out")
        lists = {name: data[name] for name in data if name != "scores"}
        for name, values in lists.items():
            if not isinstance(values, Sequence) or isinstance(values, str):
                raise ConfigurationError(f"cuts, {name}: expected a list, got {values!r}")
        return cls(**{name: tuple(values) for name, values in lists.items()}, scores=_matrix(data.get("scores")))


def _require(values: Sequence[Any], name: str, expected: str, fits: Callable[[Any], bool]) -> None:
    rising = all(fits(value) for value in values) and all(a < b for a, b in itertools.pairwise(values))
    if not values or not rising:
        raise ConfigurationError(f"cuts, {name} {list(values)}: expected {expected}")


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _matrix(data: Any) -> Matrix | None:
    if data is None:
        return None
    expected = "cuts, scores: expected a list of a number (or null) a layer by module, like {query: [0.4, 0.6]}"
    if not isinstance(data, Mapping) or not data:
        raise ConfigurationError(f"{expected}, got {data!r}")
    for site, row in data.items():
        if site not in ROLES:
            raise ConfigurationError(f"{expected}; {site!r} is no module ({', '.join(ROLES)})")
        if not isinstance(row, Sequence) or isinstance(row, str) or not all(v is None or _is_score(v) for v in row):
            raise ConfigurationError(f"{expected}; of {site} got {row!r}")
    matrix = tuple((str(site), tuple(row)) for site, row in data.items())
    if not any(value is not None for _, row in matrix for value in row):
        raise ConfigurationError("cuts, scores: no score at all; expected at least one")
    return matrix
