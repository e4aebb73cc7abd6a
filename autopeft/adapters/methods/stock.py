"""Methods that peft has: their configurations, their insertion through peft's own tuners, and what comes of them.

The layers are peft's own; nothing is re-implemented. A method that peft has is one row in ``STOCK``. Modules that
differ in what peft keeps per configuration (block size, initialisation, …) are inserted in several calls, all under one
adapter name: another name would silence the layers of the call before.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from autopeft.adapters.quantisation import dequantised_weight
from autopeft.adapters.suppression import Response, moved
from search_spaces.methods import Method
from search_spaces.methods.dora import Dora
from search_spaces.methods.hira import Hira
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.loha import Loha
from search_spaces.methods.lokr import Lokr
from search_spaces.methods.lora import CORDA, Lora
from search_spaces.methods.norm import Norm
from search_spaces.methods.oft import Oft
from search_spaces.methods.vera import Vera

ADAPTER_NAME = "autopeft"
"""Name under which peft keeps the adapters in the model."""

_PEFT_INITS = {"default": True, "eva": True, "corda_ipm": "corda"}
"""What peft calls initialisations that have another name here; EVA's A is set afterwards, from the training rows."""

_START = ("lora_A.weight", "lora_B.weight")


def _patterns(sizes: Mapping[str, Any], size: str, pattern: str) -> dict[str, Any]:
    """The most frequent size as the default, the others by module name."""
    usual = Counter(sizes.values()).most_common(1)[0][0]
    return {size: usual, pattern: {name: value for name, value in sizes.items() if value != usual}}


def _plain(alpha: float) -> float:
    return int(alpha) if alpha.is_integer() else alpha


def lora_config(modules: Mapping[str, Lora], *, transposed: bool = False) -> peft.LoraConfig:
    """A peft configuration for LoRA at modules named in full, each with its own rank and alpha.

    All have to share scaling and initialisation; the most frequent rank and alpha are the defaults.
    """
    first = next(iter(modules.values()))
    options: dict[str, Any] = {}
    if first.init in CORDA:
        options["corda_config"] = peft.tuners.lora.config.CordaConfig(corda_method=CORDA[first.init])
    if first.init == "lora_ga":
        options["lora_ga_config"] = peft.tuners.lora.config.LoraGAConfig()
    return peft.LoraConfig(
        target_modules=list(modules),
        **_patterns({name: method.rank for name, method in modules.items()}, "r", "rank_pattern"),
        **_patterns({name: _plain(method.alpha) for name, method in modules.items()}, "lora_alpha", "alpha_pattern"),
        use_rslora=first.scaling == "rank-stabilised",
        init_lora_weights=_PEFT_INITS.get(first.init, first.init),
        fan_in_fan_out=transposed,
        lora_dropout=0.0,
        bias="none",
        **options,
    )


def _dora_config(modules: Mapping[str, Dora], *, transposed: bool) -> peft.LoraConfig:
    return peft.LoraConfig(
        target_modules=list(modules),
        **_patterns({name: method.rank for name, method in modules.items()}, "r", "rank_pattern"),
        **_patterns({name: _plain(method.alpha) for name, method in modules.items()}, "lora_alpha", "alpha_pattern"),
        use_dora=True,
        fan_in_fan_out=transposed,
        lora_dropout=0.0,
        bias="none",
    )


def _ia3_config(modules: Mapping[str, Ia3], *, transposed: bool, inputs: bool) -> peft.IA3Config:
    names = list(modules)
    return peft.IA3Config(target_modules=names, feedforward_modules=names if inputs else [], fan_in_fan_out=transposed)


def _hira_config(modules: Mapping[str, Hira], *, transposed: bool) -> peft.HiraConfig:
    # not by rank_pattern: peft 0.21.2 reads it and then builds every layer with r
    rank = next(iter(modules.values())).rank
    return peft.HiraConfig(target_modules=list(modules), r=rank, fan_in_fan_out=transposed)


def _loha_config(modules: Mapping[str, Loha]) -> peft.LoHaConfig:
    return peft.LoHaConfig(
        target_modules=list(modules),
        **_patterns({name: method.rank for name, method in modules.items()}, "r", "rank_pattern"),
        **_patterns({name: _plain(method.alpha) for name, method in modules.items()}, "alpha", "alpha_pattern"),
    )


def _lokr_config(modules: Mapping[str, Lokr]) -> peft.LoKrConfig:
    return peft.LoKrConfig(
        target_modules=list(modules),
        **_patterns({name: method.rank for name, method in modules.items()}, "r", "rank_pattern"),
        **_patterns({name: _plain(method.alpha) for name, method in modules.items()}, "alpha", "alpha_pattern"),
        decompose_factor=next(iter(modules.values())).factor,
    )


