"""The settings of papers' own runs, carried over to any backbone; docs/spaces.md says what of them is unverified.

One configuration each, or the paper's whole space: nothing is searched that the paper did not search. Dropout, batch
size, epochs and warm-up are the study's, not the space's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from search_spaces import named_spaces
from search_spaces.backbone import Backbone
from search_spaces.choice import Choice
from search_spaces.cut import Cuts
from search_spaces.named_spaces import SCALING, Rates
from search_spaces.patterns import experts_at, quarters
from search_spaces.schedule import UpdateSchedule
from search_spaces.space import SpaceDefinition

DIFFORA_RANK = 4
"""The paper's rank was not read: this is the rank at which ``autopeft select`` learns the matrix."""


def mola_2468(backbone: Backbone, _learning_rate: Rates) -> SpaceDefinition:
    """MoLA's inverted triangle (arXiv 2402.08562): experts of rank 8, alpha 16, top-2, at all linear modules."""
    parts = quarters(backbone.layer_count)
    choices = tuple(
        Choice(
            "mola",
            (backbone.roles,),
            (
                ("experts", (experts_at("inverted-triangle", part[0], backbone.layer_count),)),
                ("rank", (8,)),
                ("alpha", (16.0,)),
                ("top_k", (2,)),
            ),
            (number,),
        )
        for number, part in enumerate(parts)
    )
    return SpaceDefinition("paper/mola-2468", (), parts, 2.0, (3e-4, 3e-4), choices=choices, nothing=False)


def ist_lora(backbone: Backbone, _learning_rate: Rates) -> SpaceDefinition:
    """IST beside LoRA (arXiv 2410.11772): rank 32, alpha 64 at query, key, value, up and down, a quarter updated."""
    wanted = ("query", "key", "value", "qkv", "up", "gate_up", "down")
    sites = tuple(role for role in wanted if role in backbone.roles)
    choices = (Choice("lora", (sites,), (("rank", (32,)), ("alpha", (64.0,)))),)
    layers = (tuple(range(backbone.layer_count)),)
    return SpaceDefinition(
        "paper/ist-lora", (), layers, 2.0, (2e-4, 2e-4), choices=choices, nothing=False, schedules=(UpdateSchedule(),)
    )


def diffora(_backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """DiffoRA's own run (arXiv 2502.08905): a trial learns the matrix, keeps half of each row, and trains that anew."""
    cuts = Cuts(ranks=(DIFFORA_RANK,), ratios=(0.5,))
    return SpaceDefinition("paper/diffora", (), None, SCALING, learning_rate, cuts=cuts)


def autopeft(backbone: Backbone, learning_rate: Rates) -> SpaceDefinition:
    """AutoPEFT (arXiv 2301.12132): the whole space of the paper."""
    return replace(named_spaces.autopeft(backbone, learning_rate), name="paper/autopeft")


PAPERS: dict[str, Callable[[Backbone, Rates], SpaceDefinition]] = {
    "paper/mola-2468": mola_2468,
    "paper/ist-lora": ist_lora,
    "paper/diffora": diffora,
    "paper/autopeft": autopeft,
}
"""What makes the definition of each."""

PAPER_DESCRIPTIONS = {
    "paper/mola-2468": "MoLA's own run: 2, 4, 6, 8 experts of rank 8 over the quarters (arXiv 2402.08562)",
    "paper/ist-lora": "IST's own run: LoRA of rank 32, a quarter of the layers updated a step (arXiv 2410.11772)",
    "paper/diffora": "DiffoRA's own run: a trial learns which half of a layer's modules it trains (arXiv 2502.08905)",
    "paper/autopeft": "AutoPEFT's own space: serial, parallel and prefix sizes, layers on or off (arXiv 2301.12132)",
}
"""What each of them holds, in one line."""
