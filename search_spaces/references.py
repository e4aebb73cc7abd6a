"""What a search can be compared with beside its control: one method at one size in every layer, and full fine-tuning.

Each is a small sweep of sizes with one learning rate, as the control's sweep of LoRA ranks has. Rates differ by method
as their papers' do: a factor of each is taken on the control's rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan, Training, uniform
from search_spaces.cost import trainable_parameters
from search_spaces.errors import ConfigurationError
from search_spaces.methods import Method
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.mola import Mola
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial
from search_spaces.named_spaces import SCALING, halved

ADAPTERS = ("serial", "parallel", "prefix", "ia3", "mola")
FULL = "full"
NAMES = (*ADAPTERS, FULL)
"""Every reference that can be asked for by name."""

MOST_SIZES = 3
"""Sizes of one method, at most."""

RATES = {"prefix": 10.0, "ia3": 10.0, FULL: 0.05}
"""Factor on the control's learning rate; 1 for the others. Chosen on the task ``aspects`` (docs/experiments.md)."""

PREFIX_LENGTHS = (1, 2, 4, 8, 16, 32, 64)
EXPERTS = 4
EXPERT_RANKS = (1, 2, 4, 8)


def references(
    backbone: Backbone, budget: int, learning_rate: float, names: Sequence[str]
) -> dict[str, dict[str, Configuration]]:
    """By name of each reference its configurations by label; no configuration where none fits ``budget``.

    Of the sizes that fit, the smallest, the largest and one between them. Full fine-tuning has no size and fits no
    budget: it is what a budget is a share of.

    Args:
        backbone: Shapes.
        budget: Most trained parameters.
        learning_rate: The control's.
        names: Some of ``NAMES``.

    Raises:
        ConfigurationError: If a name is unknown.
    """
    found: dict[str, dict[str, Configuration]] = {}
    for name in names:
        if name not in NAMES:
            raise ConfigurationError(f"reference {name!r}: expected some of {', '.join(NAMES)}")
        rate = min(1.0, learning_rate * RATES.get(name, 1.0))
        if name == FULL:
            plan = Configuration((LayerPlan(),) * backbone.layer_count, Training(rate, backbone=True))
            found[name] = {"full fine-tuning": plan}
        else:
            found[name] = _spread(list(_fitting(name, backbone, budget, rate)))
    return found


def _fitting(name: str, backbone: Backbone, budget: int, rate: float) -> Iterator[tuple[str, Configuration]]:
    """Every size of the method that the backbone takes and ``budget`` allows, the cheapest first."""
    plans = []
    for label, sites, method in _sizes(name, backbone):
        try:
            plan = uniform(backbone, sites, method, rate)
            cost = trainable_parameters(plan, backbone)
        except ConfigurationError:  # no such site in this family, or one that cannot take the method
            continue
        if cost <= budget:
            plans.append((cost, label, plan))
    yield from ((label, plan) for _, label, plan in sorted(plans, key=lambda one: one[:2]))


def _sizes(name: str, backbone: Backbone) -> Iterator[tuple[str, Sequence[str], Method]]:
    """Label, sites and method of each size."""
    attention = [role for role in ("query", "value", "qkv") if role in backbone.roles]
    if name in ("serial", "parallel"):
        kind = Serial if name == "serial" else Parallel
        for size in halved(backbone.hidden_size):
            yield f"{name} {size}", ("feed_forward",), kind(size)
    elif name == "prefix":
        for length in PREFIX_LENGTHS:
            yield f"prefix {length}", ("attention",), Prefix(length)
    elif name == "ia3":
        usual = [role for role in ("key", "value", "qkv", "down") if role in backbone.roles]
        yield f"IA3 {'+'.join(usual)}", usual, Ia3()
        yield "IA3 all linear", backbone.roles, Ia3()
    else:
        for rank in EXPERT_RANKS:
            yield f"MoLA {EXPERTS}×r={rank} {'+'.join(attention)}", attention, Mola(EXPERTS, rank, SCALING * rank)
            yield f"MoLA {EXPERTS}×r={rank} all linear", backbone.roles, Mola(EXPERTS, rank, SCALING * rank)


def _spread(plans: Sequence[tuple[str, Configuration]]) -> dict[str, Configuration]:
    """The first, the last and the middle one, as far as there are so many."""
    count = min(MOST_SIZES, len(plans))
    chosen = [round(index * (len(plans) - 1) / max(1, count - 1)) for index in range(count)]
    return dict(plans[index] for index in chosen)
