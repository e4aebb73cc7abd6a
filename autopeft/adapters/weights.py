"""Pretrained weights into a model: in which precision, in how many bits, on which devices; frozen weights only.

Which class it is to be, and what head it gets, is ``autopeft.adapters.models``' to say. Code from a checkpoint is never
run, and weights come from safetensors alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers import logging as transformers_logging

from autopeft.adapters.anatomy import describe, path_prefix
from autopeft.adapters.head import Classifier
from autopeft.adapters.kernels import fuse
from autopeft.adapters.quantisation import quantised_loading, require_bitsandbytes, settle
from autopeft.adapters.recomputing import recompute_layers
from autopeft.adapters.sources import ResolvedModel
from autopeft.errors import BackboneError
from autopeft.regime import USUAL, Regime
from search_spaces.backbone import ModuleShape
from search_spaces.quantisation import BLOCK, is_quantised

_LOADING: dict[str, Any] = {
    "local_files_only": True,
    "trust_remote_code": False,
    "use_safetensors": True,
    "output_loading_info": True,
}
_LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a backbone stands and how it computes.

    Attributes:
        device: Its only device, or the first.
        regime: Precision, recomputed layers, devices, kernels.
    """

    device: torch.device
    regime: Regime = USUAL


HERE = Stand(torch.device("cpu"))
"""One CPU, float32."""


def load_weights(
    auto: Any, resolved: ResolvedModel, load_in: str | None, stand: Stand, **options: Any
) -> tuple[PreTrainedModel, set[str]]:
    """The pretrained model, and the names of the parameters that the checkpoint does not hold: a head, a pooler.

    Args:
        auto: Class of transformers that picks the model's class.
        resolved: The checkpoint.
        load_in: ``4bit``, ``8bit`` or None.
        stand: Where it is to be.
        **options: Further arguments of ``from_pretrained``, and of the configuration.

    Raises:
        ConfigurationError: If bitsandbytes is asked for and missing.
        BackboneError: If the checkpoint lacks weights, or bitsandbytes cannot pack them rightly here.
    """
    half = stand.regime.precision == "bf16"
    options |= {**_LOADING, "dtype": torch.bfloat16 if half else torch.float32}
    if load_in is not None:
        require_bitsandbytes(load_in)
        shell = _shell(auto, resolved, options.get("num_labels"))
        sites = _sites(shell)
        if load_in == "4bit" and stand.device.type == "cpu":
            _require_whole_blocks(resolved, sites.values())
        options |= quantised_loading(load_in, shell, frozenset(sites), options["dtype"])
    if stand.regime.gpus > 1:
        options["device_map"] = "balanced"
    elif load_in is not None:
        options["device_map"] = {"": stand.device}
    with explained(resolved):
        model, loading = auto.from_pretrained(resolved.path, **options)
    settle(model)
    return model, _lacking(model, loading, resolved)


def stood(classifier: Classifier, stand: Stand) -> Classifier:
    """``classifier`` on its devices, computing as its stand says; what is new in it in float32.

    Raises:
        ConfigurationError: If Liger is asked for and cannot be had.
    """
    model = classifier.model
    for parameter in classifier.head_parameters().values():
        parameter.data = parameter.data.float()
    if getattr(model, "is_quantized", False) or is_spread(model):
        if classifier.classifier is not None:
            classifier.classifier.to(stand.device)
    else:
        classifier.to(stand.device)
    classifier.precision = stand.regime.precision
    if stand.regime.liger:
        fuse(model)
    if stand.regime.gradient_checkpointing:
        recompute_layers(model)
    return classifier


def is_spread(model: PreTrainedModel) -> bool:
    """Whether several devices hold ``model`` between them."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1


def _shell(auto: Any, resolved: ResolvedModel, labels: int | None) -> PreTrainedModel:
    """A model of the class to be loaded, without weights."""
    wanted = {} if labels is None else {"num_labels": labels}
    with explained(resolved), torch.device("meta"):
        config = AutoConfig.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False, **wanted)
        shell: PreTrainedModel = auto.from_config(config, trust_remote_code=False)
    return shell


def _sites(shell: PreTrainedModel) -> dict[str, ModuleShape]:
    """The linear modules that are quantised, by their names in ``shell``."""
    backbone, prefix = describe(shell, type(shell).__name__), path_prefix(shell)
    modules = (module for row in backbone.layers for module in row)
    return {f"{prefix}{module.path}": module for module in modules if is_quantised(backbone, module.role)}


def _require_whole_blocks(resolved: ResolvedModel, modules: Iterable[ModuleShape]) -> None:
    """Nothing, if every row is a whole number of blocks: on CPUs, bitsandbytes 0.50.2 unpacks others wrongly."""
    odd = next((module for module in modules if module.in_features % BLOCK), None)
    if odd is not None:
        raise BackboneError(
            f"model {resolved.name} in 4bit on a CPU: {odd.path} is {odd.in_features} wide, and bitsandbytes unpacks "
            f"rightly there only what is a multiple of {BLOCK}; take --load-in 8bit, or a GPU"
        )


def _lacking(model: PreTrainedModel, loading: Mapping[str, Any], resolved: ResolvedModel) -> set[str]:
    """Names of the parameters that the checkpoint does not hold; only a head or a pooler may be among them."""
    absent = {
        key if isinstance(key, str) else key[0] for key in {*loading["missing_keys"], *loading["mismatched_keys"]}
    }
    absent &= {name for name, _ in model.named_parameters()}
    prefix = path_prefix(model)
    lacking = sorted(name for name in absent if name.startswith(prefix) and "pooler." not in name)
    if lacking:
        raise BackboneError(
            f"model {resolved.name}: {len(lacking)} weights are missing from {resolved.path} or have another shape, "
            f"the first is {lacking[0]}; the checkpoint is not complete"
        )
    return absent


@contextmanager
def explained(resolved: ResolvedModel) -> Iterator[None]:
    """Keeps transformers quiet and turns what it raises into one clear line."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except _LOADING_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"model {resolved.name}: {resolved.path} cannot be loaded: {reason}") from error
    finally:
        transformers_logging.set_verbosity(level)