def _vera_config(modules: Mapping[str, Vera], *, transposed: bool) -> peft.VeraConfig:
    first = next(iter(modules.values()))
    return peft.VeraConfig(
        target_modules=list(modules),
        r=first.rank,
        d_initial=first.d_initial,
        projection_prng_key=first.projection_key,
        save_projection=False,
        fan_in_fan_out=transposed,
    )


def _oft_config(modules: Mapping[str, Oft]) -> peft.OFTConfig:
    return peft.OFTConfig(target_modules=list(modules), oft_block_size=next(iter(modules.values())).block_size, r=0)


def _norm_config(modules: Mapping[str, Norm]) -> peft.LNTuningConfig:
    return peft.LNTuningConfig(target_modules=list(modules))


@dataclass(frozen=True, slots=True)
class Target:
    """A method at a module, and what decides how peft has to be told.

    Attributes:
        method: With its sizes.
        transposed: Whether the weight is kept as [in, out].
        role: Of the module; empty for a norm.
        moves: Whether its initialisation changes the frozen weight.
    """

    method: Method
    transposed: bool = False
    role: str = ""
    moves: bool = False


def _lora_response(layer: Any) -> list[Response]:
    return [(layer.lora_B[ADAPTER_NAME].weight, 0.0)]


def _dora_response(layer: Any) -> list[Response]:
    weight = dequantised_weight(layer.get_base_layer())
    lengths = torch.linalg.norm(weight.T if layer.fan_in_fan_out else weight, dim=1)
    return [*_lora_response(layer), (layer.lora_magnitude_vector[ADAPTER_NAME].weight, lengths)]


def _lokr_response(layer: Any) -> list[Response]:
    whole = layer.lokr_w1 if ADAPTER_NAME in layer.lokr_w1 else layer.lokr_w1_a
    return [(whole[ADAPTER_NAME], 0.0)]


def _norm_response(layer: Any) -> list[Response]:
    pretrained = dict(layer.get_base_layer().named_parameters())
    own = layer.ln_tuning_layers[ADAPTER_NAME].named_parameters()
    return [(parameter, pretrained[name].detach()) for name, parameter in own]


@dataclass(frozen=True, slots=True)
class Row:
    """How one method is told to peft.

    Attributes:
        config: Makes peft's configuration of modules whose ``key`` is the same.
        key: What has to be equal for modules to share one configuration, as its keyword arguments where it takes them.
        response: The values of a layer that scale what it answers, and where it answers nothing.
    """

    config: Callable[..., peft.PeftConfig]
    key: Callable[[Any, Target], tuple[Any, ...]]
    response: Callable[[Any], list[Response]]
    options: Callable[[Target], dict[str, Any]] = lambda target: {"transposed": target.transposed}


def _no_options(_target: Target) -> dict[str, Any]:
    return {}


STOCK: dict[str, Row] = {
    "vera": Row(_vera_config, lambda vera, _: (vera,), lambda layer: [(layer.vera_lambda_b[ADAPTER_NAME], 0.0)]),
    "lora": Row(lora_config, lambda lora, _: (lora.scaling, lora.init), _lora_response),
    "dora": Row(_dora_config, lambda *_: (), _dora_response),
    "hira": Row(_hira_config, lambda hira, _: (hira.rank,), lambda layer: [(layer.hira_B[ADAPTER_NAME], 0.0)]),
    "loha": Row(_loha_config, lambda *_: (), lambda layer: [(layer.hada_w2_b[ADAPTER_NAME], 0.0)], _no_options),
    "lokr": Row(_lokr_config, lambda lokr, _: (lokr.factor,), _lokr_response, _no_options),
    "oft": Row(
        _oft_config,
        lambda oft, _: (oft.block_size,),
        lambda layer: [(layer.oft_R[ADAPTER_NAME].weight, 0.0)],
        _no_options,
    ),
    "norm": Row(_norm_config, lambda *_: (), _norm_response, _no_options),
    "ia3": Row(
        _ia3_config,
        lambda _, target: (target.role == "down",),
        lambda layer: [(layer.ia3_l[ADAPTER_NAME], 1.0)],
        lambda target: {"transposed": target.transposed, "inputs": target.role == "down"},
    ),
}
"""For each method that stock peft has, how it is told; in the order of insertion, IA³ around any other."""


def groups(targets: Mapping[str, Target]) -> Iterable[tuple[dict[str, Target], Callable[[], peft.PeftConfig]]]:
    """The modules that share one peft configuration, and what makes it; all of one method.

    Args:
        targets: One method by full module name.
    """
    row = STOCK[next(iter(targets.values())).method.name]
    parted: dict[tuple[Any, ...], dict[str, Target]] = {}
    for name, target in targets.items():
        parted.setdefault((target.transposed, *row.key(target.method, target)), {})[name] = target
    for group in parted.values():
        options = row.options(next(iter(group.values())))
        methods = {name: target.method for name, target in group.items()}
        yield group, lambda methods=methods, options=options: row.config(methods, **options)  # type: ignore[misc]


