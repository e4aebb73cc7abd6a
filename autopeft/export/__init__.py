"""Exports: a trained trial becomes a folder that another tool reads, verified before it appears.

Every export holds the lossless plan (``configuration.json``, ``study.json``, ``provenance.json``), the files of its
target, ``score_sheet.svg``, a model card and ``verify.json``. Importing this loads no torch.
"""

from __future__ import annotations

from pathlib import Path

from autopeft.errors import ConfigurationError, ExportError
from autopeft.export.archive import SUFFIX, publish_archive
from autopeft.export.folder import publish
from autopeft.promise import Promise
from autopeft.proxy import stands_in
from autopeft.study import Measurement, Study, Trial, TrialState

__all__ = ["TARGETS", "export_trial"]

TARGETS = {
    "peft": "adapter_config.json and adapter_model.safetensors for stock peft, head beside or inside",
    "script": "one Python file that trains the plan anew on the task's rows, or checks the trained adapter beside it",
    "axolotl": "YAML that trains the plan anew, ranks and alphas by pattern",
    "llamafactory": "YAML that goes on training the adapter beside it, which holds ranks and alphas",
    "trl": "a script with peft_config for TRL's SFTTrainer, and the command line where one rank serves all modules",
    "vllm": "the adapter with one rank and scaling, padded with zeros, computing the same",
    "autopeft": "configuration, adapter and head as autopeft keeps them; lossless",
}
"""Every target by name, with what it writes in one line."""


def export_trial(
    study: Study,
    trial: Trial,
    measurement: Measurement,
    artifacts: Path,
    target: str,
    output: Path,
    overwrite: bool = False,
    lossy: bool = False,
    promise: Promise | None = None,
) -> Path:
    """Writes the export of ``trial`` for ``target`` into ``output``, a folder or an archive, and returns it.

    It appears whole or not at all, and only after its files were read back and verified.

    Args:
        study: The study that the trial belongs to.
        trial: A complete trial.
        measurement: Its measurement, which names the saved adapter.
        artifacts: Root that the adapter's folder is relative to.
        target: A key of ``TARGETS``.
        output: Folder to make, which may exist if it is empty; or, ending in ``.zip``, an archive.
        overwrite: Replace an earlier export in ``output``.
        lossy: Leave out what the target cannot hold, and say so in ``verify.json`` and the card.
        promise: What the search says of the configuration, for whoever trains it from the export.

    Raises:
        ConfigurationError: If the target is not known, or ``output`` is in use.
        LossyExportError: If the target cannot hold all of the trial, and ``lossy`` is not set.
        ExportError: If the trial cannot be exported, or the files written do not pass their verification.
        NotFoundError: If the saved adapter is not there.
    """
    if target not in TARGETS:
        raise ConfigurationError(f"export target {target!r}: expected one of {', '.join(TARGETS)}")
    if trial.state is not TrialState.COMPLETE:
        raise ExportError(f"trial {trial.number} is {trial.state.value}: only a complete trial can be exported")
    if trial.configuration.training.backbone:
        raise ExportError(
            f"trial {trial.number} is full fine-tuning, a reference: its weights were not kept; export an adapter"
        )

    if stands_in(study, trial.origin, trial.configuration) and study.proxy is not None:
        raise ExportError(
            f"trial {trial.number} was trained on the proxy {study.proxy.backbone.name}, so there are no weights for "
            f"{study.backbone.name}: export what confirmed it (autopeft trials), or autopeft train {trial.number}"
        )

    def build(folder: Path) -> None:
        from autopeft.export.contents import write_export

        write_export(study, trial, measurement, artifacts, target, folder, lossy=lossy, promise=promise)

    return (publish_archive if output.suffix == SUFFIX else publish)(build, output, overwrite)
