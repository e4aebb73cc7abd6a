"""What each target can hold of a configuration, and what would be lost; plain values, no torch.

A stock peft adapter holds one method with what peft keeps once per configuration (LoKr's factor, VeRA's projection,
OFT's blocks, HiRA's rank); other ranks and alphas may differ by module. The trainers and vLLM hold less. Where
several groups compete, the one with the most parameters is held.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from autopeft.errors import LossyExportError
from autopeft.study import Study
from autopeft.tasks.metrics import is_causal
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration, LayerPlan, Placement
from search_spaces.cost import trainable_parameters
from search_spaces.grid import span
from search_spaces.methods import Method
from search_spaces.methods.hira import Hira
from search_spaces.methods.lokr import Lokr
from search_spaces.methods.lora import DATA_DRIVEN, Lora
from search_spaces.methods.oft import Oft
from search_spaces.methods.vera import Vera
from search_spaces.selection import Selection

Group = Callable[[Method], Hashable | None]
"""What has to be equal for placements to share one adapter; None for a method that the target cannot hold."""

TRAINERS = ("trl", "axolotl", "llamafactory")
"""Targets that train causal language models only, and so no classification head."""

OURS = ("script", "autopeft")
"""Targets that hold every method, since ``autopeft`` builds it."""

EVERY = ("peft", "vllm", *TRAINERS, *OURS)
"""All of them, those that most tools read first."""

UPDATE_ALL = ("script", *TRAINERS)
"""Targets that train anew, and update every layer at every step."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a target can hold.

    Attributes:
        target: Its name.
        configuration: The part of the plan that it can hold.
        lost: What it cannot, one line each.
        takers: The targets that hold the whole plan.
        said: What is lost, for people: layers that lose the same stand on one line.
    """

    target: str
    configuration: Configuration
    lost: tuple[str, ...]
    takers: tuple[str, ...]
    said: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the target holds all of it, and it is something."""
        return self.target in self.takers

    def require(self, number: int, *, lossy: bool) -> None:
        """Nothing, if nothing is lost, or something may be and something is left.

        Raises:
            LossyExportError: If not; the message names what would be lost, and the targets where nothing is.
        """
        takers = f"{', '.join(self.takers[:-1])} or {self.takers[-1]}" if self.takers[1:] else self.takers[0]
        whole = f"export --to {takers} for all of it"
        if self.configuration.is_empty and self.target not in OURS:
            named = f": {'; '.join(self.said)}" if self.lost else " (it adapts no module: head only)"
            raise LossyExportError(f"{self.target} can hold nothing of trial {number}{named}; {whole}")
        if self.lost and not lossy:
            raise LossyExportError(
                f"{self.target} cannot hold all of trial {number}; lost would be: {'; '.join(self.said)}; {whole}, or "
                f"add --lossy to leave these out (autopeft pick --to {self.target} picks from what {self.target} holds)"
            )


def hold(
    target: str,
    configuration: Configuration,
    backbone: Backbone,
    head: str | None,
    selection: Selection | None = None,
) -> Held:
    """The part of ``configuration`` that ``target`` can hold.

    Args:
        target: A key of ``autopeft.export.TARGETS``.
        configuration: The whole plan.
        backbone: Its shapes.
        head: What stands on the backbone, in words; None for a language model's own head.
        selection: How the trial chose the modules of the plan; None if it did not.
    """
    found = {name: _kept(name, configuration, backbone, head, selection) for name in EVERY}
    takers = (
        name
        for name, (kept, beside) in found.items()
        if not beside and kept == configuration and (name in OURS or not kept.is_empty)
    )
    kept, beside = found[target]
    gone = [
        (index, placement)
        for index, (before, after) in enumerate(zip(configuration.layers, kept.layers, strict=True))
        for placement in before.placements
        if placement not in after.placements
    ]
    lines = [f"layer {index} {placement.site}: {describe(placement.method)}" for index, placement in gone]
    return Held(target, kept, (*beside, *lines), tuple(takers), (*beside, *_together(gone)))


def hold_of(study: Study, configuration: Configuration, target: str) -> Held:
    """The same of a plan of ``study``, from the record alone."""
    head = None if is_causal(study.metric) else f"{study.model.pooling} pooling"
    return hold(target, configuration, study.backbone, head, configuration.training.selection)


def _kept(
    target: str, configuration: Configuration, backbone: Backbone, head: str | None, selection: Selection | None
) -> tuple[Configuration, tuple[str, ...]]:
    """The part of the table that ``target`` holds, and what it cannot hold beside it."""
    beside = [f"the head ({head})"] if head is not None and target in TRAINERS else []
    if configuration.training.schedule is not None and target in UPDATE_ALL:
        beside.append("the update schedule (IST): every step would update every layer")
    if selection is not None and selection.weights == "continue" and target in UPDATE_ALL:
        beside.append("the weights of the search (DiffoRA): what was kept would be trained from its start")
    group = _GROUPS.get(target)
    return configuration if group is None else _largest(configuration, backbone, group), tuple(beside)


def _together(gone: Sequence[tuple[int, Placement]]) -> list[str]:
    """Placements with their layers, those of one method on one line: ``layers 2,3 query, value: mola experts 4, …``."""
    sites: dict[tuple[int, str], list[str]] = {}
    for index, placement in gone:
        sites.setdefault((index, describe(placement.method)), []).append(placement.site)
    layers: dict[tuple[str, str], list[int]] = {}
    for (index, method), names in sites.items():
        layers.setdefault((", ".join(names), method), []).append(index)
    return [f"{span(indices)} {names}: {method}" for (names, method), indices in layers.items()]


def everyday_target(configuration: Configuration, backbone: Backbone) -> str:
    """``peft``, which most tools read, where it holds the whole plan; else ``autopeft``, which holds every plan."""
    return "peft" if hold("peft", configuration, backbone, None).is_whole else "autopeft"


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
    if method.name in ("bias", "serial", "parallel", "prefix", "mola"):
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