def inject(model: nn.Module, config: peft.PeftConfig) -> None:
    """Inserts peft's layers for ``config`` into ``model``, which stays the same object.

    Not by ``inject_adapter_in_model``, which does the same but refuses VeRA: what VeRA shares lives in its layers.
    """
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    with warnings.catch_warnings():
        # peft asks every layer for its widths, and does not know those of norms; it does not use them
        warnings.filterwarnings("ignore", message="Unsupported layer type")
        tuner(model, config, adapter_name=ADAPTER_NAME)
    del model.peft_config


def quiet_config(make: Callable[[], peft.PeftConfig]) -> peft.PeftConfig:
    """What ``make`` makes, without warnings of peft's own saving, which is not used here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Specified to not save vera_A and vera_B")
        warnings.filterwarnings("ignore", message="Using Rank-Stabilized LoRA with rank_pattern/alpha_pattern")
        return make()


@dataclass(slots=True)
class StockPart:
    """The peft layers around one module.

    Attributes:
        headless: The model that it is in.
        path: Dotted name of the module in it.
        method_names: Methods of the layers, innermost first.
        original: The module's weight before an initialisation that changes it; None for the others.
        start: Initial A and B of such an initialisation.
    """

    headless: nn.Module
    path: str
    method_names: tuple[str, ...]
    original: Tensor | None = None
    start: dict[str, Tensor] = field(default_factory=dict)

    mergeable = True

    @property
    def layers(self) -> list[BaseTunerLayer]:
        """Peft's layers, innermost first."""
        found: list[BaseTunerLayer] = []
        module: nn.Module | BaseTunerLayer = self.headless.get_submodule(self.path)
        while isinstance(module, BaseTunerLayer):
            found.insert(0, module)
            module = module.base_layer
        return found

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by its name in the headless model without peft's adapter name."""
        named = {}
        for layer in self.layers:
            for name, parameter in layer.named_parameters():
                if not name.startswith("base_layer."):
                    plain = f".{name}.".replace(f".{ADAPTER_NAME}.", ".").strip(".")
                    named[f"{self.path}.{plain}"] = parameter
        return named

    def kept(self) -> dict[str, Tensor]:
        """What has to be saved beside: where training started, if that was taken off the weight."""
        return {f"{self.path}.start.{name}": tensor for name, tensor in self.start.items()}

    def beside(self) -> list[Tensor]:
        """The weight before an initialisation that changes it, and where training started."""
        return [*([] if self.original is None else [self.original]), *self.start.values()]

    def note_start(self) -> None:
        """Remembers the present A and B as the start."""
        here = self.parameters()
        self.start = {name: here[f"{self.path}.{name}"].detach().clone() for name in _START}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Takes a saved start off the weight, in place of the one that this insertion made."""
        if self.original is None:
            return
        layer = self.layers[0]
        weight = layer.get_base_layer().weight
        self.start = {name: kept[f"{self.path}.start.{name}"].to(weight.device).clone() for name in _START}
        low, high = (self.start[name].float() for name in _START)
        product = layer.scaling[ADAPTER_NAME] * high @ low
        with torch.no_grad():
            original = self.original.to(weight.device)
            weight.copy_(original - (product.T if layer.fan_in_fan_out else product).to(original.dtype))

    def suppressed(self, factor: float) -> AbstractContextManager[None]:
        """Scales what the layers answer; of a moved start, what was learned since."""
        responses: list[Response] = []
        for layer, method in zip(self.layers, self.method_names, strict=True):
            responses += STOCK[method].response(layer)
        if self.original is not None:
            weight = self.layers[0].get_base_layer().weight
            responses.append((weight, self.original.to(weight.device)))
        return moved(responses, factor)

    def merge(self) -> None:
        """Folds the layers into the module, innermost first."""
        with torch.no_grad():
            for layer in self.layers:
                layer.merge(adapter_names=[ADAPTER_NAME])
        self._unwrap()

    def take_out(self) -> None:
        """Takes the layers out and puts a changed weight back."""
        self._unwrap()
        if self.original is not None:
            weight = self.headless.get_parameter(f"{self.path}.weight")
            with torch.no_grad():
                weight.copy_(self.original)

    def _unwrap(self) -> None:
        module = self.headless.get_submodule(self.path)
        if isinstance(module, BaseTunerLayer):
            parent, _, child = self.path.rpartition(".")
            setattr(self.headless.get_submodule(parent), child, module.get_base_layer())
