"""The options of ``autopeft search``, one type each, in the panels of its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_Text = str | None
_Number = int | None
_Fraction = float | None


def _option(*names: str, help: str, panel: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel)


_WHAT, _LIMITS, _DATA, _RUN = "What", "Limits", "Data and training", "Running"
_LARGE = "Large models"

Model = Annotated[_Text, _option("--model", "-m", help="minilm (embedded), a folder, or a hub id.", panel=_WHAT)]
ProxyModel = Annotated[
    _Text, _option("--proxy-model", help="A smaller sibling that the search trains on instead.", panel=_WHAT)
]
Task = Annotated[
    _Text,
    _option("--task", "-t", help="aspects, a file or folder of rows, .txt or images, or hf:NAME/CONFIG.", panel=_WHAT),
]
Space = Annotated[_Text, _option("--space", help="A named space (autopeft space ls), or a YAML file.", panel=_WHAT)]
Metric = Annotated[
    _Text,
    _option(
        "--metric",
        help="accuracy, f1, matthews, pearson, option_accuracy, exact_match, number, … or FILE.py:function.",
        panel=_WHAT,
    ),
]
Pooling = Annotated[
    _Text, _option("--pooling", help="mean or stock (default: as the checkpoint declares).", panel=_WHAT)
]
Prior = Annotated[
    _Text, _option("--prior", help="Guided by probes, their kinds, or a JSON file of scores.", panel=_WHAT)
]
Proposer = Annotated[
    _Text, _option("--proposer", help="closed-form, or a peer: sobol, random, tpe, nsga2, …", panel=_WHAT)
]
Objectives = Annotated[
    _Text,
    _option(
        "--objectives",
        help="The metric and costs, with commas: accuracy,trainable_parameters,forward_flops,peak_memory, …",
        panel=_WHAT,
    ),
]
Budget = Annotated[_Text, _option("--budget", "-b", help="Trainable parameters: 0.5%, 0.005, 110k.", panel=_LIMITS)]
MaxMemory = Annotated[_Text, _option("--max-memory", help="In training: 16GB, 512MiB.", panel=_LIMITS)]
MaxTrainSeconds = Annotated[_Text, _option("--max-train-seconds", help="Training of a trial: 60.", panel=_LIMITS)]
MaxInferenceSeconds = Annotated[
    _Text, _option("--max-inference-seconds", help="Scoring of a row: 20ms.", panel=_LIMITS)
]
MaxStored = Annotated[_Text, _option("--max-stored", help="Saved adapter: 1MB.", panel=_LIMITS)]
MaxFlops = Annotated[_Text, _option("--max-flops", help="Added to the forward pass of a row: 5M.", panel=_LIMITS)]
Trials = Annotated[_Number, _option("--trials", "-n", help="Configurations to propose.", panel=_LIMITS)]
Hours = Annotated[_Fraction, _option("--hours", help="Wall-clock limit.", panel=_LIMITS)]
GpuHours = Annotated[
    _Fraction, _option("--gpu-hours", help="Limit on device time of all workers, CPU workers too.", panel=_LIMITS)
]
PricePerGpuHour = Annotated[
    _Fraction, _option("--price-per-gpu-hour", help="Of a device, for what is predicted and spent.", panel=_LIMITS)
]
Confirm = Annotated[
    _Number,
    _option("--confirm", help="Fresh seeds for front and control at the end (default: 1); 0: none.", panel=_LIMITS),
]
ControlRates = Annotated[
    _Number,
    _option("--control-rates", help="Learning rates that the control chooses among (default: 3).", panel=_LIMITS),
]
References = Annotated[
    bool,
    _option("--references", help="At the end serial, parallel, prefix, IA3 and MoLA too, shown apart.", panel=_LIMITS),
]
Reference = Annotated[
    list[str] | None,
    _option("--reference", help="One of them alone, or full (fine-tuning); may be repeated.", panel=_LIMITS),
]
Initial = Annotated[_Number, _option("--initial", help="Proposals before the model takes over.", panel=_LIMITS)]
Repeats = Annotated[
    _Number, _option("--repeats", help="Most measurements of a configuration (default: 1).", panel=_LIMITS)
]
Epochs = Annotated[_Fraction, _option("--epochs", help="Passes over the rows in a trial.", panel=_DATA)]
Steps = Annotated[_Number, _option("--steps", help="Optimiser steps, instead of epochs.", panel=_DATA)]
TrainRows = Annotated[_Number, _option("--train-rows", help="Most training rows.", panel=_DATA)]
DataFraction = Annotated[
    _Text, _option("--data-fraction", help="Share of the training rows, instead: 10%.", panel=_DATA)
]
ValidationRows = Annotated[_Number, _option("--validation-rows", help="Most validation rows.", panel=_DATA)]
BatchSize = Annotated[_Number, _option("--batch-size", help="Rows a step.", panel=_DATA)]
MaxLength = Annotated[_Number, _option("--max-length", help="Most tokens of a row.", panel=_DATA)]
Fidelity = Annotated[
    _Text, _option("--fidelity", help="rungs (the better half goes on), full, or shares: 1/4,1/2.", panel=_DATA)
]
MicroBatch = Annotated[
    _Number, _option("--micro-batch", help="Most rows in one forward pass (default: a step's).", panel=_DATA)
]
Packing = Annotated[
    bool | None,
    _option(
        "--packing/--no-packing",
        help="A step's rows end to end instead of padded; of language models (default: no).",
        panel=_DATA,
    ),
]
TextColumn = Annotated[_Text, _option("--text-column", help="Column of the text, prompt or image.", panel=_DATA)]
TextPairColumn = Annotated[_Text, _option("--text-pair-column", help="Column of the second text.", panel=_DATA)]
LabelColumn = Annotated[_Text, _option("--label-column", help="Column of the label or answer.", panel=_DATA)]
MaxNewTokens = Annotated[
    _Number, _option("--max-new-tokens", help="Most tokens generated for a row, when scored.", panel=_DATA)
]
ChatTemplate = Annotated[
    _Text,
    _option(
        "--chat-template",
        help="Of conversations: chatml, headings, plain, or a Jinja file (default: the tokenizer's own).",
        panel=_DATA,
    ),
]
LoadIn = Annotated[
    _Text, _option("--load-in", help="Frozen weights in 4bit (NF4) or 8bit, by bitsandbytes.", panel=_LARGE)
]
Precision = Annotated[
    _Text,
    _option("--precision", help="fp32, mixed (arithmetic in bfloat16), bf16 (weights too) or auto.", panel=_LARGE),
]
GradientCheckpointing = Annotated[
    _Text,
    _option("--gradient-checkpointing", help="Layers computed anew when backward: on, off or auto.", panel=_LARGE),
]
GpusPerWorker = Annotated[
    _Number, _option("--gpus-per-worker", help="GPUs that hold one backbone between them.", panel=_LARGE)
]
DeviceMemory = Annotated[
    _Text, _option("--device-memory", help="Of one GPU, for what is auto (default: as nvidia-smi says).", panel=_LARGE)
]
Kernels = Annotated[_Text, _option("--kernels", help="liger: its fused kernels, on GPUs.", panel=_LARGE)]
Seed = Annotated[_Number, _option("--seed", help="Design, data order, initialisations.", panel=_RUN)]
Workers = Annotated[_Text, _option("--workers", "-w", help="A number, or auto.", panel=_RUN)]
Engine = Annotated[_Text, _option("--engine", help="What starts workers: local, ray or slurm.", panel=_RUN)]
EngineAddress = Annotated[
    _Text, _option("--engine-address", help="Of a Ray cluster, or submitit's cluster.", panel=_RUN)
]
Artifacts = Annotated[
    _Text, _option("--artifacts", help="Root of adapters; shared, if workers share no host.", panel=_RUN)
]
Cache = Annotated[
    _Text, _option("--cache", help="Hidden states that trials share: off, fp32, fp16 or auto.", panel=_RUN)
]
Pack = Annotated[
    _Text, _option("--pack", help="Trials that a worker trains together: a number, auto or off (default).", panel=_RUN)
]
Study = Annotated[_Text, _option("--study", "-s", help="Name of the new study.", panel=_RUN)]
Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.", rich_help_panel=_RUN)]
Override = Annotated[list[str] | None, typer.Option("-o", help="key=value", rich_help_panel=_RUN)]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Settings and their origins.", rich_help_panel=_RUN)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what and how long; write nothing.", rich_help_panel=_RUN)]


def reference_names(chosen: list[str] | None, *, everything: bool) -> str | None:
    """The setting ``references`` that flags ask for; ``everything`` names all that are adapters."""
    from search_spaces.references import ADAPTERS

    return ",".join(dict.fromkeys([*(ADAPTERS if everything else ()), *(chosen or ())])) or None
