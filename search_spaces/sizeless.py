"""What methods without sizes share: nothing to show but that they are there, nothing to write, nothing to read.

What they train and cost is the methods' own; nothing here is a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from search_spaces.sizes import known_sizes


class Sizeless:
    """A method that is there or is not."""

    __slots__ = ()

    name: ClassVar[str]

    @property
    def extent(self) -> int:
        """The size that is shown where there is room for one number; it has none, so 1."""
        return 1

    def to_json(self) -> dict[str, Any]:
        """Sizes as plain values."""
        return {}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The method.

        Raises:
            ConfigurationError: If a size is given.
        """
        known_sizes(data, cls.name, ())
        return cls()
