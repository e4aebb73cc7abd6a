"""What the members of a front agree on, site by site and layer by layer: who adapts it, and with what size. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from search_spaces.backbone import SITES
from search_spaces.configuration import Configuration


@dataclass(frozen=True, slots=True)
class Agreement:
    """One site of one layer over several configurations.

    Attributes:
        share: Of the configurations that insert something there, in [0, 1].
        median: Of the sizes where something is inserted; None where nothing is.
    """

    share: float
    median: float | None


def agreement(configurations: Sequence[Configuration]) -> dict[str, tuple[Agreement, ...]]:
    """By site that any of the configurations adapts, an agreement a layer, lowest first; empty for none."""
    if not configurations:
        return {}
    sites = {site for configuration in configurations for _, site, _ in configuration.placements()}
    layers = range(len(configurations[0].layers))
    return {
        site: tuple(_at(configurations, site, layer) for layer in layers) for site in sorted(sites, key=SITES.index)
    }


def _at(configurations: Sequence[Configuration], site: str, layer: int) -> Agreement:
    sizes = [
        sum(placement.method.extent for placement in one.layers[layer].placements if placement.site == site)
        for one in configurations
    ]
    adapted = [size for size in sizes if size]
    return Agreement(len(adapted) / len(sizes), statistics.median(adapted) if adapted else None)


def bands(costs: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(lowest, highest) cost of up to three bands that hold about as many of ``costs`` each."""
    ordered = sorted(costs)
    count = min(3, len(ordered) // 2)
    if count < 2:
        return ()
    edges = [round(len(ordered) * index / count) for index in range(count + 1)]
    return tuple((ordered[low], ordered[high - 1]) for low, high in pairwise(edges))


def sentences(found: dict[str, tuple[Agreement, ...]], members: int) -> list[str]:
    """What stands out, in words: sites that nearly all or hardly any adapt; nothing for fewer than three members."""
    if members < 3:
        return []
    means = {site: sum(one.share for one in row) / len(row) for site, row in found.items()}
    most = max(means, key=lambda site: means[site], default=None)
    said = []
    if most is not None:
        least = min(means, key=lambda site: means[site])
        said.append(f"Adapted most often: {most}, in {means[most]:.0%} of layers and members.")
        if least != most:
            said.append(f"Least often: {least}, in {means[least]:.0%}.")
    always = [
        f"{site} of layer {layer}" for site, row in found.items() for layer, one in enumerate(row) if one.share >= 0.9
    ]
    never = [
        f"{site} of layer {layer}" for site, row in found.items() for layer, one in enumerate(row) if one.share == 0
    ]
    if always:
        said.append(f"In at least nine of ten members: {_listed(always)}.")
    if never:
        said.append(f"In no member: {_listed(never)}.")
    return said


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
