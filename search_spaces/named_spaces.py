"""The named spaces of this project, for any backbone: what is searched where nobody says otherwise.

Each takes the range of learning rates that the task suggests. The spaces that set up a paper's own runs are
``search_spaces.paper_spaces``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from search_spaces.backbone import Backbone
from search_spaces.choice import Choice
from search_spaces.cut import Cuts
from search_spaces.patterns import PATTERNS, experts_at, quarters
from search_spaces.schedule import UpdateSchedule
from search_spaces.space import MethodSizes, ModuleGroup, SpaceDefinition

Rates = tuple[float, float]

RANKS = (0, 1, 2, 4, 8, 16, 32)
SCALING = 2.0
"""LoRA alpha / rank wherever nothing else is said."""

DIFFORA_RANK = 4
CUT_RATIOS = (0.17, 0.25, 0.33, 0.5, 0.67, 0.75)
"""Shares of the modules that are kept of a matrix."""


EXPERTS = tuple(range(1, 11))
DEPTHS = 3
"""Layer groups of the compact joint space: lower, middle, upper."""

QUERY_VALUE = ("query", "value", "qkv", "cross_query", "cross_value")
ATTENTION = ("query", "key", "value", "qkv", "output", "cross_query", "cross_key", "cross_value", "cross_output")
FEED_FORWARD = ("up", "gate", "gate_up", "down")


def layerwise(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """LoRA ranks per layer for three groups of modules: query and value, key and output, the feed-forward pair."""
    groups = [QUERY_VALUE, ("key", "output", "cross_key", "cross_output"), FEED_FORWARD]
    modules = tuple(ModuleGroup(sites, RANKS) for sites in _alternatives(backbone, *groups))
    return SpaceDefinition("layerwise", modules, None, SCALING, learning_rate)


def lora_uniform(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """The control's own space: one LoRA rank everywhere, at query and value or at all linear modules."""
    choices = (Choice("lora", _alternatives(backbone, QUERY_VALUE, backbone.roles), (("rank", RANKS[1:]),)),)
    layers = (tuple(range(backbone.layer_count)),)
    return SpaceDefinition("lora-uniform", (), layers, SCALING, learning_rate, choices=choices, nothing=False)


