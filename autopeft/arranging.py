"""How a study is to be computed: what the settings leave open, the GPUs here, and ``autopeft.fitting`` to choose.

Read once, when the study is made; what comes out stands in the study.
"""

from __future__ import annotations

from dataclasses import replace

from autopeft import control
from autopeft.admission import why_study_alone
from autopeft.errors import BackboneError, ConfigurationError
from autopeft.fitting import USABLE, Asked, Fit, Head, choose, predicted
from autopeft.launch import Gpus, describe_gpus
from autopeft.objectives import parse_bytes
from autopeft.regime import PRECISIONS
from autopeft.settings import SearchSettings
from autopeft.study import Study
from autopeft.tasks import Task, is_causal
from search_spaces.configuration import Configuration, uniform
from search_spaces.methods.lora import Lora

AUTO, OFF = "auto", "off"
MOST_MEMBERS = 64
"""Of a pack whose size is not given: what is proposed for it knows nothing of the others in it."""

_SWITCH = {"on": True, "off": False, AUTO: None}


def arranged(study: Study, settings: SearchSettings, task: Task) -> tuple[Study, list[str]]:
    """``study`` with the regime that its trials share, and lines for people where that is not the usual one.

    Args:
        study: Without one.
        settings: What the user asked for.
        task: Its task, which decides what stands on the backbone.

    Raises:
        ConfigurationError: If a setting is not valid, a package is missing, or nothing fits the device.
        BackboneError: If the checkpoint's configuration cannot be read.
    """
    from autopeft.adapters.models import head_figures  # seconds to import

    head = head_figures(study.model, task.kind, len(task.label_names))
    gpus = describe_gpus()
    asked, memory = _asked(settings, gpus), _memory(settings, gpus)
    _require_packages(settings)
    try:
        fit = choose(study, _widest(study, head), head, asked, memory)
    except BackboneError:  # no arithmetic is known for the family
        fit = choose(study, _widest(study, None), head, asked, None)
    fidelity = replace(study.fidelity, micro_batch=fit.micro_batch)
    study = replace(study, regime=fit.regime, fidelity=fidelity)
    environment = {**study.environment, **fit.regime.fingerprint(study.model.load_in)}
    study = replace(study, environment=environment)
    return study, _notes(study, fit) + _pack_notes(study, settings)


def pack_size(study: Study, settings: SearchSettings) -> int:
    """How many trials a worker is to train together; 1 where they cannot be, or nobody asked for it.

    ``auto`` is 1 without a GPU, where packing was measured to bring nothing, and else as many of the plan that is
    certain to be trained and takes most memory as are predicted to fit, at most ``MOST_MEMBERS``.

    Raises:
        ConfigurationError: As ``asked_pack``.
    """
    asked = asked_pack(settings)
    if asked == OFF or why_study_alone(study) is not None:
        return 1
    return _fitting_members(study, settings) if asked == AUTO else int(asked)


def asked_pack(settings: SearchSettings) -> str:
    """The setting ``pack``: a number, ``auto`` or ``off``.

    Raises:
        ConfigurationError: If it is none of these, or the engine starts workers that it does not reach.
    """
    asked = settings.pack or OFF
    if not (asked in (OFF, AUTO) or (asked.isdigit() and 1 <= int(asked) <= 1024)):
        raise ConfigurationError(f"pack {asked!r}: expected {OFF}, {AUTO}, or a whole number from 1 to 1024")
    if asked not in (OFF, "1") and settings.engine != "local":
        raise ConfigurationError(
            f"pack {asked}: engine {settings.engine} starts workers that train one trial at a time; start "
            "autopeft worker --pack N on its hosts, or leave --pack out"
        )
    return asked


def _fitting_members(study: Study, settings: SearchSettings) -> int:
    gpus = describe_gpus()
    if gpus is None:
        return 1
    from autopeft.adapters.models import head_figures  # seconds to import

    memory = _memory(settings, gpus)
    assert memory is not None
    try:
        head = head_figures(study.model, "causal-lm" if is_causal(study.metric) else "classification", 1)
        peak = predicted(study, _widest(study, head), head, study.fidelity.batch_size)
    except BackboneError:  # no arithmetic is known for the family
        return 1
    return int(max(1, min(MOST_MEMBERS, (USABLE * memory - peak.weights) // (peak.total - peak.weights))))


def _asked(settings: SearchSettings, gpus: Gpus | None) -> Asked:
    precision, switch = settings.precision or AUTO, settings.gradient_checkpointing or AUTO
    if precision not in (*PRECISIONS, AUTO):
        raise ConfigurationError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}, {AUTO}")
    if precision == "mixed" and settings.load_in:
        raise ConfigurationError(
            f"precision mixed with load_in {settings.load_in}: quantised weights are computed in the type of the "
            "others; give --precision fp32 or bf16"
        )
    if switch not in _SWITCH:
        raise ConfigurationError(f"gradient checkpointing {switch!r}: expected one of {', '.join(_SWITCH)}")
    if settings.kernels not in (None, "liger"):
        raise ConfigurationError(f"kernels {settings.kernels!r}: expected liger, or nothing for those of transformers")
    return Asked(
        None if precision == AUTO else precision,
        _SWITCH[switch],
        settings.gpus_per_worker,
        settings.kernels == "liger",
        gpus is not None and gpus.halves,
    )


def _memory(settings: SearchSettings, gpus: Gpus | None) -> int | None:
    if settings.device_memory is not None:
        return parse_bytes("device memory", settings.device_memory)
    return None if gpus is None else gpus.memory


def _require_packages(settings: SearchSettings) -> None:
    if settings.load_in is not None:
        from autopeft.adapters.quantisation import require_bitsandbytes  # seconds to import

        require_bitsandbytes(settings.load_in)
    if settings.kernels is not None:
        from autopeft.adapters.kernels import require_liger

        require_liger()


def _widest(study: Study, head: Head | None) -> Configuration:
    """What is certain to be trained and takes most memory: of the control; of an empty one, rank 1 everywhere."""
    plans = list(control.sizes(study).values())
    if not plans or head is None:
        return uniform(study.backbone, study.backbone.roles, Lora(1, 2.0), study.control_learning_rate)
    rows = study.fidelity.batch_size
    return max(plans, key=lambda plan: predicted(study, plan, head, rows).total)


def _notes(study: Study, fit: Fit) -> list[str]:
    usual = fit.predicted is None and study.regime.to_json() == {}
    quantised = study.model.load_in
    lines = [] if usual else [fit.note]
    if quantised is not None:
        lines.append(f"weights  linear ones of the layers in {quantised}; parameters are counted unpacked")
    return lines


def _pack_notes(study: Study, settings: SearchSettings) -> list[str]:
    if asked_pack(settings) == OFF:
        return []
    if (reason := why_study_alone(study)) is not None:
        return [f"pack     off: {reason}"]
    size = pack_size(study, settings)
    return [f"pack     up to {size} trials train together" if size > 1 else "pack     off"]
