"""What the cells of every table and page hold: bars of ranks, costs as text, first lines of errors."""

from __future__ import annotations

from collections.abc import Sequence

from autopeft.objectives import figures, show
from autopeft.study import PARAMETERS, Study, Trial
from search_spaces.configuration import Configuration

BARS = " ▁▂▃▄▅▆▇█"


def layer_bars(configuration: Configuration) -> str:
    """A bar a layer, as high as its summed rank; ``·`` where nothing is inserted."""
    sums = [layer.extent for layer in configuration.layers]
    top = max([*sums, 1])
    return "".join(BARS[max(1, round(rank / top * 8))] if rank else "·" for rank in sums)


def rank_sum(configuration: Configuration) -> int:
    """All ranks of a configuration, added up."""
    return sum(layer.extent for layer in configuration.layers)


def first_line(text: str | None) -> str:
    """The first line of an error, or nothing."""
    return (text or "").strip().partition("\n")[0]


def further(study: Study) -> list[str]:
    """Names of the costs that are traded off beyond the trained parameters, which every table shows."""
    return [objective.name for objective in study.objectives[1:] if objective.name != PARAMETERS]


def shown(study: Study, trial: Trial, names: Sequence[str]) -> list[str]:
    """Figures of a trial as text, by name; a dash where it has none."""
    found = figures(study, trial, names)
    return [show(name, found[name]) if name in found else "–" for name in names]
