"""Backbones in 4 or 8 bits by bitsandbytes: how they are loaded, what may stand on them, and the way back.

Quantised are the linear modules of the layers and nothing else (``search_spaces.quantisation`` does the arithmetic), in
NF4 with double quantisation (arXiv 2305.14314) or LLM.int8() (arXiv 2208.07339). Nothing here re-implements either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from autopeft.errors import BackboneError, ConfigurationError
from search_spaces.backbone import Backbone
from search_spaces.configuration import Configuration
from search_spaces.methods import Method
from search_spaces.methods.bias import Bias
from search_spaces.methods.lora import MOVE_THE_WEIGHT, Lora
from search_spaces.quantisation import BITSANDBYTES

REFUSED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "4bit": tuple(
        (name, f"stock peft reads the widths of {name} off the frozen weight, whose packed form has others")
        for name in ("loha", "lokr")
    ),
    "8bit": (),
}
"""Methods that no quantised layer can take, and why: no space of a quantised study proposes them."""

_PACKED = ("Params4bit", "Int8Params")


def require_bitsandbytes(load_in: str) -> None:
    """Nothing, if bitsandbytes is installed.

    Raises:
        ConfigurationError: If it is not.
    """
    if find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            f"load_in {load_in}: bitsandbytes is missing: pip install 'autopeft[bitsandbytes]', or leave --load-in out"
        )


def quantised_loading(load_in: str, shell: nn.Module, sites: frozenset[str], compute: torch.dtype) -> dict[str, Any]:
    """The arguments of ``from_pretrained`` that quantise the modules named in ``sites``.

    Args:
        load_in: ``4bit`` or ``8bit``.
        shell: The model of the class to be loaded, without weights.
        sites: Dotted names in ``shell`` of what is quantised.
        compute: Type of the arithmetic on 4-bit weights.
    """
    require_bitsandbytes(load_in)
    whole = [name for name, module in shell.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    kept = [f"{name}$" for name in whole if name not in sites] or ["nothing is left out"]
    options = dict(BITSANDBYTES[load_in]) | ({"bnb_4bit_compute_dtype": compute} if load_in == "4bit" else {})
    return {"quantization_config": BitsAndBytesConfig(**options, llm_int8_skip_modules=kept)}


def settle(model: PreTrainedModel) -> None:
    """Makes a freshly loaded quantised model ready: peft finds what it is, and no forward pass packs weights anew."""
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        if getattr(model, name, False):
            setattr(model.base_model, name, True)
    module: Any
    for module in quantised_modules(model).values():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # its layout for scoring is none that training can read
        if type(module.weight).__name__ == "Int8Params":
            module.register_forward_pre_hook(_keep_row_scales)


def _keep_row_scales(module: nn.Module, _inputs: tuple[Any, ...]) -> None:
    """Nothing is to be taken over from a weight that peft has moved (0.21.2, on CPUs): its scales were lost then."""
    weight: Any = module.weight
    if weight.SCB is None and _row_scales(module) is not None:
        weight.CB = None


def is_quantised(module: nn.Module) -> bool:
    """Whether ``module`` has a packed weight of its own; peft's layers around one show it as theirs."""
    return not isinstance(module, BaseTunerLayer) and type(getattr(module, "weight", None)).__name__ in _PACKED


def quantisation_of(model: nn.Module) -> str | None:
    """``4bit``, ``8bit``, or None for a model with no packed weight."""
    found = {type(parameter).__name__ for parameter in model.parameters()}
    return "4bit" if "Params4bit" in found else "8bit" if "Int8Params" in found else None


def quantised_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module with a packed weight, by name."""
    return {name: module for name, module in model.named_modules() if is_quantised(module)}


def unpacked_count(parameter: nn.Parameter) -> int:
    """Weights in ``parameter``, each counted as one however few bits it takes."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def scales(model: nn.Module) -> Iterator[Tensor]:
    """What packed weights keep beside their bits, none of which is a parameter or a buffer."""
    for module in quantised_modules(model).values():
        weight: Any = module.weight
        if (state := getattr(weight, "quant_state", None)) is not None:
            yield from (state.absmax, state.code)
            if state.nested:
                yield from (state.offset, state.state2.absmax, state.state2.code)
        else:
            yield from (scale for scale in (getattr(weight, "SCB", None), _row_scales(module)) if scale is not None)


def _row_scales(module: nn.Module) -> Tensor | None:
    """The scales of 8-bit rows, which the first forward pass moves from the weight to the module's state."""
    state: Any = module.state
    found: Tensor | None = state.SCB
    return found


def dequantised_weight(module: nn.Module) -> Tensor:
    """The weight of ``module``, shape [out, in], unpacked if it is packed; the module stays as it is."""
    weight: Any = module.weight
    if not is_quantised(module):
        plain: Tensor = weight.detach()
        return plain
    import bitsandbytes as bnb

    if (state := getattr(weight, "quant_state", None)) is not None:
        unpacked: Tensor = bnb.functional.dequantize_4bit(weight.data, state)
        return unpacked
    rows: Tensor = bnb.functional.int8_vectorwise_dequant(weight.data, next(scales(module)))
    return rows


def dequantise(model: PreTrainedModel) -> None:
    """Puts a plain linear module in float32 in place of every quantised one; ``model`` has no adapters.

    What comes out has the values that the quantised weights stand for, not those that the checkpoint had.
    """
    for name, module in quantised_modules(model).items():
        unpacked = dequantised_weight(module).float()
        linear = nn.Linear(unpacked.shape[1], unpacked.shape[0], module.bias is not None, device=unpacked.device)
        linear.requires_grad_(False)
        linear.weight.data = unpacked
        if isinstance(module.bias, Tensor):
            linear.bias.data = module.bias.detach().float()
        model.set_submodule(name, linear)
    for holder in (model, model.base_model):
        for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized"):
            if hasattr(holder, flag):
                setattr(holder, flag, False)
        if hasattr(holder.config, "quantization_config"):
            del holder.config.quantization_config


def require_trainable(model: PreTrainedModel, configuration: Configuration, backbone: Backbone) -> None:
    """Nothing, if all of ``configuration`` can be trained on the packed weights of ``model``.

    Raises:
        BackboneError: If not; the message names the first method that cannot, and why.
    """
    load_in = quantisation_of(model)
    if load_in is None:
        return
    for layer, site, method in configuration.placements():
        if site not in backbone.sites(layer) or site not in {module.role for module in backbone.layers[layer]}:
            continue
        module = model.base_model.get_submodule(backbone.module(layer, site).path)
        if is_quantised(module) and (reason := _refusal(method, module)) is not None:
            raise BackboneError(f"layer {layer} {site} in {load_in}: {reason}; load the model without --load-in")


def _refusal(method: Method, module: nn.Module) -> str | None:
    """Why ``method`` cannot stand at a quantised module; None if it can."""
    if isinstance(method, Lora) and method.init in MOVE_THE_WEIGHT:
        return f"LoRA init {method.init} takes its start off the frozen weight, which packed weights cannot hold"
    if isinstance(method, Lora) and method.init == "orthogonal":
        return "LoRA init orthogonal takes its type from the frozen weight, which is whole numbers here"
    if reason := dict(REFUSED["4bit" if type(module.weight).__name__ == "Params4bit" else "8bit"]).get(method.name):
        return reason
    bias = module.bias
    if isinstance(method, Bias) and isinstance(bias, Tensor) and bias.dtype != torch.float32:
        return "bitsandbytes rounds a trained bias to the precision of the arithmetic"
    return None
