"""A backbone's weights, how they are loaded, and how a head is put on them; a plain value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A backbone's weights and how a head is put on them.

    Attributes:
        source: ``minilm`` (the embedded one), a local folder, or a hub id.
        pooling: ``mean`` (mean over tokens + linear head) or ``stock`` (the family's classification head).
        sha256: Hash of the weights and the configuration, in hexadecimal.
        load_in: ``4bit`` or ``8bit``: the frozen linear weights are quantised when they are loaded; None: they are not.
    """

    source: str
    pooling: str
    sha256: str
    load_in: str | None = None

    def to_json(self) -> dict[str, str]:
        """Plain values, those that are set."""
        plain = {"source": self.source, "pooling": self.pooling, "sha256": self.sha256}
        return plain | ({} if self.load_in is None else {"load_in": self.load_in})
