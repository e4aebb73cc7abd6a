"""What each target can hold of a configuration, and what would be lost; plain values, no torch.

A stock peft adapter holds one method with what peft keeps once per configuration (LoKr's factor, VeRA's projection,
OFT's blocks, HiRA's rank); other ranks and alphas may differ by module. The trainers and vLLM hold less. Where
several groups compete, the one with the most parameters is held.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from autopeft.errors import LossyExportError
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan
from search_spaces.cost import trainable_parameters
from search_spaces.methods import Method
from search_spaces.methods.hira import Hira
from search_spaces.methods.lokr import Lokr
from search_spaces.methods.lora import DATA_DRIVEN, Lora
from search_spaces.methods.oft import Oft
from search_spaces.methods.vera import Vera

Group = Callable[[Method], Hashable | None]
"""What has to be equal for placements to share one adapter; None for a method that the target cannot hold."""

TRAINERS = ("trl", "axolotl", "llamafactory")
"""Targets that train causal language models only, and so no classification head."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a target can hold.

    Attributes:
        target: Its name.
        configuration: The part of the plan that it can hold.
        lost: What it cannot, one line each.
    """

    target: str
    configuration: Configuration
    lost: tuple[str, ...]

    def require(self, number: int, *, lossy: bool) -> None:
        """Nothing, if nothing is lost, or something may be and something is left.

        Raises:
            LossyExportError: If not; the message names what would be lost.
        """
        if self.configuration.is_empty and self.target not in ("autopeft", "script"):
            named = f": {'; '.join(self.lost)}" if self.lost else " (it adapts no module: head only)"
            raise LossyExportError(f"{self.target} can hold nothing of trial {number}{named}; export --to autopeft")
        if self.lost and not lossy:
            raise LossyExportError(
                f"{self.target} cannot hold all of trial {number}; lost would be: {'; '.join(self.lost)}. "
                "Export --to autopeft or script, which hold everything, or add --lossy to leave these out"
            )


def hold(target: str, configuration: Configuration, backbone: Backbone, head: str | None) -> Held:
    """The part of ``configuration`` that ``target`` can hold.

    Args:
        target: A key of ``autopeft.export.TARGETS``.
        configuration: The whole plan.
        backbone: Its shapes.
        head: What stands on the backbone, in words; None for a language model's own head.
    """
    lost = [f"the head ({head})"] if head is not None and target in TRAINERS else []
    group = _GROUPS.get(target)
    if group is None:
        return Held(target, configuration, tuple(lost))
    kept = _largest(configuration, backbone, group)
    for index, (before, after) in enumerate(zip(configuration.layers, kept.layers, strict=True)):
        lost += [
            f"layer {index} {placement.site}: {describe(placement.method)}"
            for placement in before.placements
            if placement not in after.placements
        ]
    return Held(target, kept, tuple(lost))


def describe(method: Method) -> str:
    """The method and its sizes on one line, like ``lora rank 4, alpha 8``."""
    sizes = ", ".join(
        f"{name.replace('_', ' ')} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
        for name, value in method.to_json().items()
    )
    return f"{method.name} {sizes}".strip()


def _largest(configuration: Configuration, backbone: Backbone, group: Group) -> Configuration:
    keys: Iterable[Hashable] = dict.fromkeys(group(method) for _, _, method in configuration.placements())
    parts = [_only(configuration, key, group) for key in keys if key is not None]
    nothing = Configuration(tuple(LayerPlan() for _ in configuration.layers), configuration.training)
    return max(parts, key=lambda part: trainable_parameters(part, backbone), default=nothing)


def _only(configuration: Configuration, key: Hashable, group: Group) -> Configuration:
    rows = (LayerPlan(tuple(p for p in row.placements if group(p.method) == key)) for row in configuration.layers)
    return Configuration(tuple(rows), configuration.training)


def _stock_adapter(method: Method) -> Hashable | None:
    """Any LoRA fits one adapter: scalings become alphas, and a start taken off the weight becomes more rank."""
    if method.name in ("bias", "serial", "parallel", "prefix"):
        return None
    shared: Hashable = ()
    if isinstance(method, Lokr):
        shared = method.factor
    elif isinstance(method, Oft):
        shared = method.block_size
    elif isinstance(method, Hira):
        shared = method.rank  # peft 0.21.2 takes a rank pattern for HiRA and builds every module with the one rank
    elif isinstance(method, Vera):
        shared = method
    return method.name, shared


def _lora_only(method: Method) -> Hashable | None:
    return "lora" if isinstance(method, Lora) else None


def _lora_or_dora(method: Method) -> Hashable | None:
    return method.name if method.name in ("lora", "dora") else None


def _from_the_start(method: Method) -> Hashable | None:
    """What stock peft can initialise and train anew under one configuration, without reading rows."""
    if isinstance(method, Lora):
        return None if method.init in DATA_DRIVEN else (method.name, method.scaling, method.init)
    return _stock_adapter(method)


def _axolotl(method: Method) -> Hashable | None:
    """Its schema takes whole alphas only."""
    key = _from_the_start(method) if method.name in ("lora", "dora") else None
    return key if float(method.to_json().get("alpha", 0.5)).is_integer() else None


_GROUPS: dict[str, Group] = {
    "peft": _stock_adapter,
    "vllm": _lora_only,
    "llamafactory": _lora_or_dora,
    "trl": _from_the_start,
    "axolotl": _axolotl,
}


def trains_anew(configuration: Configuration) -> bool:
    """Whether stock peft alone can train the whole plan from its start, under one configuration."""
    keys = {_from_the_start(method) for _, _, method in configuration.placements()}
    return len(keys) == 1 and None not in keys
