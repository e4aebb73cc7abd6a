"""Which trials fit a device together, by the arithmetic of memory (``search_spaces.memory``)."""

from __future__ import annotations

from collections.abc import Sequence

from autopeft.adapters.models import head_figures
from autopeft.errors import BackboneError
from autopeft.fitting import predicted
from autopeft.study import Order
from autopeft.tasks.metrics import is_causal


def parted(orders: Sequence[Order], usable: int) -> list[list[Order]]:
    """``orders`` in the fewest packs, in their order, that are predicted to fit; all in one where nothing is known."""
    packs: list[list[Order]] = []
    left = 0
    try:
        for order in orders:
            weights, own = _bytes(order)
            if not packs or own > left:
                packs.append([])
                left = usable - weights
            packs[-1].append(order)
            left -= own
    except BackboneError:
        return [list(orders)]
    return packs


def _bytes(order: Order) -> tuple[int, int]:
    """What members share, the frozen weights; and what one has of its own."""
    study = order.study
    kind = "causal-lm" if is_causal(study.metric) else "classification"
    peak = predicted(study, order.configuration, head_figures(study.model, kind, 1), study.fidelity.batch_size)
    return peak.weights, peak.total - peak.weights
