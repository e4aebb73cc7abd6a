"""What a training step costs here and in stock peft, for the same LoRA configuration on MiniLM.

Pairs alternate, so that a busy machine slows both alike; the median over eleven pairs of the ratio of CPU seconds is
what counts. Run it by itself: `python benchmarks/step_cost.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import peft
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from autopeft.adapters import apply
from autopeft.adapters.anatomy import describe
from autopeft.adapters.sources import resolve
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora

RANK, ROWS, TOKENS = 8, 16, 48
SITES = ("query", "value", "down")
TARGETS = ["query", "value", r"output.dense"]


def model() -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(resolve("minilm").path, num_labels=2).eval()


def ours() -> torch.nn.Module:
    made = model()
    apply(made, uniform(describe(made, "minilm"), SITES, Lora(RANK, 2.0 * RANK), 1e-3), seed=0)
    return made


def stock() -> torch.nn.Module:
    made = model()
    backbone = describe(made, "minilm")
    names = [f"bert.{backbone.module(i, site).path}" for i in range(backbone.layer_count) for site in SITES]
    config = peft.LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=2 * RANK, target_modules=names)
    return peft.get_peft_model(made, config).eval()


def stepper(module: torch.nn.Module) -> Callable[[], float]:
    """A step on a fixed batch; its CPU seconds come back."""
    generator = torch.Generator().manual_seed(1)
    batch = {"input_ids": torch.randint(1000, 20000, (ROWS, TOKENS), generator=generator)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    labels = torch.arange(ROWS) % 2
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def step() -> float:
        started = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        module(**batch, labels=labels).loss.backward()
        optimizer.step()
        return time.process_time() - started

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--steps", type=int, default=2, help="steps of each half of a pair")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    own, theirs = stepper(ours()), stepper(stock())
    own(), theirs()
    ratios, seconds = [], []
    for pair in range(asked.pairs):
        halves = [(own, "ours"), (theirs, "stock")][:: 1 if pair % 2 else -1]
        taken = {name: sum(step() for _ in range(asked.steps)) for step, name in halves}
        ratios.append(taken["ours"] / taken["stock"])
        seconds.append(taken["ours"] / asked.steps)
    print(
        json.dumps(
            {
                "median_ratio": round(statistics.median(ratios), 4),
                "ratios": [round(ratio, 4) for ratio in sorted(ratios)],
                "step_cpu_seconds": round(statistics.median(seconds), 4),
                "peft": peft.__version__,
                "torch": torch.__version__,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
