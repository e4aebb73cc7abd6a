"""What routers do over a pass through a model: load of each expert, entropy, experts a token, redundancy.

Redundancy is measured as in MoLA's Definition 6.1 (arXiv 2402.08562): the mean Frobenius norm of the differences
between the experts' updates; the smaller, the more alike they are. Entropy is Shannon's, as a share of its maximum.
Padding is not counted.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from autopeft.adapters.anatomy import describe
from autopeft.adapters.methods.mola import Experts, MolaPart
from autopeft.adapters.parts import parts_of
from autopeft.adapters.routing import mean_over, tsallis_entropy, update_distance
from search_spaces.dimensions import significant


@dataclass(slots=True)
class Tally:
    """What one router has done so far.

    Attributes:
        experts: The module that it is in.
        load: Tokens that each expert has had, shape [experts], float64; None before any.
        entropy: Of all tokens, added up.
        tokens: Their number.
    """

    experts: Experts
    load: Tensor | None = None
    entropy: Tensor | float = 0.0
    tokens: Tensor | float = 0.0

    def add(self, part: MolaPart, path: str) -> None:
        """Takes in what the router has just done."""
        routed, mask = part.last(path)
        tokens = routed.weights[..., 0].numel() if mask is None else mask.sum().double()
        load = mean_over((routed.weights.detach() > 0).double(), mask) * tokens
        self.load = load if self.load is None else self.load + load
        entropy = tsallis_entropy(routed.probabilities.detach(), 1).unsqueeze(-1).double()
        self.entropy = self.entropy + mean_over(entropy, mask)[0] * tokens
        self.tokens = self.tokens + tokens

    def figures(self) -> dict[str, Any]:
        """Experts, share of the load of each, experts a token, entropy and redundancy, as plain values."""
        assert self.load is not None, "the model was not called while it was watched"
        tokens, load = float(self.tokens), self.load.tolist()
        return {
            "experts": len(load),
            "load": [significant(count / sum(load)) for count in load],
            "active": significant(sum(load) / tokens),
            "entropy": significant(float(self.entropy) / tokens),
            "redundancy": significant(self.experts.scaling * float(update_distance(*self.experts.factors()))),
        }


@contextmanager
def watching(model: PreTrainedModel) -> Iterator[Mapping[str, Tally]]:
    """Tallies of all routers in ``model`` by the path of their module; they count while it lasts."""
    tallies, handles = {}, []
    for part in (part for part in parts_of(model) if isinstance(part, MolaPart)):
        for path, experts in part.experts.items():
            tallies[path] = tally = Tally(experts)
            handles.append(experts.register_forward_hook(_adder(tally, part, path)))
    try:
        yield tallies
    finally:
        for handle in handles:
            handle.remove()


def _adder(tally: Tally, part: MolaPart, path: str) -> Callable[..., None]:
    return lambda *_: tally.add(part, path)


def routing_record(model: PreTrainedModel, tallies: Mapping[str, Tally]) -> dict[str, Any]:
    """What the routers of ``model`` did, as plain values: ``{"layers": […], "modules": […]}``.

    One entry a layer (None where there is no router), with means over its modules and the load where all of them have
    as many experts; and one a module.
    """
    backbone = describe(model, type(model).__name__)
    modules = [
        {"layer": index, "site": module.role, **tallies[module.path].figures()}
        for index, layer in enumerate(backbone.layers)
        for module in layer
        if module.path in tallies
    ]
    rows = [[module for module in modules if module["layer"] == index] for index in range(backbone.layer_count)]
    return {"layers": [_layer(row) if row else None for row in rows], "modules": modules}


def _layer(modules: list[dict[str, Any]]) -> dict[str, Any]:
    keys = ("active", "entropy", "redundancy")
    means = {key: significant(statistics.fmean(module[key] for module in modules)) for key in keys}
    if len({module["experts"] for module in modules}) > 1:
        return means
    loads = zip(*(module["load"] for module in modules), strict=True)
    shares = [significant(statistics.fmean(shares)) for shares in loads]
    return {"experts": modules[0]["experts"], "load": shares, **means}