def autopeft(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """The space of the AutoPEFT paper: one size for each of three methods, and which layers have them."""
    sizes = (0, *halved(backbone.hidden_size))
    methods = tuple(MethodSizes(name, sizes) for name in ("serial", "parallel", "prefix"))
    return SpaceDefinition("autopeft", (), None, SCALING, learning_rate, methods)


def diffora(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """DiffoRA's matrix: LoRA of one rank at a module of a layer, or not."""
    modules = tuple(ModuleGroup((role,), (0, DIFFORA_RANK)) for role in backbone.roles)
    return SpaceDefinition("diffora", modules, None, SCALING, learning_rate)


def diffora_learned(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """DiffoRA in every trial: rank, and how the matrix that the trial learns is searched and cut."""
    cuts = Cuts(
        ranks=RANKS[1:],
        ratios=CUT_RATIOS,
        scopes=("row", "global"),
        search_fractions=(0.1, 0.2, 0.3),
        weights=("retrain", "continue"),
    )
    return SpaceDefinition("diffora/learned", (), None, SCALING, learning_rate, cuts=cuts)


def stored_cuts(name: str, scores: Mapping[str, Sequence[float | None]], learning_rate: Rates) -> SpaceDefinition:
    """What a stored matrix keeps, by rank, ratio and scope; ``scores`` are a value a layer by module.

    Raises:
        ConfigurationError: If they are not.
    """
    ratios, scopes = [*CUT_RATIOS, 1.0], ["row", "global"]
    cuts = Cuts.from_json({"ranks": list(RANKS[1:]), "ratios": ratios, "scopes": scopes, "scores": scores})
    return SpaceDefinition(name, (), None, SCALING, learning_rate, cuts=cuts)


def mola(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """Expert count, rank and top-k of MoLA for each quarter of the layers."""
    return _mola("mola", quarters(backbone.layer_count), backbone, learning_rate)


def mola_full(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """The same for each layer."""
    return _mola("mola/full", None, backbone, learning_rate)


def pattern_space(pattern: str) -> Callable[[Backbone, Rates], SpaceDefinition]:
    """What makes the space in which expert counts follow ``pattern`` and the rest is searched."""

    def make(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
        parts = quarters(backbone.layer_count)
        sites = _alternatives(backbone, QUERY_VALUE, backbone.roles)
        choices = tuple(
            Choice(
                "mola",
                sites,
                (
                    ("experts", (experts_at(pattern, part[0], backbone.layer_count),)),
                    ("rank", (1, 2, 4, 8)),
                    ("top_k", (1, 2)),
                ),
                (number,),
            )
            for number, part in enumerate(parts)
        )
        name = f"mola/{pattern}"
        return SpaceDefinition(name, (), parts, SCALING, learning_rate, choices=choices, nothing=False)

    return make


def joint(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """Method, modules and sizes of the lower, middle and upper layers, and the update schedule."""
    count = backbone.layer_count
    groups = [tuple(layer for layer in range(count) if DEPTHS * layer // count == part) for part in range(DEPTHS)]
    schedules = (None, UpdateSchedule(update_fraction=0.5), UpdateSchedule(update_fraction=0.25))
    layers = tuple(group for group in groups if group)
    choices = _every_method(backbone)
    return SpaceDefinition("joint", (), layers, SCALING, learning_rate, choices=choices, schedules=schedules)


def joint_full(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """The same for each layer on its own."""
    schedules = (None, UpdateSchedule(update_fraction=0.5), UpdateSchedule(update_fraction=0.25))
    choices = _every_method(backbone)
    return SpaceDefinition("joint/full", (), None, SCALING, learning_rate, choices=choices, schedules=schedules)


NAMED: dict[str, Callable[[Backbone, Rates], SpaceDefinition]] = {
    "joint": joint,
    "joint/full": joint_full,
    "layerwise": layerwise,
    "lora-uniform": lora_uniform,
    "autopeft": autopeft,
    "diffora": diffora,
    "diffora/learned": diffora_learned,
    "mola": mola,
    "mola/full": mola_full,
    **{f"mola/{pattern}": pattern_space(pattern) for pattern in PATTERNS},
}
"""What makes the definition of each named space."""

DESCRIPTIONS = {
    "joint": "method, modules, sizes and experts of the lower, middle and upper layers, update schedule",
    "joint/full": "the same for each layer on its own",
    "layerwise": "LoRA rank in {0, 1, 2, 4, 8, 16, 32} per layer and module group, learning rate",
    "lora-uniform": "the control's own: one LoRA rank for all layers, query and value or all linear, learning rate",
    "autopeft": "sizes of serial adapter, parallel adapter and prefix, each layer on or off (arXiv 2301.12132)",
    "diffora": "LoRA of rank 4 on or off, for each module of each layer (arXiv 2502.08905)",
    "diffora/learned": "every trial learns DiffoRA's matrix, cuts it, trains what it kept: rank, ratio, scope, weights",
    "mola": "0 to 10 LoRA experts, rank, top-k and modules for each quarter of the layers (arXiv 2402.08562)",
    "mola/full": "the same for each layer on its own",
    **{
        f"mola/{pattern}": f"experts {''.join(map(str, counts))} over the quarters; rank, top-k and modules searched"
        for pattern, counts in PATTERNS.items()
    },
}
"""What each of them holds, in one line."""


def halved(width: int) -> tuple[int, ...]:
    """``width`` halved again and again, lowest first: 1, 3, 6, …, width."""
    sizes: list[int] = []
    while width:
        sizes.insert(0, width)
        width //= 2
    return tuple(sizes)


def _mola(
    name: str, layers: tuple[tuple[int, ...], ...] | None, backbone: Backbone, learning_rate: Rates
) -> SpaceDefinition:
    sites = _alternatives(backbone, QUERY_VALUE, backbone.roles)
    sizes = (("experts", EXPERTS), ("rank", (1, 2, 4, 8)), ("top_k", (1, 2)))
    choices = (Choice("mola", sites, sizes),)
    return SpaceDefinition(name, (), layers, SCALING, learning_rate, choices=choices, patterns=tuple(PATTERNS))


def _every_method(backbone: Backbone) -> tuple[Choice, ...]:
    """LoRA, experts, both bottlenecks and prefixes, as far as the backbone takes them."""
    everywhere = _alternatives(backbone, QUERY_VALUE, ATTENTION, FEED_FORWARD, backbone.roles)
    widths = tuple(size for size in halved(backbone.hidden_size // 4) if size >= 3)[-6:] or (1,)
    lengths = tuple(size for size in (1, 2, 4, 8, 16, 32) if size <= backbone.hidden_size)
    choices = [
        Choice("lora", everywhere, (("rank", RANKS[1:]),)),
        Choice(
            "mola",
            _alternatives(backbone, QUERY_VALUE, backbone.roles),
            (("experts", (2, 4, 8)), ("rank", (1, 2, 4)), ("top_k", (2,))),
        ),
        Choice("serial", (("feed_forward",),), (("size", widths),)),
        Choice("parallel", (("feed_forward",),), (("size", widths),)),
        Choice("prefix", (("attention",),), (("length", lengths),)),
    ]
    present = {site for layer in range(backbone.layer_count) for site in backbone.sites(layer)}
    refused = {method for method, _ in backbone.refusals}
    return tuple(
        choice
        for choice in choices
        if choice.method not in refused and present >= {s for row in choice.sites for s in row}
    )


def _alternatives(backbone: Backbone, *groups: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Each group as far as the backbone has it; those that are empty or there already are left out."""
    present = [tuple(site for site in group if site in backbone.roles) for group in groups]
    return tuple(dict.fromkeys(sites for sites in present if sites))
